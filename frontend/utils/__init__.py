"""Helpers for users: seeds, names, the progress bar, data sets written in Python."""

import importlib
from typing import Any

from gnomon.naming import reset_names
from gnomon.random_state import set_random_seed
from gnomon.utils.numerical import normalize, to_categorical
from gnomon.utils.progbar import Progbar
from gnomon.utils.py_dataset import PyDataset
from gnomon.utils.sequence import pad_sequences

Sequence = PyDataset


def clear_session(free_memory: bool = True) -> None:
    """Begin naming layers anew: the next Dense is `dense` again. `free_memory` is accepted for Keras's sake."""
    reset_names()


_ELSEWHERE = {
    "CustomObjectScope": "saving", "custom_object_scope": "saving", "deserialize_keras_object": "saving",
    "get_custom_objects": "saving", "get_registered_name": "saving", "get_registered_object": "saving",
    "register_keras_serializable": "saving", "serialize_keras_object": "saving",
    "disable_interactive_logging": "config", "enable_interactive_logging": "config",
    "is_interactive_logging_enabled": "config",
    "image_dataset_from_directory": "utils.batches", "text_dataset_from_directory": "utils.batches",
    "timeseries_dataset_from_array": "utils.batches",
}  # fmt: skip
"""What Keras has here, too; loaded when it is asked for."""

__all__ = [
    "Progbar",
    "PyDataset",
    "Sequence",
    "clear_session",
    "normalize",
    "pad_sequences",
    "set_random_seed",
    "to_categorical",
    *_ELSEWHERE,
]


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        return getattr(importlib.import_module(f"gnomon.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
