"""What layers need to know of any cell: a layer, or an object that has `call` and `state_size`."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.layers.layer import Layer
from gnomon.surroundings import path_of


def call_cell(cell: Any, inputs: Any, states: Any, **options: Any) -> Any:
    """(output, new states) of any cell."""
    return (cell if callable(cell) else cell.call)(inputs, states, **options)


def build_cell(cell: Any, input_shape: tuple) -> None:
    """Build a cell that is a layer, unless it is built."""
    if isinstance(cell, Layer) and not cell.built:
        with path_of(cell):
            cell.build(input_shape)
        cell.built = True


def takes_training(cell: Any) -> bool:
    return isinstance(cell, Layer) and "training" in cell._call_signature().parameters


def initial_state_of(cell: Any, batch_size: Any, dtype: str) -> Any:
    """The states of a cell before the first step, in the structure of its `state_size`."""
    given = getattr(cell, "get_initial_state", None)
    if given is not None:
        return given(batch_size=batch_size)
    zeros = lambda d: ops.zeros(shape_of_state(batch_size, d), dtype=getattr(cell, "compute_dtype", dtype))
    return [zeros(d) for d in cell.state_size] if isinstance(cell.state_size, (list, tuple)) else zeros(cell.state_size)


def output_size_of(cell: Any) -> Any:
    """The size of the output of a cell: that of its first state, if it does not say."""
    size = getattr(cell, "output_size", None)
    if size is not None:
        return size
    return cell.state_size[0] if isinstance(cell.state_size, (list, tuple)) else cell.state_size


def shape_of_state(batch: Any, size: Any) -> Any:
    """[batch, size], for a size, a shape, or a list of sizes (of a stacked cell with several states)."""
    if isinstance(size, list):
        return [shape_of_state(batch, d) for d in size]
    return (batch, *size) if isinstance(size, tuple) else (batch, size)
