"""Gradients of one's own stay right wherever the graph is copied: with other nodes, sizes, in loops, over slices."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.compiler.errors import ArgumentError
from gnomon.functions import function

X = np.random.default_rng(0).standard_normal(5).astype("float32")


@ops.custom_gradient
def tripled_slope(x):
    """tanh with three times its slope, which is made of what is between."""
    y = ops.tanh(x)
    return y, lambda upstream: 3.0 * upstream * (1 - y * y)


def wanted(x):
    return 3 * (1 - np.tanh(x) ** 2)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


def test_nodes_that_are_replaced():
    x, z = gnomon.fvector("x"), gnomon.fvector("z")
    y = tripled_slope(x)
    slope = gnomon.grad(y.sum(), x)
    close(function([z], slope, givens={x: 2 * z})(X), wanted(2 * X))
    given = function([z], y, givens={x: 2 * z})
    close(given(X), np.tanh(2 * X))
    clone = ops.custom_gradient(lambda v: (v * 1.0, lambda upstream: upstream * x))(x)  # reads what is around it
    close(function([z], gnomon.grad(clone.sum(), x), givens={x: z + 1})(X), X + 1)


def test_differentiating_after_replacing():
    """The graph is copied before its gradient is taken, as the body of a loop is."""
    from gnomon.compiler.graph import replace
    from gnomon.tensor import Tensor

    x, z = (gnomon.tensor_type("float32", (5,))(name) for name in "xz")
    h = ops.exp(x) + 1
    y = tripled_slope(h)
    (copy,) = replace([y.node], {x.node: z.node})
    slope = gnomon.grad(Tensor(copy).sum(), z)
    close(function([z], slope)(X), wanted(np.exp(X) + 1) * np.exp(X))


def test_other_sizes():
    x = gnomon.fvector("x")
    n = ops.shape(x)[0]
    per = ops.custom_gradient(lambda v: (v * 1.0, lambda upstream: upstream * ops.cast(n, "float32")))
    slope = gnomon.grad(per(x).sum(), x)
    z = gnomon.fmatrix("z")
    close(function([z], slope, givens={x: ops.reshape(z, (-1,))})(np.ones((2, 3), "float32")), [6] * 6)


def test_loops():
    x, w = gnomon.fmatrix("x"), gnomon.fvector("w")
    last, _ = gnomon.scan(lambda row, h: tripled_slope(h + row * w), sequences=x, outputs_info=ops.zeros_like(w))
    slope = function([x, w], gnomon.grad(last[-1].sum(), w))
    rows = np.stack([X, X[::-1], 0.5 * X])
    weights = np.linspace(-1, 1, 5).astype("float32")
    h, found = np.zeros(5), np.zeros(5)
    for row in rows:
        now = h + row * weights
        found = wanted(now) * (found + row)
        h = np.tanh(now)
    close(slope(rows, weights), found)


def test_slices():
    x = gnomon.fmatrix("x")
    rows = gnomon.vectorized_map(tripled_slope, x)
    close(function([x], gnomon.grad(rows.sum(), x))(np.stack([X, -X])), wanted(np.stack([X, -X])))
    each = gnomon.jacobian(tripled_slope(v := gnomon.fvector("v")), v)
    close(function([v], each)(X), np.diag(wanted(X)))


def test_models_called_twice():
    class Own(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight((shape[-1],), "ones")

        def call(self, x):
            return tripled_slope(x * self.w)

    i = gnomon.Input((5,))
    inner = gnomon.Model(i, Own()(i))
    a, b = gnomon.Input((5,), name="a"), gnomon.Input((5,), name="b")
    y = inner(a).sum() + 2 * inner(b * 3).sum()
    (w,) = inner.trainable_weights
    slopes = function([a, b], gnomon.grad(y, [a, b, w]))(X[None], -X[None])
    expected = wanted(X), 6 * wanted(-3 * X), wanted(X) * X - 6 * wanted(-3 * X) * X
    for found, right in zip(slopes, expected, strict=True):
        close(found.ravel(), right)


def test_rematerialized():
    x = gnomon.fvector("x")
    y = gnomon.checkpoint(lambda v: tripled_slope(ops.exp(v)))(x)
    close(function([x], gnomon.grad(y.sum(), x))(X), wanted(np.exp(X)) * np.exp(X))


def test_several_arguments_and_results():
    @ops.custom_gradient
    def both(a, b):
        return (a * b, a + b), lambda g, h: (g * b + 10.0 * h, None)

    x = gnomon.fvector("x")
    p, q = both(x, x)  # one node twice
    close(function([x], gnomon.grad((p + 2 * q).sum(), x))(X), X + 20)
    second = gnomon.grad(gnomon.grad(tripled_slope(x).sum(), x).sum(), x)
    close(function([x], second)(X), -6 * np.tanh(X) * (1 - np.tanh(X) ** 2))  # of the slope as it is written
    wrong = ops.custom_gradient(lambda a: (a * 2, lambda upstream: (upstream, upstream)))
    with pytest.raises(ArgumentError, match="must give 1 gradients, got 2"):
        wrong(x)


def test_pictures_of_another_size():
    """How a picture is enlarged follows from its size, which the model's second caller decides."""
    i = gnomon.Input((None, 4, 1))
    larger = gnomon.Model(i, ops.image.resize(i, (6, 8), interpolation="bilinear"))
    z = gnomon.Input((3, 4, 1))
    factor = np.random.default_rng(1).standard_normal((6, 8, 1)).astype("float32")
    slope = function([z], gnomon.grad((larger(z) * factor).sum(), z))
    x = np.random.default_rng(2).standard_normal((1, 3, 4, 1)).astype("float32")
    step = np.zeros_like(x)
    step[0, 1, 2] = 1
    up, down = (np.asarray(larger(x + s * step), "float64") for s in (1, -1))
    close(slope(x)[0, 1, 2], [((up - down) / 2 * factor).sum()])
