"""Initializers: Keras's fixed values, limits, deviations and configurations; what seeds promise."""

import numpy as np
import pytest

from gnomon import initializers, random_state
from gnomon.compiler.errors import ArgumentError, ShapeError
from tests.recorded.load import load

RECORDED = load("initializers")


def make(case, **more):
    return getattr(initializers, case["class"])(**{**case["arguments"], **more})


@pytest.mark.parametrize("name", RECORDED["fixed"])
def test_fixed_values_are_keras(name):
    case = RECORDED["fixed"][name]
    value = make(case)(tuple(case["shape"]), dtype=case["dtype"])
    assert value.dtype == np.dtype(case["dtype"])
    np.testing.assert_allclose(value, case["value"], rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("name", RECORDED["random"])
def test_distributions_are_keras(name, monkeypatch):
    case = RECORDED["random"][name]
    initializer = make(case, seed=1)
    drawn: dict = {}
    monkeypatch.setattr(initializer, "normal", lambda shape, *a, **k: drawn.update(kind="normal", a=a, k=k))
    monkeypatch.setattr(initializer, "uniform", lambda shape, *a, **k: drawn.update(kind="uniform", a=a, k=k))
    for draw in case["draws"]:
        initializer(tuple(draw["shape"]), dtype="float32")
        if draw["draws"] == "uniform":
            wanted = ("uniform", draw["minval"], draw["maxval"])
        else:
            wanted = ("normal", draw["mean"], draw["stddev"])
            assert (drawn["k"].get("bound") == 2.0) == (draw["draws"] == "truncated_normal")
        assert drawn["kind"] == wanted[0]
        np.testing.assert_allclose(drawn["a"][:2], wanted[1:], rtol=1e-12)
    sample = make(case, seed=1)((400, 250), "float32")
    wanted = case["sample of (400, 250)"]
    assert sample.dtype == np.float32
    np.testing.assert_allclose(sample.std(), wanted["std"], rtol=0.01)
    np.testing.assert_allclose(sample.mean(), wanted["mean"], atol=0.02 * wanted["std"])
    assert wanted["min"] - wanted["std"] < sample.min() < sample.max() < wanted["max"] + wanted["std"]


def test_fans_are_keras():
    for case in RECORDED["fans"]:
        assert list(initializers.compute_fans(case["shape"])) == case["fans"]
    assert initializers.compute_fans((3, 4, 5), input_axes=[0], output_axes=[1, 2]) == (3, 20)


def test_orthogonal_is_orthogonal():
    for case in RECORDED["orthogonal"]:
        value = initializers.Orthogonal(gain=case["gain"], seed=2)(tuple(case["shape"]), "float32")
        flat = value.reshape(-1, value.shape[-1]) / case["gain"]
        flat = flat if case["orthonormal"] == "columns" else flat.T
        np.testing.assert_allclose(flat.T @ flat, np.eye(flat.shape[1]), atol=1e-5)


@pytest.mark.parametrize("name", RECORDED["configs"])
def test_configuration_is_keras(name):
    recorded = RECORDED["configs"][name]
    again = initializers.deserialize(recorded["serialize"])
    assert again.get_config() == recorded["get_config"]
    assert initializers.serialize(again) == recorded["serialize"]
    assert again.clone().get_config() == recorded["get_config"]


def test_string_names_are_keras():
    for name, wanted in load("signatures")["string names"]["initializers"].items():
        assert type(initializers.get(name)).__name__ == wanted


def test_seeds():
    one = initializers.GlorotUniform(seed=1)
    np.testing.assert_array_equal(one((3, 4)), one((3, 4)))
    np.testing.assert_array_equal(one((3, 4)), initializers.GlorotUniform(seed=1)((3, 4)))
    unseeded = initializers.GlorotUniform()
    np.testing.assert_array_equal(unseeded((3, 4)), unseeded((3, 4)))
    assert (unseeded((3, 4)) != initializers.GlorotUniform()((3, 4))).any()
    random_state.set_random_seed(7)
    first = initializers.HeNormal()((5,))
    random_state.set_random_seed(7)
    np.testing.assert_array_equal(first, initializers.HeNormal()((5,)))
    assert initializers.HeNormal().get_config()["seed"] is None

    class Generator:
        count = 0

        def next(self):
            self.count += 1
            return np.array([self.count, 0], "uint32")

    moving = initializers.RandomNormal(seed=Generator())
    assert (moving((3,)) != moving((3,))).any()


def test_arrays_and_functions_are_initializers():
    array = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(initializers.get(array)((2, 3), "float32"), array)
    with pytest.raises(ShapeError, match=r"\(2, 3\).*\(3, 2\)"):
        initializers.get(array)((3, 2))

    def mine(shape, dtype=None):
        return np.full(shape, 7, dtype)

    assert initializers.get(mine) is mine
    assert initializers.RandomNormal(seed=1)((2,), "float64").dtype == np.float64
    assert initializers.RandomNormal(seed=1)((2,), "float16").dtype == np.float16


def test_errors_say_what_to_do():
    with pytest.raises(ArgumentError, match="Unknown initializer 'glorot'. Did you mean 'glorot"):
        initializers.get("glorot")
    with pytest.raises(ArgumentError, match="scale must be above 0"):
        initializers.VarianceScaling(scale=0.0)
    with pytest.raises(ArgumentError, match="mode must be"):
        initializers.VarianceScaling(mode="fan")
    with pytest.raises(ArgumentError, match="seed is an integer"):
        initializers.GlorotUniform(seed="a")
    with pytest.raises(ShapeError, match="matrices"):
        initializers.Identity()((3,))
    with pytest.raises(ShapeError, match="two axes"):
        initializers.Orthogonal()((3,))
