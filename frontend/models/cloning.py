"""clone_model: the same architecture with new weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gnomon.compiler.errors import ArgumentError
from gnomon.layers.input import Input, InputLayer
from gnomon.layers.layer import Layer
from gnomon.models.model import Model
from gnomon.models.sequential import Sequential
from gnomon.tensor import Tensor
from gnomon.utils import tree


def clone_model(
    model: Model,
    input_tensors: Any = None,
    clone_function: Callable[[Layer], Layer] | None = None,
    call_function: Callable[..., Any] | None = None,
    recursive: bool = False,
    **kwargs: Any,
) -> Model:
    """A model of the same layers, made anew.

    input_tensors    what to build it on instead of new inputs
    clone_function   (layer) -> layer, instead of making each from its configuration; input layers are not asked
    call_function    (layer, *args, **kwargs) -> outputs, instead of calling each layer (functional models only)
    recursive        treat models inside the same way

    Raises ArgumentError for a subclassed model unless it is cloned by its configuration alone.
    """
    clone = clone_function or (lambda layer: type(layer).from_config(layer.get_config()))
    if recursive:
        single = clone
        clone = lambda layer: (
            clone_model(layer, None, single, None if isinstance(layer, Sequential) else call_function, True)
            if isinstance(layer, Model) and (isinstance(layer, Sequential) or layer._graph is not None)
            else single(layer)
        )
    if isinstance(model, Sequential):
        if call_function is not None:
            raise ArgumentError(
                "clone_model(call_function=...) is for functional models; a Sequential calls its layers in a row"
            )
        return _clone_sequential(model, input_tensors, clone)
    if model._graph is None:
        if input_tensors is not None or clone_function is not None:
            raise ArgumentError("clone_model of a subclassed model takes neither input_tensors nor clone_function")
        return type(model).from_config(model.get_config())
    return _clone_functional(
        model, input_tensors, clone, call_function or (lambda layer, *a, **k: layer(*a, **k)), kwargs
    )


def _clone_sequential(model: Sequential, input_tensors: Any, clone: Callable[[Layer], Layer]) -> Sequential:
    layers: list[Any] = [clone(layer) for layer in model.layers]
    first = model._layers[0] if model._layers else None
    if input_tensors is not None:
        given = tree.flatten(input_tensors)
        if len(given) != 1:
            raise ArgumentError(f"a Sequential model has one input, got {len(given)}")
        layers.insert(0, given[0])
    elif isinstance(first, InputLayer):
        layers.insert(0, Input(batch_shape=first.batch_shape, dtype=first.dtype, name=first.name))
    made = Sequential(layers, name=model.name)
    made.trainable = model.trainable
    return made


def _clone_functional(model: Model, input_tensors: Any, clone: Any, call: Any, kwargs: dict[str, Any]) -> Model:
    graph = model._known_graph("graph")
    if input_tensors is None:
        inputs = [Input(batch_shape=t.shape, dtype=t.dtype, name=t.name) for t in graph.inputs]
    else:
        inputs = tree.flatten(input_tensors)
        if len(inputs) != len(graph.inputs):
            raise ArgumentError(f"the model has {len(graph.inputs)} inputs, got {len(inputs)} input_tensors")
        inputs = [t if isinstance(t, Tensor) else t.output for t in inputs]
    made: dict[Layer, Layer] = {}

    def calling(layer: Layer) -> Callable[..., Any]:
        if layer not in made:
            made[layer] = layer if layer.name in graph_expressions else clone(layer)
        return lambda *a, **k: call(made[layer], *a, **k)

    graph_expressions = {layer.name for layer in graph.operations} - {layer.name for layer in graph.layers}
    outputs = graph.run(inputs, calling)
    structure = tree.pack_sequence_as(graph.input_structure, inputs)
    return type(model)(structure, outputs, name=model.name, **kwargs)
