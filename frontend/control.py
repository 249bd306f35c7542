"""Choosing between computations, of which only the chosen one is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import choose
from gnomon.tensor import Tensor, is_symbolic, node_of
from gnomon.variable import Variable, _updates


def _flatten(value: Any, flat: list[Any]) -> Any:
    if isinstance(value, dict):
        return {k: _flatten(v, flat) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_flatten(v, flat) for v in value)
    if value is None:
        return None
    flat.append(value)
    return len(flat) - 1


def _unflatten(form: Any, values: Sequence[Any]) -> Any:
    if isinstance(form, dict):
        return {k: _unflatten(v, values) for k, v in form.items()}
    if isinstance(form, (list, tuple)):
        return type(form)(_unflatten(v, values) for v in form)
    return None if form is None else values[form]


def _condition(pred: Any) -> Node:
    node = node_of(pred)
    if any(d != 1 for d in node.shape):
        raise ShapeError(f"a condition must be one bool, got {node.type}; for one per element use gnomon.ops.where")
    node = build.reshape(node, ())
    return node if node.dtype == "bool" else build.not_equal(node, 0)


def _same_types(pairs: list[tuple[Any, Any]]) -> tuple[list[Node], list[Node]]:
    """Both sides' results with common dtypes and one spelling of their sizes."""
    then, orelse = [], []
    for a, b in pairs:
        a, b = node_of(a), node_of(b)
        dtype = build.promote(a, b)
        a, b = build.cast(a, dtype), build.cast(b, dtype)
        if a.rank == b.rank:
            b = build.equate(b, a.shape)
        if a.shape != b.shape:
            raise ShapeError(f"both sides of a choice must give one shape, got {a.type} if true and {b.type} if false")
        then.append(a)
        orelse.append(b)
    return then, orelse


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """What `true_fn()` returns if `pred` is true, else what `false_fn()` returns; only one of them is computed.

    Both must return the same structure of tensors of the same shapes. What the functions compute themselves is done
    only if chosen, what they take from outside is there anyway; assignments to variables count only if chosen.
    """
    if not is_symbolic(pred) and not isinstance(pred, Node):
        return true_fn() if np.asarray(pred).item() else false_fn()
    node = _condition(pred)
    scope = _updates.get()
    sides = []
    for fn in (true_fn, false_fn):
        newest = Node._count
        token = _updates.set(None if scope is None else scope.copy())
        try:
            flat: list[Any] = []
            form = _flatten(fn(), flat)
            flat = [node_of(v) for v in flat]
            updates = {} if scope is None else dict((_updates.get() or {}).items())
        finally:
            _updates.reset(token)
        sides.append((form, flat, updates, lambda n, newest=newest: n.serial > newest))
    (form, then, then_updates, then_inside), (other, orelse, else_updates, else_inside) = sides
    if form != other:
        raise ArgumentError(f"both sides of cond must return one structure, got {_shown(form)} and {_shown(other)}")
    assigned = _assigned(scope, then_updates, else_updates)
    pairs = [*zip(then, orelse, strict=True)]
    for v in assigned:
        before = scope.get(v, v.node) if scope is not None else v.node
        pairs.append((then_updates.get(v, before), else_updates.get(v, before)))
    if not pairs:
        return _unflatten(form, [])
    found = choose(node, *_same_types(pairs), (then_inside, else_inside))
    for v, new in zip(assigned, found[len(then) :], strict=True):
        v.assign(Tensor(new))
    return _unflatten(form, [Tensor(n) for n in found[: len(then)]])


def _assigned(scope: dict[Variable, Node] | None, *sides: dict[Variable, Node]) -> list[Variable]:
    """Variables that a side gave a new value."""
    before = scope or {}
    return list(dict.fromkeys(v for side in sides for v, n in side.items() if before.get(v) is not n))


def _shown(form: Any) -> str:
    if isinstance(form, dict):
        return "{" + ", ".join(f"{k!r}: {_shown(v)}" for k, v in form.items()) + "}"
    if isinstance(form, (list, tuple)):
        return f"{type(form).__name__}({', '.join(map(_shown, form))})"
    return "None" if form is None else "a tensor"


def ifelse(condition: Any, then_branch: Any, else_branch: Any, name: str | None = None) -> Any:
    """Theano's lazy choice: `then_branch` if the condition is true, else `else_branch` (tensors, or lists of them).

    What only the branch that is not chosen needs is not computed.
    """
    then_flat: list[Any] = []
    else_flat: list[Any] = []
    form, other = _flatten(then_branch, then_flat), _flatten(else_branch, else_flat)
    if form != other:
        raise ArgumentError(
            f"both branches of ifelse must have the same structure, got {_shown(form)} and {_shown(other)}"
        )
    node = _condition(condition)
    then, orelse = _same_types(list(zip(then_flat, else_flat, strict=True)))
    if not then:
        return then_branch
    only_then = set(walk(then)) - set(walk([node, *orelse]))
    only_else = set(walk(orelse)) - set(walk([node, *then]))
    found = choose(node, then, orelse, (only_then.__contains__, only_else.__contains__))
    return _unflatten(form, [Tensor(n) for n in found])


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`branches[index](*operands)`, the index kept within range; only one branch is computed."""
    if not branches:
        raise ArgumentError("switch needs at least one branch")
    if not is_symbolic(index):
        return branches[min(max(int(np.asarray(index).item()), 0), len(branches) - 1)](*operands)
    if len(branches) == 1:
        return branches[0](*operands)
    half = len(branches) // 2
    at = Tensor(build.reshape(node_of(index), ()))
    return cond(
        at < half, lambda: switch(at, branches[:half], *operands), lambda: switch(at - half, branches[half:], *operands)
    )
