"""Sequential: a model whose layers follow one another."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextvars import Context
from typing import Any

from gnomon.compiler.errors import ArgumentError, GraphError, ShapeError
from gnomon.layers.input import InputLayer
from gnomon.layers.layer import Layer
from gnomon.models.graph import CallGraph
from gnomon.models.model import Model
from gnomon.registry import deserialize_object, serialize_object
from gnomon.surroundings import path_of
from gnomon.tensor import Tensor
from gnomon.utils import tree


class Sequential(Model):
    """Layers in a row, each called on what the one before gave.

    Built as layers are added if the first is an `Input` (or says its input's shape); else when it is first called, or
    trained, on data.
    """

    keras_module = "keras"

    def __init__(self, layers: Iterable[Any] | None = None, trainable: bool = True, name: str | None = None):
        super().__init__(trainable=trainable, name=name)
        self._layers: list[Layer] = []
        for layer in layers or ():
            self.add(layer, rebuild=False)
        if self._layers:
            self._rebuild()

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Put a layer, or an `Input`, after the others.

        Raises ArgumentError for something else or a second Input, GraphError for a name that is taken.
        """
        if isinstance(layer, Tensor) and layer.history is not None and isinstance(layer.history[0], InputLayer):
            layer = layer.history[0]
        if not isinstance(layer, Layer):
            raise ArgumentError(
                f"Only instances of `Layer` can be added to a Sequential model. Received: {layer!r} (of type "
                f"{type(layer).__name__}). A function becomes a layer as Lambda(function)."
            )
        shape = layer._layer_state.input_shape_argument
        if not self._layers and shape is not None:
            self.add(InputLayer(batch_shape=shape, dtype=layer.dtype), rebuild=False)
        for other in self._layers:
            if other.name == layer.name:
                raise GraphError(
                    f"All layers added to a Sequential model should have unique names. Name {layer.name!r} is already "
                    f"the name of a {type(other).__name__} in this model: give one another name=..."
                )
        if isinstance(layer, InputLayer) and self._layers:
            raise ArgumentError(
                f"Sequential model {self.name!r} has already layers: an Input comes first, and there is only one; "
                f"got one of shape {layer.batch_shape} after {self._layers[-1].name!r}"
            )
        self._layers.append(layer)
        if rebuild:
            try:
                self._rebuild()
            except Exception:
                self._layers.pop()  # a layer that does not fit is not part of the model
                self._rebuild()
                raise
        else:
            self._set_graph(None)

    def pop(self, rebuild: bool = True) -> Layer:
        """Take the last layer away and return it."""
        if not self.layers:
            raise ArgumentError(f"Sequential model {self.name!r} has no layer to pop")
        layer = self._layers.pop()
        self._set_graph(None)
        if rebuild:
            self._rebuild()
        return layer

    def _rebuild(self) -> None:
        self._set_graph(None)
        if len(self._layers) < 2:
            return
        first = self._layers[0]
        if isinstance(first, InputLayer):
            self.build(first.batch_shape)
        elif isinstance(first, Model) and first._graph is not None:
            self.build(first.input_shape)

    def build(self, input_shape: Any = None) -> None:
        """Make the weights for inputs of this shape, the batch axis first."""
        if not self._layers:
            raise ArgumentError(
                f"Sequential model {self.name!r} cannot be built: it has no layers. Call `model.add(layer)`."
            )
        if not tree.is_shape(input_shape):
            return  # several inputs: the layers are called one after another
        shape = tuple(input_shape)
        first = self._layers[0]
        if not isinstance(first, InputLayer):
            first = InputLayer(batch_shape=shape, dtype=first.input_dtype)
        elif first.batch_shape != shape and shape != (None, *first.batch_shape[1:]):
            raise ShapeError(
                f"Sequential model {self.name!r} has already been configured to use input shape {first.batch_shape}. "
                f"You cannot build it with input_shape {shape}"
            )
        layers = [first, *(layer for layer in self._layers if layer is not first)]
        graph = Context().run(self._connected, layers)  # apart from a program that may be traced
        self._layers = layers
        self._set_graph(graph)

    def _connected(self, layers: list[Layer]) -> CallGraph:
        inputs = x = layers[0].output
        with path_of(self):
            for layer in layers[1:]:
                _check_arguments(layer)
                x = layer(x)
        return CallGraph(inputs, x)

    def _build_for(self, arguments: Any) -> None:
        first = arguments.first
        if isinstance(first, Tensor):
            self.build((None, *first.shape[1:]) if first.ndim else ())
        else:
            self.built = True

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if self._graph is not None:
            return super().call(inputs, training=training, mask=mask)
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs

    def _sublayers(self) -> list[Any]:
        return Layer._sublayers(self)

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input layer."""
        return self._layers[isinstance(next(iter(self._layers), None), InputLayer) :]

    @layers.setter
    def layers(self, value: Any) -> None:
        raise ArgumentError("`layers` of a Sequential model is made by gnomon: use add() and pop()")

    def compute_output_shape(self, input_shape: Any) -> Any:
        for layer in self.layers:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    def get_build_config(self) -> dict[str, Any] | None:
        return Layer.get_build_config(self)

    def get_config(self) -> dict[str, Any]:
        config = {"name": self.name, "trainable": self.trainable, "dtype": serialize_object(self.dtype_policy)}
        config["layers"] = [serialize_object(layer) for layer in self._layers]
        if self._graph is not None:
            config["build_input_shape"] = self._layers[0].batch_shape  # type: ignore[attr-defined]  # an InputLayer
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Any:
        """A new model, with new weights, from what `get_config` gave."""
        if "name" not in config or "layers" not in config:
            raise ArgumentError(
                f"a Sequential model configuration has the keys 'name' and 'layers', got {list(config)}"
            )
        model = cls(name=config["name"], trainable=True)
        for entry in config["layers"]:
            model.add(deserialize_object(entry, custom_objects), rebuild=False)
        if model._layers:
            model._rebuild()
        shape = config.get("build_input_shape")
        if model._graph is None and shape:
            model.build(tuple(shape))
        if not config.get("trainable", True):
            model.trainable = False
        return model


def _check_arguments(layer: Layer) -> None:
    """Raises ArgumentError for a layer whose `call` cannot be given one tensor alone."""
    parameters = layer._call_signature().parameters.values()
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) > 1:
        raise ArgumentError(
            "Layers added to a Sequential model have a single required argument, the input tensor. Layer "
            f"{layer.name!r} ({type(layer).__name__}) has {inspect.signature(layer.call)}: use Model(inputs, outputs)."
        )
