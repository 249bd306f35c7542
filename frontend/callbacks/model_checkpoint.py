"""ModelCheckpoint: keep the weights on disk while training."""

from __future__ import annotations

import os
from typing import Any

from gnomon.callbacks.callback import BATCH_HOOKS, Monitor
from gnomon.compiler.errors import ArgumentError


class ModelCheckpoint(Monitor):
    """Save the model every epoch, or every `save_freq` batches, or when `monitor` is best.

    filepath   may name the epoch and metrics: "weights-{epoch:02d}-{val_loss:.2f}.weights.h5"
    save_best_only, mode, initial_value_threshold   when a metric counts as improved
    save_weights_only   write the weights alone; the name must then end with ".weights.h5"
    save_freq   "epoch" or a number of batches
    """

    def __init__(
        self,
        filepath: str | os.PathLike,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, mode)
        self.filepath = os.fspath(filepath)
        self.verbose, self.save_best_only, self.save_weights_only = verbose, save_best_only, save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self.epoch = 0
        self.batches = 0
        if save_freq != "epoch" and not (isinstance(save_freq, int) and save_freq > 0):
            raise ArgumentError(f"save_freq must be 'epoch' or a number of batches, got {save_freq!r}")
        if save_weights_only and not self.filepath.endswith(".weights.h5"):
            raise ArgumentError(
                f"with save_weights_only=True the filepath must end with '.weights.h5', got filepath={self.filepath!r}"
            )
        if not save_weights_only and not self.filepath.endswith((".keras", ".h5")):
            raise ArgumentError(
                f"the filepath must end with '.keras' (or '.weights.h5' with save_weights_only=True), got filepath={self.filepath!r}"
            )

    def overrides(self, hooks: tuple[str, ...]) -> bool:
        return hooks == BATCH_HOOKS and self.save_freq != "epoch"

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq != "epoch":
            self.batches += 1
            if self.batches % self.save_freq == 0:
                self._save(self.epoch, batch, logs)

    def on_epoch_end(self, epoch, logs=None):
        if self.save_freq == "epoch":
            self._save(epoch, None, logs)

    def _save(self, epoch: int, batch: int | None, logs: dict | None) -> None:
        if self.save_best_only:
            current = self.value(logs, "Saving the best model")
            if current is None:
                return
            if not self.improved(current, self.best):
                if self.verbose:
                    print(f"\nEpoch {epoch + 1}: {self.monitor} did not improve from {self.best:.5f}", flush=True)
                return
        path = self._path(epoch, batch, logs)
        if self.verbose:
            why = ""
            if self.save_best_only:
                before = "None" if self.best is None else f"{self.best:.5f}"
                why = f" {self.monitor} improved from {before} to {current:.5f},"
            print(f"\nEpoch {epoch + 1}:{why} saving model to {path}", flush=True)
        if self.save_best_only:
            self.best = current
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path, overwrite=True)
        else:
            self.model.save(path, overwrite=True)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: finished saving model to {path}", flush=True)

    def _path(self, epoch: int, batch: int | None, logs: dict | None) -> str:
        names = {**(logs or {}), "epoch": epoch + 1}
        if batch is not None:
            names["batch"] = batch + 1
        try:
            return self.filepath.format(**names)
        except KeyError as missing:
            known = ", ".join(sorted(names))
            raise ArgumentError(
                f"the filepath {self.filepath!r} names {missing}, which is not known: there are {known}"
            ) from None
