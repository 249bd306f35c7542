"""Loops: Theano's `scan`, `map`, `reduce`, `foldl` and `foldr`, and the loop that all of gnomon's faces stand on.

The function that is one step is called once, with symbolic tensors that stand for the step's own values. What it uses
from outside (weights, other tensors) is found by itself and comes in as it is. Random numbers drawn inside are others
in each step; variables assigned inside go from step to step, and have their last values afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DTypeError, GraphError, ShapeError
from gnomon.compiler.graph import Item, Node, TensorType, replace, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import SubGraph
from gnomon.compiler.ops.leaves import Input, Parameter, fresh_input, size_of
from gnomon.compiler.ops.scan import COUNTER, Scan, checkpointed
from gnomon.compiler.ops.shape import Broadcast, Equate, Reshape, Slice, Transpose, surely_differ
from gnomon.compiler.sizes import Dim, Symbol, substitute, symbol
from gnomon.ops.arguments import as_size
from gnomon.random_state import steps_around
from gnomon.tensor import Tensor, is_symbolic, node_of, polynomial, unknown
from gnomon.variable import Variable, _updates

VIEWS = (Broadcast, Equate, Reshape, Slice, Transpose)

Step = Callable[[Tensor, list[Tensor], list[Tensor]], tuple[Sequence[Any], Sequence[Any], Any, Mapping[Variable, Any]]]


@dataclass(frozen=True)
class Looped:
    """What a loop gives.

    last     the carries after the last step
    stacks   of what each step gave
    count    the number of steps done; None: all
    updates  the values of variables after the last step
    """

    last: list[Node]
    stacks: list[Node]
    count: Node | None
    updates: dict[Variable, Node]


def loop(
    step: Step,
    first: Sequence[Node],
    sequences: Sequence[Node] = (),
    steps: Dim | None = None,
    limit: Node | None = None,
    reverse: bool = False,
    truncate: int = 0,
    checkpoint_every: int = 0,
    names: Sequence[str] = (),
    allowed: set[Node] | None = None,
) -> Looped:
    """Repeat `step(counter, carries, slices) -> (new carries, rows, whether to stop or None, updates of variables)`.

    first      what the carries are at first
    sequences  of `steps` slices along the first axis
    limit      an int64 scalar: at most so many steps
    names      of the carries, for errors
    allowed    the only leaves from outside that the step may use
    Raises ShapeError or DTypeError if a carry changes its type.
    """
    from gnomon.functions import as_update

    counter = fresh_input("step", COUNTER)
    carries = [fresh_input("carry", x.type) for x in first]
    slices = [fresh_input("slice", TensorType(s.dtype, s.shape[1:])) for s in sequences]
    with steps_around(counter), _assignments() as assigned:
        tensors = [Tensor(n) for n in carries], [Tensor(n) for n in slices]
        found, rows, stop, updates = step(Tensor(counter), *tensors)
        new = [_as_carry(v, x, k, names) for k, (v, x) in enumerate(zip(found, first, strict=True))]
        outputs = [node_of(r) for r in rows]
        ends = [] if stop is None else [_as_flag(stop)]
        for v in updates:
            if not isinstance(v, Variable):
                raise ArgumentError(f"the updates of a loop are of variables, got {v!r}")
        given = {v: as_update(v, value) for v, value in updates.items()}
    moved = assigned.carried()
    kept = {**moved, **given}  # variables go from step to step like carries
    carried = [*carries, *(assigned.leaf(v) for v in kept)]
    read = {leaf: assigned.before(v) for v, leaf in assigned.leaves.items() if v not in kept}
    read |= {v.node: assigned.leaf(v) for v in kept}
    body = replace([*new, *kept.values(), *outputs, *ends], read)
    leaves, invariants = _captured(body, {counter, *carried, *slices})
    if allowed is not None:
        _check_strict(invariants, allowed)
    graph = SubGraph((counter, *carried, *slices, *(leaves[n] for n in invariants)), tuple(replace(body, leaves)))
    op = Scan(graph, steps, len(carried), len(sequences), reverse, bool(ends), limit is not None, truncate)
    begin = [*first, *(assigned.before(v) for v in kept)]
    whole = op(*([limit] if limit is not None else []), *begin, *sequences, *invariants)
    if checkpoint_every:
        results = checkpointed(whole, checkpoint_every)
    else:
        results = [Item(k)(whole) for k in range(len(whole.type.items))]
    values = dict(zip(kept, results[len(first) : len(carried)], strict=True))
    for v in moved:
        v.assign(Tensor(values[v]))
    stacks = results[len(carried) : len(carried) + len(outputs)]
    count = results[-1] if op.counts else None
    return Looped(results[: len(first)], stacks, count, {v: values[v] for v in given})


def _as_carry(value: Any, first: Node, k: int, names: Sequence[str]) -> Node:
    """What a step makes of a carry, of the type it has at first."""
    node = node_of(value)
    name = names[k] if k < len(names) else f"carry {k}"
    if not is_symbolic(value) and not isinstance(value, (np.ndarray, np.generic, Node)):
        node = build.cast(node, first.dtype)  # a Python number
    differ = node.rank != first.rank or any(surely_differ(a, b) for a, b in zip(node.shape, first.shape, strict=True))
    if differ or node.dtype != first.dtype:
        error = ShapeError if differ else DTypeError
        raise error(
            f"{name} of a loop must keep its shape and dtype from step to step: it begins as {first.type}, and a step "
            f"makes {node.type} of it. Begin with a value of that type, or convert what the step returns"
        )
    return build.equate(node, first.shape)


def _as_flag(value: Any) -> Node:
    node = node_of(value)
    if any(d != 1 for d in node.shape):
        raise ShapeError(f"what ends a loop must be one bool, got {node.type}")
    node = build.reshape(node, ())
    return node if node.dtype == "bool" else build.not_equal(node, 0)


def _captured(outputs: Sequence[Node], inside: set[Node]) -> tuple[dict[Node, Node], list[Node]]:
    """{value from outside: the leaf that stands for it inside}, and these values in order.

    What does not depend on the loop is computed outside it, but for what only moves elements or comes from nothing.
    """
    order = walk(outputs)
    changing: set[Node] = set()
    fixed: set[Node] = set()  # depends on something from outside
    for n in order:
        if n in inside or any(x in changing for x in n.inputs):
            changing.add(n)
        elif isinstance(n.op, Input) or any(x in fixed for x in n.inputs):
            fixed.add(n)
    found: dict[Node, None] = {}
    waiting = [x for n in order if n in changing and n not in inside for x in n.inputs]
    waiting += outputs
    seen: set[Node] = set()
    while waiting:
        n = waiting.pop()
        if n in seen or n in changing or n not in fixed:
            continue
        seen.add(n)
        if isinstance(n.op, VIEWS):
            waiting += n.inputs
        elif isinstance(n.op, Item) or isinstance(n.type, TensorType):
            found[n] = None
    invariants = sorted(found, key=lambda n: n.serial)
    return {n: fresh_input("invariant", n.type) for n in invariants}, invariants


def _check_strict(invariants: Sequence[Node], allowed: set[Node]) -> None:
    for leaf in walk(invariants, stop=lambda n: n in allowed):
        if leaf not in allowed and isinstance(leaf.op, Input):
            raise GraphError(
                f"a strict scan may use only what it is given: {leaf.op.name!r} ({leaf.type}) is not among its "
                "non_sequences"
            )


# ---- variables that a step assigns


class _Assigned(dict):
    """The values of variables while a step is traced: each is a leaf until it is assigned."""

    def __init__(self, outer: dict[Variable, Node]):
        super().__init__()
        self.outer = outer
        self.leaves: dict[Variable, Node] = {}

    def copy(self) -> _Assigned:
        made = _Assigned(self.outer)
        made.leaves = self.leaves
        made.update(self)
        return made

    def get(self, variable: Any, default: Any = None) -> Any:
        return super().get(variable) or self.leaf(variable)

    def leaf(self, variable: Variable) -> Node:
        if variable not in self.leaves:
            self.leaves[variable] = fresh_input(variable.name, variable.node.type)
        return self.leaves[variable]

    def before(self, variable: Variable) -> Node:
        return self.outer.get(variable, variable.node)

    def carried(self) -> dict[Variable, Node]:
        """The variables that go from step to step, and their new values. The states of random streams move on by what
        one step draws: the numbers of a step depend on its number already."""
        kept = {}
        for v, node in self.items():
            if v.name == "seed_generator_state":
                self.outer[v] = replace([node], {self.leaf(v): self.before(v)})[0]
            else:
                kept[v] = node
        return kept


@contextmanager
def _assignments() -> Iterator[_Assigned]:
    outer = _updates.get()
    if outer is None:
        yield _Assigned({})  # outside of traced programs nothing can be assigned in a step
        return
    scope = _Assigned(outer)
    token = _updates.set(scope)
    try:
        yield scope
    finally:
        _updates.reset(token)


# ---- Theano's faces


class Cut(Tensor):
    """A stack of a loop that may end early: its rows from `cut_at` on are 0, and functions return it without them.

    Negative indices count from the last step that was done.
    """

    __slots__ = ("cut_at",)

    def __init__(self, node: Node, cut_at: Node):
        super().__init__(node)
        self.cut_at = cut_at

    def __getitem__(self, key: Any) -> Tensor:
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool) and key < 0:
            return Tensor(build.gather(self.node, build.add(self.cut_at, int(key)), 0))
        return super().__getitem__(key)


class until:
    """What a step of `scan` returns beside its outputs to end the loop after the step in which `condition` holds."""

    def __init__(self, condition: Any):
        self.condition = condition


@dataclass
class _Recurrent:
    """An output that is fed back: what it is before the first step, the earliest first, and which of these a step gets,
    counted backwards from the present one."""

    initial: list[Node]
    taps: list[int]


def scan(
    fn: Callable[..., Any],
    sequences: Any = None,
    outputs_info: Any = None,
    non_sequences: Any = None,
    n_steps: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
    profile: Any = False,
    allow_gc: Any = None,
    strict: bool = False,
    return_list: bool = False,
    checkpoint_every: int = 0,
) -> tuple[Any, dict[Variable, Tensor]]:
    """Theano's loop: `fn(slices of sequences, earlier outputs, non_sequences)` for each step. Gives (outputs, updates).

    sequences      tensors that are gone through along the first axis, or dict(input=x, taps=[-1, 0]) for slices before
                   and after the present one
    outputs_info   for each output: None if no step needs it; what it is before the first step (then a step gets what
                   it was in the step before); or dict(initial=x, taps=[-2, -1]), where x has a row for each step that
                   is looked back
    non_sequences  further arguments. Tensors and variables that fn uses from outside need not be among them, unless
                   `strict`
    n_steps        how many steps; the sequences tell it if it is None
    truncate_gradient   gradients go through so many of the last steps only; -1: through all
    go_backwards   begin with the last slices; outputs are in the order of the steps
    checkpoint_every    keep the state of every so manieth step only for gradients, and compute the rest again
    mode, name, profile, allow_gc   taken for compatibility, without effect

    fn returns its outputs (one, or a list), new values of variables (a dictionary), `until(condition)`, or a tuple of
    these in that order. Outputs are of all steps, stacked along a new first axis; with `until`, of the steps up to the
    one in which the condition first held. `updates` has the values of variables after the last step, for `function`.
    Raises ShapeError or DTypeError if an output that is fed back is not of the type it has at first, or sequences have
    different lengths.
    """
    whole = _Scan(fn, sequences, outputs_info, non_sequences, n_steps, go_backwards)
    outputs = whole.run(max(0, truncate_gradient), checkpoint_every, strict)
    if len(outputs) == 1 and not return_list:
        return outputs[0], whole.updates
    return (outputs if outputs or return_list else None), whole.updates


scan.until = until  # type: ignore[attr-defined]  # Theano's place for it


class _Scan:
    """One call of `scan`."""

    def __init__(self, fn: Any, sequences: Any, outputs_info: Any, non_sequences: Any, n_steps: Any, backwards: bool):
        self.fn, self.backwards = fn, backwards
        self.fixed = [Tensor(node_of(x)) for x in _listed(non_sequences)]
        given = [s for k, x in enumerate(_listed(sequences)) for s in _tapped(x, k)]
        self.steps = _steps([s.shape[0] for s in given], n_steps)
        self.sequences = [self._cut(s, n_steps is not None) for s in given]
        self.info = [_recurrent(x, k) for k, x in enumerate(_listed(outputs_info))]
        self.updates: dict[Variable, Tensor] = {}

    def _cut(self, s: Node, choose: bool) -> Node:
        """A sequence of as many slices as there are steps: the last ones if it is gone through backwards."""
        rest = s.shape[1:]
        if not choose:
            return build.equate(s, (self.steps, *rest))
        start = s.shape[0] - self.steps if self.backwards else 0
        return build.slice(s, [start, *(0 for _ in rest)], [self.steps, *rest])

    def _loop(self, truncate: int = 0, checkpoint_every: int = 0, strict: bool = False) -> Looped:
        fed = [r for r in self.info if r is not None]
        first = [x for r in fed for x in r.initial]
        names = [f"output {k}" for k, r in enumerate(self.info) if r is not None for _ in r.initial]
        allowed = {n for t in self.fixed for n in walk([t.node])} if strict else None
        found = loop(
            self._step, first, self.sequences, self.steps, None, self.backwards, truncate, checkpoint_every, names,
            allowed,
        )  # fmt: skip
        self.updates = {v: Tensor(n) for v, n in found.updates.items()}
        return found

    def last(self) -> list[Tensor]:
        """The outputs of the last step."""
        places = [len(r.initial) for r in self.info if r is not None]
        found = self._loop().last
        return [Tensor(found[sum(places[: k + 1]) - 1]) for k in range(len(places))]

    def run(self, truncate: int, checkpoint_every: int, strict: bool) -> list[Tensor]:
        """The outputs of all steps, in the order of the steps."""
        found = self._loop(truncate, checkpoint_every, strict)
        stacks = [build.flip(s, [0]) if self.backwards else s for s in found.stacks]
        return [Tensor(s) if found.count is None else Cut(s, found.count) for s in stacks]

    def _step(self, counter: Tensor, carries: list[Tensor], slices: list[Tensor]) -> tuple:
        states = iter(carries)
        windows = [[] if r is None else [next(states) for _ in r.initial] for r in self.info]
        arguments = [w[tap] for w, r in zip(windows, self.info, strict=True) if r is not None for tap in r.taps]
        outputs, updates, stop = _returned(self.fn(*slices, *arguments, *self.fixed))
        if self.info and len(outputs) != len(self.info):
            raise ArgumentError(
                f"the function of a scan returns {len(outputs)} outputs, but outputs_info has {len(self.info)}: it "
                "needs an entry for each, None for those that are not fed back"
            )
        new: list[Any] = []
        for window, value in zip(windows, outputs, strict=False):
            new += [*window[1:], value] if window else []
        return new, outputs, stop, updates


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _steps(lengths: Sequence[Dim], n_steps: Any) -> Dim:
    """How many steps there are, from the lengths of sequences or as it is said."""
    if n_steps is not None:
        steps = count_of(n_steps)
        for have in lengths:
            if isinstance(have, int) and isinstance(steps, int) and have < steps:
                raise ShapeError(f"a scan of {steps} steps needs as many slices of each sequence, one has {have}")
        return steps
    if not lengths:
        raise ArgumentError("a scan needs sequences or n_steps: nothing says how many steps there are")
    fixed = sorted({d for d in lengths if isinstance(d, int)})
    if len(fixed) > 1:
        raise ShapeError(
            f"the sequences of a scan have different lengths, {' and '.join(str(d) for d in fixed)}: cut them to one "
            "length, or say n_steps"
        )
    return fixed[0] if fixed else lengths[0]


def count_of(value: Any) -> Dim:
    """A number of steps as a size: what `as_size` takes, and what is computed from integer arguments of the function.

    Raises ShapeError for what is computed otherwise.
    """
    if not (isinstance(value, Node) or is_symbolic(value)):
        return as_size(value)
    found = polynomial(value)
    names: dict[str, Dim] = {}
    for leaf in walk([node_of(value)]):
        if isinstance(leaf.op, Input) and not isinstance(leaf.op, Parameter):
            names[f"%{leaf.serial}"] = symbol(size_of(leaf))
    found = substitute(found, lambda a: names.get(a.name) if isinstance(a, Symbol) else None)
    return found if not unknown(found) else as_size(value)  # which says what is wrong


def _tapped(given: Any, k: int) -> list[Node]:
    """A sequence, once for each tap, cut so that slice t is what step t gets."""
    taps = [0]
    if isinstance(given, dict):
        taps = [int(t) for t in _listed(given.get("taps"))] or [0]
        given = given.get("input")
    node = node_of(given)
    if not node.rank:
        raise ShapeError(f"sequence {k} of a scan has no axis to go along: {node.type}")
    low, high = min([0, *taps]), max([0, *taps])
    size = (node.shape[0] - (high - low), *node.shape[1:])
    return [build.slice(node, [t - low, *(0 for _ in node.shape[1:])], size) for t in taps]


def _recurrent(given: Any, k: int) -> _Recurrent | None:
    """An entry of outputs_info."""
    if isinstance(given, dict):
        taps = [int(t) for t in _listed(given.get("taps", [-1]))]
        given = given.get("initial")
        if given is not None and any(t >= 0 for t in taps):
            raise ArgumentError(f"taps of output {k} look back: they are below 0, got {taps}")
    else:
        taps = [-1]
    if given is None or not taps:
        return None
    node = node_of(given)
    depth = -min(taps)
    if depth == 1:
        return _Recurrent([node], taps)
    if not node.rank or (isinstance(node.shape[0], int) and node.shape[0] < depth):
        raise ShapeError(f"output {k} looks back {depth} steps, so its initial needs {depth} rows: got {node.type}")
    rest = node.shape[1:]
    rows = [build.slice(node, [i, *(0 for _ in rest)], [1, *rest]) for i in range(depth)]
    return _Recurrent([build.reshape(r, rest) for r in rows], taps)


def _returned(result: Any) -> tuple[list[Any], dict[Variable, Any], Any]:
    """(outputs, updates, what ends the loop or None) of what the function of a scan returns."""
    items = list(result) if isinstance(result, (list, tuple)) and not _are_updates(result) else [result]
    updates: dict[Variable, Any] = {}
    stop = None
    apart = False
    while items and (isinstance(items[-1], until) or _are_updates(items[-1])):
        last, apart = items.pop(), True
        if isinstance(last, until):
            stop = last.condition
        else:
            updates = dict(last)
    if apart and len(items) == 1 and isinstance(items[0], (list, tuple)):
        items = list(items[0])
    return [x for x in items if x is not None], updates, stop


def _are_updates(value: Any) -> bool:
    if isinstance(value, dict):
        return True
    pairs = isinstance(value, (list, tuple)) and len(value) > 0
    return pairs and all(isinstance(p, tuple) and len(p) == 2 and isinstance(p[0], Variable) for p in value)


def map(
    fn: Callable[..., Any],
    sequences: Any,
    non_sequences: Any = None,
    truncate_gradient: int = -1,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, dict[Variable, Tensor]]:
    """`fn(slices, non_sequences)` for each step: `scan` without anything that goes from step to step."""
    return scan(fn, sequences, None, non_sequences, None, truncate_gradient, go_backwards, mode, name)


def reduce(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    go_backwards: bool = False,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, dict[Variable, Tensor]]:
    """`scan`, of which only the last outputs are wanted: (outputs, updates)."""
    whole = _Scan(fn, sequences, outputs_info, non_sequences, None, go_backwards)
    if any(r is None for r in whole.info):
        raise ArgumentError("what reduce gives are outputs that are fed back: each needs its entry in outputs_info")
    outputs = whole.last()
    return (outputs[0] if len(outputs) == 1 else outputs), whole.updates


def foldl(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, dict[Variable, Tensor]]:
    """`reduce` from the first slices to the last."""
    return reduce(fn, sequences, outputs_info, non_sequences)


def foldr(
    fn: Callable[..., Any],
    sequences: Any,
    outputs_info: Any,
    non_sequences: Any = None,
    mode: Any = None,
    name: str | None = None,
) -> tuple[Any, dict[Variable, Tensor]]:
    """`reduce` from the last slices to the first."""
    return reduce(fn, sequences, outputs_info, non_sequences, True)
