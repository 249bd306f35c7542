"""StackedRNNCells: several cells as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon.compiler.errors import ArgumentError
from gnomon.layers.layer import Layer
from gnomon.layers.recurrent.cells import build_cell, call_cell, initial_state_of, output_size_of, takes_training
from gnomon.registry import deserialize_object, serialize_object
from gnomon.utils import tree


class StackedRNNCells(Layer):
    """Several cells as one: each gets the output of the one before as its inputs. The states are a list of theirs.

    Raises ArgumentError for what is no cell.
    """

    def __init__(self, cells: Sequence[Any], **kwargs: Any):
        super().__init__(**kwargs)
        if not cells:
            raise ArgumentError("StackedRNNCells needs at least one cell")
        for cell in cells:
            for needed in ("call", "state_size"):
                if not hasattr(cell, needed):
                    raise ArgumentError(f"All cells must have `{needed}`. Received cell without it: {cell!r}")
        self.cells = list(cells)

    @property
    def state_size(self) -> list[Any]:
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> Any:
        return output_size_of(self.cells[-1])

    def get_initial_state(self, batch_size=None):
        return [initial_state_of(cell, batch_size, self.compute_dtype) for cell in self.cells]

    def build(self, input_shape):
        for cell in self.cells:
            build_cell(cell, input_shape)
            size = output_size_of(cell)
            input_shape = (input_shape[0], *(size if isinstance(size, (list, tuple)) else (size,)))

    def call(self, inputs, states, training=False, **kwargs):
        new_states = []
        for cell, state in zip(self.cells, states, strict=True):
            single = not tree.is_nested(state)
            options = {**kwargs, "training": training} if takes_training(cell) else kwargs
            inputs, new = call_cell(cell, inputs, [state] if single else list(state), **options)
            new_states.append(tree.flatten(new)[0] if single else new)
        return inputs, new_states

    def get_config(self):
        return {**super().get_config(), "cells": [serialize_object(cell) for cell in self.cells]}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        return cls([deserialize_object(cell, custom_objects) for cell in config.pop("cells")], **config)

