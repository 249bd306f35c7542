"""Names that objects get when the user gives none: `dense`, `dense_1`, `mean_squared_error`."""

from __future__ import annotations

import re
from collections import Counter

_used: Counter[str] = Counter()


def to_snake_case(name: str) -> str:
    """MeanSquaredError -> mean_squared_error, IoU -> io_u, Conv2D -> conv2d (Keras's rule)."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def uniquify(name: str) -> str:
    """`name` the first time, then `name_1`, `name_2` ..."""
    count = _used[name]
    _used[name] += 1
    return f"{name}_{count}" if count else name


def auto_name(prefix: str) -> str:
    """A name for an object of class `prefix` that no automatic name has had since `reset_names`."""
    return uniquify(to_snake_case(prefix))


def reset_names() -> None:
    """Begin counting anew, as after `clear_session`."""
    _used.clear()
