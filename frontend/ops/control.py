"""Loops: Keras's `scan`, `map`, `while_loop`, `fori_loop` and `associative_scan`.

Structures (lists, tuples, dictionaries) of tensors are taken wherever one tensor is. A loop stays a loop: it is
compiled once, whatever the number of its steps.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon import eager
from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.compiler.graph import Node, walk
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.ops.shape import surely_differ
from gnomon.compiler.sizes import Dim
from gnomon.ops.arguments import as_size
from gnomon.tensor import Array, Tensor, is_symbolic, node_of
from gnomon.utils import tree
from gnomon.variable import is_tracing


def scan(
    f: Callable[..., Any],
    init: Any,
    xs: Any = None,
    length: Any = None,
    reverse: bool = False,
    unroll: Any = 1,
    checkpoint_every: int = 0,
) -> tuple[Any, Any]:
    """`carry, y = f(carry, x)` for each slice x of `xs`: gives the last carry, and all y stacked along a first axis.

    init      the first carry; it keeps its structure, shapes and dtypes
    xs        tensors [length, ...], or None: then f gets None, and `length` says how many steps there are
    reverse   begin with the last slice; y of slice t is at place t all the same
    unroll    True writes the steps out one by one, where their number is known; numbers mean nothing here
    checkpoint_every   for gradients keep the carry of every so manieth step only, and compute the rest again
    Raises ShapeError or DTypeError if the carry does not keep its type or slices differ in number.
    """
    _callable("scan", f)
    return _evaluated(lambda i, x: _scan(f, i, x, length, reverse, unroll is True, checkpoint_every), init, xs)


def _scan(f: Any, init: Any, xs: Any, length: Any, reverse: bool, unroll: bool, checkpoint_every: int) -> Any:
    from gnomon.loops import loop

    sequences = _sequences(xs)
    steps = _length([s.shape[0] for s in sequences], length)
    sequences = [build.equate(s, (steps, *s.shape[1:])) for s in sequences]
    first = _tensors(init)
    forms: dict[str, Any] = {}

    def step(counter: Any, carries: Sequence[Tensor], slices: Sequence[Tensor]) -> tuple:
        made = f(_filled(init, carries), None if xs is None else _filled(xs, slices))
        if not isinstance(made, (list, tuple)) or len(made) != 2:
            raise ArgumentError(f"the function of scan returns (carry, y), got {made!r:.80}")
        _same_structure(init, made[0])
        forms["y"] = made[1]
        return _leaves(made[0]), _leaves(made[1]), None, {}

    if unroll and isinstance(steps, int):
        carry, rows = [Tensor(n) for n in first], []
        for t in builtins.reversed(range(steps)) if reverse else range(steps):
            carry, row, *_ = step(None, carry, [Tensor(s)[t] for s in sequences])
            rows.append([node_of(r) for r in row])
        if rows:
            stacks = [_stacked(builtins.list(builtins.reversed(r)) if reverse else r) for r in zip(*rows, strict=True)]
            return _filled(init, carry), _filled(forms["y"], stacks)
    found = loop(step, first, sequences, steps, None, reverse, 0, checkpoint_every, _names(init))
    return _filled(init, found.last), _filled(forms["y"], found.stacks)


def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """`f` of every slice of `xs` along the first axis, results stacked."""
    _callable("map", f)
    return scan(lambda _, x: (None, f(x)), None, xs)[1]


def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any, maximum_iterations: Any = None
) -> Any:
    """`loop_vars = body(*loop_vars)` for as long as `cond(*loop_vars)` holds, at most `maximum_iterations` times.

    Only a loop with `maximum_iterations` has a gradient. What comes back has the structure of `loop_vars`.
    Raises ShapeError or DTypeError if a variable of the loop changes its type.
    """
    _callable("while_loop", cond)
    _callable("while_loop", body)
    single = not isinstance(loop_vars, (list, tuple))
    given = [loop_vars] if single else builtins.list(loop_vars)

    def run(variables: Any, _: Any) -> Any:
        from gnomon.loops import loop

        def holds(values: Any) -> Node:
            found = node_of(cond(*values))
            if any(d != 1 for d in found.shape):
                raise ShapeError(f"the condition of while_loop must be one bool, got {found.type}")
            found = build.reshape(found, ())
            return found if found.dtype == "bool" else build.not_equal(found, 0)

        def step(counter: Any, carries: Sequence[Tensor], slices: Any) -> tuple:
            made = body(*_filled(variables, carries))
            made = [made] if single and not isinstance(made, (list, tuple)) else builtins.list(made)
            _same_structure(variables, made)
            new = _leaves(made)
            typed = [Tensor(_like(v, x)) for v, x in zip(new, first, strict=True)]
            return new, [], build.logical_not(holds(_filled(variables, typed))), {}

        first = _tensors(variables)
        steps = None if maximum_iterations is None else as_size(maximum_iterations)
        most = build.constant(1 << 62, "int64") if steps is None else build.size(steps, "int64")
        limit = build.where(holds(_filled(variables, [Tensor(n) for n in first])), most, 0)
        found = loop(step, first, [], steps, limit, names=_names(variables))
        return _filled(variables, found.last)

    result = _evaluated(run, given, None)
    return result[0] if single else type(loop_vars)(result)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """`value = body_fun(i, value)` for i from `lower` to below `upper`.

    Bounds may be computed when the loop runs; only a loop between sizes has a gradient.
    """
    _callable("fori_loop", body_fun)

    def run(first_value: Any, bounds: Any) -> Any:
        from gnomon.loops import loop

        low, high = (node_of(b) for b in bounds)
        dtype = build.promote(low, high)
        steps: Dim | None = None
        limit = None
        if not any(is_symbolic(b) for b in (lower, upper)) or _are_sizes(lower, upper):
            size = as_size(_plain(upper)) - as_size(_plain(lower))
            steps = builtins.max(size, 0) if isinstance(size, int) else size
        else:
            limit = build.cast(build.reshape(build.subtract(high, low), ()), "int64")

        def step(counter: Tensor, carries: Sequence[Tensor], slices: Any) -> tuple:
            i = Tensor(build.add(build.cast(counter.node, dtype), build.reshape(low, ())))
            made = body_fun(i, _filled(first_value, carries))
            _same_structure(first_value, made)
            return _leaves(made), [], None, {}

        found = loop(step, _tensors(first_value), [], steps, limit, names=_names(first_value))
        return _filled(first_value, found.last)

    return _evaluated(run, init_val, [lower, upper])


def associative_scan(f: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All the partial results of an associative `f` along an axis: [a, f(a, b), f(f(a, b), c), ...].

    f works on slices of any number of elements at once, as elementwise functions do.
    By doubling: round k combines each element with the one 2^k before it (Hillis, Steele 1986, "Data parallel
    algorithms"). The length must be known; where it is open, a loop does one element after the other.
    """
    _callable("associative_scan", f)
    return _evaluated(lambda x, _: _associative(f, x, reverse, axis), elems, None)


def _associative(f: Any, elems: Any, reverse: bool, axis: int) -> Any:
    given = _tensors(elems)
    if not given:
        raise ArgumentError("associative_scan needs something to go through: elems is empty")
    places = []
    for x in given:
        if not -x.rank <= axis < x.rank:
            raise ShapeError(f"axis {axis} is out of range for {x.type}")
        places.append(axis % x.rank)
    lengths = [x.shape[a] for x, a in zip(given, places, strict=True)]
    n = _length(lengths, None)
    given = [build.equate(x, [n if k == a else d for k, d in enumerate(x.shape)]) for x, a in
             zip(given, places, strict=True)]  # fmt: skip

    def part(x: Node, a: int, start: Dim, size: Dim) -> Node:
        return build.slice(x, [start if k == a else 0 for k in range(x.rank)],
                           [size if k == a else d for k, d in enumerate(x.shape)])  # fmt: skip

    def combined(first: Sequence[Node], second: Sequence[Node]) -> list[Node]:
        made = f(_filled(elems, first), _filled(elems, second))
        _same_structure(elems, made)
        return [node_of(v) for v in _leaves(made)]

    if not isinstance(n, int):
        return _one_by_one(combined, elems, given, places, n, reverse)
    if reverse:
        given = [build.flip(x, [a]) for x, a in zip(given, places, strict=True)]
    step = 1
    while step < n:
        early = [part(x, a, 0, n - step) for x, a in zip(given, places, strict=True)]
        late = [part(x, a, step, n - step) for x, a in zip(given, places, strict=True)]
        kept = [part(x, a, 0, step) for x, a in zip(given, places, strict=True)]
        given = [build.concat([k, c], a) for k, c, a in zip(kept, combined(early, late), places, strict=True)]
        step *= 2
    if reverse:
        given = [build.flip(x, [a]) for x, a in zip(given, places, strict=True)]
    return _filled(elems, given)


def _one_by_one(combined: Any, elems: Any, given: Sequence[Node], places: Sequence[int], n: Dim, reverse: bool) -> Any:
    from gnomon.loops import loop

    order = [[a, *(k for k in range(x.rank) if k != a)] for x, a in zip(given, places, strict=True)]
    moved = [build.transpose(x, o) for x, o in zip(given, order, strict=True)]
    wide = lambda x, a: build.reshape(x, (*x.shape[:a], 1, *x.shape[a:]))
    narrow = lambda x, a: build.reshape(x, (*x.shape[:a], *x.shape[a + 1 :]))

    def step(counter: Tensor, carries: Sequence[Tensor], slices: Sequence[Tensor]) -> tuple:
        before = [wide(c.node, a) for c, a in zip(carries, places, strict=True)]
        now = [wide(s.node, a) for s, a in zip(slices, places, strict=True)]
        made = [narrow(m, a) for m, a in zip(combined(before, now), places, strict=True)]
        begin = build.equal(counter.node, build.subtract(build.size(n, "int64"), 1) if reverse else 0)
        made = [build.where(begin, s.node, m) for s, m in zip(slices, made, strict=True)]
        return made, made, None, {}

    first = [build.full(m.shape[1:], 0, m.dtype) for m in moved]
    found = loop(step, first, moved, n, None, reverse)
    back = [[o.index(k) for k in range(len(o))] for o in order]
    return _filled(elems, [build.transpose(s, b) for s, b in zip(found.stacks, back, strict=True)])


# ---- structures


def _callable(name: str, f: Any) -> None:
    if not callable(f):
        raise ArgumentError(f"{name} needs a function, got {type(f).__name__} {f!r:.60}")


def _leaves(value: Any) -> list[Any]:
    """Tensor-like leaves; None is part of the structure."""
    return [x for x in tree.flatten(value) if x is not None]


def _filled(form: Any, values: Sequence[Any]) -> Any:
    """`form` with its leaves replaced by `values`, as Tensors."""
    rest = iter(values)

    def put(leaf: Any) -> Any:
        if leaf is None:
            return None
        value = next(rest)
        return value if isinstance(value, Tensor) else Tensor(node_of(value))

    return tree.map_structure(put, form)


def _tensors(value: Any) -> list[Node]:
    return [node_of(x) for x in _leaves(value)]


def _sequences(xs: Any) -> list[Node]:
    found = _tensors(xs)
    for s in found:
        if not s.rank:
            raise ShapeError(f"a loop goes along the first axis, but {s.type} has none")
    return found


def _length(lengths: Sequence[Dim], length: Any) -> Dim:
    known = [as_size(length)] if length is not None else []
    known += lengths
    if not known:
        raise ArgumentError("scan needs xs or length: nothing says how many steps there are")
    for d in known[1:]:
        if surely_differ(d, known[0]):
            shown = " and ".join(str(k) for k in dict.fromkeys(known))
            raise ShapeError(f"the sequences of a loop must be equally long, and as long as its length: got {shown}")
    return next((d for d in known if isinstance(d, int)), known[0])


def _names(form: Any) -> list[str]:
    """What the leaves of a carry are called in errors."""
    paths = [path for path, leaf in tree.flatten_with_path(form) if leaf is not None]
    return ["carry" + "".join(f"[{key!r}]" for key in path) for path in paths]


def _same_structure(wanted: Any, found: Any) -> None:
    a, b = ([(path, leaf is None) for path, leaf in tree.flatten_with_path(v)] for v in (wanted, found))
    if a != b:
        raise ArgumentError(
            f"a carry must keep its structure: it begins as {tree.describe(wanted)}, and a step makes "
            f"{tree.describe(found)} of it"
        )


def _like(value: Any, first: Node) -> Node:
    node = node_of(value)
    return build.cast(node, first.dtype) if isinstance(value, (bool, int, float)) else node


def _stacked(rows: Sequence[Node]) -> Node:
    return build.concat([build.reshape(r, (1, *r.shape)) for r in rows], 0)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, (np.ndarray, np.generic)) else value


def _are_sizes(*values: Any) -> bool:
    try:
        for v in values:
            as_size(_plain(v))
    except ShapeError:
        return False
    return True


# ---- at once or symbolic


def _evaluated(make: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
    """`make(first, second)`, computed now if it depends on nothing but arrays and variables."""
    symbolic = is_tracing() or any(is_symbolic(x) for x in (*_leaves(first), *_leaves(second)))
    values: eager.Values = {}
    given = [tree.map_structure(lambda x: None if x is None else eager.as_tensor(x, None if symbolic else values), v)
             for v in (first, second)]  # fmt: skip
    result = make(*given)
    tensors = [x for x in tree.flatten(result) if x is not None]
    if not symbolic:
        leaves = [n for n in walk([t.node for t in tensors]) if isinstance(n.op, Input)]
        if all(n in values or isinstance(n.op, Parameter) for n in leaves):
            arrays = iter(eager.evaluate_all([t.node for t in tensors], values))
            return tree.map_structure(lambda x: None if x is None else np.array(next(arrays)).view(Array), result)
        constants = {n: build.constant(v, dtypes.canonical(v.dtype)) for n, v in values.items()}
        from gnomon.compiler.graph import replace

        fixed = iter(replace([t.node for t in tensors], constants))
        return tree.map_structure(lambda x: None if x is None else Tensor(next(fixed)), result)
    return result
