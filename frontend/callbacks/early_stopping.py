"""EarlyStopping: end training when a metric stops improving."""

from __future__ import annotations

import warnings
from typing import Any

from gnomon.callbacks.callback import Monitor
from gnomon.utils.progbar import write


class EarlyStopping(Monitor):
    """Stop `fit` after `patience` epochs in which `monitor` did not improve by more than `min_delta`.

    baseline               a value that must be passed in time
    restore_best_weights   end with the weights of the best epoch
    start_from_epoch       epochs before that are not watched
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch
        self._clear()

    def _clear(self) -> None:
        self.wait = self.stopped_epoch = self.best_epoch = 0
        self.best_weights: Any = None
        self.best = None

    def on_train_begin(self, logs=None):
        self._clear()

    def on_epoch_end(self, epoch, logs=None):
        self.set_sign()
        current = (logs or {}).get(self.monitor)
        if current is None:
            warnings.warn(
                f"Early stopping conditioned on metric `{self.monitor}` which is not available. Available metrics are: "
                f"{','.join(logs or {})}",
                stacklevel=2,
            )
        if current is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.improved(current, self.best):
            self.best, self.best_epoch = current, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.improved(current, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        if self.stopped_epoch > 0 and self.verbose > 0:
            write(f"Epoch {self.stopped_epoch + 1}: early stopping\n")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose > 0:
                write(f"Restoring model weights from the end of the best epoch: {self.best_epoch + 1}.\n")
            self.model.set_weights(self.best_weights)
