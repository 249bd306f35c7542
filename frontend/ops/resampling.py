"""An axis with another number of elements: each a weighted sum of a few old ones near its place.

Places are those of images: elements are intervals of one length that fill the axis from end to end, so that the middle
of new element o, of n, is at s = (o + 1/2) m / n - 1/2 among the m old ones. Everything about places is computed in
whole numbers, multiples of 1 / (2n); for known sizes once, as constants, and for open ones in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.control import with_gradient
from gnomon.compiler.sizes import Dim, ceildiv, maximum
from gnomon.tensor import evaluate_now

FEW = 2
"""Terms that are added as one expression; more are a sum along an axis of their own."""


@dataclass(frozen=True)
class Filter:
    """The weight of an old element by its distance (in old elements) from the place of the new one; 0 from `radius`."""

    radius: int
    weight: Callable[[Node], Node]


def _triangle(x: Node) -> Node:
    return build.maximum(build.subtract(1.0, x), 0.0)


def _cubic(x: Node) -> Node:
    """Keys 1981, "Cubic convolution interpolation for digital image processing", equation 15: a = -1/2."""

    def polynomial(a: float, b: float, c: float, d: float) -> Node:
        return build.add(build.multiply(build.add(build.multiply(build.add(build.multiply(x, a), b), x), c), x), d)

    near, far = polynomial(1.5, -2.5, 0.0, 1.0), polynomial(-0.5, 2.5, -4.0, 2.0)
    return build.where(build.less(x, 1.0), near, build.where(build.less(x, 2.0), far, 0.0))


def _lanczos(radius: int) -> Callable[[Node], Node]:
    """sinc(x) sinc(x / radius): Duchon 1979, "Lanczos filtering in one and two dimensions", equation 9."""

    def weight(x: Node) -> Node:
        y = build.multiply(build.maximum(x, 1e-3), math.pi)  # where Keras takes the weight to be 1
        found = build.multiply(build.sin(y), build.sin(build.divide(y, float(radius))))
        found = build.divide(build.multiply(found, float(radius)), build.square(y))
        found = build.where(build.less_equal(x, 1e-3), 1.0, found)
        return build.where(build.less(x, float(radius)), found, 0.0)

    return weight


FILTERS = {
    "bilinear": Filter(1, _triangle),
    "bicubic": Filter(2, _cubic),
    "lanczos3": Filter(3, _lanczos(3)),
    "lanczos5": Filter(5, _lanczos(5)),
}


@dataclass(frozen=True)
class Taps:
    """What a resampled axis is made of: element o is the sum over k of weights[k, o] * x[places[k, o]]."""

    places: Node
    weights: Node

    def of(self, x: Node, axis: int) -> Node:
        """`axis` of x resampled."""
        count, size = self.places.shape
        weights = self.weights
        if isinstance(count, int) and count <= FEW:
            shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
            terms = [
                build.multiply(
                    build.gather(x, _row(self.places, k), axis), build.broadcast(_row(weights, k), shape, [axis])
                )
                for k in range(count)
            ]
            return terms[0] if len(terms) == 1 else build.add(*terms)
        found = build.gather(x, self.places, axis)
        return build.sum(build.multiply(found, build.broadcast(weights, found.shape, [axis, axis + 1])), axis)


def _row(x: Node, k: int) -> Node:
    return build.reshape(build.slice(x, [k, 0], [1, x.shape[1]]), x.shape[1:])


def resampled(x: Node, axis: int, size: Dim, method: str, antialias: bool = False) -> Node:
    """x with `size` elements along `axis`.

    method     'nearest', or one of FILTERS, whose weights are made to sum to 1 where some are for places outside
    antialias  where there become fewer elements, widen the filter so that each old one counts

    The derivative is the transpose of the sum, again a sum of a few elements: nothing is added up at computed places.
    """
    old = x.shape[axis]
    if old == size:
        return x
    if method == "nearest":
        if isinstance(old, int) and isinstance(size, int) and size and old % size == 0:
            step = old // size
            start = [step // 2 if k == axis else 0 for k in range(x.rank)]
            shape = [size if k == axis else d for k, d in enumerate(x.shape)]
            return build.slice(x, start, shape, [step if k == axis else 1 for k in range(x.rank)])
        antialias = False
    there, back = tables(old, size, method, antialias, x.dtype)
    return _linear(x, axis, there, back)


def _linear(x: Node, axis: int, there: Taps, back: Taps, times: int = 2) -> Node:
    """`there` of x; its derivative is `back`, whose own is `there`: said so often, for nobody differentiates more."""
    value = there.of(x, axis)
    return with_gradient(value, [x], lambda g: [_linear(g, axis, back, there, times - 1)]) if times else value


def tables(old: Dim, new: Dim, method: str, antialias: bool, dtype: str) -> tuple[Taps, Taps]:
    """What new elements are made of, and for the derivative what old ones go into; weights of `dtype`."""
    if isinstance(old, int) and isinstance(new, int):
        found = [(build.constant(p), build.constant(w, dtype)) for p, w in _known_tables(old, new, method, antialias)]
    else:
        made = (_nearest if method == "nearest" else _filtered)(old, new, method, antialias)
        found = [(p, build.cast(w, dtype)) for p, w in made]
    there, back = found
    return Taps(*there), Taps(*back)


@lru_cache(maxsize=64)
def _known_tables(old: int, new: int, method: str, antialias: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """As arrays: places int32, weights float64, without terms that are 0 everywhere."""
    found = []
    for nodes in (_nearest if method == "nearest" else _filtered)(old, new, method, antialias):
        places, weights = (evaluate_now(node) for node in nodes)
        used = (weights != 0).any(1)
        used[:1] |= not used.any()
        found.append((places[used].astype(np.int32), weights[used]))
    return found


Table = tuple[Node, Node]


def _count(shape: tuple[Dim, ...], axis: int) -> Node:
    return build.iota(shape, axis, "int64")


def _times(x: Node, d: Dim) -> Node:
    return build.multiply(x, build.size(d, "int64"))


def _plus(x: Node, d: Dim) -> Node:
    return build.add(x, build.size(d, "int64"))


def _over(x: Node, d: Dim) -> Node:
    return build.floor_divide(x, build.size(d, "int64"))


def _within(x: Node, extent: Dim) -> Node:
    return build.logical_and(build.greater_equal(x, 0), build.less(x, build.size(extent, "int64")))


def _kept(x: Node, extent: Dim) -> Node:
    return build.maximum(build.minimum(x, build.size(extent - 1, "int64")), 0)


def _nearest(old: Dim, new: Dim, method: str, antialias: bool) -> tuple[Table, Table]:
    def place(o: Node) -> Node:
        return _over(_times(_plus(_times(o, 2), 1), old), 2 * new)

    there = place(_count((1, new), 1))
    shape = (ceildiv(new, old), old)
    i = _count(shape, 1)
    # the first o with (2 o + 1) old >= 2 new i
    o = build.add(_over(_plus(_times(i, 2 * new), old - 1), 2 * old), _count(shape, 0))
    hit = build.logical_and(_within(o, new), build.equal(place(o), i))
    return (there, build.full(there.shape, 1.0, "float64")), (_kept(o, new), build.cast(hit, "float64"))


def _filtered(old: Dim, new: Dim, method: str, antialias: bool) -> tuple[Table, Table]:
    chosen = FILTERS[method]
    unit = maximum(old, new) if antialias else new  # 2 * unit is the filter's unit of distance, in steps of 1 / (2 new)
    reach = 2 * chosen.radius * unit

    def weight(o: Node, i: Node) -> Node:
        """Of the old element i in the new one o, before they are made to sum to 1."""
        apart = build.abs(build.subtract(_plus(_times(_plus(_times(o, 2), 1), old), -1 * new), _times(i, 2 * new)))
        distance = build.divide(build.cast(apart, "float64"), build.size(2 * unit, "float64"))
        inside = build.logical_and(_within(i, old), _within(o, new))
        return build.where(inside, chosen.weight(distance), 0.0)

    shape = (ceildiv(reach, new), new)
    o = _count(shape, 1)
    nearby = _plus(_times(_plus(_times(o, 2), 1), old), -1 * new)
    i = build.add(_plus(_over(_plus(nearby, -1 * reach), 2 * new), 1), _count(shape, 0))
    weights = weight(o, i)
    total = build.sum(weights, 0)
    # the rule of Keras on JAX: no weights where they nearly cancel
    usual = build.greater(build.abs(total), 1000 * float(np.finfo(np.float32).eps))
    factor = build.where(usual, build.divide(1.0, build.where(usual, total, 1.0)), 0.0)
    there = _kept(i, old), build.multiply(weights, build.broadcast(factor, shape, [1]))

    shape = (ceildiv(reach, old), old)
    i = _count(shape, 1)
    o = build.add(_plus(_over(_plus(_times(i, 2 * new), new - old - reach), 2 * old), 1), _count(shape, 0))
    back = _kept(o, new), build.multiply(weight(o, i), build.gather(factor, _kept(o, new), 0))
    return there, back
