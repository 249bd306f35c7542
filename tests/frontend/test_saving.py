"""Files of Keras are read, files of gnomon have Keras's form, and neither is ever half written or half read."""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from io import BytesIO
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gnomon
from gnomon import layers
from gnomon.callbacks import ModelCheckpoint
from gnomon.compiler.errors import (
    ArgumentError,
    DataError,
    FileError,
    GnomonError,
    MissingFileError,
    NotBuiltError,
    ShapeError,
)
from gnomon.models import load_model
from tests.recorded.load import FOLDER, load

RECORDED = load("saving")["models"]
KERAS = FOLDER / "saving"
READABLE = [(name, file) for name, case in RECORDED.items() for file in case["files"]]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 6)).astype("float32")
Y = RNG.normal(size=(20, 2)).astype("float32")


def made(case):
    """The model of recorded source text, new."""
    gnomon.utils.clear_session()
    gnomon.utils.set_random_seed(9)
    names = {"keras": gnomon, "layers": layers, "np": np}
    exec(case["code"], names)
    return names["model"]


def small(**options):
    model = gnomon.Sequential(
        [gnomon.Input((6,)), layers.Dense(4, activation="relu", name="hidden"), layers.Dense(2)], name="small"
    )
    model.compile(**{"optimizer": "adam", "loss": "mse"} | options)
    return model


def trained(**options):
    model = small(**options)
    model.fit(X, Y, epochs=1, batch_size=5, verbose=0)
    return model


def groups_of(source):
    """{"layers/dense/vars": {"0": [6, 5], "1": [5]}} of an open or stored HDF5 file."""
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Group) and name.endswith("vars"):
            found[name] = {key: list(item[key].shape) for key in item}

    with h5py.File(source) as file:
        file.visititems(note)
    return found


# ---- with Keras


@pytest.mark.parametrize("name, file", READABLE, ids=[file for _, file in READABLE])
def test_what_keras_wrote_is_read(name, file):
    case = RECORDED[name]
    if file.endswith(".keras"):
        model = load_model(KERAS / file)
    else:
        model = made(case)
        if not model.built:
            model(case["inputs"])
        model.load_weights(KERAS / file)
    for got, wanted in zip(model.get_weights(), case["weights"], strict=True):
        np.testing.assert_array_equal(got, wanted)
    for got, wanted in zip(model.optimizer.variables, case["optimizer"], strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted)
    np.testing.assert_allclose(model.predict(case["inputs"], verbose=0), case["predict"], rtol=1e-5, atol=1e-6)
    found = model.evaluate(case["inputs"], case["y"], verbose=0, return_dict=True)
    assert found.keys() == case["evaluate"].keys()
    for key, wanted in case["evaluate"].items():
        assert found[key] == pytest.approx(wanted, rel=1e-5)
    if "goes on" in case:
        history = model.fit(case["inputs"], case["y"], epochs=2, batch_size=4, shuffle=False, verbose=0)
        for key, wanted in case["goes on"].items():
            np.testing.assert_allclose(history.history[key], wanted, rtol=1e-4)


@pytest.mark.parametrize("name", RECORDED)
def test_files_have_the_groups_that_keras_writes(name, tmp_path):
    case = RECORDED[name]
    model = made(case)
    model.fit(case["inputs"], case["y"], verbose=0)
    model.save_weights(tmp_path / "own.weights.h5")
    groups = groups_of(tmp_path / "own.weights.h5")
    streams = {name: groups.pop(name) for name in list(groups) if "seed_generator" in name}
    assert groups == case["groups"]
    assert streams == ({"layers/dropout/seed_generator/vars": {"0": [2]}} if name == "sequential" else {})


def test_configuration_in_a_file_is_keras_s(tmp_path):
    with zipfile.ZipFile(KERAS / "functional.keras") as archive:
        keras = json.loads(archive.read("config.json"))
    load_model(KERAS / "functional.keras").save(tmp_path / "own.keras")
    with zipfile.ZipFile(tmp_path / "own.keras") as archive:
        assert archive.namelist() == ["metadata.json", "config.json", "model.weights.h5"]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        own = json.loads(archive.read("config.json"))
        metadata = json.loads(archive.read("metadata.json"))
        groups = groups_of(BytesIO(archive.read("model.weights.h5")))
    assert metadata["keras_version"].startswith("3.")
    assert groups == RECORDED["functional"]["groups"]
    assert plain(own) == plain(keras)


@pytest.mark.parametrize("name", ["compiled", "compiled with objects and dicts"])
def test_compile_configuration_is_keras_s(name):
    case = load("configs")["models"][name]
    model = made(case)
    assert plain(model.get_compile_config()) == plain(case["get_compile_config"])
    again = gnomon.models.clone_model(model)
    again.compile_from_config(model.get_compile_config())
    assert plain(again.get_compile_config()) == plain(model.get_compile_config())


def plain(value):
    """Without addresses, and what only one of the two writes: quantization, the delta of Huber that Keras forgets, an
    empty compile_config."""
    only_one = ("shared_object_id", "quantization_config", "delta")
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in only_one and (k, v) != ("compile_config", {})}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


# ---- and back


@pytest.mark.parametrize("name", RECORDED)
def test_weights_come_back(name, tmp_path):
    case = RECORDED[name]
    model = made(case)
    model.fit(case["inputs"], case["y"], verbose=0)
    model.save_weights(tmp_path / "own.weights.h5")
    other = made(case)
    other(case["inputs"])
    other.load_weights(tmp_path / "own.weights.h5")
    state = lambda m: [v.numpy() for v in [*m.variables, *m.optimizer.variables]]
    for a, b in zip(state(model), state(other), strict=True):
        np.testing.assert_array_equal(a, b)
    again = [m.fit(case["inputs"], case["y"], shuffle=False, verbose=0).history["loss"] for m in (model, other)]
    assert again[0] == again[1]  # dropout included: the random streams go on


def test_a_model_comes_back(tmp_path):
    model = trained(optimizer=gnomon.optimizers.Adam(0.25), metrics=["mae"])
    model.optimizer.learning_rate = 0.125
    model.save(tmp_path / "m.keras")
    other = load_model(tmp_path / "m.keras")
    assert other.name == "small"
    assert [layer.name for layer in other.layers] == ["hidden", model.layers[1].name]
    assert float(other.optimizer.learning_rate.numpy()) == 0.125
    assert int(other.optimizer.iterations.numpy()) == 4
    np.testing.assert_array_equal(model.predict(X, verbose=0), other.predict(X, verbose=0))
    assert model.evaluate(X, Y, verbose=0) == other.evaluate(X, Y, verbose=0)
    history = [m.fit(X, Y, shuffle=False, verbose=0).history for m in (model, other)]
    assert history[0] == history[1]
    assert not load_model(tmp_path / "m.keras", compile=False).compiled


def test_a_model_that_was_never_trained_comes_back_ready_to_train(tmp_path):
    model = small()
    model.save(tmp_path / "m.keras")
    other = load_model(tmp_path / "m.keras")
    history = [m.fit(X, Y, shuffle=False, verbose=0).history for m in (model, other)]
    assert history[0] == history[1]


def test_weights_are_taken_from_a_model_file(tmp_path):
    model = trained()
    model.save(tmp_path / "m.keras")
    other = small()
    other.load_weights(str(tmp_path / "m.keras"))
    np.testing.assert_array_equal(model.predict(X, verbose=0), other.predict(X, verbose=0))


def parts(depth):
    """Layers of models as (kind, number), models as lists of them."""
    plain = st.tuples(st.sampled_from(["dense", "dropout", "relu", "mine"]), st.integers(1, 3))
    return st.lists(plain if not depth else plain | parts(depth - 1), min_size=1, max_size=3)


class Mine(layers.Layer):
    """A layer with weights of two kinds and layers in lists."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.blocks: list[Any] = [layers.Dense(units), [layers.Dense(units), layers.Dropout(0.5)]]
        self._last = layers.Dense(6)

    def build(self, input_shape):
        self.count = self.add_weight((), "zeros", trainable=False, name="count")
        self.scale = self.add_weight(input_shape[-1:], name="scale")

    def call(self, x):
        return self._last(self.blocks[1][1](self.blocks[1][0](self.blocks[0](x * self.scale))))


def stacked(description, inner=False):
    made: dict[str, Any] = {
        "dense": layers.Dense,
        "dropout": lambda n: layers.Dropout(n / 4),
        "relu": layers.ReLU,
        "mine": Mine,
    }
    inside = [stacked(p, True) if isinstance(p, list) else made[p[0]](p[1]) for p in description]
    return gnomon.Sequential(inside if inner else [gnomon.Input((4,)), *inside])


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(parts(2), st.booleans())
def test_all_state_of_any_model_comes_back(description, whole):
    one, other = stacked(description), stacked(description)
    for k, v in enumerate(one.variables):
        v.assign(np.arange(v.buffer.array.size).reshape(v.shape) + 1000 * k)
    with tempfile.TemporaryDirectory() as folder:
        if whole:
            one.save(f"{folder}/m.keras")
            other = load_model(f"{folder}/m.keras", {"Mine": Mine})
        else:
            one.save_weights(f"{folder}/m.weights.h5")
            other.load_weights(f"{folder}/m.weights.h5")
    for v, w in zip(one.variables, other.variables, strict=True):
        np.testing.assert_array_equal(v.numpy(), w.numpy())


def test_a_shared_layer_is_written_once_and_read_for_all(tmp_path):
    shared = layers.Dense(6, name="shared")
    inputs = gnomon.Input((6,))
    inner = gnomon.Sequential([shared], name="inner")
    model = gnomon.Model(inputs, inner(shared(inputs)))
    model.save_weights(tmp_path / "m.weights.h5")
    assert [name for name, arrays in groups_of(tmp_path / "m.weights.h5").items() if arrays] == ["layers/dense/vars"]
    before = model.predict(X, verbose=0)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    model.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(model.predict(X, verbose=0), before)


def test_layers_may_write_what_they_like(tmp_path):
    class Counting(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.seen = 0

        def call(self, x):
            return x

        def save_own_variables(self, store):
            store["seen"] = np.asarray(self.seen)

        def load_own_variables(self, store):
            self.seen = int(store["seen"])

    model = gnomon.Sequential([gnomon.Input((6,)), Counting(), layers.Dense(2)])
    model.layers[0].seen = 41
    model.save_weights(tmp_path / "m.weights.h5")
    model.layers[0].seen = 0
    model.load_weights(tmp_path / "m.weights.h5")
    assert model.layers[0].seen == 41


def test_custom_objects(tmp_path):
    @gnomon.saving.register_keras_serializable("tests")
    class Twice(layers.Layer):
        def call(self, x):
            return 2 * x

    def spread(y, p):
        return gnomon.ops.mean(gnomon.ops.square(y - p), axis=-1)

    model = gnomon.Sequential([gnomon.Input((6,)), Twice(), layers.Dense(2)])
    model.compile("sgd", loss=spread)
    model.save(tmp_path / "m.keras")
    with pytest.raises(ArgumentError, match=r"m\.keras.*'spread'.*custom_objects"):
        load_model(tmp_path / "m.keras")
    other = load_model(tmp_path / "m.keras", custom_objects={"spread": spread})
    assert other.evaluate(X, Y, verbose=0) == model.evaluate(X, Y, verbose=0)
    assert load_model(tmp_path / "m.keras", compile=False).predict(X, verbose=0).shape == (20, 2)


def test_checkpoints_keep_the_best(tmp_path):
    model = small()
    best = ModelCheckpoint(tmp_path / "best.weights.h5", monitor="loss", save_best_only=True, save_weights_only=True)
    every = ModelCheckpoint(tmp_path / "all" / "{epoch:02d}.keras")
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[best, every])
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["01.keras", "02.keras", "best.weights.h5"]
    np.testing.assert_array_equal(load_model(tmp_path / "all" / "02.keras").get_weights()[0], model.get_weights()[0])


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, gnomon, gnomon.saving, gnomon.models; assert 'h5py' not in sys.modules, 'h5py'"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- what goes wrong


def test_old_and_broken_files_are_never_half_replaced(tmp_path, monkeypatch):
    model = trained()
    path = tmp_path / "m.weights.h5"
    model.save_weights(path)
    before = path.read_bytes()

    def fail(store):
        raise RuntimeError("no more")

    monkeypatch.setattr(model.layers[1], "save_own_variables", fail)
    with pytest.raises(RuntimeError, match="no more"):
        model.save_weights(path)
    with pytest.raises(RuntimeError, match="no more"):
        model.save(tmp_path / "m.keras")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.weights.h5"]


def test_links_and_permissions_stay(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "m.weights.h5"
    link.symlink_to(tmp_path / "elsewhere" / "m.weights.h5")
    trained().save_weights(link)
    assert link.is_symlink()
    assert (tmp_path / "elsewhere" / "m.weights.h5").stat().st_mode & 0o444
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["m.weights.h5"]


def test_a_file_that_is_there_is_replaced_only_if_it_may_be(tmp_path):
    model = trained()
    for save, name in ((model.save_weights, "m.weights.h5"), (model.save, "m.keras")):
        save(tmp_path / name)
        save(tmp_path / name)
        with pytest.raises(FileError, match=rf"{name}.*exists already: pass overwrite=True"):
            save(tmp_path / name, overwrite=False)


@pytest.mark.parametrize(
    "path, error, message",
    [
        ("m.h5", ArgumentError, r"must end in '\.weights\.h5', got '.*m\.h5'"),
        ("m.npz", ArgumentError, "must end in"),
        ("none/m.weights.h5", MissingFileError, "there is no folder '.*none'"),
        (5, ArgumentError, "filepath is a string or a path, got 5 of type int"),
    ],
)
def test_paths_to_write_are_checked(path, error, message, tmp_path):
    with pytest.raises(error, match=message):
        trained().save_weights(tmp_path / path if isinstance(path, str) else path)
    assert not list(tmp_path.iterdir())


def test_paths_to_read_are_checked(tmp_path):
    model = trained()
    model.save_weights(tmp_path / "first.weights.h5")
    with pytest.raises(MissingFileError, match=r"no file '.*second\.weights\.h5'.*'first\.weights\.h5'"):
        model.load_weights(tmp_path / "second.weights.h5")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.keras")
    with pytest.raises(FileError, match="it is a folder"):
        model.load_weights(tmp_path)
    (tmp_path / "old.h5").write_bytes(b"")
    for read in (model.load_weights, load_model):
        with pytest.raises(FileError, match=r"older \.h5 files"):
            read(tmp_path / "old.h5")
    (tmp_path / "m.npz").write_bytes(b"")
    with pytest.raises(FileError, match=r"names end in '\.weights\.h5' or '\.keras'"):
        model.load_weights(tmp_path / "m.npz")


def test_damaged_files_are_named(tmp_path):
    model = trained()
    model.save_weights(tmp_path / "m.weights.h5")
    model.save(tmp_path / "m.keras")
    for read, name in ((model.load_weights, "m.weights.h5"), (load_model, "m.keras")):
        for content in (b"", b"text", (tmp_path / name).read_bytes()[:2000]):
            (tmp_path / f"bad.{name}").write_bytes(content)
            with pytest.raises(FileError, match=rf"bad\.{name}.*(no HDF5 file|not a model of Keras 3).*damaged"):
                read(tmp_path / f"bad.{name}")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FileError, match=r"has no 'config\.json', but 'readme\.txt'"):
        load_model(tmp_path / "other.keras")


def test_weights_that_do_not_fit_are_explained_and_nothing_is_loaded(tmp_path):
    trained().save_weights(tmp_path / "m.weights.h5")
    other = gnomon.Sequential([gnomon.Input((6,)), layers.Dense(4, name="mine"), layers.Dense(3, name="top")])
    before = other.get_weights()
    with pytest.raises(DataError) as raised:
        other.load_weights(tmp_path / "m.weights.h5")
    message = str(raised.value)
    assert "m.weights.h5" in message
    assert "layer 'top' (Dense, at 'layers/dense_1' of the file" in message
    assert "'kernel' of shape (4, 3), the file has it of shape (4, 2)" in message
    assert "nothing was loaded" in message
    assert "skip_mismatch=True" in message
    for a, b in zip(before, other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.warns(UserWarning, match=r"'top'.*\(4, 3\).*left as it is"):
        other.load_weights(tmp_path / "m.weights.h5", skip_mismatch=True)
    assert not np.array_equal(other.get_weights()[0], before[0])
    np.testing.assert_array_equal(other.get_weights()[2], before[2])
    with pytest.warns(UserWarning, match="no layer for: 'layers/dense_1'"):
        other.load_weights(tmp_path / "m.weights.h5", objects_to_skip=[other.layers[1]])


def test_another_number_of_variables_is_explained(tmp_path):
    trained().save_weights(tmp_path / "m.weights.h5")
    other = gnomon.Sequential(
        [gnomon.Input((6,)), layers.Dense(4, use_bias=False), layers.Dense(2), layers.Dense(2, name="new")]
    )
    with pytest.raises(DataError) as raised:
        other.load_weights(tmp_path / "m.weights.h5")
    assert "has 1 variables (kernel (6, 4)), the file has 2 ((6, 4), (4,))" in str(raised.value)
    assert "layer 'new' (Dense, at 'layers/dense_2' of the file) has 2 variables" in str(raised.value)
    assert "the file has 0 (none)" in str(raised.value)


def test_weights_of_a_larger_model_are_warned_of(tmp_path):
    trained().save_weights(tmp_path / "m.weights.h5")
    other = gnomon.Sequential([gnomon.Input((6,)), layers.Dense(4)])
    with pytest.warns(UserWarning, match=r"no layer for: 'layers/dense_1' \(named 'dense") as caught:
        other.load_weights(tmp_path / "m.weights.h5")
    assert caught[0].filename == __file__


def test_an_optimizer_of_another_kind_starts_anew(tmp_path):
    trained().save_weights(tmp_path / "m.weights.h5")
    other = small(optimizer="sgd")
    with pytest.warns(UserWarning, match="the state of optimizer 'sgd.*is not loaded.*has 2 variables.*file has 10"):
        other.load_weights(tmp_path / "m.weights.h5")
    assert int(other.optimizer.iterations.numpy()) == 0
    plain = gnomon.Sequential([gnomon.Input((6,)), layers.Dense(4), layers.Dense(2)])
    plain.load_weights(tmp_path / "m.weights.h5")  # not compiled: weights alone


def test_models_without_weights_are_not_written(tmp_path):
    model = gnomon.Sequential([layers.Dense(2)], name="later")
    with pytest.raises(NotBuiltError, match="'later' is not built yet"):
        model.save_weights(tmp_path / "m.weights.h5")
    trained().save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(NotBuiltError, match="'later' is not built yet"):
        model.load_weights(tmp_path / "m.weights.h5")
    with pytest.warns(UserWarning, match="'later' is saved before it is built"):
        model.save(tmp_path / "m.keras")
    assert not load_model(tmp_path / "m.keras").built


def test_own_variables_are_checked():
    layer = layers.Dense(2, name="mine")
    with pytest.raises(DataError, match="layer 'mine' has 0 variables.*not built yet"):
        layer.load_own_variables({"0": np.ones(2)})
    layer.build((None, 3))
    with pytest.raises(ShapeError, match=r"'mine' has 'bias' of shape \(2,\), got one of shape \(3,\)"):
        layer.load_own_variables({"0": np.ones((3, 2)), "1": np.ones(3)})


# ---- files that mean harm


def changed(tmp_path, change):
    """The path of a weights file that `change` has altered."""
    path = tmp_path / "m.weights.h5"
    trained().save_weights(path)
    with h5py.File(path, "a") as file:
        change(file)
    return path


def replace(file, value):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars/0"] = value


def external_values(file):
    del file["layers/dense/vars/0"]
    file["layers/dense/vars"].create_dataset("0", (6, 4), "float32", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: replace(f, h5py.ExternalLink("other.h5", "/x")), "a link to elsewhere, which is not followed"),
        (lambda f: replace(f, h5py.SoftLink("/layers/dense_1/vars/0")), "a link to elsewhere, which is not followed"),
        (external_values, "keeps its values in another file"),
        (lambda f: replace(f, np.zeros((6, 4), "S3")), r"has 'kernel' of dtype float32, the file has it of dtype \|S3"),
        (lambda f: replace(f, [["text"] * 4] * 6), "has 'kernel' of dtype float32, the file has it of dtype object"),
    ],
)
def test_links_and_objects_in_files_are_refused(change, message, tmp_path):
    path = changed(tmp_path, change)
    with pytest.raises(GnomonError, match=message):
        small().load_weights(path)


def test_a_huge_array_is_not_read(tmp_path):
    path = changed(tmp_path, lambda f: (
        f["layers/dense/vars"].__delitem__("0"),
        f["layers/dense/vars"].create_dataset("0", (1 << 20, 1 << 20), "float32", chunks=(1024, 1024)),
    ))  # fmt: skip
    with pytest.raises(DataError, match=r"the file has it of shape \(1048576, 1048576\)"):
        small().load_weights(path)


def test_code_in_files_is_not_run(tmp_path):
    model = gnomon.Sequential([gnomon.Input((6,)), layers.Lambda(gnomon.activations.relu), layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def written(function):
        config = json.loads(members["config.json"])
        next(c for c in config["config"]["layers"] if c["class_name"] == "Lambda")["config"]["function"] = function
        with zipfile.ZipFile(tmp_path / "bad.keras", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, json.dumps(config) if name == "config.json" else content)
        return tmp_path / "bad.keras"

    code = {"class_name": "__lambda__", "config": {"code": "4wEA", "defaults": None, "closure": None}}
    with pytest.raises(ArgumentError, match=r"bad\.keras.*a Python lambda.*is not read"):
        load_model(written(code))
    with pytest.warns(UserWarning, match="safe_mode=False has no effect"), pytest.raises(ArgumentError, match="lambda"):
        load_model(written(code), safe_mode=False)
    for module, name in (("os", "system"), ("builtins", "eval"), ("subprocess", "Popen")):
        function = {"module": module, "class_name": "function", "config": name, "registered_name": name}
        with pytest.raises(ArgumentError, match=f"cannot find the function '{name}'"):
            load_model(written(function))


def test_an_archive_that_expands_beyond_measure_is_refused(tmp_path, monkeypatch):
    from gnomon.saving import archive as archives

    monkeypatch.setattr(archives, "ALLOWED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * (2 << 20))
    with pytest.raises(FileError, match=r"says that it takes 2,097,152 bytes"):
        load_model(tmp_path / "bomb.keras")


def test_a_lambda_is_not_written(tmp_path):
    model = gnomon.Sequential([gnomon.Input((6,)), layers.Lambda(lambda x: x)])
    with pytest.raises(ArgumentError, match="define the function with def"):
        model.save(tmp_path / "m.keras")
    assert not list(tmp_path.iterdir())
