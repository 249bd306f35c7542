"""Making a graph of one slice a graph of many: every op is replaced by its batched form (`Op.batch`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gnomon.compiler.graph import Item, Node, TensorType, inherit, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import Tuple, walks_subgraphs
from gnomon.compiler.ops.remat import without_waiting
from gnomon.compiler.sizes import Dim


@walks_subgraphs
def vectorize(outputs: Sequence[Node], inputs: Mapping[Node, Node], size: Dim) -> list[Node]:
    """`outputs` for `size` values of `inputs` at once, each with a first axis of `size`.

    inputs   {node: its values}, values of type dtype[size, *shape of the node]
    What does not depend on `inputs` is computed once and repeated.
    """
    outputs = without_waiting(outputs, inputs)  # or all that they do would be repeated
    batched: dict[Node, Node] = dict(inputs)
    for node, values in inputs.items():
        assert values.type == TensorType(node.dtype, (size, *node.shape)), (node, values)
    for node in walk(outputs, stop=lambda n: n in inputs):
        if node in inputs or not any(x in batched for x in node.inputs):
            continue
        if isinstance(node.op, Item) and isinstance(batched[node.inputs[0]].op, Tuple):
            batched[node] = batched[node.inputs[0]].inputs[node.op.k]
            continue
        mapped = tuple(x in batched for x in node.inputs)
        with inherit(node):
            batched[node] = node.op.batch(size, tuple(batched.get(x, x) for x in node.inputs), mapped)
    return [batched[o] if o in batched else build.repeat_first(o, size) for o in outputs]
