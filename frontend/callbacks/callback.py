"""Callback: what a user may hook into training, evaluation and prediction; CallbackList: all of them together."""

from __future__ import annotations

import warnings
from typing import Any

from gnomon.compiler.errors import ArgumentError

BATCH_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")
PREDICT_HOOKS = ("on_predict_batch_begin", "on_predict_batch_end")


class Callback:
    """Base of callbacks: override the hooks that are needed.

    params   of the run: verbose, epochs, steps
    model    the model that runs

    `logs` are the metrics so far, floats by name. A callback that overrides a batch hook makes `fit` return to Python
    after every batch; `many_steps` says that it is content with a call now and then, after several batches.
    """

    many_steps = False

    def __init__(self) -> None:
        self.params: dict[str, Any] | None = None
        self._model: Any = None

    @property
    def model(self) -> Any:
        return self._model

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self._model = model

    def on_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """An older name of on_train_batch_begin."""

    def on_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """An older name of on_train_batch_end."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """An epoch of `fit` begins."""

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """An epoch of `fit` has ended; logs hold its metrics and those of validation."""

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self.on_batch_begin(batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.on_batch_end(batch, logs=logs)

    def on_test_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """A batch of `evaluate` or of validation begins."""

    def on_test_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """A batch of `evaluate` or of validation has ended."""

    def on_predict_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """A batch of `predict` begins."""

    def on_predict_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """A batch of `predict` has ended; logs["outputs"] are its predictions."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """`fit` begins."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """`fit` has ended."""

    def on_test_begin(self, logs: dict | None = None) -> None:
        """`evaluate` or validation begins."""

    def on_test_end(self, logs: dict | None = None) -> None:
        """`evaluate` or validation has ended."""

    def on_predict_begin(self, logs: dict | None = None) -> None:
        """`predict` begins."""

    def on_predict_end(self, logs: dict | None = None) -> None:
        """`predict` has ended."""

    def overrides(self, hooks: tuple[str, ...]) -> bool:
        """Whether the subclass, or the instance, has one of the hooks of its own."""
        return any(getattr(type(self), h) is not getattr(Callback, h) or h in self.__dict__ for h in hooks)


class CallbackList(Callback):
    """Several callbacks as one. History and the progress bar are added if asked for and not there."""

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ):
        super().__init__()
        from gnomon.callbacks.history import History
        from gnomon.callbacks.progbar_logger import ProgbarLogger

        self.callbacks: list[Any] = _flat(callbacks)
        self._history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if add_history and self._history is None:
            self._history = History()
            self.callbacks.append(self._history)
        if add_progbar and not any(isinstance(c, ProgbarLogger) for c in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        if model is not None:
            self.set_model(model)
        self.set_params(params)

    @property
    def history(self) -> Any:
        """The History callback among them."""
        return self._history

    def append(self, callback: Callback) -> None:
        self.callbacks.append(callback)

    def set_params(self, params: dict[str, Any]) -> None:
        self.params = params
        for c in self.callbacks:
            c.set_params(params)

    def set_model(self, model: Any) -> None:
        self._model = model
        if self._history is not None:
            model.history = self._history
        for c in self.callbacks:
            c.set_model(model)

    def each_batch(self, hooks: tuple[str, ...]) -> bool:
        """Whether some callback must be called after every single batch."""
        return any(_wants(c, hooks) for c in self.callbacks)

    def _call(self, hook: str, *number: int, logs: dict | None) -> None:
        logs = {} if logs is None else logs  # one for all: a callback may add to it
        for c in self.callbacks:
            getattr(c, hook)(*number, logs)

    def on_batch_begin(self, batch, logs=None):
        self._call("on_batch_begin", batch, logs=logs)

    def on_batch_end(self, batch, logs=None):
        self._call("on_batch_end", batch, logs=logs)

    def on_epoch_begin(self, epoch, logs=None):
        self._call("on_epoch_begin", epoch, logs=logs)

    def on_epoch_end(self, epoch, logs=None):
        self._call("on_epoch_end", epoch, logs=logs)

    def on_train_batch_begin(self, batch, logs=None):
        self._call("on_train_batch_begin", batch, logs=logs)

    def on_train_batch_end(self, batch, logs=None):
        self._call("on_train_batch_end", batch, logs=logs)

    def on_test_batch_begin(self, batch, logs=None):
        self._call("on_test_batch_begin", batch, logs=logs)

    def on_test_batch_end(self, batch, logs=None):
        self._call("on_test_batch_end", batch, logs=logs)

    def on_predict_batch_begin(self, batch, logs=None):
        self._call("on_predict_batch_begin", batch, logs=logs)

    def on_predict_batch_end(self, batch, logs=None):
        self._call("on_predict_batch_end", batch, logs=logs)

    def on_train_begin(self, logs=None):
        self._call("on_train_begin", logs=logs)

    def on_train_end(self, logs=None):
        self._call("on_train_end", logs=logs)

    def on_test_begin(self, logs=None):
        self._call("on_test_begin", logs=logs)

    def on_test_end(self, logs=None):
        self._call("on_test_end", logs=logs)

    def on_predict_begin(self, logs=None):
        self._call("on_predict_begin", logs=logs)

    def on_predict_end(self, logs=None):
        self._call("on_predict_end", logs=logs)


def _wants(callback: Any, hooks: tuple[str, ...]) -> bool:
    if isinstance(callback, CallbackList):
        return callback.each_batch(hooks)
    if not isinstance(callback, Callback):
        return True
    return not callback.many_steps and callback.overrides(hooks)


def _flat(callbacks: Any) -> list[Any]:
    found: list[Any] = []
    if callbacks is None:
        return found
    for c in callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]:
        if isinstance(c, (list, tuple)):
            found += _flat(c)
        elif isinstance(c, type) or not hasattr(c, "on_train_begin"):
            hint = f": write {c.__name__}(...)" if isinstance(c, type) else ""
            raise ArgumentError(f"callbacks must be instances of gnomon.callbacks.Callback, got {c!r}{hint}")
        else:
            found.append(c)
    return found


class Monitor(Callback):
    """Base of callbacks that watch one metric: which way is better, and what was best.

    mode        'min', 'max', or 'auto': by the metric
    min_delta   a change of less is no improvement
    """

    def __init__(self, monitor: str = "val_loss", mode: str = "auto", min_delta: float = 0.0):
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warnings.warn(f"{type(self).__name__} mode {mode!r} is unknown, fallback to auto mode.", stacklevel=3)
            mode = "auto"
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.sign = {"max": 1, "min": -1}.get(mode, 0)
        self.best: float | None = None

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        if self.mode == "auto":
            self.sign = 0  # another model may mean something else by the name

    def set_sign(self) -> None:
        """Decide which way is better: a loss is to fall, another metric says it itself. Raises ArgumentError if not."""
        if self.sign:
            return
        name = self.monitor.removeprefix("val_")
        if name == "loss" or name.endswith("_loss"):
            self.sign = -1
            return
        for metric in getattr(self.model, "metrics", None) or ():
            for label, part in getattr(metric, "labels", {metric.name: metric}).items():
                if name in (label, part.name) and part._direction is not None:
                    self.sign = 1 if part._direction == "up" else -1
                    return
        raise ArgumentError(
            f"{type(self).__name__} callback received monitor={self.monitor}, but it is not known whether that "
            "metric should be maximized or minimized. Pass mode='max' if the highest value is best, or mode='min'"
        )

    def improved(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best` by more than `min_delta`; anything is better than nothing or NaN."""
        self.set_sign()
        if best is None or best != best:
            return best is None or value == value
        return self.sign * (value - best) > self.min_delta
