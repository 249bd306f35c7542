"""Helpers for users: `clear_session`, `set_random_seed`."""

from gnomon.naming import reset_names
from gnomon.random_state import set_random_seed


def clear_session(free_memory: bool = True) -> None:
    """Begin naming layers anew: the next Dense is `dense` again. `free_memory` is accepted for Keras's sake."""
    reset_names()


__all__ = ["clear_session", "set_random_seed"]
