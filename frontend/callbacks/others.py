"""LambdaCallback and CSVLogger."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gnomon.callbacks.callback import Callback


class LambdaCallback(Callback):
    """A callback made of functions: `LambdaCallback(on_epoch_end=lambda epoch, logs: print(epoch, logs))`."""

    def __init__(
        self,
        on_epoch_begin: Callable | None = None,
        on_epoch_end: Callable | None = None,
        on_train_begin: Callable | None = None,
        on_train_end: Callable | None = None,
        on_train_batch_begin: Callable | None = None,
        on_train_batch_end: Callable | None = None,
        **kwargs: Any,
    ):
        super().__init__()
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
        }
        self.__dict__.update({name: f for name, f in given.items() if f is not None})
        self.__dict__.update(kwargs)


class CSVLogger(Callback):
    """Write the metrics of every epoch as a line of a CSV file.

    separator   between the columns
    append      go on with a file that is there
    """

    def __init__(self, filename: str | os.PathLike, separator: str = ",", append: bool = False):
        super().__init__()
        self.filename, self.separator, self.append = os.fspath(filename), separator, append
        self.keys: list[str] | None = None
        self.writer: Any = None
        self.file: Any = None

    def on_train_begin(self, logs=None):
        fresh = True
        if self.append and os.path.exists(self.filename):
            with open(self.filename, newline="") as f:
                fresh = not f.readline()
        self.file = open(self.filename, "a" if self.append else "w", newline="")  # closed in on_train_end
        self.fresh = fresh
        self.writer = self.keys = None

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if self.keys is None:
            self.keys = sorted(logs)
            names = [k for k in self.keys if not k.startswith("val_")]
            names += (
                [f"val_{k}" for k in names if f"val_{k}" not in self.keys]
                if not any(k.startswith("val_") for k in self.keys)
                else []
            )
            self.keys = sorted(self.keys) if any(k.startswith("val_") for k in self.keys) else names
            self.writer = csv.DictWriter(self.file, ["epoch", *self.keys], delimiter=self.separator)
            if self.fresh:
                self.writer.writeheader()
        self.writer.writerow({"epoch": epoch, **{k: _cell(logs.get(k, "NA")) for k in self.keys}})
        self.file.flush()

    def on_train_end(self, logs=None):
        if self.file is not None:
            self.file.close()
        self.file = self.writer = None


def _cell(value: Any) -> Any:
    if isinstance(value, str) or np.ndim(value) == 0:
        return value
    if isinstance(value, Iterable):
        return f"[{', '.join(map(str, value))}]"
    return value
