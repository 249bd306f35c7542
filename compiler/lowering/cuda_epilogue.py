"""Sums of products as libraries compute them, and how much of what follows a sum a library may do too.

    sums = Sums.of(rows)                 None if a row program is something else
    epilogue_of(sums, offers)            as much of what follows as is offered
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from gnomon.compiler.kernel import Apply, Buffer, Cast, Const, Expr, Load, Local, Rewriter, children, expressions
from gnomon.compiler.lowering.cuda_parts import call
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.sizes import Dim, Index

NUMBERS = ("float32", "float16", "bfloat16")

Stores = list[tuple[Buffer, tuple[Dim, ...], Expr]]


@dataclass
class Sums:
    """Sums over `axes` of left * right, both elements of stored arrays, and what is stored of them: (buffer, index,
    value) with values of other stages written out."""

    local: Local
    left: Load
    right: Load
    axes: tuple[Index, ...]
    stores: Stores

    @classmethod
    def of(cls, rows: RowProgram) -> Sums | None:
        """None if a row program is not of this form."""
        if not rows.stages or not rows.outer or rows.scratch or any(s.axes or s.folds for s in rows.stages[1:]):
            return None
        first = rows.stages[0]
        if len(first.folds) != 1 or first.stores or first.lets or not first.axes:
            return None
        local, kind, value = first.folds[0]
        if kind != "sum" or not isinstance(value, Apply) or value.fn.name != "multiply":
            return None
        left, right = map(_loaded, value.args)
        if left is None or right is None or left.dtype != right.dtype or left.dtype not in NUMBERS:
            return None
        named: dict[Expr, Expr] = {}
        stores = []
        for stage in rows.stages[1:]:
            for name, x in stage.lets:
                named[name] = Rewriter(named.get).expr(x)
            stores += [(buffer, index, Rewriter(named.get).expr(x)) for buffer, index, x in stage.stores]
        return cls(local, left, right, first.axes, stores)


def _loaded(x: Expr) -> Load | None:
    """The element that a value is, whatever dtype it is computed in."""
    if isinstance(x, Cast) and x.dtype == "float32":
        x = x.x
    return x if isinstance(x, Load) and x.mask is None and x.buffer.space == "global" else None


# ---- what follows


@dataclass
class Epilogue:
    """What a library does to a sum: act(alpha * sum + beta * added + bias). `value` is the expression that this is;
    `relu` is what must be positive where the act is a relu's gradient."""

    value: Expr
    alpha: float = 1.0
    beta: float = 0.0
    added: Load | None = None
    bias: Load | None = None
    act: str = "none"
    relu: Load | None = None

    @property
    def plain(self) -> bool:
        """Whether it is no more than a factor."""
        return self.added is None and self.bias is None and self.act == "none"


@dataclass(frozen=True)
class Offers:
    """What of an epilogue may be taken: whether a load is a bias, or is what may be added; activations; whether a load
    is of what is known to be positive or not."""

    bias: Callable[[Load], bool] = lambda load: False
    added: Callable[[Load], bool] = lambda load: False
    acts: tuple[str, ...] = ()
    relu: Callable[[Load], bool] = lambda load: False


def epilogue_of(sums: Sums, offers: Offers) -> Epilogue:
    """As much of what follows a sum as is offered. A value that is needed for something else too ends it."""
    roots = [x for _, _, x in sums.stores]
    users: dict[Expr, list[Expr]] = {}
    for e in expressions(roots):
        for inner in dict.fromkeys(children(e)):
            users.setdefault(inner, []).append(e)
    taken = Epilogue(sums.local)
    while taken.act == "none":
        e = taken.value
        if "gelu" in offers.acts and len(roots) == 1 and _same(roots[0], gelu(e)):
            taken.value, taken.act = roots[0], "gelu"
            break
        using = users.get(e, [])
        if e in roots or len(using) != 1 or not _take(taken, using[0], offers):
            break
        taken.value = using[0]
    return taken


def _take(taken: Epilogue, x: Expr, offers: Offers) -> bool:
    """Whether `x`, made of what is taken so far, is offered too; it is taken then."""
    e = taken.value
    if isinstance(x, Cast):
        return {x.dtype, e.dtype} <= set(NUMBERS) and "float32" in (x.dtype, e.dtype)
    if not isinstance(x, Apply) or x.args.count(e) != 1:
        return False
    name = x.fn.name
    if name == "relu":
        taken.act = "relu" if "relu" in offers.acts else taken.act
        return taken.act == "relu"
    if name == "where":
        relu = _relu_of(x)
        if relu is None or not taken.plain or x.args[1] is not e or not offers.relu(relu):
            return False
        taken.act, taken.relu = "relu_gradient", relu
        return True
    if len(x.args) != 2:
        return False
    first, other = x.args[0] is e, x.args[1 - x.args.index(e)]
    if isinstance(other, Const) and taken.plain and (name == "multiply" or name == "divide" and first):
        number = float(other.value)
        if number == 0:  # of no times infinity a library makes nothing
            return False
        taken.alpha = taken.alpha * number if name == "multiply" else taken.alpha / number
        return True
    if not isinstance(other, Load) or other.mask is not None or name not in ("add", "subtract"):
        return False
    if name == "add" and taken.bias is None and offers.bias(other):
        taken.bias = other
        return True
    if taken.added is not None or not offers.added(other) or name == "subtract" and not first and not taken.plain:
        return False
    taken.added = other
    taken.beta = -1.0 if name == "subtract" and first else 1.0
    taken.alpha = -taken.alpha if name == "subtract" and not first else taken.alpha
    return True


def _relu_of(x: Apply) -> Load | None:
    """h of where(h > 0, .., 0)."""
    test, _, other = x.args
    if not isinstance(test, Apply) or test.fn.name != "greater" or not isinstance(other, Const) or other.value != 0:
        return None
    h, zero = test.args
    known = isinstance(h, Load) and h.mask is None and isinstance(zero, Const) and zero.value == 0
    return h if known and isinstance(h, Load) else None


def gelu(x: Expr) -> Expr:
    """x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).

    Hendrycks, Gimpel 2016, "Gaussian error linear units (GELUs)", section 2.
    """
    number = lambda v: Const(x.dtype, v)
    cube = call("multiply", x, call("square", x))
    inner = call("multiply", call("add", x, call("multiply", cube, number(0.044715))), number(sqrt(0.6366197723675814)))
    return call("multiply", call("multiply", x, number(0.5)), call("add", call("tanh", inner), number(1.0)))


def _same(a: Expr, b: Expr) -> bool:
    """Whether two expressions are sums of equal products, in whatever order they are written."""
    known: dict[Expr, Any] = {}
    for e in expressions((a, b)):
        known[e] = _canonical(e, known)
    return known[a] == known[b]


def _canonical(e: Expr, known: Mapping[Expr, Any]) -> Any:
    if not isinstance(e, Apply):
        return ("is", id(e))  # expressions are interned
    parts = [known[x] for x in e.args]
    name = "multiply" if e.fn.name == "square" else e.fn.name
    if e.fn.name == "square":
        parts = parts * 2
    if name not in ("multiply", "add"):
        return (name, *parts)
    flat = [inner for p in parts for inner in (p[1:] if p[0] == name else (p,))]
    return (name, *sorted(flat, key=repr))


__all__ = ["Epilogue", "Offers", "Stores", "Sums", "epilogue_of", "gelu"]
