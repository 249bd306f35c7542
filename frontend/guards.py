"""What layers demand of the arrays that a program is called with, looked at before it runs.

A compiled program cannot raise: `Gather` would read the first or the last row for a token id that is none, and a loop
over no steps would quietly give its first state. So layers mark what they are given (`TokenIds`, `HasSteps`,
`MaskFits`), and a `Function` that has such marks looks at its arguments. The marks cost a program nothing; NumPy
evaluation, and so a layer called on arrays, checks where it meets them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.compiler.errors import DataError, ShapeError
from gnomon.compiler.graph import Node, Op, TensorType, walk
from gnomon.compiler.interpret import bind_sizes, evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.elementwise import Cast, Elementwise
from gnomon.compiler.ops.index import Gather
from gnomon.compiler.ops.leaves import Array, Input, Iota, Literal, SizeValue
from gnomon.compiler.ops.remat import inlined
from gnomon.compiler.ops.shape import Broadcast, Concat, Equate, Pad, Reshape, Slice, Transpose, surely_differ
from gnomon.compiler.passes.algebra import algebra
from gnomon.compiler.sizes import Dim, evaluate, symbols
from gnomon.layers.calls import LayerOutput

SAME = (LayerOutput, Cast, Reshape, Transpose, Equate, Broadcast)
"""Ops whose result has the values of their input, up to rounding."""
CHEAP = (*SAME, Elementwise, Slice, Concat, Pad, Gather, Iota, Literal, Array, SizeValue)
"""Ops that cost little next to looking at the values."""


# ---- marks


@dataclass(frozen=True)
class TokenIds(Op):
    """The same ids, each of which must be one of 0, 1 … `count` - 1.

    layer   whose vocabulary it is; floats are rounded towards 0 by it
    Ids that follow from a function's arguments alone are looked at: arguments themselves, columns of them, what casts
    and arithmetic make of them. Those that a network computes (an argmax of its output) are kept inside silently.
    """

    count: int
    layer: str

    def essence(self):
        return ()  # programs know no marks

    def infer(self, ids):
        return ids

    def numpy(self, env, ids):
        check_ids(ids, self.count, self.layer)
        return ids

    def grad(self, g, out, ids):
        return (None,)

    def batch(self, size, inputs, mapped):
        return self(*inputs)

    def element(self, index, out, ids):
        return ids(*index)


@dataclass(frozen=True)
class HasSteps(Op):
    """The same sequences, which must have at least one step along axis 1, and be `batch` many, if that is a number.

    x: [batch, steps, ...]
    layer   that goes through them
    """

    batch_size: int | None
    layer: str

    def essence(self):
        return (self.batch_size,)

    def infer(self, x):
        if x.shape[1] == 0:
            raise ShapeError(self.no_steps(x))
        if self.batch_size is None:
            return x
        if surely_differ(x.shape[0], self.batch_size):
            raise ShapeError(self.other_batch(x.shape[0]))
        return TensorType(x.dtype, (self.batch_size, *x.shape[1:]))

    def numpy(self, env, x):
        self.check(*x.shape[:2])
        return x

    def looked_at(self, x: TensorType) -> tuple[Dim, ...]:
        """The sizes that `check` takes."""
        return x.shape[:2]

    def check(self, batch: int, steps: int) -> None:
        """Raises DataError if sequences of these sizes are not what is demanded."""
        if not steps:
            raise DataError(self.no_steps("sequences of length 0"))
        if self.batch_size not in (None, batch):
            raise DataError(self.other_batch(batch))

    def no_steps(self, found: Any) -> str:
        return f"layer {self.layer!r} goes through sequences of at least one step, got {found}"

    def other_batch(self, found: Any) -> str:
        return (
            f"layer {self.layer!r} is stateful: it keeps the states of {self.batch_size} sequences from call to call, "
            f"so every batch has {self.batch_size}, got {found}. Give batch_size={self.batch_size} to fit, evaluate "
            "and predict, and data of which it is a divisor"
        )

    def grad(self, g, out, x):
        return (build.equate(g, x.shape),)

    def batch(self, size, inputs, mapped):
        x = inputs[0]  # that there are steps was looked at in each of the slices
        return x if self.batch_size is None else build.equate(x, (size, self.batch_size, *x.shape[2:]))

    def element(self, index, out, x):
        return x(*index)


@dataclass(frozen=True)
class MaskFits(Op):
    """The same mask, whose first axes must be of `shape`: those of what it masks.

    layer   that takes it
    """

    shape: tuple[Dim, ...]
    layer: str

    def essence(self):
        return (self.shape,)

    def infer(self, mask):
        own, rest = mask.shape[: len(self.shape)], mask.shape[len(self.shape) :]
        if len(own) < len(self.shape) or any(surely_differ(a, b) for a, b in zip(own, self.shape, strict=True)):
            raise ShapeError(self.other_shape(TensorType("bool", (*self.shape, *rest)), mask))
        return TensorType(mask.dtype, (*self.shape, *rest))

    def numpy(self, env, mask):
        self.check(*mask.shape[: len(self.shape)], *env.shape(self.shape))
        return mask

    def looked_at(self, mask: TensorType) -> tuple[Dim, ...]:
        return (*mask.shape[: len(self.shape)], *self.shape)

    def check(self, *sizes: int) -> None:
        """Raises DataError if the sizes of the mask are not those that follow."""
        found, wanted = sizes[: len(self.shape)], sizes[len(self.shape) :]
        if found != wanted:
            raise DataError(self.other_shape(TensorType("bool", wanted), TensorType("bool", found)))

    def other_shape(self, wanted: TensorType, found: TensorType) -> str:
        return f"the mask of layer {self.layer!r} says what counts of its inputs: it must be {wanted}, got {found}"

    def grad(self, g, out, mask):
        return (None,)

    def batch(self, size, inputs, mapped):
        return build.equate(inputs[0], (size, *self.shape, *inputs[0].shape[1 + len(self.shape) :]))

    def element(self, index, out, mask):
        return mask(*index)


def fitting(mask: Node, shape: Sequence[Dim], layer: str) -> Node:
    """A mask whose first axes are of this shape, each of 1 or full; if that is not known, it is looked at later.

    Raises ShapeError if they cannot be.
    """
    wanted = [1 if d == 1 else full for d, full in zip(mask.shape, shape, strict=False)]
    wanted += shape[mask.rank :]
    return mask if mask.shape[: len(wanted)] == tuple(wanted) else MaskFits(tuple(wanted), layer)(mask)


@algebra.watch(TokenIds, HasSteps, MaskFits)
def drop_marks_of_layers(node: Node) -> Node:
    """mark(x) -> x, for a program has no way to complain."""
    return build.equate(node.inputs[0], node.shape)


def check_ids(ids: np.ndarray, count: int, layer: str, rows: np.ndarray | None = None) -> None:
    """Raises DataError with the first id that is not one of 0 … count - 1, and its position.

    rows   of the data, where `ids` are those of some rows of it: what the first axis is then counted by
    """
    if not ids.size or _within(ids, count):
        return
    wrong = ~((ids > -1) & (ids < count))  # NaN compares false
    if not wrong.any():
        return
    first = [int(i) for i in np.unravel_index(int(wrong.argmax()), ids.shape)]
    number = ids[tuple(first)].item()
    found, others = int(number) if number == number // 1 else number, int(wrong.sum()) - 1
    if rows is not None and first and len(rows) == len(ids):
        first[0] = int(rows[first[0]])
    place = f" at position {first[0] if len(first) == 1 else tuple(first)}" if first else ""
    hint = f". If {count} is the largest id, input_dim is {count + 1}, for 0 is one too" if found == count else ""
    raise DataError(
        f"layer {layer!r} takes token ids from 0 to {count - 1} (input_dim={count}), got {found}{place}"
        f"{f' and {others} more such' if others else ''}{hint}"
    )


def _within(values: np.ndarray, count: int) -> bool:
    """Whether all are inside; NaN is not."""
    return bool(values.min() > -1 and values.max() < count)  # -0.5 becomes 0 where floats become ids


# ---- looking at arguments


class Guarded:
    """An executable whose arguments are looked at before it runs."""

    def __init__(self, guarded: Any, guards: Sequence[_IdsGuard | _SizesGuard]):
        self.guarded, self.guards = guarded, guards
        self.executable = getattr(guarded, "executable", guarded)  # the executable itself, if a debug mode watches it

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guarded, name)

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        looked = [getattr(a, "source", a) for a in arrays]  # of what was copied to a device, what it is a copy of
        for guard in self.guards:
            guard(looked)
        return self.guarded(*arrays)


def guarded(
    executable: Any, roots: Iterable[Node], inputs: Sequence[Node], repeat: tuple[Node, Dim] | None = None
) -> Any:
    """`executable`, its arguments looked at for the marks in the graph below `roots`, if there are any.

    repeat   (counter, count) of a graph that is run many times
    """
    made: list[_IdsGuard | _SizesGuard] = []
    for node in walk(inlined(list(roots))):
        if isinstance(node.op, TokenIds):
            made.append(_IdsGuard(node, inputs, repeat))
        elif isinstance(node.op, (HasSteps, MaskFits)):
            made.append(_SizesGuard(node, inputs))
    guards = [g for g in made if g.known]
    return Guarded(executable, guards) if guards else executable


class _SizesGuard:
    """The check of a `HasSteps` or a `MaskFits`.

    known   whether the sizes follow from the arguments' and are not known to fit
    """

    def __init__(self, node: Node, inputs: Sequence[Node]):
        self.op: HasSteps | MaskFits = node.op  # type: ignore[assignment]  # by its caller
        self.types = [n.type for n in inputs]
        self.sizes = self.op.looked_at(node.inputs[0].type)
        bound = {str(d) for t in self.types for d in t.shape if str(d) in symbols(d)}
        self.known = all(symbols(d) <= bound for d in self.sizes) and not all(isinstance(d, int) for d in self.sizes)
        self.passed: set[tuple] = set()  # shapes of arguments that are known to do

    def __call__(self, arrays: Sequence[np.ndarray]) -> None:
        shapes = tuple([np.shape(a) for a in arrays])
        if shapes in self.passed:
            return
        try:
            sizes = bind_sizes(self.types, shapes)
        except (DataError, ValueError):
            return  # the executable says what is wrong
        self.op.check(*(evaluate(d, sizes) for d in self.sizes))
        if len(self.passed) >= 1000:
            self.passed.clear()
        self.passed.add(shapes)


class _IdsGuard:
    """The check of a `TokenIds`.

    known   whether the ids follow from the arguments
    """

    def __init__(self, node: Node, inputs: Sequence[Node], repeat: tuple[Node, Dim] | None):
        self.op: TokenIds = node.op  # type: ignore[assignment]  # by its caller
        self.ids, self.inputs = node.inputs[0], list(inputs)
        self.batches = _batches(self.ids, self.inputs, repeat)
        order = walk([self.ids], stop=lambda n: n in self.batches or n in self.inputs)
        self.known = all(n in self.batches or n in self.inputs or isinstance(n.op, CHEAP) for n in order)
        plain = self.ids
        while plain not in self.batches and isinstance(plain.op, SAME):
            plain = plain.inputs[0]
        self.plain = plain if plain in self.batches or plain in self.inputs else None

    def __call__(self, arrays: Sequence[np.ndarray]) -> None:
        if len(arrays) != len(self.inputs):
            return  # the executable says what is wrong
        values = dict(zip(self.inputs, arrays, strict=True))
        taken = None
        for batch, rows in self.batches.items():
            data = values[batch.inputs[0]]
            taken = np.clip(np.reshape(values[rows], -1), 0, max(0, len(data) - 1))
            values[batch] = data[taken]
        if self.plain is not None and (not values[self.plain].size or _within(values[self.plain], self.op.count)):
            return
        try:
            sizes = bind_sizes([n.type for n in self.inputs], [np.shape(a) for a in arrays])
        except DataError:
            return  # as above
        for batch in self.batches:
            sizes |= {str(d): n for d, n in zip(batch.shape, values[batch].shape, strict=True) if str(d) in symbols(d)}
        (ids,) = evaluate_graph([self.ids], values, sizes)
        check_ids(ids, self.op.count, self.op.layer, taken)


def _batches(ids: Node, inputs: Sequence[Node], repeat: tuple[Node, Dim] | None) -> dict[Node, Node]:
    """{gather: rows} for what is read of inputs at row numbers which are another input's row number `counter`."""
    if repeat is None:
        return {}
    found: dict[Node, Node] = {}
    for node in walk([ids]):
        if isinstance(node.op, Gather) and node.op.axis == 0 and node.inputs[0] in inputs:
            leaves = {n for n in walk([node.inputs[1]]) if isinstance(n.op, Input)}
            rows = leaves - {repeat[0]}
            if repeat[0] in leaves and len(rows) == 1 and next(iter(rows)) in inputs:
                found[node] = rows.pop()
    return found
