"""Simplification: what needs no computing, or less. Only identities that keep NaN and infinity what they are."""

from __future__ import annotations

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Env, Item, Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.control import GivenGradient, Tuple, WithGradient
from gnomon.compiler.ops.elementwise import Cast, Elementwise, StopGradient
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.remat import After, after
from gnomon.compiler.ops.shape import Broadcast, Reshape, Slice, Transpose
from gnomon.compiler.passes.rewrite import Rules, is_number, number
from gnomon.compiler.sizes import product

algebra = Rules()
watch = algebra.watch


def name_of(node: Node) -> str:
    """The scalar function of an elementwise node."""
    assert isinstance(node.op, Elementwise)
    return node.op.name


# ---- numbers


@watch(Elementwise)
def fold_numbers(node: Node) -> Node | None:
    """f(1, 2) -> its value, where all operands are numbers."""
    values = [number(x) for x in node.inputs]
    if any(v is None for v in values):
        return None
    return build.full(node.shape, node.op.numpy(Env({}), *values), node.dtype)


@watch(Cast)
def fold_casts(node: Node) -> Node | None:
    """cast(2) -> 2.0;  cast(cast(x)) -> cast(x) where the step between loses nothing."""
    (x,) = node.inputs
    if x.dtype == node.dtype:
        return x
    value = number(x)
    if value is not None:
        return build.full(node.shape, node.op.numpy(Env({}), value), node.dtype)
    if isinstance(x.op, Cast):
        first = x.inputs[0].dtype
        if dtypes.promote(first, x.dtype) == x.dtype and dtypes.named(first).kind == dtypes.named(x.dtype).kind:
            return build.cast(x.inputs[0], node.dtype)
    if isinstance(x.op, Broadcast):
        return build.broadcast(build.cast(x.inputs[0], node.dtype), x.shape, x.op.axes)
    return None


@watch(StopGradient)
def drop_stop_signs(node: Node) -> Node | None:
    """stop_gradient(x) -> x, differentiation being over."""
    return node.inputs[0]


@watch(WithGradient, GivenGradient)
def drop_given_gradients(node: Node) -> Node | None:
    """with_gradient(..., x) -> x, differentiation being over."""
    return node.inputs[-1]


@watch(Item)
def take_from_tuples(node: Node) -> Node | None:
    """item(tuple(x, y), 1) -> y."""
    (whole,) = node.inputs
    assert isinstance(node.op, Item)
    return whole.inputs[node.op.k] if isinstance(whole.op, Tuple) else None


@watch(After)
def wait_for_what_is_computed(node: Node) -> Node | None:
    """after(x, 1) -> x;  after(reshape(x), y) -> reshape(after(x, y)), and so on for views."""
    x, *awaited = node.inputs
    new = after(x, [y for y in awaited if number(y) is None and not isinstance(y.op, Input)])
    return None if new is node else new


# ---- arithmetic


@watch(Elementwise)
def use_neutral_elements(node: Node) -> Node | None:
    """x + 0 -> x;  x - 0 -> x;  x * 1 -> x;  x / 1 -> x;  0 - x -> -x;  x * -1 -> -x."""
    name = name_of(node)
    if name not in ("add", "subtract", "multiply", "divide"):
        return None
    x, y = node.inputs
    if name == "add":
        return y if is_number(x, 0) else x if is_number(y, 0) else None
    if name == "subtract":
        if is_number(y, 0):
            return x
        return build.negative(y) if is_number(x, 0) and dtypes.named(node.dtype).kind == "f" else None
    if name == "divide":
        return x if is_number(y, 1) else build.negative(x) if is_number(y, -1) else None
    for a, b in ((x, y), (y, x)):
        if is_number(a, 1):
            return b
        if is_number(a, -1) and dtypes.named(node.dtype).kind == "f":
            return build.negative(b)
    return None


@watch(Elementwise)
def move_signs(node: Node) -> Node | None:
    """--x -> x;  x + -y -> x - y;  x - -y -> x + y;  -x * y -> -(x * y);  -x / y -> -(x / y);  -(x - y) -> y - x."""
    name = name_of(node)
    opposite = lambda x: x.inputs[0] if isinstance(x.op, Elementwise) and x.op.name == "negative" else None
    if name == "negative":
        (x,) = node.inputs
        if opposite(x) is not None:
            return opposite(x)
        if isinstance(x.op, Elementwise) and x.op.name == "subtract":
            return build.subtract(x.inputs[1], x.inputs[0])
        return None
    if name not in ("add", "subtract", "multiply", "divide"):
        return None
    x, y = node.inputs
    left, right = opposite(x), opposite(y)
    match name:
        case "add":
            if right is not None:
                return build.subtract(x, right)
            return build.subtract(y, left) if left is not None else None
        case "subtract":
            return build.add(x, right) if right is not None else None
        case _:
            if left is not None and right is not None:
                return build.apply(name, left, right)
            if left is not None:
                return build.negative(build.apply(name, left, y))
            return build.negative(build.apply(name, x, right)) if right is not None else None


@watch(Elementwise)
def use_simple_powers(node: Node) -> Node | None:
    """x^2 -> x * x;  x^1 -> x;  x^0 -> 1;  x^0.5 -> sqrt(x), x^-1 -> 1 / x, x^3 -> x * x * x;  x * x -> square(x)."""
    name = name_of(node)
    if name == "multiply" and node.inputs[0] is node.inputs[1]:
        return build.square(node.inputs[0])
    if name != "power":
        return None
    x, y = node.inputs
    if is_number(y, 2):
        return build.square(x)
    if is_number(y, 1):
        return x
    if is_number(y, 0):
        return build.full_like(x, 1)
    if is_number(y, 3):
        return build.multiply(build.square(x), x)
    if dtypes.is_float(node.dtype):
        if is_number(y, -1):
            return build.divide(1.0, x)
        if is_number(y, 0.5):
            # power(-inf, 0.5) is inf and power(-0.0, 0.5) is 0: kept by taking the root of what is not negative zero
            return build.where(build.equal(x, -float("inf")), float("inf"), build.sqrt(build.add(x, 0.0)))
    return None


@watch(Elementwise)
def choose_now(node: Node) -> Node | None:
    """where(True, x, y) -> x;  where(c, x, x) -> x."""
    if name_of(node) != "where":
        return None
    c, x, y = node.inputs
    if x is y or is_number(c, True):
        return x
    return y if is_number(c, False) else None


@watch(Elementwise)
def compute_before_repeating(node: Node) -> Node | None:
    """f(broadcast(x), broadcast(y), 1) -> broadcast(f(x, y, 1)), the axes being the same."""
    repeated = [x for x in node.inputs if isinstance(x.op, Broadcast) and number(x) is None]
    if not repeated or any(number(x) is None and x not in repeated for x in node.inputs):
        return None
    first = repeated[0].op
    assert isinstance(first, Broadcast)
    if any(x.op != first for x in repeated):
        return None
    inner = repeated[0].inputs[0].shape
    inputs = [x.inputs[0] if x in repeated else build.full(inner, number(x), x.dtype) for x in node.inputs]
    return build.broadcast(Node(node.op, tuple(inputs)), node.shape, first.axes)


# ---- moving elements


@watch(Broadcast)
def join_broadcasts(node: Node) -> Node | None:
    """broadcast(broadcast(x)) -> broadcast(x);  what repeats nothing -> x."""
    op = node.op
    assert isinstance(op, Broadcast)
    (x,) = node.inputs
    if x.shape == op.shape and op.axes == tuple(range(x.rank)):
        return x
    if isinstance(x.op, Broadcast):
        return build.broadcast(x.inputs[0], op.shape, [op.axes[a] for a in x.op.axes])
    return None


@watch(Reshape)
def join_reshapes(node: Node) -> Node | None:
    """reshape(reshape(x)) -> reshape(x);  reshape(number) -> number;  reshape(broadcast(x)) -> broadcast(x) where
    only axes of 1 come or go."""
    (x,) = node.inputs
    if x.shape == node.shape:
        return x
    if isinstance(x.op, Reshape):
        return build.reshape(x.inputs[0], node.shape)
    if number(x) is not None:
        return build.full(node.shape, number(x), node.dtype)
    if isinstance(x.op, Broadcast):
        places = _same_axes(x.shape, node.shape)
        if places is not None and all(x.shape[a] != 1 for a in x.op.axes):
            return build.broadcast(x.inputs[0], node.shape, [places[a] for a in x.op.axes])
    return None


def _same_axes(old, new) -> dict[int, int] | None:
    """Where each axis of `old` that is not 1 is in `new`, if they differ in axes of 1 only."""
    a = [k for k, d in enumerate(old) if d != 1]
    b = [k for k, d in enumerate(new) if d != 1]
    if [old[k] for k in a] != [new[k] for k in b]:
        return None
    return dict(zip(a, b, strict=True))


@watch(Transpose)
def join_transposes(node: Node) -> Node | None:
    """transpose(transpose(x)) -> transpose(x);  transpose(broadcast(x)) -> broadcast(x);  transpose(x @ w) ->
    contract."""
    op = node.op
    assert isinstance(op, Transpose)
    (x,) = node.inputs
    if op.axes == tuple(range(x.rank)):
        return x
    match x.op:
        case Transpose():
            return build.transpose(x.inputs[0], [x.op.axes[a] for a in op.axes])
        case Broadcast():
            return build.broadcast(x.inputs[0], node.shape, [op.axes.index(a) for a in x.op.axes])
        case Contract():
            return Contract(x.op.x, x.op.w, tuple(x.op.out[a] for a in op.axes))(*x.inputs)
    return None


@watch(Contract)
def contract_what_was_transposed(node: Node) -> Node | None:
    """contract(transpose(x), w) -> contract(x, w), its axes renamed; the same for w."""
    op = node.op
    assert isinstance(op, Contract)
    x, w = node.inputs
    x_axes, w_axes = op.x, op.w
    changed = False
    if isinstance(x.op, Transpose):
        x_axes, x, changed = tuple(x_axes[x.op.axes.index(k)] for k in range(x.rank)), x.inputs[0], True
    if isinstance(w.op, Transpose):
        w_axes, w, changed = tuple(w_axes[w.op.axes.index(k)] for k in range(w.rank)), w.inputs[0], True
    return Contract(x_axes, w_axes, op.out)(x, w) if changed else None


@watch(Contract)
def multiply_columns_and_rows(node: Node) -> Node | None:
    """x[n, 1] @ w[1, m] -> x * w, both repeated: where no axis of more than one element is summed over."""
    op = node.op
    assert isinstance(op, Contract)
    x, w = node.inputs
    extent = dict(zip(op.x + op.w, x.shape + w.shape, strict=True))
    if node.dtype == "bool" or any(extent[a] != 1 for a in op.summed):
        return None
    repeated = []
    for axes, operand in ((op.x, x), (op.w, w)):
        kept = [a for a in axes if a in op.out]
        rows = build.reshape(operand, [extent[a] for a in kept])
        repeated.append(build.broadcast(rows, node.shape, [op.out.index(a) for a in kept]))
    return build.multiply(*repeated)


@watch(Slice)
def join_slices(node: Node) -> Node | None:
    """slice(slice(x)) -> slice(x);  slice(number) -> number."""
    op = node.op
    assert isinstance(op, Slice)
    (x,) = node.inputs
    if number(x) is not None:
        return build.full(node.shape, number(x), node.dtype)
    if isinstance(x.op, Slice):
        start = [a + b * s for a, b, s in zip(x.op.start, op.start, x.op.step, strict=True)]
        step = [a * b for a, b in zip(x.op.step, op.step, strict=True)]
        return build.slice(x.inputs[0], start, op.size, step)
    return None


# ---- reductions


@watch(Reduce)
def reduce_less(node: Node) -> Node | None:
    """sum(broadcast(x)) -> x * n along the repeated axes;  sum(-x) -> -sum(x);  sum(x * s) -> s * sum(x), s finite;
    max(broadcast(x)) -> max(x);  reduce(reduce(x)) -> reduce(x);  axes of one element -> reshape;
    reduce(transpose(x)) -> transpose(reduce(x)), which runs along the memory of x."""
    op = node.op
    assert isinstance(op, Reduce)
    (x,) = node.inputs
    ones = [a for a in op.axes if x.shape[a] == 1]
    if ones:
        rest = build.reshape(x, [d for k, d in enumerate(x.shape) if k not in ones])
        axes = [a - sum(o < a for o in ones) for a in op.axes if a not in ones]
        return build.reduce(op.kind, rest, axes)
    if isinstance(x.op, Broadcast):
        repeated = [a for a in op.axes if a not in x.op.axes]
        if repeated and (op.kind == "sum" or _never_empty(x, repeated)):
            inner = x.inputs[0]
            axes = [x.op.axes.index(a) for a in op.axes if a in x.op.axes]
            kept = [a for a in range(x.rank) if a not in op.axes]
            inner_axes = [kept.index(x.op.axes[k]) for k in range(inner.rank) if x.op.axes[k] in kept]
            inner = build.reduce(op.kind, inner, axes)
            if op.kind == "sum":
                count = build.size(product(x.shape[a] for a in repeated), x.dtype)
                times = build.multiply(inner, count)
                # a sum of nothing is 0 whatever x is, NaN and infinity too
                inner = times if _never_empty(x, repeated) else build.where(build.equal(count, 0), 0, times)
            elif op.kind == "prod":
                return None
            return build.broadcast(inner, node.shape, inner_axes)
    if isinstance(x.op, Transpose):
        axes = [x.op.axes[a] for a in op.axes]
        kept = [x.op.axes[a] for a in range(x.rank) if a not in op.axes]
        return build.transpose(build.reduce(op.kind, x.inputs[0], axes), [sorted(kept).index(a) for a in kept])
    if isinstance(x.op, Reduce) and x.op.kind == op.kind:
        kept = [a for a in range(x.inputs[0].rank) if a not in x.op.axes]
        return build.reduce(op.kind, x.inputs[0], [*x.op.axes, *(kept[a] for a in op.axes)])
    if op.kind == "sum" and isinstance(x.op, Elementwise) and dtypes.is_float(x.dtype):
        if x.op.name == "negative":
            return build.negative(build.reduce("sum", x.inputs[0], op.axes))
        if x.op.name == "multiply":
            for a, b in (x.inputs, x.inputs[::-1]):
                value = number(b)
                if value is not None:
                    return build.multiply(build.reduce("sum", a, op.axes), build.full(node.shape, value, x.dtype))
                if isinstance(b.op, Broadcast) and b.inputs[0].rank == 0:
                    return build.multiply(build.reduce("sum", a, op.axes), build.broadcast(b.inputs[0], node.shape, ()))
    return None


def _never_empty(x: Node, axes) -> bool:
    return all(isinstance(x.shape[a], int) and x.shape[a] > 0 for a in axes)
