"""bfloat16 from outside: what functions take and give, variables, files, debug modes; with ml_dtypes and without it."""

import itertools

import h5py
import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.compiler import dtypes
from gnomon.compiler.errors import DataError, DTypeError
from gnomon.runtime import buffer

X = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
BETWEEN = np.array([[1 + 2.0**-8, 1 + 3 * 2.0**-8, -2.2 * 2.0**-133, 3.4e38, np.nan, -np.inf, 0.0]], "float32")
NEAREST = np.array([[1, 1 + 2.0**-6, -(2.0**-132), np.inf, np.nan, -np.inf, 0.0]], "float32")


@pytest.fixture(autouse=True, params=["with ml_dtypes", "without ml_dtypes"])
def own(request, monkeypatch):
    """The dtype of arrays that users get."""
    if request.param == "with ml_dtypes":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    monkeypatch.setattr(buffer, "_bfloat16", lambda: None)
    return np.dtype("float32")


def compiled(make, dtype="float32", name="x"):
    x = gnomon.tensor_type(dtype, (None,) * 2)(name)
    return gnomon.function([x], make(x))


def test_casts_round_to_the_nearest_and_ties_to_even(own):
    for narrow in (lambda x: ops.cast(x, "bfloat16"), compiled(lambda x: ops.cast(x, "bfloat16"))):
        found = narrow(BETWEEN)
        assert found.dtype == own
        np.testing.assert_array_equal(np.asarray(found, "float32"), NEAREST)
    through = compiled(lambda x: ops.cast(ops.cast(x, "bfloat16"), "float32"))
    np.testing.assert_array_equal(through(BETWEEN), NEAREST)  # in registers too


def test_what_functions_take_and_give(own):
    double = compiled(lambda x: x + x, "bfloat16")
    near = dtypes.rounded("bfloat16", X)
    for given in (X, near, X.astype("float64"), X.tolist(), buffer.shown("bfloat16", near), np.asfortranarray(X)):
        found = double(given)
        assert found.dtype == own
        np.testing.assert_array_equal(np.asarray(found, "float32"), 2 * near)
    np.testing.assert_array_equal(np.asarray(double(double(X)), "float32"), 4 * near)
    np.testing.assert_array_equal(np.asarray(double(np.arange(6).reshape(2, 3)), "float32"), [[0, 2, 4], [6, 8, 10]])
    bits = dtypes.encoded("bfloat16", X).view(np.uint16)
    np.testing.assert_array_equal(np.asarray(double(bits), "float32"), dtypes.rounded("bfloat16", 2.0 * bits))
    with pytest.raises(DataError, match="complex"):
        double(X.astype("complex64"))
    assert double.interpret(near)[0].dtype == own


def test_promotion():
    """As JAX and Keras promote: no 16-bit float holds the other; Python's numbers take the dtype beside them."""
    wanted = {("bfloat16", "float16"): "float32", ("bfloat16", "float32"): "float32", ("bfloat16", "int64"): "bfloat16",
              ("bfloat16", "float64"): "float64", ("bfloat16", "bool"): "bfloat16"}  # fmt: skip
    for (a, b), result in wanted.items():
        for pair in itertools.permutations((a, b)):
            x, y = (gnomon.tensor_type(d, (3,))(d) for d in pair)
            assert (x + y).dtype == result
            assert dtypes.promote(*pair) == result
    x = gnomon.tensor_type("bfloat16", (3,))("x")
    assert (2.5 * x + 1).dtype == (x / 3).dtype == ops.exp(x).dtype == x.sum().dtype == "bfloat16"
    assert (x < 1).dtype == "bool"


def test_sums_and_products_are_accumulated_in_float32():
    ones = np.ones((1, 4096), "float32")  # from 256 on, one more is nothing in bfloat16
    total = compiled(lambda x: [x.sum(), ops.matmul(x, x.T), ops.cumsum(x, 1)[:, -1], ops.mean(x)], "bfloat16")
    assert [float(np.asarray(v, "float32").ravel()[0]) for v in total(ones)] == [4096, 4096, 4096, 1]


def test_variables(own):
    v = gnomon.Variable(np.array([1 + 2.0**-8, 3.0]), dtype="bfloat16", name="v")
    assert v.numpy().dtype == own
    assert v.numpy().tolist() == [1, 3]
    step = gnomon.function([], v.value * 1.0, updates=[(v, v + 2.0**-7)])
    assert [np.asarray(step(), "float32").tolist() for _ in range(2)] == [[1, 3], [1 + 2.0**-7, 3]]  # the even one
    v.assign([5, 6])
    v.assign_add(np.array([1, 1]))
    assert v.get_value().tolist() == v.get_value(borrow=True).tolist() == [6, 7]
    with pytest.raises(DTypeError, match="complex"):
        v.buffer.set(np.array([1j, 2]))
    assert gnomon.initializers.Ones()((2,), "bfloat16").dtype == own
    assert gnomon.random.uniform((500,), dtype="bfloat16", seed=1).max() < 1


@pytest.mark.parametrize("mode", ["GNOMON_CHECK", "GNOMON_NAN"])
def test_debug_modes(mode, monkeypatch):
    monkeypatch.setenv(mode, "1")
    x = gnomon.tensor_type("bfloat16", (None, 4))("x")
    w = gnomon.Variable(X[:4], dtype="bfloat16")
    y = ops.softmax(ops.tanh(x @ w) * 3 + ops.cast(np.arange(4) / 3, "bfloat16"))
    step = gnomon.function([x], y, updates=[(w, w - 0.1 * gnomon.grad(y[:, 0].sum(), w))])
    step(X)
    step(X[:1])
    if mode == "GNOMON_NAN":
        with pytest.raises(gnomon.compiler.errors.NumericError, match="NaN"):
            step(np.full((1, 4), np.nan, "float32"))


@pytest.mark.parametrize("policy", ["bfloat16", "mixed_bfloat16"])
def test_files(policy, own, tmp_path):
    """Weights are in a file as Keras writes them: two opaque bytes and an attribute."""
    model = gnomon.Sequential([
        layers.Input((4,)), layers.Dense(3, activation="tanh", dtype=policy), layers.Dense(1, dtype=policy),
    ])  # fmt: skip
    model.compile("adam", "mse")
    model.fit(X, X.sum(1, keepdims=True), epochs=2, verbose=0)
    wanted = model.predict(X, verbose=0)
    assert wanted.dtype == own
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = gnomon.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(X, verbose=0), wanted)
    assert [layer.dtype_policy.name for layer in again.layers] == [policy] * 2
    for a, b in zip(model.optimizer.variables, again.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with h5py.File(tmp_path / "model.weights.h5") as file:
        kernel = file["layers/dense/vars/0"]
        if policy == "bfloat16":
            assert (kernel.dtype, kernel.attrs["dtype"]) == (np.dtype("V2"), "bfloat16")
        else:
            assert kernel.dtype == np.float32
    plain = gnomon.Sequential([layers.Input((4,)), layers.Dense(3, activation="tanh"), layers.Dense(1)])
    plain.load_weights(tmp_path / "model.weights.h5")
    for a, b in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, np.asarray(b, "float32"))


def test_saved_functions(own, tmp_path):
    x = gnomon.tensor_type("bfloat16", (None, 4))("x")
    w = gnomon.Variable(X[:4], dtype="bfloat16", name="w")
    fn = gnomon.function([x], ops.exp(x @ w + np.float32(0.5)), updates=[(w, w * 2)])
    gnomon.saving.save_function(fn, tmp_path / "f.gnf")
    again = gnomon.saving.load_function(tmp_path / "f.gnf")
    for _ in range(2):
        a, b = fn(X), again(X)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a, "float32"), np.asarray(b, "float32"))


def test_configurations_hold_arrays(own):
    written = gnomon.saving.serialize_keras_object(buffer.shown("bfloat16", dtypes.rounded("bfloat16", X)))
    if own.name == "bfloat16":
        assert written["config"]["dtype"] == "bfloat16"
    found = gnomon.saving.deserialize_keras_object(written)
    assert found.dtype == own


def test_as_the_float_of_the_session(own, monkeypatch):
    monkeypatch.setattr(gnomon.config, "_floatx", "bfloat16")
    model = gnomon.Sequential([layers.Input((4,)), layers.Dense(3, "relu"), layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(X.astype("float64"), np.array([0, 1, 0, 1, 1]), epochs=2, batch_size=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert {w.dtype for w in (*model.weights, *model.metrics_variables)} == {"bfloat16"}
    assert model.predict(X, verbose=0).dtype == own
