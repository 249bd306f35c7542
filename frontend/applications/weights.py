"""Weights of the published architectures: Keras 3's files, and the older ones that Keras downloads."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.compiler.errors import DataError, FileError


def read_weights(model: Any, path: Path) -> None:
    """Read a `.weights.h5` or `.keras` file, or one of Keras's older `.h5` files of weights or of a whole model.

    Nothing is changed unless all of it fits. Raises FileError if the file cannot be read, DataError if it does not fit.
    """
    if path.name.endswith((".weights.h5", ".keras")):
        model.load_weights(path)
        return
    import h5py

    try:
        file = h5py.File(path)
    except OSError as error:
        raise FileError(f"{str(path)!r} cannot be read as a file of weights: {error}") from None
    with file:
        group = file.get("model_weights", file)
        if not _names(group, "layer_names"):
            raise FileError(
                f"{str(path)!r} has no layer_names, so it is no weights file of Keras 1 or 2; those of Keras 3 have "
                "names that end in '.weights.h5'"
            )
        stored = _arrays_by_layer(group, path)
    _assign(model, stored, path)


def _names(group: Any, key: str) -> list[str]:
    """A list of names, in one attribute or, if it was too long for one, in several."""
    parts = [group.attrs[key]] if key in group.attrs else []
    for k in itertools.count():
        if f"{key}{k}" not in group.attrs:
            break
        parts.append(group.attrs[f"{key}{k}"])
    return [n.decode("utf-8") if isinstance(n, bytes) else str(n) for part in parts for n in part]


def _arrays_by_layer(group: Any, path: Path) -> dict[str, list[np.ndarray]]:
    """The arrays of each layer that has any, in the file's order."""
    found: dict[str, list[np.ndarray]] = {}
    for layer in _names(group, "layer_names"):
        try:
            arrays = [np.asarray(group[layer][name]) for name in _names(group[layer], "weight_names")]
        except (KeyError, TypeError, OSError) as error:
            raise FileError(f"{str(path)!r} is damaged: the arrays of {layer!r} cannot be read ({error})") from None
        if arrays:
            found[layer] = arrays
    return found


def _assign(model: Any, stored: dict[str, list[np.ndarray]], path: Path) -> None:
    """By the layers' names if all are the same, else in their order, as older Keras does."""
    targets = [layer for layer in model.layers if layer.weights]
    if {layer.name for layer in targets} == set(stored):
        pairs = [(layer, stored[layer.name]) for layer in targets]
    elif len(targets) == len(stored):
        pairs = list(zip(targets, stored.values(), strict=True))
    else:
        raise DataError(f"{str(path)!r} has weights for {len(stored)} layers, the model {model.name!r} {len(targets)}")
    changes = []
    for layer, arrays in pairs:
        weights = layer.weights  # those to be trained first, as in the file
        shapes, wanted = [a.shape for a in arrays], [tuple(w.shape) for w in weights]
        if shapes != wanted:
            raise DataError(
                f"{str(path)!r} does not fit layer {layer.name!r}, which needs arrays of {wanted}: it has {shapes}"
            )
        changes += list(zip(weights, arrays, strict=True))
    for weight, array in changes:
        weight.assign(array)
