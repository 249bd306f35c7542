"""Random layers make of images what Keras makes of them with the same numbers, and draw their own while training."""

import json

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.calculus import grad
from gnomon.compiler.errors import ArgumentError, ShapeError
from gnomon.utils import clear_session
from tests.recorded.load import load

CASES = load("augmentation")["cases"]
IMAGES = (255 * np.random.default_rng(0).uniform(size=(4, 8, 9, 3))).astype("float32")

MADE = [
    layers.RandomFlip(seed=1),
    layers.RandomTranslation(0.2, 0.3, seed=1),
    layers.RandomRotation(0.2, seed=1),
    layers.RandomZoom(0.2, (-0.3, 0.1), seed=1),
    layers.RandomShear(0.2, 0.3, seed=1),
    layers.RandomPerspective(1.0, 0.4, seed=1),
    layers.RandomElasticTransform(seed=1),
    layers.RandomCrop(5, 6, seed=1),
    layers.RandomBrightness(0.3, seed=1),
    layers.RandomContrast(0.3, seed=1),
    layers.RandomSaturation((0.2, 0.7), (0, 1), seed=1),
    layers.RandomHue(0.4, seed=1),
    layers.RandomColorDegeneration((0.2, 0.7), seed=1),
    layers.RandomSharpness((0.1, 0.9), seed=1),
    layers.RandomPosterization((2, 6), seed=1),
    layers.RandomGrayscale(0.5, seed=2),
    layers.RandomInvert(0.5, seed=3),
    layers.RandomGaussianBlur(0.9, 3, (0.3, 0.9), seed=1),
    layers.RandomErasing(1.0, (0.2, 0.5), seed=1),
    layers.Solarization(0.2, (0.2, 0.8), seed=1),
    layers.RandomColorJitter((0, 255), 0.2, 0.3, None, 0.4, seed=1),
    layers.MixUp(seed=1),
    layers.CutMix(seed=1),
    layers.RandAugment(num_ops=1, seed=1),
    layers.AugMix(seed=1, num_chains=2, chain_depth=1, all_ops=False),
]


def plain(value):
    """As JSON would give it back."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", list(CASES))
def test_recorded(name):
    case = CASES[name]
    clear_session()
    seed = {} if case["class"] == "Equalization" else {"seed": 7}
    layer = getattr(layers, case["class"])(**seed, **case["arguments"])
    drawn = tuple(case["drawn"]) if isinstance(case["drawn"], list) else case["drawn"]
    found = layer.transform_images(case["images"], drawn)
    np.testing.assert_allclose(found, case["output"], rtol=1e-4, atol=2e-4 * max(1, case["images"].max() / 20))
    assert found.dtype == "float32"
    if case["class"] != "MixUp":
        masks = layer.transform_segmentation_masks(case["masks"], drawn)
        np.testing.assert_allclose(masks, case["masks out"], rtol=1e-6)
    np.testing.assert_allclose(layer.transform_labels(case["labels"], drawn), case["labels out"], rtol=1e-5)
    assert list(layer(case["images"], training=True).shape) == case["shape"]
    assert layer.compute_output_shape((None, *case["images"].shape[1:])) == (None, *case["shape"][1:])
    config = plain(layer.get_config())
    assert {k: v for k, v in config.items() if k in case["config"]} == case["config"]
    again = type(layer).from_config(case["config"])
    assert {k: v for k, v in plain(again.get_config()).items() if k != "seed"} == {
        k: v for k, v in config.items() if k != "seed"
    }


@pytest.mark.parametrize("layer", MADE, ids=lambda layer: type(layer).__name__)
def test_a_program_draws_anew_for_each_batch(layer):
    given = layers.Input(IMAGES.shape[1:])
    x = IMAGES / 255 if isinstance(layer, layers.RandomSaturation) else IMAGES
    model = gnomon.Model(given, layer(given))
    program = gnomon.function([given], layer(given, training=True))
    first, second = program(x), program(x)
    assert (first != second).any()
    assert first.dtype == "float32"
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(model.predict(x, verbose=0), layer(x, training=False))
    if not isinstance(layer, layers.RandomCrop):
        np.testing.assert_array_equal(layer(x, training=False), x)
    assert layer.weights == []
    assert layer.variables
    assert all(v.shape == (2,) for v in layer.variables)  # states of random streams
    again = type(layer).from_config(layer.get_config())
    np.testing.assert_array_equal(again(x, training=True), type(layer).from_config(layer.get_config())(x))


def test_what_is_drawn_is_within_its_limits():
    x = np.zeros((2000, 4, 5, 3), "float32")
    moved = layers.RandomTranslation((-0.5, 0.25), 0.1).get_random_transformation(x)["translations"]
    np.testing.assert_allclose([moved[:, 1].min(), moved[:, 1].max()], [-2, 1], atol=0.01)
    np.testing.assert_allclose([moved[:, 0].min(), moved[:, 0].max()], [-0.5, 0.5], atol=0.01)
    flips = layers.RandomFlip().get_random_transformation(x)["flips"]
    assert flips.shape == (2000, 1, 1, 1)
    np.testing.assert_allclose(flips.mean(), 0.5, atol=0.05)
    contrast = layers.RandomContrast((0.3, 0.6)).get_random_transformation(x)["contrast_factor"]
    np.testing.assert_allclose([contrast.min(), contrast.max()], [0.7, 1.6], atol=0.01)
    invert = layers.RandomInvert(0.5).get_random_transformation(x)["apply_inversion"]
    np.testing.assert_allclose(invert.mean(), 0.25, atol=0.04)  # the probability is drawn from [0, 0.5]
    starts = np.array([layers.RandomCrop(3, 4, seed=k).get_random_transformation(x) for k in range(60)])
    assert set(starts[:, 0]) == {0, 1}


def test_gradients_pass_through():
    given = layers.Input((6, 5, 3), dtype="float64")
    weight = np.random.default_rng(1).standard_normal((2, 6, 5, 3))
    x = IMAGES[:2, :6, :5].astype("float64")
    for layer in (layers.RandomRotation(0.3, dtype="float64"), layers.RandomContrast(0.2, dtype="float64")):
        drawn = layer.get_random_transformation(x)
        slope = grad((layer.transform_images(given, drawn) * weight).sum(), given)
        step = np.random.default_rng(2).standard_normal(x.shape)
        numeric = ((layer.transform_images(x + 1e-4 * step, drawn) - layer.transform_images(x - 1e-4 * step, drawn))
                   * weight).sum() / 2e-4  # fmt: skip
        found = (gnomon.function([given], slope)(x) * step).sum()
        np.testing.assert_allclose(found, numeric, rtol=1e-6)


def test_masks_are_moved_with_the_images():
    masks = np.random.default_rng(0).integers(0, 4, (4, 8, 9, 1)).astype("int32")
    images = masks.repeat(3, -1).astype("float32")
    layer = layers.RandomFlip("horizontal", seed=3)
    y = layer({"images": images, "segmentation_masks": masks}, training=True)
    np.testing.assert_array_equal(y["images"][..., :1], y["segmentation_masks"])
    assert (y["images"] != images).any()
    turned = layers.RandomRotation(0.2, interpolation="nearest", seed=3)
    y = turned({"images": images, "segmentation_masks": masks}, training=True)
    np.testing.assert_array_equal(y["images"][..., :1], y["segmentation_masks"])
    assert y["segmentation_masks"].dtype == "int32"


def test_crops_without_a_choice_take_the_middle():
    layer = layers.RandomCrop(4, 4)
    np.testing.assert_allclose(layer(IMAGES, training=False), layers.Resizing(4, 4, crop_to_aspect_ratio=True)(IMAGES))
    assert layers.RandomCrop(16, 8)(IMAGES, training=True).shape == (4, 16, 8, 3)
    x = np.arange(72, dtype="uint8").reshape(1, 8, 9, 1)
    y = layers.RandomCrop(3, 3, seed=1)(x, training=True)
    corner = int(y[0, 0, 0, 0])
    np.testing.assert_array_equal(y[0, ..., 0], corner + np.arange(3)[:, None] * 9 + np.arange(3))


def test_a_single_image_and_integers():
    image = IMAGES[0].astype("uint8")
    for layer in MADE:
        if not isinstance(layer, layers.RandomSaturation):
            y = layer(image, training=True)
            assert y.ndim == 3
            assert y.dtype == "float32"


def test_mixtures_have_mixed_labels():
    labels = np.eye(4, dtype="float32")
    images = np.broadcast_to(np.arange(4, dtype="float32")[:, None, None, None], (4, 8, 9, 3)).copy()
    for layer in (layers.MixUp(0.8, seed=1), layers.CutMix(seed=1)):
        y = layer({"images": images, "labels": labels}, training=True)
        np.testing.assert_allclose(y["labels"].sum(1), 1, rtol=1e-6)
        mean = (y["labels"] * np.arange(4)).sum(1)
        slack = 1e-5 if isinstance(layer, layers.MixUp) else 0.75  # rectangles begin between pixels
        np.testing.assert_allclose(y["images"].mean((1, 2, 3)), mean, atol=slack)
        assert (y["labels"] != labels).any()


def test_equalized_values_are_spread_evenly():
    x = (255 * np.random.default_rng(0).uniform(size=(1, 40, 40, 2)) ** 3).astype("float32")
    x[..., 1] = 8
    y = layers.Equalization()(x, training=True)
    shares, _ = np.histogram(y[..., 0], 8, (0, 256))
    assert shares.min() > 0.6 * shares.mean()
    np.testing.assert_allclose(y[..., 1], 8, rtol=1e-5)
    np.testing.assert_array_equal(layers.Equalization()(x, training=False), x)


def test_a_pipeline():
    pipeline = layers.Pipeline([layers.RandomFlip(seed=1), layers.Rescaling(1 / 255), layers.Dense(2)])
    x = IMAGES
    np.testing.assert_allclose(pipeline(x, training=False), pipeline.layers[2](x / 255), atol=1e-6)
    assert (pipeline(x, training=True) != pipeline(x, training=False)).any()
    assert [w.name for w in pipeline.weights] == ["kernel", "bias"]
    again = layers.Pipeline.from_config(plain(pipeline.get_config()))
    assert [type(layer) for layer in again.layers] == [type(layer) for layer in pipeline.layers]
    with pytest.raises(ArgumentError, match="list of layers"):
        layers.Pipeline(layers.ReLU())


def test_auto_contrast():
    x = IMAGES.copy()
    x[0, ..., 1] = 7
    y = layers.AutoContrast()(x)
    low, high = x.min((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
    wanted = np.where(high > low, (x - low) / np.where(high > low, high - low, 1) * 255, x)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-4)


def test_training_with_augmentation():
    model = gnomon.Sequential([
        layers.Input((8, 9, 3)), layers.RandomFlip("horizontal"), layers.RandomRotation(0.1),
        layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(1),
    ])  # fmt: skip
    model.compile(optimizer="sgd", loss="mse")
    events = len(gnomon.compile_events())
    model.fit(IMAGES.repeat(3, 0), np.zeros((12, 1)), batch_size=5, epochs=2, verbose=0)
    assert len(gnomon.compile_events()) == events + 1


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: layers.RandomFlip("up"), ArgumentError, "'horizontal'"),
        (lambda: layers.RandomTranslation(2, 0), ArgumentError, "height_factor"),
        (lambda: layers.RandomTranslation(0, (0.1, 0.2, 0.3)), ArgumentError, "width_factor"),
        (lambda: layers.RandomTranslation(0, 0, "edge"), ArgumentError, "fill_mode"),
        (lambda: layers.RandomRotation("all"), ArgumentError, "factor"),
        (lambda: layers.RandomRotation(0.1, interpolation="cubic"), ArgumentError, "interpolation"),
        (lambda: layers.RandomZoom((-1, 0)), ArgumentError, "greater than -1"),
        (lambda: layers.RandomShear(-0.1), ArgumentError, "x_factor"),
        (lambda: layers.RandomCrop(0, 2), ArgumentError, "positive integers"),
        (lambda: layers.RandomCrop(2, 2)(layers.Input((None, 4, 3)), training=True), ShapeError, "known size"),
        (lambda: layers.RandomContrast(1.5), ArgumentError, "factor"),
        (lambda: layers.RandomBrightness(0.1, 255), ArgumentError, "value_range"),
        (lambda: layers.RandomGaussianBlur(kernel_size=4), ArgumentError, "odd"),
        (lambda: layers.RandomErasing(fill_value="black"), ArgumentError, "fill_value"),
        (lambda: layers.RandomGrayscale(2), ArgumentError, "between 0 and 1"),
        (lambda: layers.MixUp(0), ArgumentError, "positive"),
        (lambda: layers.CutMix(2), ArgumentError, "factor"),
        (lambda: layers.RandAugment(factor=-1), ArgumentError, "factor"),
        (lambda: layers.Equalization(bins=1), ArgumentError, "bins"),
        (lambda: layers.RandomHue(0.1)(np.ones((1, 2, 2, 4))), ShapeError, "3 channels"),
        (lambda: layers.RandomFlip()(np.ones((2, 2))), ShapeError, "rank 3"),
        (lambda: layers.RandomFlip()({"image": IMAGES}), ArgumentError, "'images'"),
    ],
)
def test_mistakes(make, error, words):
    with pytest.raises(error, match=words):
        make()
