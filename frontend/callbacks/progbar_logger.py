"""ProgbarLogger: the progress bar of fit, evaluate and predict."""

from __future__ import annotations

from gnomon.callbacks.callback import Callback
from gnomon.utils.progbar import Progbar


class ProgbarLogger(Callback):
    """Prints the epoch, the steps done and the metrics. It is added by itself unless verbose is 0."""

    many_steps = True

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.progbar: Progbar | None = None
        self.target: int | None = None
        self.verbose = 1
        self.epochs = 1
        self.in_fit = False

    def set_params(self, params):
        super().set_params(params)
        self.verbose = params.get("verbose", 1)
        self.epochs = params.get("epochs", 1)
        self.target = params.get("steps")

    def on_train_begin(self, logs=None):
        self.in_fit = True

    def on_train_end(self, logs=None):
        self.in_fit = False

    def on_test_begin(self, logs=None):
        if not self.in_fit:
            self._reset()

    def on_predict_begin(self, logs=None):
        self._reset()

    def on_epoch_begin(self, epoch, logs=None):
        self._reset()
        if self.verbose and self.epochs > 1:
            print(f"Epoch {epoch + 1}/{self.epochs}", flush=True)

    def on_train_batch_end(self, batch, logs=None):
        self._update(batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        if not self.in_fit:
            self._update(batch, logs)

    def on_predict_batch_end(self, batch, logs=None):
        self._update(batch, None)

    def on_epoch_end(self, epoch, logs=None):
        self._finalize(logs)

    def on_test_end(self, logs=None):
        if not self.in_fit:
            self._finalize(logs)

    def on_predict_end(self, logs=None):
        self._finalize(None)

    def _reset(self) -> None:
        self.seen, self.progbar = 0, None

    def _bar(self) -> Progbar:
        if self.progbar is None:
            self.progbar = Progbar(self.target, verbose=self.verbose, unit_name="step")
        return self.progbar

    def _update(self, batch: int, logs: dict | None) -> None:
        self.seen = batch + 1
        if self.verbose == 1:
            self._bar().update(self.seen, sorted((logs or {}).items()), finalize=False)
        else:
            self._bar()

    def _finalize(self, logs: dict | None) -> None:
        bar = self._bar()
        if bar.target is None:
            bar.target = self.seen
        values = sorted((logs or {}).items(), key=lambda item: (item[0].startswith("val_"), item[0]))
        bar.update(bar.target, values, finalize=True)
