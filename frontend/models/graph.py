"""CallGraph: the calls of layers between some tensors and others, and how they are made again on new tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from gnomon.compiler.errors import ArgumentError, GraphError, ShapeError
from gnomon.compiler.graph import Node, made_again, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input as InputLeaf
from gnomon.compiler.ops.leaves import Parameter
from gnomon.layers.calls import Call, LayerOutput, call_of
from gnomon.layers.input import InputLayer
from gnomon.layers.layer import Layer
from gnomon.models.operation import Operation, operation_calls
from gnomon.tensor import Tensor
from gnomon.utils import tree


class CallGraph:
    """What leads from `inputs` to `outputs`, structures of Tensors.

    inputs, outputs   the Tensors in them, in order; an input that a layer computed has a new InputLayer
    calls     of layers, expressions and input layers, in an order in which they can be made (Keras's)
    layers    in the order of their first call

    Raises GraphError if an output does not depend on the inputs alone, or if two layers have one name.
    """

    def __init__(self, inputs: Any, outputs: Any):
        for what, structure in (("inputs", inputs), ("outputs", outputs)):
            leaves = tree.flatten(structure)
            if not leaves:
                raise ArgumentError(f"a model needs {what}: got {structure!r}")
            for x in leaves:
                if not isinstance(x, Tensor):
                    raise ArgumentError(
                        f"`{what}` of a model are symbolic tensors, made by Input and by calling layers; got {x!r} "
                        f"of type {type(x).__name__}"
                    )
        self.sources: list[Tensor] = tree.flatten(inputs)
        self._keys = [t.node for t in self.sources]
        if len(set(self._keys)) < len(self._keys):
            raise GraphError(
                f"the inputs of a model are different tensors; one of {[t.name for t in self.sources]} is given twice"
            )
        self._starts = [self._input_call(t) for t in self.sources]
        self.inputs: list[Tensor] = [call.outputs[0] for call in self._starts]
        self.input_structure = tree.pack_sequence_as(inputs, self.inputs)
        self.output_structure = outputs
        self.outputs: list[Tensor] = tree.flatten(outputs)
        self._by_node: dict[Node, Call] = dict(zip(self._keys, self._starts, strict=True))
        self._find_operations()
        self.calls, self.operations = self._ordered()
        self._check_names()

    # ---- making it

    def _input_call(self, tensor: Tensor) -> Call:
        if isinstance(tensor.node.op, InputLeaf) and tensor.history is not None:
            return tensor.history[0]._layer_state.calls[tensor.history[1]]
        layer = InputLayer(batch_shape=tensor.shape, dtype=tensor.dtype)
        return layer._layer_state.calls[0]

    def _find_operations(self) -> None:
        """Split expressions between layers into calls of Operations."""
        boundary = set(self._keys)
        tensors: dict[Node, Tensor] = dict(zip(self._keys, self.inputs, strict=True))
        pending, seen, expressions = [t.node for t in self.outputs], set(boundary), []
        while pending:  # from the outputs up, from call to call
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            call = call_of(node)
            if call is not None:
                tensors.update((t.node, t) for t in call.outputs)
                pending.extend(t.node for t in call.inputs)
            elif not isinstance(node.op, InputLeaf):
                expressions.append(node)
                stop = lambda n: n in boundary or isinstance(n.op, LayerOutput)
                pending.extend(n for n in walk([node], stop=stop) if stop(n))
        expressions.sort(key=lambda n: n.serial)
        if expressions:
            self._by_node.update(operation_calls(expressions, boundary, tensors))

    def _call_for(self, tensor: Tensor, reader: str) -> Call:
        node = tensor.node
        if node in self._by_node:
            return self._by_node[node]
        call = call_of(node)
        if call is not None:
            return call
        name = tensor.name or (node.op.name if isinstance(node.op, InputLeaf) else repr(node))
        what = (
            "a variable or constant"
            if isinstance(node.op, Parameter) or not isinstance(node.op, InputLeaf)
            else "the input"
        )
        raise GraphError(
            f"Graph disconnected: {reader} depends on {what} {name!r} ({node.type}), which the inputs "
            f"{[t.name for t in self.inputs]} do not give. Add it to the model's inputs, or make the outputs of them."
        )

    def _ordered(self) -> tuple[list[Call], list[Layer]]:
        """Calls and layers by depth, the number of calls up to an output, deepest first; then as first met."""
        order: list[Call] = []
        met: dict[Layer, int] = {}
        state: dict[Call, int] = {}
        stack: list[tuple[Call, bool]] = []
        for output in self.outputs:
            stack.append((self._call_for(output, f"the output {output.name or output.node.type}"), False))
            while stack:
                call, done = stack.pop()
                if done:
                    state[call] = 2
                    order.append(call)
                    continue
                if call in state:
                    continue
                state[call] = 1
                met.setdefault(call.layer, len(met))
                stack.append((call, True))
                if call not in self._starts:
                    stack.extend(
                        (self._call_for(t, f"layer {call.layer.name!r}"), False) for t in reversed(call.inputs)
                    )
        depth: dict[Call, int] = {}
        of_layer: dict[Layer, int] = {}
        for call in reversed(order):
            d = max(depth.setdefault(call, 0), of_layer.get(call.layer, 0))
            depth[call] = of_layer[call.layer] = d
            if call not in self._starts:
                for t in call.inputs:
                    below = self._call_for(t, "")
                    depth[below] = max(d + 1, depth.get(below, 0))
        for call in self._starts:  # inputs that nothing reads are listed all the same
            if call not in depth:
                depth[call], of_layer[call.layer], met[call.layer] = 0, 0, -1
        by_depth: dict[int, list[Call]] = defaultdict(list)
        for call, d in depth.items():
            by_depth[d].append(call)
        self.depths = [by_depth[d] for d in sorted(by_depth, reverse=True)]
        layers = sorted(of_layer, key=lambda layer: (-of_layer[layer], met[layer]))
        return [call for calls in self.depths for call in calls], layers

    def _check_names(self) -> None:
        names = [layer.name for layer in self.operations]
        for layer in self.operations:
            if names.count(layer.name) > 1:
                kinds = [type(other).__name__ for other in self.operations if other.name == layer.name]
                raise GraphError(
                    f'The name "{layer.name}" is used {names.count(layer.name)} times in the model, by layers of type '
                    f"{' and '.join(kinds)}. All layer names should be unique: give one another name=..."
                )

    @property
    def layers(self) -> list[Layer]:
        """The layers, expressions left out."""
        return [layer for layer in self.operations if not isinstance(layer, Operation)]

    def producer(self, tensor: Tensor) -> tuple[Call, int]:
        """The call that a tensor of the graph comes from, and its place among the outputs."""
        call = self._call_for(tensor, "the model")
        return call, tensor.node.op.k if isinstance(
            tensor.node.op, LayerOutput
        ) and tensor.node not in self._by_node else 0

    # ---- making the calls again

    def run(self, values: Sequence[Tensor | None], operator: Callable[[Layer], Callable] = lambda layer: layer) -> Any:
        """The outputs, in their structure, when the inputs are `values`.

        operator   what to call for each layer, the layer itself if left out
        """
        known: dict[Node, Tensor | None] = dict(zip(self._keys, values, strict=True))
        for call in self.calls:
            if call in self._starts:
                continue
            look = lambda t: known[t.node] if isinstance(t, Tensor) and t.node in known else t
            args, kwargs = tree.map_structure(look, (list(call.args), call.kwargs))
            with made_again(call.place):
                outputs = tree.flatten(operator(call.layer)(*args, **kwargs))
            for old, new in zip(call.outputs, outputs, strict=True):
                known[old.node] = new
        return tree.map_structure(lambda t: known[t.node], self.output_structure)

    def arranged(self, inputs: Any, model: str) -> list[Any]:
        """The leaves of `inputs` in the order of the model's, whether given as a list, a dictionary or alone.

        Raises ArgumentError if they are not as many, or a name is missing.
        """
        names = [t.name for t in self.inputs]
        wanted = self.input_structure
        if isinstance(inputs, dict):
            keys = (
                sorted(wanted) if isinstance(wanted, dict) and not any(map(tree.is_nested, wanted.values())) else names
            )
            if not isinstance(wanted, dict) or not any(map(tree.is_nested, wanted.values())):
                missing = [k for k in keys if k not in inputs]
                if missing:
                    raise ArgumentError(
                        f'Missing data for input "{missing[0]}" of model "{model}". You passed a data dictionary with '
                        f"keys {list(inputs)}. Expected the following keys: {list(keys)}"
                    )
                return [inputs[k] for k in keys]
        leaves = tree.flatten(inputs)
        if len(leaves) != len(names):
            raise ArgumentError(
                f'Model "{model}" expects {len(names)} input(s), {names}, but it received {len(leaves)} input tensors'
                + (". Pass them as a list in this order, or as a dictionary by name." if len(names) > 1 else ".")
            )
        return leaves

    def standardized(self, inputs: Any, model: str) -> list[Tensor | None]:
        """The inputs as `run` takes them: in order, of the dtypes and numbers of axes that the model was made for."""
        return [
            self._adapted(x, t, k, model)
            for k, (x, t) in enumerate(zip(self.arranged(inputs, model), self.inputs, strict=True))
        ]

    def _adapted(self, x: Any, wanted: Tensor, k: int, model: str) -> Tensor | None:
        if x is None:
            layer = wanted.history[0] if wanted.history else None
            if getattr(layer, "optional", False):
                return None
            raise ArgumentError(f'The input "{wanted.name}" of model "{model}" is not optional, but None was passed')
        node = build.cast(x.node, wanted.dtype)
        rank, own = node.rank, len(wanted.shape)
        if rank == own + 1 and node.shape[-1] == 1:
            node = build.reshape(node, node.shape[:-1])
        elif rank == own - 1 and wanted.shape[-1] == 1:
            node = build.reshape(node, (*node.shape, 1))
        elif rank != own:
            raise ShapeError(
                f'Input {k} ({wanted.name}) of model "{model}" is incompatible with it: expected shape={wanted.shape}, '
                f"found shape={x.shape}"
            )
        adapted = Tensor(node, x.name)
        adapted.mask = x.mask
        return adapted
