"""Computing again instead of keeping (rematerialisation, gradient checkpointing): less memory, one more forward pass.

Inside `remat(f)` nothing is kept for the gradient but what f took: its insides are computed again when the gradient
arrives. The values and gradients are the same to the last bit but for what is fused in another way, masks of Dropout
included: random bits are a function of their place in a stream, which does not move on for the second time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

from gnomon.compiler.errors import ArgumentError, nearest
from gnomon.compiler.graph import Node
from gnomon.compiler.ops.remat import checkpointed
from gnomon.tensor import Tensor, is_symbolic, node_of
from gnomon.utils import tree

MODES = ("full", "activations", "larger_than", "list_of_layers", None)
_scope: ContextVar[RematMode | None] = ContextVar("remat", default=None)


class RematMode(NamedTuple):
    """What a `RematScope` asks for."""

    mode: str | None
    output_size_threshold: int
    layer_names: Sequence[str]


class RematScope:
    """Layers that are made inside `with RematScope(mode=...)` compute again what their gradients read.

    mode   'full': every layer; 'activations': the activations of layers that have one; 'larger_than': layers whose
           outputs have more elements than `output_size_threshold` (open sizes count as 1, that of the batch too);
           'list_of_layers': those named in `layer_names`; None: no layer, inside another scope
    A layer inside a layer counts as well: its insides are computed once more for each of the two.

    Raises ArgumentError for another mode.
    """

    def __init__(
        self, mode: str | None = "full", output_size_threshold: int = 1024, layer_names: Sequence[str] | None = None
    ):
        if mode not in MODES:
            known = "'full', 'activations', 'larger_than', 'list_of_layers' or None"
            hint = nearest(str(mode), [m for m in MODES if m])
            raise ArgumentError(f"RematScope(mode=...) must be {known}, got {mode!r}.{hint}")
        if isinstance(layer_names, str):
            raise ArgumentError(f"RematScope(layer_names=...) is a list of names, got the string {layer_names!r}")
        self.mode, self.output_size_threshold = mode, output_size_threshold
        self.layer_names = list(layer_names or [])
        self._tokens: list[Any] = []

    def __enter__(self) -> RematScope:
        self._tokens.append(_scope.set(RematMode(self.mode, self.output_size_threshold, self.layer_names)))
        return self

    def __exit__(self, *error: Any) -> None:
        _scope.reset(self._tokens.pop())


def get_current_remat_mode() -> RematMode | None:
    """What the innermost `RematScope` asks for; None outside all."""
    return _scope.get()


def remat(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, of which a gradient keeps nothing but what f took (tensors, variables, what it reads from outside).

    f   a function of tensors, or structures of them, that returns such; a layer or model too. What it assigns to
        variables is assigned once.

    Chen, Xu, Zhang, Guestrin 2016, "Training deep nets with sublinear memory cost", section 3.
    """

    @functools.wraps(f, updated=())
    def rematerialized(*args: Any, **kwargs: Any) -> Any:
        given = [node_of(x) for x in tree.flatten([list(args), kwargs]) if is_symbolic(x)]
        newest = Node._count
        return _checkpointed(f(*args, **kwargs), given, newest)

    return rematerialized


checkpoint = remat


def _checkpointed(outputs: Any, arguments: list[Node], newest: int) -> Any:
    leaves = tree.flatten(outputs)
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    if not tensors:
        return outputs  # of arrays, computed at once
    made = iter(checkpointed([node_of(x) for x in tensors], arguments, newest))
    return tree.pack_sequence_as(outputs, [_same(x, next(made)) if isinstance(x, Tensor) else x for x in leaves])


def _same(tensor: Tensor, node: Node) -> Tensor:
    """The tensor with another node of the same value."""
    if node is tensor.node:
        return tensor
    made = Tensor(node, tensor.name, tensor.history)
    made.mask = tensor.mask
    return made


# ---- layers


def call_of(layer: Any, mode: RematMode | None) -> Callable[..., Any]:
    """The `call` of a layer that was made where `mode` was asked for."""
    call = layer.call
    if mode is None or mode.mode is None:
        return call
    if mode.mode == "full" or (mode.mode == "list_of_layers" and layer.name in mode.layer_names):
        return remat(call)
    if mode.mode == "activations" and getattr(layer, "activation", None) is not None:
        return _with_activation(layer, call)
    if mode.mode == "larger_than":
        return _if_larger(call, mode.output_size_threshold)
    return call


def _with_activation(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        activation = layer.activation
        object.__setattr__(layer, "activation", remat(activation))  # no change that a program could be out of date by
        try:
            return call(*args, **kwargs)
        finally:
            object.__setattr__(layer, "activation", activation)

    return called


def _if_larger(call: Callable[..., Any], threshold: int) -> Callable[..., Any]:
    @functools.wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        given = [node_of(x) for x in tree.flatten([list(args), kwargs]) if is_symbolic(x)]
        newest = Node._count
        outputs = call(*args, **kwargs)
        size = sum(math.prod(d or 1 for d in x.shape) for x in tree.flatten(outputs) if isinstance(x, Tensor))
        return _checkpointed(outputs, given, newest) if size > threshold else outputs

    return called


__all__ = ["RematMode", "RematScope", "checkpoint", "get_current_remat_mode", "remat"]
