"""Calls of layers: how arguments are bound, and how a call is remembered for functional models."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError, nearest
from gnomon.compiler.graph import Node, Op, user_line
from gnomon.compiler.passes.algebra import algebra
from gnomon.tensor import Tensor, is_symbolic
from gnomon.utils import tree

if TYPE_CHECKING:
    from gnomon.layers.layer import Layer


@dataclass(frozen=True)
class LayerOutput(Op):
    """The same value: output `k` of a call of a layer.

    Interning would make one node of `y = Dropout(0.5)(x)` and `x`, for dropout does nothing outside training; a model
    built from `x + y` must still know which is which. The mark tells, and leads back to the call.
    """

    number: int
    k: int
    call: Call | None = field(compare=False)  # `number` tells calls apart

    def identity(self):
        return LayerOutput(self.number, self.k, None)

    def essence(self):
        return ()

    def infer(self, x):
        return x

    def numpy(self, env, x):
        return x

    def grad(self, g, out, x):
        return (g,)

    def element(self, index, out, x):
        return x(*index)

    def __repr__(self) -> str:
        return f"LayerOutput({self.call.layer.name if self.call is not None else self.number})"


@algebra.watch(LayerOutput)
def drop_marks(node: Node) -> Node:
    """layer_output(x) -> x, for programs need no calls."""
    return node.inputs[0]


_numbers = count(1)


class Call:
    """One call of a layer on symbolic tensors, outside all other calls: a step of a functional model.

    args, kwargs   as given, Tensors among them
    inputs, outputs   the Tensors in them and in the result, in order
    place     the user's file and line
    mark      whether the outputs are nodes of their own (`LayerOutput`)
    """

    def __init__(self, layer: Layer, args: tuple, kwargs: dict[str, Any], outputs: Any, mark: bool = True):
        self.layer, self.args, self.kwargs = layer, args, kwargs
        self.inputs = [x for x in tree.flatten([list(args), kwargs]) if isinstance(x, Tensor)]
        self.number = next(_numbers)
        self.place = user_line()
        self.index = len(layer._layer_state.calls)
        layer._layer_state.calls.append(self)
        marked = (self._mark(k, t) if mark else t for k, t in enumerate(tree.flatten(outputs)))
        self.structure = tree.pack_sequence_as(outputs, marked)
        self.outputs: list[Tensor] = tree.flatten(self.structure)

    def _mark(self, k: int, tensor: Tensor) -> Tensor:
        node = (
            tensor.node
            if not tensor.node.inputs and not self.inputs
            else LayerOutput(self.number, k, self)(tensor.node)
        )
        marked = Tensor(node, tensor.name, (self.layer, self.index, k))
        marked.mask = tensor.mask
        return marked

    def __repr__(self) -> str:
        return f"<Call {self.index} of {self.layer.name}>"


def call_of(node: Node) -> Call | None:
    """The call whose output a node is."""
    return node.op.call if isinstance(node.op, LayerOutput) else None


# ---- arguments


class Arguments:
    """The arguments of a call by the names of `call`'s parameters.

    values    all, defaults included
    given     names that were passed
    tensors   those that are Tensors, or structures of Tensors and None
    """

    def __init__(self, layer: Layer, signature: inspect.Signature, args: Sequence[Any], kwargs: dict[str, Any]):
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        self.training = kwargs.get("training")
        if "training" not in signature.parameters and not takes_any:
            kwargs = {k: v for k, v in kwargs.items() if k != "training"}
        try:
            self.bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            unknown = next((k for k in kwargs if k not in signature.parameters), None)
            hint = (
                nearest(unknown, [*signature.parameters, "training"]) if unknown is not None and not takes_any else ""
            )
            raise ArgumentError(f"{type(layer).__name__}.call{signature}: {error}.{hint}") from None
        self.given = set(self.bound.arguments)
        self.bound.apply_defaults()
        self.values = self.bound.arguments
        catch_all = {n for n, p in signature.parameters.items() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        self.tensors = {name: v for name, v in self.values.items() if name not in catch_all and _holds_tensors(v)}
        if "training" in self.values and self.training is None and "training" in self.given:
            self.training = self.values["training"]

    @property
    def first(self) -> Any:
        return next(iter(self.values.values()), None)

    def shapes(self) -> dict[str, Any]:
        """`{name}_shape` -> shape, or structure of shapes, of each tensor argument but the mask."""
        return {
            f"{name}_shape": tree.map_structure(lambda x: None if x is None else x.shape, value)
            for name, value in self.tensors.items()
            if name != "mask"
        }


def _holds_tensors(value: Any) -> bool:
    if isinstance(value, Tensor):
        return True
    leaves = tree.flatten(value) if tree.is_nested(value) else []
    found = [isinstance(x, Tensor) for x in leaves if x is not None]
    if any(found) and not all(found):
        raise ArgumentError(f"in a nested argument of call(), tensors and other things cannot be mixed; got {value!r}")
    return any(found)


def shapes_for(method: Any, shapes: dict[str, Any], layer: str) -> dict[str, Any]:
    """The arguments of `build` or `compute_output_shape`: one parameter takes the first shape, several go by name."""
    names = [
        n for n, p in inspect.signature(method).parameters.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not names:
        return {}
    if len(names) == 1:
        return {names[0]: next(iter(shapes.values()), None)}
    wrong = next((n for n in names if not n.endswith("_shape")), None)
    if wrong is not None:
        raise ArgumentError(
            f"{layer}.{method.__name__}: with several parameters, each is named after an argument of call() and "
            f"ends in '_shape' (x -> x_shape), got {wrong!r}"
        )
    return {name: shapes[name] for name in names if name in shapes}


def as_numbers(x: Any) -> np.ndarray:
    """An array argument of a call. Raises DTypeError for text, objects and complex numbers."""
    array = np.asarray(x)
    if array.dtype.kind not in "fiub" and array.dtype.name not in dtypes.TABLE:
        kind = {"c": "complex numbers", "U": "text", "S": "text", "O": "Python objects"}.get(array.dtype.kind, "others")
        hint = ". TextVectorization, StringLookup and Hashing make numbers of text" if kind == "text" else ""
        raise DTypeError(
            f"layers take real numbers, got an array of {kind} (dtype {array.dtype}, shape {array.shape}){hint}"
        )
    return array


def is_symbolic_call(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether any Tensor or Variable is among the arguments."""
    return any(is_symbolic(x) for x in tree.flatten([list(args), kwargs]))
