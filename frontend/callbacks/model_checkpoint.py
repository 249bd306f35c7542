"""ModelCheckpoint: keep the weights on disk while training."""

from __future__ import annotations

import os
import warnings
from typing import Any

from gnomon.callbacks.callback import BATCH_HOOKS, Monitor
from gnomon.compiler.errors import ArgumentError
from gnomon.utils.progbar import write


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
        self._epoch = 0
        self._unsaved = 0  # batches since the last saving
        self._last: int | None = None  # number of the last batch
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ArgumentError(f"save_freq must be 'epoch' or a number of batches, got {save_freq!r}")
        if save_weights_only and not self.filepath.endswith(".weights.h5"):
            raise ArgumentError(
                "When using `save_weights_only=True` in `ModelCheckpoint`, the filepath provided must end in "
                f"`.weights.h5`. Received: filepath={self.filepath}"
            )
        if not save_weights_only and not self.filepath.endswith((".keras", ".h5")):
            raise ArgumentError(
                "The filepath provided must end in `.keras`, or in `.weights.h5` with save_weights_only=True. "
                f"Received: filepath={self.filepath}"
            )

    def overrides(self, hooks: tuple[str, ...]) -> bool:
        return hooks == BATCH_HOOKS and self.save_freq != "epoch"

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.save_freq == "epoch":
            return
        begun = self._last is None or batch <= self._last
        self._unsaved += batch + 1 if begun else batch - self._last
        self._last = batch
        if self._unsaved >= self.save_freq:
            self._unsaved = 0
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch, logs=None):
        if self.save_best_only:
            self.set_sign()
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: dict) -> None:
        path = self._path(epoch, batch, logs)
        if not self._wanted(epoch, logs, path):
            return
        if os.path.isdir(path):
            raise ArgumentError(f"ModelCheckpoint needs the name of a file, but {path!r} is a directory")
        if os.path.dirname(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        (self.model.save_weights if self.save_weights_only else self.model.save)(path, overwrite=True)
        self._say(f"Epoch {epoch + 1}: finished saving model to {path}")

    def _wanted(self, epoch: int, logs: dict, path: str) -> bool:
        """Whether to save now; says why, or why not."""
        if not self.save_best_only:
            self._say(f"Epoch {epoch + 1}: saving model to {path}")
            return True
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(f"Can save best model only with {self.monitor} available.", stacklevel=2)
            return True
        best = "None" if self.best is None else f"{self.best:.5f}"
        if not self.improved(current, self.best):
            self._say(f"Epoch {epoch + 1}: {self.monitor} did not improve from {best}")
            return False
        self._say(f"Epoch {epoch + 1}: {self.monitor} improved from {best} to {current:.5f}, saving model to {path}")
        self.best = current
        return True

    def _say(self, text: str) -> None:
        if self.verbose > 0:
            write(f"\n{text}\n")

    def _path(self, epoch: int, batch: int | None, logs: dict) -> str:
        names = {**logs, "epoch": epoch + 1}
        if batch is not None:
            names.setdefault("batch", batch + 1)
        try:
            return self.filepath.format(**names)
        except KeyError as missing:
            known = ", ".join(sorted(names))
            raise ArgumentError(
                f"the filepath {self.filepath!r} names {missing}, which is not known: there are {known}"
            ) from None
