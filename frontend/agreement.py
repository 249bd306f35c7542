"""Whether two ways to compute the same thing agree, as far as floats can: what GNOMON_CHECK asks of the compiler.

The oracle is asked twice: in the graph's own dtypes, and in float64 throughout. How far the two are apart says how well
the value can be computed at all, element by element; what is compared must be as near to them as they are to each
other, give or take a few units in the last place. If it is not, the rounding errors of the graph are drawn at random
(Parker 1997, "Monte Carlo Arithmetic"), so that a comparison that any rounding may turn over, or a difference that
cancels, is not taken for a mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Env, Item, Node, TensorType, walk
from gnomon.compiler.interpret import as_held
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.control import Cond, Tuple
from gnomon.compiler.ops.elementwise import Cast, Elementwise
from gnomon.compiler.ops.index import ScatterAdd, ScatterAlong
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.ops.remat import Checkpoint
from gnomon.compiler.ops.scan import Scan
from gnomon.compiler.sizes import product

SAMPLES = 6
"""How often rounding errors are drawn anew before a difference is called one."""
ULPS = 16
"""Units in the last place that are forgiven: two libraries' exponentials differ by 8 at most."""
EXACT = frozenset(
    "negative abs sign floor ceil trunc round maximum minimum relu where equal not_equal less less_equal greater "
    "greater_equal isnan isinf isfinite copysign".split()
)
"""Functions of floats that do not round."""

Arrays = Mapping[Node, Any]


def evaluate(
    outputs: Sequence[Node],
    values: Arrays,
    sizes: Mapping[str, int],
    wide: bool = False,
    noise: Noise | None = None,
    observe: Callable[[Node, Any], None] | None = None,
) -> list[Any]:
    """The values of `outputs` as `interpret.evaluate_graph` gives them, but

    wide    floats are float64 throughout
    noise   every result that is rounded is moved by about a unit in the last place of the dtype that the graph gives
    """
    env = Env(sizes)
    done: dict[Node, Any] = {}
    order = walk(outputs, stop=lambda n: n in values)
    readers: dict[Node, int] = dict.fromkeys(outputs, 1)
    for node in order:
        for x in node.inputs if node not in values else ():
            readers[x] = readers.get(x, 0) + 1
    with np.errstate(all="ignore"):
        for node in order:
            if node in values:
                value = _widened(_held(node, values[node]), wide)
            else:
                value = _compute(node, [done[x] for x in node.inputs], env, wide, noise)
                for x in node.inputs:
                    readers[x] -= 1
                    if not readers[x]:
                        del done[x]
            done[node] = value
            if observe is not None:
                observe(node, value)
    return [done[o] for o in outputs]


def _held(node: Node, value: Any) -> Any:
    return as_held(node.dtype, value) if isinstance(node.type, TensorType) else value


def _widened(value: Any, wide: bool) -> Any:
    array = np.asarray(value)
    return array.astype(np.float64) if wide and array.dtype.kind == "f" else array


def _compute(node: Node, inputs: list[Any], env: Env, wide: bool, noise: Noise | None) -> Any:
    op = node.op
    if isinstance(op, Cond):
        side = op.then if inputs[0] else op.orelse
        return evaluate(side.outputs, dict(zip(side.inputs, inputs[1:], strict=True)), env.values, wide, noise)
    if isinstance(op, Checkpoint):
        return evaluate(op.body.outputs, dict(zip(op.body.inputs, inputs, strict=True)), env.values, wide, noise)
    if isinstance(op, Scan):
        return op.run(env, inputs, lambda outputs, given, sizes: evaluate(outputs, given, sizes, wide, noise))
    if isinstance(op, (Item, Tuple)) or not isinstance(node.type, TensorType):
        return op.numpy(env, *inputs)
    if wide and isinstance(op, Cast) and dtypes.is_float(op.dtype):
        value = np.asarray(inputs[0]).astype(np.float64)
    else:
        value = op.numpy(env, *inputs)
        value = _widened(value, True) if wide else as_held(node.dtype, value)
    return value if noise is None else noise.applied(node, value, inputs, env)


@dataclass
class Noise:
    """Rounding errors drawn at random. `equal`: whether numbers that are equal but for rounding count as equal."""

    random: np.random.Generator
    equal: bool

    def applied(self, node: Node, value: np.ndarray, inputs: list[Any], env: Env) -> np.ndarray:
        """The value of a node as other rounding might give it."""
        if isinstance(node.op, Elementwise) and node.op.name in ("equal", "not_equal") and inputs[0].dtype.kind == "f":
            x, y = inputs
            near = np.abs(x - y) <= 8 * epsilon(node.inputs[0].dtype) * np.maximum(np.abs(x), np.abs(y))
            return np.where(near, self.equal == (node.op.name == "equal"), value)
        if value.dtype.kind != "f" or not _rounds(node):
            return value
        size = np.abs(value)
        if _sums(node):  # each addition rounds: in the worst case always the same way
            absolute = [np.abs(x) if np.asarray(x).dtype.kind == "f" else x for x in inputs]
            size = (1 + _terms(node, env) / 16) * node.op.numpy(env, *absolute)
        error = epsilon(node.dtype) * size * self.random.uniform(-1.5, 1.5, value.shape)
        return np.asarray(value + np.where(np.isfinite(error), error, 0.0)).astype(value.dtype)


def _sums(node: Node) -> bool:
    """Whether the op adds up, in an order that is its own affair."""
    return isinstance(node.op, (Contract, ScatterAdd, ScatterAlong)) or (
        isinstance(node.op, Reduce) and node.op.kind in ("sum", "prod")
    )


def _terms(node: Node, env: Env) -> int:
    """How many numbers each element is the sum of, about."""
    op, x = node.op, node.inputs[-1]
    if isinstance(op, Contract):
        first = node.inputs[0]
        extent = dict(zip(op.x + op.w, first.shape + x.shape, strict=True))
        return env.size(product(extent[a] for a in op.summed))
    return env.size(product(x.shape)) // max(1, env.size(product(node.shape)))


def _rounds(node: Node) -> bool:
    match node.op:
        case Elementwise():
            return node.op.name not in EXACT
        case Cast():
            return True
    return _sums(node)


def epsilon(dtype: str) -> float:
    """The distance from 1 to the next float of a dtype."""
    return dtypes.limits(dtype).eps


# ---- comparing


@dataclass(frozen=True)
class Difference:
    """Where two arrays differ most, and how many of their elements do."""

    index: tuple[int, ...]
    expected: Any
    found: Any
    largest: float
    count: int
    size: int

    def __str__(self) -> str:
        at = f" at {list(self.index)}" if self.index else ""
        many = f"; {self.count} of {self.size} elements differ" if self.size > 1 else ""
        pair = f"{_shown(self.found)} instead of {_shown(self.expected)}"
        return f"largest difference {self.largest:.6g}{at}: {pair}{many}"


def _shown(value: Any) -> str:
    return f"{value:.9g}" if getattr(value, "dtype", np.dtype(object)).kind == "f" else str(value)


@dataclass
class Expected:
    """What a node must be, given the values of nodes that it depends on: the oracle's word, and how exact it is."""

    node: Node
    own: np.ndarray
    wide: np.ndarray
    values: Arrays
    sizes: Mapping[str, int]
    _samples: list[np.ndarray] = field(default_factory=list)

    def difference(self, found: Any, gains: bool = False) -> Difference | None:
        """How `found` differs from what was expected; None if it does not. With `gains` it may be a number where the
        oracle has NaN or an infinity."""
        found = _held(self.node, np.asarray(found))
        if found.shape != self.own.shape:
            return Difference((), self.own.shape, found.shape, float("inf"), 1, 1)
        wrong = self._wrong(found, [self.own, self.wide], gains)
        if wrong.any():
            wrong = wrong & self._wrong(found, [self.own, self.wide, *self._rounded_at_random()], gains)
        return _largest(self.wide, found, wrong) if wrong.any() else None

    def _rounded_at_random(self) -> list[np.ndarray]:
        for seed in range(len(self._samples), SAMPLES):
            noise = Noise(np.random.default_rng(seed), bool(seed % 2))
            (value,) = evaluate([self.node], self.values, self.sizes, True, noise)
            self._samples.append(np.asarray(value))
        return self._samples

    def _wrong(self, found: np.ndarray, references: list[np.ndarray], gains: bool) -> np.ndarray:
        if not dtypes.is_float(self.node.dtype):
            return np.asarray(np.all([found != r for r in references], axis=0))
        with np.errstate(all="ignore"):
            each = [r.astype(np.float64) for r in references]
            value = found.astype(np.float64)
            limit = self._tolerance(each)
            near = np.any([np.abs(value - r) <= limit for r in each], axis=0)
            same = np.any([(np.isnan(value) & np.isnan(r)) | (value == r) for r in each], axis=0)
            # where the graph's dtype overflows and float64 does not, the order of operations decides
            unsure = np.isfinite(each[1]) & ~np.isfinite(each[0])
            if gains:
                unsure |= ~np.isfinite(each[1])
        return np.asarray(~(near | same | unsure))

    def _tolerance(self, references: list[np.ndarray]) -> np.ndarray:
        finite = [np.where(np.isfinite(r), r, 0.0) for r in references]
        apart = np.max(finite, axis=0) - np.min(finite, axis=0)
        value = np.abs(finite[1])
        eps = epsilon(self.node.dtype)
        usual = float(np.quantile(apart, 0.9)) if apart.size else 0.0
        tiny = dtypes.limits(self.node.dtype).tiny  # subnormal numbers may be flushed to 0
        return 4 * apart + 4 * usual + ULPS * eps * value + 2 * eps * float(value.max(initial=0.0)) + tiny


def expected(nodes: Sequence[Node], values: Arrays, sizes: Mapping[str, int]) -> list[Expected]:
    """What each of `nodes` must be, given `values` of all that they depend on."""
    own = evaluate(nodes, values, sizes)
    wide = evaluate(nodes, values, sizes, wide=True)
    return [Expected(n, np.asarray(a), np.asarray(b), values, sizes) for n, a, b in zip(nodes, own, wide, strict=True)]


def _largest(wanted: np.ndarray, found: np.ndarray, wrong: np.ndarray) -> Difference:
    with np.errstate(all="ignore"):
        apart = np.abs(wanted.astype(np.float64) - found.astype(np.float64))
    apart = np.where(wrong, np.where(np.isnan(apart), np.inf, apart), -1.0)
    index = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
    return Difference(index, wanted[index], found[index], float(apart[index]), int(wrong.sum()), wrong.size)


__all__ = ["Difference", "Expected", "evaluate", "expected"]
