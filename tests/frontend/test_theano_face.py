"""What someone who knows Theano writes: inputs, shared variables, functions, updates, givens, random streams."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import gnomon
from gnomon import function, ops, random
from gnomon.compiler.errors import ArgumentError, DataError, DTypeError, ShapeError
from gnomon.random_state import set_random_seed
from gnomon.variable import collecting_updates


def test_inputs_by_theanos_names() -> None:
    assert str(gnomon.matrix("x").node.type) == "float32[x_0, x_1]"
    assert str(gnomon.dcol("c").node.type) == "float64[c_0, 1]"
    assert str(gnomon.lscalar("n").node.type) == "int64[]"
    assert gnomon.tensor4("t").ndim == 4
    assert [t.name for t in gnomon.vectors("a", "b")] == ["a", "b"]
    assert len(gnomon.matrices(2)) == 2
    kind = gnomon.tensor_type("float32", (None, 784))
    assert str(kind("x").node.type) == "float32[x_0, 784]"
    assert str(kind) == "tensor_type(float32, (None, 784))"


def test_numpy_like_expressions() -> None:
    x, y = gnomon.dmatrix("x"), gnomon.dvector("y")
    z = 2.0 * x + y**2 - (x @ y)[:, None] / 3.0
    run = function([x, y], [z, z.sum(axis=0), z.T, z[0, ::-1], abs(z).max()])
    xs, ys = np.arange(6.0).reshape(2, 3), np.array([1.0, -2.0, 3.0])
    expected = 2 * xs + ys**2 - (xs @ ys)[:, None] / 3
    for got, want in zip(run(xs, ys), [expected, expected.sum(0), expected.T, expected[0, ::-1], abs(expected).max()],
                         strict=True):  # fmt: skip
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_logistic_regression_learns() -> None:
    """The tutorial of every Theano user: shared variables, grad, updates."""
    rng = np.random.default_rng(0)
    features, labels = rng.standard_normal((200, 5)), rng.integers(0, 2, 200)
    features[:, 0] += 3 * labels
    x, y = gnomon.dmatrix("x"), gnomon.lvector("y")
    w, b = gnomon.shared(np.zeros(5), "w"), gnomon.shared(0.0, "b")
    p = ops.sigmoid(x @ w + b)
    cost = ops.mean(ops.binary_crossentropy(y, p)) + 0.01 * (w**2).sum()
    gw, gb = gnomon.grad(cost, [w, b])
    train = function([x, y], cost, updates=((w, w - 0.3 * gw), (b, b - 0.3 * gb)))
    predict = function([x], p > 0.5)
    costs = [float(train(features, labels)) for _ in range(60)]
    assert costs[0] == pytest.approx(np.log(2))
    assert costs[-1] < 0.35
    assert (predict(features) == labels).mean() > 0.9


def test_givens_replace_inputs() -> None:
    """Theano's minibatches: a slice of shared data, of a length that is known although its place is not."""
    x, k = gnomon.fmatrix("x"), gnomon.lscalar("k")
    data = gnomon.shared(np.arange(12, dtype=np.float32).reshape(6, 2), "data")
    mean = x.sum(axis=1).mean()
    run = function([k], [x * 1.0, mean], givens={x: data[k * 2 : (k + 1) * 2]})
    rows, value = run(1)
    assert rows.tolist() == [[4, 5], [6, 7]]
    assert value == 11.0
    w = gnomon.shared(np.zeros(2, np.float32), "w")
    descent = [(w, w + gnomon.grad((x @ w).sum(), w))]
    step = function([k], updates=descent, givens=[(x, data[k * 2 : k * 2 + 2])])
    step(2)
    assert w.get_value().tolist() == [18, 20]
    y = gnomon.fvector("y")
    whole = function([y], x.sum() + y.sum(), givens={x: data[:, :1]})
    assert whole(np.ones(3, np.float32)) == 33.0


def test_a_slice_of_unknown_length_is_refused() -> None:
    x, k = gnomon.fvector("x"), gnomon.lscalar("k")
    with pytest.raises(ShapeError, match=r"how long a slice is must be known.*axis 0 of float32\[x_0\]"):
        x[:k]
    n = ops.shape(x)[0]
    assert str(x[: n // 2].node.type) == "float32[(x_0//2)]"
    assert function([x, k], x[k : k + 6 : 2])(np.arange(9, dtype=np.float32), 1).tolist() == [1, 3, 5]


# ---- random numbers

DISTRIBUTIONS = {
    "normal": (lambda s, d: random.normal(s, 1.0, 2.0, dtype=d, seed=5), stats.norm(1, 2)),
    "uniform": (lambda s, d: random.uniform(s, -1.0, 3.0, dtype=d, seed=6), stats.uniform(-1, 4)),
    "truncated_normal": (lambda s, d: random.truncated_normal(s, dtype=d, seed=7), stats.truncnorm(-2, 2)),
    "gamma below 1": (lambda s, d: random.gamma(s, 0.4, dtype=d, seed=8), stats.gamma(0.4)),
    "gamma": (lambda s, d: random.gamma(s, 3.0, dtype=d, seed=9), stats.gamma(3)),
    "beta": (lambda s, d: random.beta(s, 2.0, 0.7, dtype=d, seed=10), stats.beta(2, 0.7)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_distributions(name: str, dtype: str) -> None:
    """Kolmogorov-Smirnov at a level that a right generator with these seeds passes once and for all."""
    draw, distribution = DISTRIBUTIONS[name]
    values = draw((5000,), dtype)
    assert values.dtype == dtype
    assert stats.kstest(values.astype(np.float64), distribution.cdf).pvalue > 0.01


def test_integers_categories_trials() -> None:
    drawn = random.randint((20000,), -2, 3, seed=1)
    assert drawn.dtype == np.int32
    assert stats.chisquare(np.bincount(drawn + 2)).pvalue > 0.01
    chosen = random.categorical(np.log(np.array([[0.1, 0.2, 0.7]], np.float32)), 20000, seed=2)[0]
    assert stats.chisquare(np.bincount(chosen), 20000 * np.array([0.1, 0.2, 0.7])).pvalue > 0.01
    hits = random.binomial((5000,), 10, 0.3, seed=3)
    observed = np.bincount(hits.astype(int), minlength=11)
    likely = stats.binom(10, 0.3).pmf(np.arange(11)) * 5000
    assert stats.chisquare([*observed[:8], observed[8:].sum()], [*likely[:8], likely[8:].sum()]).pvalue > 0.01
    big = random.randint((100,), 2**40, 2**40 + 5, dtype="int64", seed=4)
    assert set(big - 2**40) == set(range(5))


def test_dropout() -> None:
    x = np.ones((100, 100), np.float32)
    y = random.dropout(x, 0.25, seed=1)
    assert set(np.unique(y)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert abs((y == 0).mean() - 0.25) < 0.02
    rows = random.dropout(x, 0.5, noise_shape=(None, 1), seed=1)
    assert (rows == rows[:, :1]).all()
    assert 20 < (rows[:, 0] == 0).sum() < 80
    assert (random.dropout(x, 0.0, seed=1) == x).all()
    assert not random.dropout(x, 1.0, seed=1).any()
    with pytest.raises(ArgumentError, match="between 0 and 1, got 1.5"):
        random.dropout(x, 1.5)


def test_shuffle_is_a_permutation() -> None:
    x = np.arange(50).reshape(25, 2)
    y = random.shuffle(x, seed=1)
    assert sorted(y[:, 0]) == sorted(x[:, 0])
    assert (y[:, 1] == y[:, 0] + 1).all()
    assert not (x == y).all()
    assert sorted(random.permutation(10, seed=1)) == list(range(10))


def test_seeds() -> None:
    assert (random.normal((4,), seed=3) == random.normal((4,), seed=3)).all()
    assert (random.normal((4,), seed=3) != random.normal((4,), seed=4)).any()
    generator = random.SeedGenerator(3)
    first, second = random.normal((4,), seed=generator), random.normal((4,), seed=generator)
    assert (first == random.normal((4,), seed=3)).all()
    assert (first != second).all()
    assert generator.state.numpy().tolist() == [3, 2]
    again = random.SeedGenerator.from_config(generator.get_config())
    assert (random.normal((4,), seed=again) == first).all()
    set_random_seed(7)
    one = random.uniform((3,))
    assert (random.uniform((3,)) != one).all()
    set_random_seed(7)
    assert (random.uniform((3,)) == one).all()
    with pytest.raises(ArgumentError, match="a seed is an integer, None or a SeedGenerator, got 'x'"):
        random.normal((1,), seed="x")
    with pytest.raises(DTypeError, match="for integers use randint"):
        random.normal((1,), dtype="int32")


def test_a_traced_program_moves_the_state_on() -> None:
    generator = random.SeedGenerator(11)
    x = gnomon.fvector("x")
    with collecting_updates() as updates:
        y = random.dropout(x, 0.5, seed=generator) + random.uniform((x.node.shape[0],), seed=generator)
    run = function([x], y, updates=updates)
    ones = np.ones(6, np.float32)
    one, two = run(ones), run(ones)
    assert (one != two).any()
    assert generator.state.numpy().tolist() == [11, 4]
    # the same numbers as drawn at once
    again = random.SeedGenerator(11)
    expected = random.dropout(ones, 0.5, seed=again) + random.uniform((6,), seed=again)
    np.testing.assert_array_equal(one, expected)


def test_a_graph_draws_by_default_updates() -> None:
    generator = random.SeedGenerator(12)
    x = gnomon.fvector("x")
    y = random.dropout(x, 0.5, seed=generator) * random.dropout(x, 0.5, seed=generator)
    run = function([x], y)
    first = run(np.ones(40, np.float32))
    assert 0 < (first > 0).sum() < 25  # two different decisions meet in a quarter of the elements
    assert (run(np.ones(40, np.float32)) != first).any()
    assert generator.state.numpy().tolist() == [12, 4]


def test_random_streams() -> None:
    stream = gnomon.RandomStream(234)
    u, v = stream.uniform((2, 2)), stream.normal((2, 2))
    f, g = function([], u), function([], [v, u])
    nearly_zero = function([], u + u - 2 * u)
    first = f()
    assert (f() != first).any()
    assert not nearly_zero().any()  # one draw is one draw, however often it is read
    stream.seed()
    assert (f() == first).all()
    normal, uniform = g()
    assert (uniform != first).any()
    n = gnomon.ivector("n")
    rows = function([n], stream.integers((ops.shape(n)[0], 3), 0, 5))  # the size of n is enough of n
    assert rows(np.zeros(4, np.int32)).shape == (4, 3)
    held = function([], stream.uniform((3,)), updates=[(s, s) for s, _ in stream.updates()])
    assert (held() == held()).all()
    counts = function([], stream.multinomial(np.array([[0.5, 0.5]], np.float32), 10))()
    assert counts.sum() == 10
    assert set(function([], stream.bernoulli((50,)))()) == {0, 1}
    assert sorted(function([], stream.permutation(5))()) == [0, 1, 2, 3, 4]
    assert len(stream.updates()) == 7


def test_the_example_learns_digits(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / "theano_style.py"
    results = runpy.run_path(str(path))["main"](short=True)
    assert results["SGD accuracy"] > 0.87
    assert results["Newton-CG accuracy"] > 0.84  # 2,000 images, fitted to the end
    assert results["Newton-CG cost"] < 0.12
    assert "Newton-CG: 3 steps" in capsys.readouterr().out


def test_categorical_needs_a_matrix() -> None:
    with pytest.raises(ShapeError, match=r"logits \[batch, classes\], got float32\[3\]"):
        random.categorical(np.zeros(3, np.float32), 2)


def test_givens_reach_into_conditions() -> None:
    """The sizes of a replaced input are renamed in sub-graphs too, and agree with what is not replaced."""
    x, y = gnomon.fvector("x"), gnomon.fvector("y")
    count = ops.arange(ops.shape(x)[0], dtype="float32")
    total = ops.cond(ops.sum(x) > 0, lambda: ops.cumsum(x) + y, lambda: count - y)
    data = gnomon.shared(np.array([1.0, 2.0, 3.0], np.float32), "data")
    run = function([y], total, givens={x: data})
    assert run(np.ones(3, np.float32)).tolist() == [2, 4, 7]
    data.set_value(np.array([-1.0, 0.0, 0.0], np.float32))
    assert run(np.ones(3, np.float32)).tolist() == [-1, 0, 1]
    with pytest.raises(DataError):
        run(np.ones(4, np.float32))
