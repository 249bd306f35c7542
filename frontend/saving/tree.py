"""What a model consists of, as files have it: a path for each layer, random stream and optimizer.

The paths are Keras's. They do not depend on the names of layers, which are often counted up in a process:

    layers/dense, layers/dense_1   the layers of a Sequential or functional model, counted by class
    encoder                        a layer that is the attribute `encoder` of a model or layer
    blocks/dense, blocks/dense_1   those in a list, tuple or dictionary; in one inside it blocks/container/dense
    optimizer                      of a compiled model
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import Any

from gnomon.layers.layer import Layer
from gnomon.models.model import Model
from gnomon.models.sequential import Sequential
from gnomon.naming import to_snake_case
from gnomon.optimizers import Optimizer
from gnomon.random import SeedGenerator

SAVED = (Layer, Optimizer, SeedGenerator)


def saved_objects(root: Any, skip: Any = ()) -> list[tuple[str, Any]]:
    """(path, object) for `root` (its path is "") and all in it, each once, at the place that is found first.

    skip   objects that are left out, with what is in them
    """
    return list(_walk(root, "", {id(x) for x in skip}))


def _walk(found: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(found) in seen:
        return
    seen.add(id(found))
    yield path, found
    if isinstance(found, SeedGenerator):
        return
    for name, value in _children(found):
        yield from _walk_value(value, f"{path}/{name}" if path else name, seen, set())


def _walk_value(value: Any, path: str, seen: set[int], around: set[int]) -> Iterator[tuple[str, Any]]:
    """`around`: the containers that `value` is in, for a list may hold itself."""
    if isinstance(value, SAVED):
        yield from _walk(value, path, seen)
    elif isinstance(value, (list, tuple, dict)) and id(value) not in around:
        counts: Counter[str] = Counter()
        for item in value.values() if isinstance(value, dict) else value:
            if isinstance(item, (*SAVED, list, tuple, dict)):
                kind = to_snake_case(type(item).__name__) if isinstance(item, SAVED) else "container"
                name = f"{kind}_{counts[kind]}" if counts[kind] else kind
                counts[kind] += 1
                yield from _walk_value(item, f"{path}/{name}", seen, around | {id(value)})


def _children(parent: Any) -> Iterator[tuple[str, Any]]:
    """(name, value) in the order in which Keras looks: by name, private ones last, the layers of a model of tensors
    before all."""
    if isinstance(parent, Sequential):
        yield "layers", parent.layers
    elif isinstance(parent, Model) and parent._graph is not None:
        yield "layers", parent._graph.layers
    names = {n for n in parent.__dict__ if not n.startswith("__")} | _own_names(type(parent))
    if isinstance(parent, Model):
        names = (names | {"layers"}) - {"_layers"}
    for name in sorted(names, key=lambda n: f"~{n}" if n.startswith("_") else n):
        try:
            yield name, getattr(parent, name)
        except Exception:  # a property that does not work now holds no state
            continue


def _own_names(cls: type) -> set[str]:
    """Class attributes and properties, methods apart, that the author of a class has added."""
    base = next(b for b in (Model, Layer, Optimizer) if issubclass(cls, b))
    names = {n for n in dir(cls) if not n.startswith("__")} - set(dir(base))
    return {n for n in names if not callable(inspect.getattr_static(cls, n))}


__all__ = ["saved_objects"]
