"""History: what every epoch gave."""

from __future__ import annotations

from typing import Any

from gnomon.callbacks.callback import Callback


class History(Callback):
    """Keeps the metrics of every epoch: `history.history["loss"]`, `history.epoch`. `fit` returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs=None):
        self.epoch = []

    def on_epoch_end(self, epoch, logs=None):
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        self.model.history = self
