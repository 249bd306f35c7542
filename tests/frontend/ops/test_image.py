"""Functions of images give Keras's values and gradients; resizing is linear, and its derivative is the transpose."""

import itertools

import numpy as np
import pytest

import gnomon
from gnomon import layers, ops
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.tensor import Tensor, new_input
from tests.frontend.layers.check import evaluate
from tests.recorded.load import load

FUNCTIONS = load("spatial")["functions"]


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_recorded(name):
    case = FUNCTIONS[name]
    function = getattr(ops.image, case["function"])
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in case["options"].items()}
    value = function(*case["given"], **options)
    assert value.dtype == case["value"].dtype
    close = {"rtol": 2e-5, "atol": 1e-5}
    if value.dtype == "uint8":
        close = {"rtol": 0, "atol": 1}  # where Keras in float32 is on another side of a half, or of a whole number
        assert (value != case["value"]).mean() < 0.05
    np.testing.assert_allclose(value.astype("float64"), case["value"].astype("float64"), **close)
    leaves = [Tensor(new_input(f"x{k}", x.dtype.name, x.shape)) for k, x in enumerate(case["given"])]
    output = function(*leaves, **options)
    np.testing.assert_allclose(gnomon.function(leaves, output)(*case["given"]), value, **close)
    for place, wanted in case.get("gradients", {}).items():
        slope = grad((output * case["weight"]).sum(), leaves[int(place)], disconnected_inputs="zero")
        scale = max(1.0, float(np.abs(wanted).max()))
        found = evaluate(slope, leaves, case["given"])
        if case["function"] == "affine_transform" and place == "1":  # the last two numbers count for nothing
            found, wanted = found[..., :6], wanted[..., :6]
        np.testing.assert_allclose(found / scale, wanted / scale, rtol=1e-4, atol=3e-5)


METHODS = ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")


@pytest.mark.parametrize(("method", "antialias"), [*itertools.product(METHODS, (False, True))])
def test_resizing_is_linear_and_its_derivative_the_transpose(method, antialias):
    random = np.random.default_rng(0)
    for old, new in (((5, 4), (8, 3)), ((1, 6), (4, 2)), ((7, 3), (2, 9)), ((4, 8), (4, 2))):
        given = layers.Input((*old, 1), dtype="float64")
        output = ops.image.resize(given, new, method, antialias)
        x = random.standard_normal((1, *old, 1))
        g = random.standard_normal((1, *new, 1))
        matrix = np.stack([
            ops.image.resize(one.reshape(1, *old, 1), new, method, antialias).ravel()
            for one in np.eye(old[0] * old[1])
        ])  # fmt: skip
        np.testing.assert_allclose(evaluate(output, [given], [x]).ravel(), x.ravel() @ matrix, atol=1e-12)
        np.testing.assert_allclose(matrix.sum(0), 1, atol=1e-12)
        slope = grad((output * g).sum(), given)
        np.testing.assert_allclose(evaluate(slope, [given], [x]).ravel(), matrix @ g.ravel(), atol=1e-12)
        second = grad((grad((output**2).sum(), given) * x).sum(), given)
        np.testing.assert_allclose(
            evaluate(second, [given], [x]).ravel(), 2 * matrix @ matrix.T @ x.ravel(), atol=1e-10
        )


def test_nearest_by_whole_factors_is_a_view():
    x = np.random.default_rng(0).standard_normal((1, 9, 8, 1)).astype("float32")
    np.testing.assert_array_equal(ops.image.resize(x, (3, 4), "nearest"), x[:, 1::3, 1::2])
    np.testing.assert_array_equal(ops.image.resize(x, (18, 8), "nearest"), x.repeat(2, 1))


def test_resizing_keeps_what_is_not_finite_to_its_neighbours():
    x = np.zeros((1, 8, 8, 1), "float32")
    x[0, 2, 2] = np.inf
    y = ops.image.resize(x, (16, 16))
    assert np.isinf(y[0, 4:6, 4:6]).all()
    assert np.isfinite(y[0, 8:]).all()


@pytest.mark.parametrize("mode", ["constant", "nearest", "wrap", "mirror", "reflect"])
def test_reading_at_places_has_second_derivatives(mode):
    random = np.random.default_rng(0)
    x, places = random.standard_normal((4, 5)), random.uniform(-2, 6, (2, 7))
    leaves = [layers.Input(batch_shape=a.shape, dtype="float64") for a in (x, places)]
    output = ops.image.map_coordinates(*leaves, order=1, fill_mode=mode, fill_value=0.3)
    weight = random.standard_normal(x.shape)
    along = (grad((output**3).sum(), leaves[0]) * weight).sum()
    for k, leaf in enumerate(leaves):
        found = evaluate(grad(along, leaf), leaves, [x, places])
        for place in ((0, 0), (1, 3)):
            values = []
            for sign in (1, -1):
                moved = [x.copy(), places.copy()]
                moved[k][place] += sign * 1e-6
                values.append(evaluate(along, leaves, moved))
            np.testing.assert_allclose(found[place], (values[0] - values[1]) / 2e-6, rtol=1e-5, atol=1e-5)


def test_one_transform_for_all_images():
    x = np.random.default_rng(0).standard_normal((3, 4, 5, 2)).astype("float32")
    shift = np.array([1, 0, 1, 0, 1, -1, 0, 0], "float32")
    wanted = np.zeros_like(x)
    wanted[:, 1:, :-1] = x[:, :-1, 1:]
    np.testing.assert_array_equal(ops.image.affine_transform(x, shift), wanted)
    np.testing.assert_array_equal(ops.image.affine_transform(x, shift[None].repeat(3, 0)), wanted)


def test_a_perspective_moves_corners_to_corners():
    x = np.random.default_rng(0).uniform(size=(6, 7, 1)).astype("float32")
    start, end = [[1, 1], [1, 4], [5, 1], [5, 4]], [[0, 1], [2, 5], [6, 0], [4, 4]]
    y = ops.image.perspective_transform(x, np.array(start), np.array(end), interpolation="nearest")
    for (a, b), (c, d) in zip(start, end, strict=True):
        assert y[d, c] == x[b, a]
    np.testing.assert_allclose(ops.image.perspective_transform(x, np.array(end), np.array(end)), x, atol=1e-4)


def test_elastic_transform():
    x = np.random.default_rng(0).uniform(size=(2, 8, 9, 3)).astype("float32")
    np.testing.assert_array_equal(ops.image.elastic_transform(x, alpha=0.0), x)
    y = ops.image.elastic_transform(x, alpha=8.0, sigma=1.0, seed=1)
    assert y.shape == x.shape
    assert (y != x).mean() > 0.5
    np.testing.assert_array_equal(ops.image.elastic_transform(x, alpha=8.0, sigma=1.0, seed=1), y)
    first = ops.image.elastic_transform(
        x.transpose(0, 3, 1, 2), alpha=8.0, sigma=1.0, seed=1, data_format="channels_first"
    )
    np.testing.assert_allclose(first.transpose(0, 2, 3, 1), y, atol=1e-6)
    given = layers.Input((8, 9, 3))
    program = gnomon.function([given], ops.image.elastic_transform(given, alpha=8.0, sigma=1.0))
    assert program(x).shape == x.shape


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda x: ops.image.resize(x, (2, 2), "area"), ArgumentError, "interpolation"),
        (lambda x: ops.image.resize(x, 3), ArgumentError, "tuple of 2"),
        (lambda x: ops.image.resize(x, (0, 3)), ArgumentError, "positive"),
        (lambda x: ops.image.resize(x[0, 0], (2, 3)), ShapeError, "rank 3"),
        (lambda x: ops.image.rgb_to_hsv(x[..., :2]), ShapeError, "3 channels"),
        (lambda x: ops.image.rgb_to_hsv(x.astype("uint8")), DTypeError, "float dtype"),
        (lambda x: ops.image.pad_images(x, 1, 2, 3, 4, 5), ArgumentError, "exactly two of top_padding"),
        (lambda x: ops.image.crop_images(x, 0, 0, 9, 0), ArgumentError, "target_height"),
        (lambda x: ops.image.map_coordinates(x, np.zeros((3, 2)), 1), ShapeError, "one for each axis"),
        (lambda x: ops.image.map_coordinates(x[0, 0], np.zeros((2, 2)), 3), ArgumentError, "order"),
        (lambda x: ops.image.affine_transform(x, np.zeros(6)), ShapeError, "8 numbers"),
        (lambda x: ops.image.affine_transform(x, np.zeros((3, 8))), ShapeError, "one for each of 2"),
        (lambda x: ops.image.affine_transform(x, np.zeros(8), "cubic"), ArgumentError, "interpolation"),
        (lambda x: ops.image.extract_patches(x, (1, 2, 3, 4)), ArgumentError, "size"),
        (lambda x: ops.image.perspective_transform(x, np.zeros((4, 2)), np.zeros(8)), ShapeError, "end_points"),
    ],
)
def test_mistakes(make, error, words):
    with pytest.raises(error, match=words):
        make(np.ones((2, 4, 5, 3), "float32"))
