"""Models made of tensors: how their graphs are written to configurations and read again."""

from __future__ import annotations

from typing import Any

from gnomon.compiler.errors import GraphError
from gnomon.layers.calls import Call
from gnomon.layers.layer import Layer
from gnomon.models.graph import CallGraph
from gnomon.models.model import Model
from gnomon.models.operation import NamedOperation, Operation
from gnomon.registry import deserialize_object, serialize_object
from gnomon.tensor import Tensor
from gnomon.utils import tree


class Functional(Model):
    """What `Model(inputs=..., outputs=...)` makes."""

    keras_module = "keras.src.models.functional"
    keras_registered_name = "Functional"

    def __init__(self, inputs: Any, outputs: Any, name: str | None = None, **kwargs: Any):
        super().__init__(inputs, outputs, name=name, **kwargs)


def graph_config(graph: CallGraph) -> dict[str, Any]:
    """Keras's form of a graph: its layers with their calls, and which calls are inputs and outputs."""
    calls: dict[Layer, list[Call]] = {}
    for call in sorted(graph.calls, key=lambda c: c.index):
        calls.setdefault(call.layer, []).append(call)

    def place(tensor: Tensor, offset: bool = True) -> list[Any]:
        call, k = graph.producer(tensor)
        number = calls[call.layer].index(call)
        return [call.layer.name, number + (offset and isinstance(call.layer, Functional)), k]

    def written(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return serialize_object(x)
        history = place(x, offset=False)
        config = {"shape": list(x.shape), "dtype": x.dtype, "keras_history": history}
        return {"class_name": "__keras_tensor__", "config": config}

    def arguments(call: Call) -> dict[str, Any]:
        args: Any = call.layer.written_arguments(call) if isinstance(call.layer, Operation) else call.args
        kwargs = dict(call.kwargs)
        if "mask" in call.layer._call_signature().parameters:
            kwargs.setdefault("mask", None)  # Keras notes it
        return {"args": tree.map_structure(written, list(args)), "kwargs": tree.map_structure(written, kwargs)}

    layers = []
    for layer in graph.operations:
        if isinstance(layer, Operation):
            entry = {"module": layer.module, "class_name": layer.title, "config": serialize_object(layer.get_config())}
            entry["registered_name"] = layer.title
        else:
            entry = serialize_object(layer)
        entry["name"] = layer.name
        entry["inbound_nodes"] = [arguments(call) for call in calls[layer] if call.inputs]
        layers.append(entry)
    return {
        "layers": layers,
        "input_layers": tree.map_structure(place, graph.input_structure),
        "output_layers": tree.map_structure(place, graph.output_structure),
    }


def from_graph_config(cls: type, config: dict[str, Any], custom_objects: dict[str, Any] | None) -> Model:
    """The model that `graph_config` wrote: its layers made anew and called in the same order.

    Raises GraphError if a call depends on one that is not there.
    """
    config = dict(config)
    entries = config.pop("layers")
    layers = {entry["name"]: _layer(entry, custom_objects) for entry in entries}
    waiting = {entry["name"]: list(entry["inbound_nodes"]) for entry in entries}
    calls: dict[str, list[list[Tensor]]] = {}  # outputs of each call, by the layer's name
    for name, layer in layers.items():
        calls[name] = [] if waiting[name] else [layer._layer_state.calls[0].outputs]
    while any(waiting.values()):
        before = sum(map(len, waiting.values()))
        for name, nodes in waiting.items():
            while nodes and (arguments := _arguments(nodes[0], calls, custom_objects)) is not None:
                calls[name].append(tree.flatten(layers[name](*arguments[0], **arguments[1])))
                nodes.pop(0)
        if sum(map(len, waiting.values())) == before:
            stuck = [name for name, nodes in waiting.items() if nodes]
            raise GraphError(
                f"the configuration of the model has a loop, or calls without inputs: {stuck} cannot be called"
            )

    def find(place: Any) -> Any:
        if isinstance(place, (list, tuple)) and len(place) == 3 and isinstance(place[0], str):
            name, number, k = place
            return calls[name][number - isinstance(layers[name], Functional)][k]
        if isinstance(place, dict):
            return {key: find(value) for key, value in place.items()}
        return type(place)(find(value) for value in place)

    inputs, outputs = find(config.pop("input_layers")), find(config.pop("output_layers"))
    return cls(inputs=inputs, outputs=outputs, **config)


def _layer(entry: dict[str, Any], custom_objects: Any) -> Any:
    if str(entry.get("module")).startswith("keras.src.ops"):
        options = dict(entry["config"])
        name = options.pop("name", None)
        return NamedOperation(entry["class_name"], options, name)
    return deserialize_object(entry, custom_objects)


def _arguments(
    node: dict[str, Any], calls: dict[str, list[list[Tensor]]], custom_objects: Any
) -> tuple[list, dict] | None:
    """The arguments of a call, None if a tensor among them does not exist yet."""
    missing = False

    def read(value: Any) -> Any:
        nonlocal missing
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            name, number, k = value["config"]["keras_history"]
            if number >= len(calls.get(name, [])):
                missing = True
                return None
            return calls[name][number][k]
        if isinstance(value, dict) and "class_name" in value:
            return deserialize_object(value, custom_objects)
        if isinstance(value, dict):
            return {key: read(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [read(item) for item in value]
        return value

    found = read(node["args"]), read(node["kwargs"])
    return None if missing else found
