"""What surrounds a call of a layer: the names of the layers around it, and whether they train."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Surroundings:
    """The calls in progress: whether they train, and whether they only define a graph (no program is traced)."""

    training: bool | None
    definition: bool


_surroundings: ContextVar[Surroundings | None] = ContextVar("surroundings", default=None)
_path: ContextVar[tuple[tuple[int, str], ...]] = ContextVar("path", default=())
_autocast: ContextVar[str | None] = ContextVar("autocast", default=None)


def surroundings() -> Surroundings | None:
    """Of the innermost call in progress, None outside all calls."""
    return _surroundings.get()


def is_defining() -> bool:
    """Whether layers are being called on symbolic tensors outside any traced program."""
    around = _surroundings.get()
    return around is not None and around.definition


@contextmanager
def calling(training: bool | None, definition: bool) -> Iterator[None]:
    token = _surroundings.set(Surroundings(training, definition))
    try:
        yield
    finally:
        _surroundings.reset(token)


def autocast() -> str | None:
    """The dtype that float variables read as in the layer being called, None for their own."""
    return _autocast.get()


@contextmanager
def autocasting(dtype: str | None) -> Iterator[None]:
    """Inside, variables that allow it read as `dtype`; None: as they are."""
    token = _autocast.set(dtype)
    try:
        yield
    finally:
        _autocast.reset(token)


@contextmanager
def path_of(layer: Any) -> Iterator[str]:
    """Inside, weights are named below this layer: 'encoder/dense/kernel'."""
    outer = _path.get()
    own = (id(layer), layer.name)
    token = _path.set(outer if outer and outer[-1] == own else (*outer, own))
    try:
        yield "/".join(name for _, name in _path.get())
    finally:
        _path.reset(token)
