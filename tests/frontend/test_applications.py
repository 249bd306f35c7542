"""Published architectures are Keras's, layer by layer, compute what Keras computes, and read its files."""

import inspect
import json
import zlib

import h5py
import numpy as np
import pytest

import gnomon
from gnomon import applications, layers
from gnomon.applications import common
from gnomon.applications.weights import read_weights
from gnomon.compiler.errors import ArgumentError, DataError, FileError, MissingFileError
from gnomon.utils import clear_session
from tests.frontend.layers.check import evaluate
from tests.frontend.layers.recorded import plain
from tests.recorded.load import load

RECORDED = load("applications")
MODELS = RECORDED["models"]
SMALL = {"weights": None, "include_top": False, "pooling": "avg"}


@pytest.fixture(autouse=True)
def names_from_the_start():
    clear_session()


@pytest.fixture
def nothing_drawn(monkeypatch):
    """Weights of zeros: millions of random numbers take longer than all else."""
    zeros = lambda self, shape, dtype=None: np.zeros(shape, dtype)
    monkeypatch.setattr(gnomon.initializers.GlorotUniform, "__call__", zeros)


def made(case):
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in case["arguments"].items()}
    return getattr(applications, case["class"])(**arguments)


def structure(model):
    """Each layer's name, class, those before it, and shape."""
    config = {layer["name"]: layer for layer in plain(model.get_config())["layers"]}
    return [
        [layer.name, type(layer).__name__, before(config[layer.name]["inbound_nodes"]), list(layer.output.shape)]
        for layer in model.layers
    ]


def before(value):
    if isinstance(value, dict):
        is_tensor = value.get("class_name") == "__keras_tensor__"
        return [value["config"]["keras_history"][0]] if is_tensor else before(list(value.values()))
    return [name for item in value for name in before(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_those_of_keras(name, nothing_drawn):
    case = MODELS[name]
    model = made(case)
    assert model.name == case["name"]
    assert model.count_params() == case["parameters"]
    assert list(model.output_shape) == case["output shape"]
    found = structure(model)
    for layer, known, wanted in zip(model.layers, found, case.get("layers", []), strict="layers" in case):
        assert known == wanted[:4]
        assert unusual(layer, wanted[4]) == wanted[4], layer.name
    assert len(found) == case["count"]
    assert zlib.crc32(json.dumps(found).encode()) == case["check"]


def unusual(layer, wanted):
    """What of a layer's configuration is not as a layer has it that is made of `wanted` alone, besides that."""
    config = plain(layer.get_config())
    usual = plain(type(layer).from_config({**wanted, "name": layer.name}).get_config())
    return {k: v for k, v in config.items() if k in wanted or v != usual[k]}


def made_again(path, shape):
    """As tests/recorded/recording/applications.py makes weights."""
    random = np.random.default_rng(zlib.crc32(f"{path} {tuple(shape)}".encode()))
    value = random.uniform(-1, 1, shape).astype("float32")
    kind = path.rpartition("/")[2]
    if kind in ("gamma", "moving_variance"):
        return 1 + 0.2 * value
    if len(shape) == 1:
        return 0.1 * value
    by_channel = "depthwise" in path or "_dw" in path
    fan = int(np.prod(shape[:2] if by_channel else shape[:-1]))
    return (value * (6 / fan) ** 0.5).astype("float32")


@pytest.mark.parametrize("name", [n for n, case in MODELS.items() if "output" in case])
def test_numbers_are_those_of_keras(name, nothing_drawn):
    case = MODELS[name]
    model = made(case)
    for weight in model.weights:
        weight.assign(made_again(weight.path, weight.shape))
    x = case["images"].astype("float32") / 127.5 - 1
    found = evaluate(model.output, [model.input], [x])[:, :64]  # by NumPy: compiling them all would take minutes
    close = {"rtol": 1e-3, "atol": 2e-5 * np.abs(case["output"]).max()}
    np.testing.assert_allclose(found, case["output"], **close)
    if case["class"] == "ResNet50":
        np.testing.assert_allclose(model.predict(x, verbose=0)[:, :64], case["output"], **close)


def test_a_network_is_compiled_and_trained():
    trunk = applications.MobileNet(**SMALL, input_shape=(32, 32, 3), alpha=0.25)
    trunk.trainable = False
    photo = gnomon.Input((32, 32, 3))
    model = gnomon.Model(photo, layers.Dense(2)(trunk(applications.mobilenet.preprocess_input(photo))))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype("float32")
    before = trunk.get_weights()
    at_once = model(x, training=False)
    model.fit(x, np.zeros((3, 2)), epochs=1, batch_size=2, verbose=0)
    for a, b in zip(trunk.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    model.layers[-1].set_weights([np.zeros_like(w) for w in model.layers[-1].get_weights()])
    assert at_once.any()
    assert not model.predict(x, verbose=0).any()


# ---- arguments


def test_arguments_are_those_of_keras():
    assert set(RECORDED["signatures"]) == {n for n in applications.__all__ if n[0].isupper()}
    for name, wanted in RECORDED["signatures"].items():
        found = inspect.signature(getattr(applications, name)).parameters.values()
        assert [(p.name, p.default) for p in found] == list(wanted.items()), name


def test_an_input_of_ones_own(nothing_drawn):
    photo = gnomon.Input((40, 40, 3), dtype="uint8", name="photo")
    model = applications.MobileNet(**SMALL, alpha=0.25, input_tensor=layers.Rescaling(1 / 255)(photo))
    assert [layer.name for layer in model.layers[:2]] == ["photo", "rescaling"]
    assert model.input_shape == (None, 40, 40, 3)
    with pytest.raises(ArgumentError, match="input_tensor is what gnomon.Input or a layer gave, got ndarray"):
        applications.VGG16(**SMALL, input_tensor=np.ones((1, 40, 40, 3)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"weights": "imagenett"}, "there is no file 'imagenett'"),
        ({"weights": "imagenet", "classes": 10}, "there are 1000 classes, got classes=10"),
        ({"weights": "imagenet", "input_shape": (64, 64, 3)}, r"input_shape is \(224, 224, 3\), got \(64, 64, 3\)"),
        ({"weights": "imagenet", "include_top": False, "input_shape": (64, 64, 1)}, "images of 3 channels"),
        ({"weights": "imagenet", "classifier_activation": "relu"}, "None or 'softmax', got .*'relu'"),
        ({"weights": None, "input_shape": (31, 64, 3)}, r"at least 32 x 32 pixels, got input_shape=\(31, 64, 3\)"),
        ({"weights": None, "input_shape": (None, None, 3)}, "include_top=True input_shape must have no open sizes"),
        ({"weights": None, "input_shape": (64, 64)}, "three sizes"),
        ({"weights": None, "include_top": False, "pooling": "mean"}, "pooling is None, 'avg' or 'max', got 'mean'"),
    ],
)
def test_mistakes(arguments, said):
    with pytest.raises(ArgumentError, match=said):
        applications.ResNet50(**arguments)
    with pytest.raises(ArgumentError, match=said.replace("224", "299").replace("32", "71")):
        applications.Xception(**arguments)


def test_alphas_that_were_trained():
    with pytest.raises(ArgumentError, match=r"alpha 0\.25, 0\.5, 0\.75 or 1, got .*alpha=0\.3"):
        applications.MobileNet(alpha=0.3)
    with pytest.raises(ArgumentError, match=r"1\.4, got alpha=0\.3"):
        applications.MobileNetV2(alpha=0.3)


def test_channels_first(nothing_drawn):
    gnomon.config.set_image_data_format("channels_first")
    try:
        assert applications.ResNet50(**SMALL).input_shape == (None, 3, None, None)
        assert applications.MobileNetV2(**SMALL, alpha=0.35, input_shape=(3, 40, 33)).output_shape == (None, 1280)
        with pytest.raises(ArgumentError, match="channels come last"):
            applications.DenseNet121(**SMALL)
    finally:
        gnomon.config.set_image_data_format("channels_last")


# ---- weights


def tiny(channels=2):
    eye, norm = layers.Conv2D(2, 3, name="eye"), layers.BatchNormalization(name="norm")
    return gnomon.Sequential([gnomon.Input((5, 5, channels)), eye, norm, layers.Flatten(), layers.Dense(2)])


def test_weights_of_imagenet_are_looked_for_and_not_downloaded(monkeypatch, tmp_path, nothing_drawn):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(MissingFileError, match=r"mobilenet_2_5_128_tf_no_top\.h5 is not in .*models"):
        applications.MobileNet(include_top=False, alpha=0.25, input_shape=(128, 128, 3))
    source = applications.MobileNet(**SMALL, alpha=0.25, input_shape=(128, 128, 3))
    for weight in source.weights:
        weight.assign(np.full(weight.shape, 0.5, "float32"))
    (tmp_path / "models").mkdir()
    with h5py.File(tmp_path / "models" / "mobilenet_2_5_128_tf_no_top.h5", "w") as file:
        write_older(file, source)
    found = applications.MobileNet(include_top=False, alpha=0.25, input_shape=(128, 128, 3))
    assert all((w == 0.5).all() for w in found.get_weights())


def write_older(group, model):
    """The form of Keras 1 and 2: names of layers, and in a group for each the names of its arrays."""
    group.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
    for layer in model.layers:
        inner = group.create_group(layer.name)
        inner.attrs["weight_names"] = [f"{layer.name}/{w.name}:0".encode() for w in layer.weights]
        for w in layer.weights:
            inner[f"{layer.name}/{w.name}:0"] = w.numpy()


def test_files_of_keras_3_are_read(tmp_path):
    source = tiny()
    for file in ("own.weights.h5", "own.keras"):
        (source.save_weights if file.endswith("h5") else source.save)(tmp_path / file)
        target = tiny()
        read_weights(target, tmp_path / file)
        for a, b in zip(source.get_weights(), target.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_older_file_of_keras_is_read(tmp_path):
    case = RECORDED["older file"]
    path = tmp_path / "older.h5"
    path.write_bytes(case["file"].tobytes())
    model = tiny()
    read_weights(model, path)
    for a, b in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_array_equal(a, b)
    frozen = tiny()
    frozen.trainable = False
    read_weights(frozen, path)
    np.testing.assert_array_equal(frozen.get_layer("norm").moving_mean, model.get_layer("norm").moving_mean)


def test_older_files_that_do_not_fit(tmp_path):
    source = tiny()
    with h5py.File(tmp_path / "whole.h5", "w") as file:  # of a whole model, its names in two attributes
        group = file.create_group("model_weights")
        write_older(group, source)
        names = group.attrs["layer_names"]
        del group.attrs["layer_names"]
        group.attrs["layer_names0"], group.attrs["layer_names1"] = names[:2], names[2:]
    target = tiny()
    read_weights(target, tmp_path / "whole.h5")
    np.testing.assert_array_equal(target.get_weights()[0], source.get_weights()[0])

    wide = tiny(channels=3)
    kept = wide.get_weights()
    with pytest.raises(DataError, match=r"does not fit layer 'eye', which needs arrays of \[\(3, 3, 3, 2\)"):
        read_weights(wide, tmp_path / "whole.h5")
    np.testing.assert_array_equal(wide.get_weights()[0], kept[0])
    short = gnomon.Sequential([gnomon.Input((5, 5, 2)), layers.Conv2D(2, 3)])
    with pytest.raises(DataError, match="has weights for 3 layers, the model .* 1"):
        read_weights(short, tmp_path / "whole.h5")

    with h5py.File(tmp_path / "whole.h5", "a") as file:
        del file["model_weights"]["eye"]["eye/bias:0"]
    with pytest.raises(FileError, match="is damaged: the arrays of 'eye'"):
        read_weights(tiny(), tmp_path / "whole.h5")
    with h5py.File(tmp_path / "other.h5", "w"):
        pass
    with pytest.raises(FileError, match="has no layer_names"):
        read_weights(tiny(), tmp_path / "other.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(FileError, match="cannot be read as a file of weights"):
        read_weights(tiny(), tmp_path / "text.h5")


# ---- pictures and names


@pytest.mark.parametrize("name", RECORDED["preprocessed"])
def test_pictures_are_prepared_as_keras_does(name):
    case = RECORDED["preprocessed"][name]
    prepare = getattr(applications, case["module"]).preprocess_input
    given = case["x"].copy()
    found = prepare(given, data_format=case["data_format"])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(given, case["x"])
    np.testing.assert_allclose(found, case["result"], rtol=1e-5, atol=2e-5)
    x = gnomon.Input(case["x"].shape[1:], dtype="uint8")
    symbolic = gnomon.function([x], prepare(x, data_format=case["data_format"]))(case["x"])
    np.testing.assert_allclose(symbolic, case["result"], rtol=1e-5, atol=2e-5)


def test_names_of_classes(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    case = RECORDED["decoded"]
    with pytest.raises(MissingFileError, match=r"imagenet_class_index\.json is not in"):
        applications.resnet.decode_predictions(case["preds"])
    (tmp_path / "models").mkdir()
    names = {str(k): [f"n{k:08d}", f"thing {k}"] for k in range(1000)}
    (tmp_path / "models" / "imagenet_class_index.json").write_text(json.dumps(names))
    found = applications.vgg16.decode_predictions(case["preds"], top=3)
    assert [[list(row) for row in rows] for rows in found] == case["top 3"]
    with pytest.raises(ArgumentError, match=r"\(batch, 1000\), got \(2, 10\)"):
        common.decode_predictions(case["preds"][:, :10])
    (tmp_path / "models" / "imagenet_class_index.json").write_text("[]")
    with pytest.raises(DataError, match="is not Keras's list of classes"):
        common.decode_predictions(case["preds"])
