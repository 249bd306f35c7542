"""Helpers for users: seeds, names, the progress bar, data sets written in Python."""

from gnomon.naming import reset_names
from gnomon.random_state import set_random_seed
from gnomon.utils.numerical import normalize, to_categorical
from gnomon.utils.progbar import Progbar
from gnomon.utils.py_dataset import PyDataset

Sequence = PyDataset


def clear_session(free_memory: bool = True) -> None:
    """Begin naming layers anew: the next Dense is `dense` again. `free_memory` is accepted for Keras's sake."""
    reset_names()


__all__ = [
    "Progbar",
    "PyDataset",
    "Sequence",
    "clear_session",
    "normalize",
    "set_random_seed",
    "to_categorical",
]
