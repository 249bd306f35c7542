"""First and second derivatives of a layer, compiled, against finite differences: `check_derivatives`."""

from typing import Any

import numpy as np

import gnomon
from gnomon import layers
from gnomon.calculus import grad
from gnomon.utils import tree


def check_derivatives(layer: Any, shape: tuple, batch: int = 1, second: bool = True) -> None:
    """In float64. The cost is a weighted sum of squares of the output, so that no second derivative vanishes by itself.

    `shape` is without the batch. `second`: the derivative of a weighted sum of all first derivatives, too.
    """
    rng = np.random.default_rng(0)
    x = layers.Input(shape, dtype="float64")
    output = layer(x)
    targets = [x, *layer.trainable_weights]
    count = batch * int(np.prod(shape))
    given = rng.permutation(count).reshape(batch, *shape) * (2 / count) - 1  # no two are so near that a step swaps them
    size = gnomon.function([x], output)(given).shape
    cost = (output**2 * rng.normal(size=size[1:])).sum()
    first = grad(cost, targets, disconnected_inputs="zero")
    _check(cost, first, x, targets, given, rng)
    if second:
        weights = [rng.normal(size=t.shape[1:] if t is x else t.shape) for t in targets]
        total = sum((g * w).sum() for g, w in zip(first, weights, strict=True))
        _check(total, grad(total, targets, disconnected_inputs="zero"), x, targets, given, rng)


def _check(cost: Any, gradients: Any, x: Any, targets: list, given: np.ndarray, rng: Any, h: float = 1e-6) -> None:
    """Compare with the slope of the cost in a random direction of each target."""
    value = gnomon.function([x], cost)
    found = tree.flatten(gnomon.function([x], list(gradients))(given))
    for target, gradient in zip(targets, found, strict=True):
        direction = rng.normal(size=gradient.shape)
        if target is x:
            slope = (value(given + h * direction) - value(given - h * direction)) / (2 * h)
        else:
            old, values = target.numpy().copy(), []
            for sign in (1, -1):
                target.assign(old + sign * h * direction)
                values.append(value(given))
            target.assign(old)
            slope = (values[0] - values[1]) / (2 * h)
        np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=2e-5, atol=1e-6)
