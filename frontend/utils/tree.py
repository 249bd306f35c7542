"""Nested structures: lists, tuples, named tuples and dictionaries of anything; dictionaries in the order of their keys.

None is a leaf. The order is Keras's: `flatten({"b": 1, "a": 2})` is `[2, 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from gnomon.compiler.errors import ArgumentError


def is_nested(value: Any) -> bool:
    """Whether `value` is looked into."""
    return isinstance(value, (list, tuple, dict))


def flatten(value: Any) -> list[Any]:
    """The leaves in order."""
    found: list[Any] = []
    _collect(value, found)
    return found


def _collect(value: Any, found: list[Any]) -> None:
    if isinstance(value, dict):
        for key in _keys(value):
            _collect(value[key], found)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _collect(item, found)
    else:
        found.append(value)


def _keys(value: dict) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:  # keys of several types keep the order they were given in
        return list(value)


def map_structure(change: Callable[..., Any], value: Any, *others: Any) -> Any:
    """The same structure with `change(leaf, ...)` for each leaf. Raises ArgumentError if the structures differ."""
    for other in others:
        assert_same_structure(value, other)
    leaves = [iter(flatten(other)) for other in others]
    return _map(lambda leaf: change(leaf, *(next(rest) for rest in leaves)), value)


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        made = {key: _map(change, value[key]) for key in _keys(value)}
        return {key: made[key] for key in value}
    if isinstance(value, (list, tuple)):
        items = [_map(change, item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return change(value)


def pack_sequence_as(structure: Any, leaves: Iterable[Any]) -> Any:
    """`structure` with its leaves replaced, in order, by `leaves`."""
    rest = iter(leaves)
    return _map(lambda _: next(rest), structure)


def flatten_with_path(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """(keys and positions that lead to it, leaf) for each leaf."""
    if isinstance(value, dict):
        for key in _keys(value):
            yield from flatten_with_path(value[key], (*path, key))
    elif isinstance(value, (list, tuple)):
        for k, item in enumerate(value):
            yield from flatten_with_path(item, (*path, k))
    else:
        yield path, value


def assert_same_structure(a: Any, b: Any) -> None:
    """Raises ArgumentError unless lists, tuples and keys are the same, leaves apart (lists and tuples count as one)."""
    paths = [path for path, _ in flatten_with_path(a)], [path for path, _ in flatten_with_path(b)]
    if paths[0] != paths[1]:
        raise ArgumentError(f"the structures differ: {describe(a)} and {describe(b)}")


def describe(value: Any, leaf: Callable[[Any], str] = lambda _: "*") -> str:
    """The structure as text, each leaf as `leaf` shows it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {describe(value[k], leaf)}" for k in value) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(describe(v, leaf) for v in value) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, list):
        return "[" + ", ".join(describe(v, leaf) for v in value) + "]"
    return leaf(value)


def is_shape(value: Any) -> bool:
    """Whether a tuple or list is a shape: integers and None."""
    return isinstance(value, (list, tuple)) and all(d is None or isinstance(d, int) for d in value)


def map_shape_structure(change: Callable[[tuple], Any], value: Any) -> Any:
    """A structure of shapes, `change(shape)` for each."""
    if is_shape(value):
        return change(tuple(value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_shape_structure(change, item) for item in value)
    if isinstance(value, dict):
        return {key: map_shape_structure(change, item) for key, item in value.items()}
    raise ArgumentError(f"a structure of shapes holds tuples of integers and None, got {value!r}")
