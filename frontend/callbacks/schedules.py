"""Callbacks that change the learning rate, and one that gives up on NaN."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable

import numpy as np

from gnomon.callbacks.callback import Callback, Monitor
from gnomon.compiler.errors import ArgumentError, NumericError, StateError
from gnomon.utils.progbar import write


class LearningRateScheduler(Callback):
    """At the start of each epoch set the learning rate to `schedule(epoch, learning_rate)`."""

    def __init__(self, schedule: Callable[..., float], verbose: int = 0):
        super().__init__()
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch, logs=None):
        rate = _rate(self.model)
        new = self.schedule(epoch, rate) if self._takes_rate() else self.schedule(epoch)  # the latter is older
        if isinstance(new, bool) or not isinstance(new, (float, np.floating, int)):
            raise ArgumentError(f"The output of the `schedule` function should be a float. Got: {new!r}")
        self.model.optimizer.learning_rate = float(new)
        if self.verbose > 0:
            write(f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {float(new)}.\n")

    def _takes_rate(self) -> bool:
        try:
            inspect.signature(self.schedule).bind(0, 0.0)
        except TypeError:
            return False
        except ValueError:  # something built in that has no signature
            return True
        return True

    def on_epoch_end(self, epoch, logs=None):
        if logs is not None:
            logs["learning_rate"] = _rate(self.model)


class ReduceLROnPlateau(Monitor):
    """Multiply the learning rate by `factor` after `patience` epochs without improvement of `monitor`.

    cooldown   epochs to wait before counting again
    min_lr     the least learning rate
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        if factor >= 1.0:
            raise ArgumentError(f"ReduceLROnPlateau does not support a factor >= 1.0, got factor={factor}")
        self.factor, self.patience, self.verbose, self.cooldown, self.min_lr = (
            factor,
            patience,
            verbose,
            cooldown,
            min_lr,
        )
        self.cooldown_counter = self.wait = 0

    def on_train_begin(self, logs=None):
        self.cooldown_counter = self.wait = 0
        self.best = None

    def on_epoch_end(self, epoch, logs=None):
        self.set_sign()
        rate = _rate(self.model)
        if logs is not None:
            logs["learning_rate"] = rate
        current = (logs or {}).get(self.monitor)
        if current is None:
            warnings.warn(
                f"Learning rate reduction is conditioned on metric `{self.monitor}` which is not available. Available "
                f"metrics are: {','.join(logs or {})}.",
                stacklevel=2,
            )
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.improved(current, self.best):
            self.best, self.wait = current, 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience and rate > np.float32(self.min_lr):
                new = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = new
                if self.verbose > 0:
                    write(f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {new}.\n")
                self.cooldown_counter, self.wait = self.cooldown, 0


class TerminateOnNaN(Callback):
    """Stop training when the loss is NaN or infinite; with `raise_error`, by a NumericError."""

    def __init__(self, raise_error: bool = False):
        super().__init__()
        self.raise_error = raise_error

    def on_batch_end(self, batch, logs=None):
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise NumericError(f"NaN or Inf loss encountered at batch {batch}. Loss value: {loss}. Training is over")
        write(f"Batch {batch}: Invalid loss, terminating training\n")
        self.model.stop_training = True


def _rate(model) -> float:
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise StateError("the model has no optimizer: call compile() first")
    return float(np.asarray(optimizer.learning_rate))
