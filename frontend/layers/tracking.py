"""What belongs to a layer: the variables, layers and metrics found in its attributes, lists and dictionaries included.

Nothing is registered when it is assigned but looked for when it is asked for, so that `self.blocks.append(Dense(8))`
counts as well as `self.head = Dense(8)`. The order is that of the attributes' first assignment.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, NotBuiltError, ShapeError
from gnomon.variable import Variable


class LayerState:
    """What gnomon keeps about a layer, apart from the attributes its author sees."""

    def __init__(self, args: tuple, kwargs: dict[str, Any]):
        self.init_arguments = args, kwargs
        self.ready = False  # Layer.__init__ has run
        self.traced = False  # it has been called: compiled programs may depend on its attributes
        self.kinds: dict[Variable, bool] = {}  # its own variables, in order; whether each was made trainable
        self.calls: list[Any] = []  # calls on symbolic tensors
        self.output_shapes: Any = None  # of its latest call
        self.losses: list[Any] = []  # what add_loss got in the present call
        self.path: str | None = None
        self.building = False
        self.build_arguments: dict[str, Any] | None = None
        self.signature: Any = None
        self.input_shape_argument: tuple | None = None
        self.remat: Any = None  # what the RematScope that it was made in asks for


PLAIN = frozenset({bool, int, float, str, type(None)})
"""Types of attributes that hold no state: most are of these."""

_change_count = 0


def change_count() -> int:
    """Increases whenever an attribute of a layer changes: what was traced before may be out of date."""
    return _change_count


def note_change() -> None:
    """Make programs compiled from layers out of date."""
    global _change_count
    _change_count += 1


class Tracked:
    """The part of a layer that knows its weights."""

    untraced = frozenset({"built"})  # attributes that no traced program depends on
    _layer_state: LayerState
    _trainable = True
    name: str
    built: bool

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Variable) and not name.startswith("__"):
            self._layer_state.kinds.setdefault(value, value.trainable)
        if self._layer_state.traced and not name.startswith("_") and name not in self.untraced:
            note_change()
        object.__setattr__(self, name, value)

    def _attributes(self) -> Iterator[Any]:
        """Variables, layers, metrics and seed generators in the attributes, each once."""
        seen: set[int] = set()
        for value in list(self.__dict__.values()):
            if type(value) in PLAIN:
                continue
            for found in _search(value):
                if id(found) not in seen and found is not self:
                    seen.add(id(found))
                    yield found

    def _own_variables(self) -> list[Variable]:
        """Variables that are not in a sub-layer: those made trainable first, as in Keras."""
        kinds = self._layer_state.kinds
        for found in self._attributes():
            if isinstance(found, Variable):
                kinds.setdefault(found, found.trainable)
        return [v for v, trainable in kinds.items() if trainable] + [
            v for v, trainable in kinds.items() if not trainable
        ]

    def _own_seeds(self) -> list[Variable]:
        return [found.state for found in self._attributes() if _is_seed_generator(found)]

    def _sublayers(self) -> list[Any]:
        """The layers directly in this one."""
        return [found for found in self._attributes() if isinstance(found, Tracked)]

    def _flatten_layers(self, include_self: bool = True, recursive: bool = True) -> list[Any]:
        """This layer and all inside it, each once, outer before inner."""
        found: dict[int, Any] = {}
        stack = [self] if include_self else list(reversed(self._sublayers()))
        while stack:
            layer = stack.pop()
            if id(layer) in found:
                continue
            found[id(layer)] = layer
            if recursive or layer is self:
                stack.extend(reversed(layer._sublayers()))
        return [layer for layer in found.values() if include_self or layer is not self]

    @property
    def weights(self) -> list[Variable]:
        """All variables of the layer and those in it, without the states of random streams."""
        return list(dict.fromkeys(v for layer in self._flatten_layers() for v in layer._own_variables()))

    @property
    def variables(self) -> list[Variable]:
        """The weights, and the states of random streams."""
        layers = self._flatten_layers()
        return list(dict.fromkeys(v for layer in layers for v in (*layer._own_variables(), *layer._own_seeds())))

    @property
    def trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if v.trainable] if self.trainable else []

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return [v for v in self.weights if not v.trainable] if self.trainable else self.weights

    @property
    def trainable_variables(self) -> list[Variable]:
        return [v for v in self.variables if v.trainable] if self.trainable else []

    @property
    def non_trainable_variables(self) -> list[Variable]:
        return [v for v in self.variables if not v.trainable] if self.trainable else self.variables

    @property
    def metrics(self) -> list[Any]:
        """The metrics that are attributes of the layer and of those in it."""
        return [found for layer in self._flatten_layers() for found in layer._attributes() if _is_metric(found)]

    @property
    def metrics_variables(self) -> list[Variable]:
        return [v for metric in self.metrics for v in metric.variables]

    @property
    def trainable(self) -> bool:
        """Whether optimizers change the weights made trainable; setting it also sets that of all layers inside."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        note_change()
        for layer in self._flatten_layers():
            layer._trainable = bool(value)
            layer._own_variables()
            for variable, made_trainable in layer._layer_state.kinds.items():
                variable.trainable = bool(value) and made_trainable

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the values of `weights`."""
        return [v.numpy() for v in self.weights]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set the values of `weights`. Raises ArgumentError for another number of them, ShapeError for other shapes."""
        own = self.weights
        if len(own) != len(weights):
            state = "" if self.built else " It is not built yet: call it on data, or `build(input_shape)`, first."
            raise ArgumentError(
                f"set_weights of {self.name!r} got {len(weights)} arrays, but it has {len(own)} weights: "
                f"{[f'{v.path} {v.shape}' for v in own]}.{state}"
            )
        values = [np.asarray(value) for value in weights]
        for variable, value in zip(own, values, strict=True):
            if variable.shape != value.shape:
                raise ShapeError(
                    f"the weight {variable.path!r} has the shape {variable.shape}, got an array of shape {value.shape}"
                )
        for variable, value in zip(own, values, strict=True):
            variable.set_value(value)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Put the arrays that a file keeps of this layer, without those in it, into `store`. May be overridden."""
        for k, variable in enumerate(self._own_variables()):
            store[str(k)] = variable.numpy()

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Take back what `save_own_variables` gave. Raises DataError or ShapeError if it does not fit."""
        from gnomon.saving.weights import read_own_variables

        read_own_variables(self, store)

    def save_assets(self, dir_path: Any) -> None:
        """Write what a `.keras` file keeps of this layer besides arrays into a folder. May be overridden."""

    def load_assets(self, dir_path: Any) -> None:
        """Read back what `save_assets` wrote."""

    def count_params(self) -> int:
        """How many numbers the weights hold. Raises NotBuiltError before the layer is built."""
        if not self.built:
            raise NotBuiltError(
                f"count_params of {self.name!r}: the layer is not built, so its weights do not exist yet. "
                "Call it on data, or `build(input_shape)`, first."
            )
        return sum(math.prod(v.buffer.shape) for v in self.weights)


def _search(value: Any) -> Iterator[Any]:
    """Variables, layers, metrics and seed generators in a value that may be nested."""
    if isinstance(value, (Variable, Tracked)) or _is_metric(value) or _is_seed_generator(value):
        yield value
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _search(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _search(item)


def _is_metric(value: Any) -> bool:
    kind = type(value)
    return hasattr(kind, "update_state") and hasattr(kind, "reset_state")


def _is_seed_generator(value: Any) -> bool:
    return type(value).__name__ == "SeedGenerator"
