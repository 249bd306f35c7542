"""Compiled models in one file: run with NumPy alone, refused where they do not fit."""

from __future__ import annotations

import gc
import json
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers, linking, ops
from gnomon.compiler import aot
from gnomon.compiler.errors import ArgumentError, CompileError, DataError, FileError, MissingFileError, StateError
from gnomon.runtime import gnx, sharing
from tests.aot.test_c_library import article
from tests.aot.test_c_training import BATCH, classifier


def save(source, file: Path, **options) -> Path:
    """A `.gnx` file; skips where no linker is found."""
    try:
        ahead.write(ahead.build(source, "model", embed=False, **options), file, "gnx", ".gnx")
    except CompileError as error:
        if "no linker" in str(error):
            pytest.skip("there is no linker here")
        raise
    return file.with_suffix(".gnx")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    return save(article(), tmp_path_factory.mktemp("gnx") / "article")


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_it_gives_the_bits_of_the_process(file, batch):
    x = np.random.default_rng(0).normal(size=(batch, 784)).astype("float32")
    model = gnomon.runtime.load(file)
    wanted = article().predict(x, verbose=0)
    np.testing.assert_array_equal(model(x), wanted)
    np.testing.assert_array_equal(model(pixels=x.astype("float64")), wanted)
    np.testing.assert_array_equal(model(np.asfortranarray(x)), wanted)
    assert repr(model.inputs) == "[pixels: float32[batch, 784]]"
    assert repr(model.outputs) == "[classes: float32[batch, 10]]"
    assert not model.trains
    assert len(model.digest) == 64


def test_numpy_is_all_it_needs(file):
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        allowed = ("compiler", "compiler.errors", "runtime", "runtime.compiled", "runtime.gnx", "runtime.sharing")
        if name.partition(".")[0] in ("llvmlite", "h5py", "networkx", "rich", "platformdirs", "click", "scipy"):
            raise ImportError(name)
        if name.startswith("gnomon.") and name.removeprefix("gnomon.") not in allowed:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import numpy as np, gnomon
print(gnomon.runtime.load({str(file)!r})(np.ones((2, 784))).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(2, 10)\n"


def test_several_files_and_threads_at_once(file, tmp_path):
    x = np.random.default_rng(1).normal(size=(16, 784)).astype("float32")
    first = gnomon.runtime.load(file)
    inputs = gnomon.Input((5,))
    small = gnomon.Model(inputs, layers.Dense(1, kernel_initializer="ones")(inputs))
    other = gnomon.runtime.load(save(small, tmp_path / "other"))
    wanted, found = first(x), []
    threads = [threading.Thread(target=lambda: found.append(first(x))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for result in found:
        np.testing.assert_array_equal(result, wanted)
    np.testing.assert_array_equal(other(np.ones((2, 5))), [[5], [5]])


def test_threads_do_not_change_results(tmp_path, monkeypatch):
    file = save(article(), tmp_path / "shared", threads=True)
    x = np.random.default_rng(1).normal(size=(9000, 784)).astype("float32")  # enough for the work to be shared
    alone = gnomon.runtime.load(file, threads=1)
    wanted = alone(x)
    for count in (2, 5):
        model = gnomon.runtime.load(file, threads=count)
        pool = sharing.Pool(count)
        np.testing.assert_array_equal(model(x), wanted)
        assert pool.executor is not None
        np.testing.assert_array_equal(model(x[:1]), alone(x[:1]))
    monkeypatch.setenv("GNOMON_THREADS", "1")
    assert gnomon.runtime.load(file)._shared() == [None]
    monkeypatch.setenv("GNOMON_THREADS", "some")
    with pytest.raises(ArgumentError, match="GNOMON_THREADS is 'some'; it must be a whole number, at least 1"):
        gnomon.runtime.load(file)
    with pytest.raises(ArgumentError, match="threads is 0"):
        gnomon.runtime.load(file, threads=0)


@pytest.mark.skipif(gnx.here()[0] not in ("linux", "darwin"), reason="there are no POSIX threads here")
def test_threads_that_the_library_starts(tmp_path):
    """They go with the model, calls at once share them, and a forked child has new ones."""
    file = save(article(), tmp_path / "own", threads="pthreads")
    x = np.random.default_rng(1).normal(size=(9000, 784)).astype("float32")
    wanted = gnomon.runtime.load(file, threads=1)(x)
    model = gnomon.runtime.load(file, threads=3)
    np.testing.assert_array_equal(model(x), wanted)
    with_them = settled()
    with ThreadPoolExecutor(4) as callers:
        for result in callers.map(model, [x] * 8):
            np.testing.assert_array_equal(result, wanted)
    if hasattr(os, "fork"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
            child = os.fork()
        if not child:
            right = np.array_equal(model(x), wanted) and settled() in (0, 3)
            os._exit(0 if right else 1)
        assert os.waitpid(child, 0)[1] == 0
    del model
    gc.collect()
    assert settled() in (0, *range(1, with_them - 1))


def settled() -> int:
    """How many threads this process has when none has come or gone for a while; 0 if the system does not tell."""
    folder = Path("/proc/self/task")
    counts = [-1] if folder.is_dir() else [0] * 10
    while len(set(counts[-10:])) > 1 or len(counts) < 10:
        time.sleep(0.01)
        counts.append(len(list(folder.iterdir())))
    return counts[-1]


@pytest.mark.skipif(gnx.here() != ("linux", "x86_64"), reason="the loader of objects is for Linux on x86-64")
@pytest.mark.parametrize("train", [False, True])
def test_without_a_linker(train, tmp_path, monkeypatch):
    monkeypatch.setattr(linking, "_commands", lambda *arguments: iter(()))
    model = classifier()
    threads = "pthreads" if train else "callback"
    ahead.write(ahead.build(model, "model", embed=False, train=train, threads=threads), tmp_path / "o", "gnx", ".gnx")
    loaded = gnomon.runtime.load(tmp_path / "o.gnx", threads=2)
    x, y = np.random.default_rng(0).random((5000, 784), "float32"), np.zeros(5000, "int32")
    np.testing.assert_array_equal(loaded(x), model.predict(x, batch_size=5000, verbose=0))
    if train:
        assert loaded.step(x, y) == model.train_on_batch(x, y, return_dict=True)
    with pytest.raises(DataError, match="needs 784 along axis 1"):
        loaded(x[:, 1:])
    with pytest.raises(CompileError, match="there is no linker here that makes shared .*pip install ziglang"):
        ahead.write(ahead.build(model, "model"), tmp_path / "o", "shared", ".so")


def test_large_files_are_checked_in_parts(file, tmp_path, monkeypatch):
    content = file.read_bytes()
    monkeypatch.setattr(gnx, "PART", 10_000)
    (length,) = struct.unpack_from("<I", content, 12)
    text = json.loads(content[64 : 64 + length])
    library, weights = (content[at : at + size] for at, size in (text["library"], text["weights"]))
    parts = gnx.pack(text, library, weights)
    (tmp_path / "parts.gnx").write_bytes(parts)
    for count in (1, 2, 7, 100):
        gnomon.runtime.load(tmp_path / "parts.gnx", threads=count)
    for place in (64, 30_000, len(parts) - 1):
        changed = bytearray(parts)
        changed[place] ^= 1
        assert "is damaged" in refused(bytes(changed), tmp_path)


def test_outputs_in_the_form_of_the_model(tmp_path):
    left, right = gnomon.Input((2,), name="left"), gnomon.Input((2,), name="right")
    both = layers.Add(name="both")([left, right])
    outputs = {"sum": both, "twice": layers.Rescaling(2.0, name="twice")(both)}
    model = gnomon.runtime.load(save(gnomon.Model([left, right], outputs), tmp_path / "two"))
    x = np.arange(6.0).reshape(3, 2)
    found = model(right=x, left=x + 1)
    assert set(found) == {"sum", "twice"}
    np.testing.assert_array_equal(found["twice"], 2 * (2 * x + 1))
    with pytest.raises(DataError, match="needs 3 along axis 0, but"):
        model(x, x[:2])


def test_training(tmp_path):
    model = classifier()
    loaded = gnomon.runtime.load(save(model, tmp_path / "digits", train=True))
    rng = np.random.default_rng(0)
    x, y = rng.random((BATCH, 784), "float32"), rng.integers(0, 10, BATCH, "int32")
    assert loaded.trains
    for _ in range(5):
        assert loaded.step(x, y) == model.train_on_batch(x, y, return_dict=True)
    assert loaded.evaluate(x, y=y) == model.test_on_batch(x, y, return_dict=True)
    loaded.save_state(tmp_path / "digits.state")
    wanted = [loaded.step(x, y) for _ in range(2)]
    again = gnomon.runtime.load(tmp_path / "digits.gnx")
    again.load_state(tmp_path / "digits.state")
    assert [again.step(x, y) for _ in range(2)] == wanted
    np.testing.assert_array_equal(again(x), loaded(x))
    (tmp_path / "digits.state").write_bytes(loaded.state()[:-1])
    with pytest.raises(FileError, match="digits.state.*damaged, cut short, or of another model"):
        again.load_state(tmp_path / "digits.state")
    with pytest.raises(FileError, match="cannot read"):
        again.load_state(tmp_path / "other.state")
    with pytest.raises(FileError, match="cannot write"):
        again.save_state(tmp_path / "nowhere" / "digits.state")


def test_numbers_of_sixteen_bits(tmp_path):
    """Weights, inputs and results of bfloat16, which NumPy does not have."""
    x = gnomon.Input((6,), dtype="bfloat16", name="x")
    hidden = layers.Dense(5, activation="gelu", dtype="bfloat16")(x)
    model = gnomon.Model(x, layers.Dense(3, dtype="bfloat16")(hidden))
    model.compile("sgd", "mse")
    loaded = gnomon.runtime.load(save(model, tmp_path / "net", train=True))
    data = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
    wanted = model.predict(data, verbose=0)
    assert loaded(data).dtype == wanted.dtype
    np.testing.assert_array_equal(loaded(data), wanted)
    y = np.ones((4, 3), "float32")
    for _ in range(2):
        assert loaded.step(data, y) == pytest.approx(model.train_on_batch(data, y, return_dict=True), rel=1e-2)
    half = gnomon.Input((6,), dtype="bfloat16", name="half")
    f = gnomon.function([half], half * 1.5, name="more")
    header = aot.header(ahead.build(f, "more"))
    assert "const uint16_t *half" in header
    assert "uint16_t[batch][6] (bits of bfloat16, the upper half of a float)" in header
    more = gnomon.runtime.load(save(f, tmp_path / "more"))
    for given in (data, wanted.dtype.type(0) + np.ones((4, 6), wanted.dtype)):
        np.testing.assert_array_equal(more(given), f(given))


def test_sizes_that_are_values(tmp_path):
    x, k = gnomon.fvector("x"), gnomon.iscalar("k")
    powers, _ = gnomon.scan(lambda before, x: before * x, outputs_info=ops.ones_like(x), non_sequences=x, n_steps=k)
    f = gnomon.function([x, k], powers[-1], name="power")
    loaded = gnomon.runtime.load(save(f, tmp_path / "power"))
    given = np.array([1, 2, -3], "float32")
    for steps in (1, 4, 2):
        np.testing.assert_array_equal(loaded(given, steps), given**steps)
    with pytest.raises(DataError, match="a size is larger than this library allows"):
        loaded(given, -1)


def test_without_train_it_does_not(file):
    model = gnomon.runtime.load(file)
    with pytest.raises(StateError, match="without --train: it has no 'step'"):
        model.step(np.ones((1, 784)), np.ones(1))
    with pytest.raises(StateError, match="nothing in it changes"):
        model.state()


@pytest.mark.parametrize(
    "arrays, named, error, message",
    [
        ([np.ones((2, 783))], {}, DataError, "needs 784 along axis 1, but (2, 783) came"),
        ([np.ones(784)], {}, DataError, "has 2 axes, but an array of shape (784,) came"),
        ([np.ones((1, 784), complex)], {}, DataError, "cannot be complex128: convert it with .astype('float32')"),
        ([], {}, DataError, "the input pixels: float32[batch, 784] is missing"),
        ([], {"pixel": np.ones((1, 784))}, ArgumentError, "there is no input 'pixel'. Did you mean 'pixels'?"),
        ([np.ones((1, 784))] * 2, {}, DataError, "run takes 1 arrays (pixels), but 2 were given"),
        ([np.ones((1, 784))], {"pixels": 1}, ArgumentError, "the input 'pixels' is given twice"),
    ],
)
def test_arrays_that_do_not_fit(file, arrays, named, error, message):
    with pytest.raises(error) as caught:
        gnomon.runtime.load(file)(*arrays, **named)
    assert message in str(caught.value)


# ---- files that are not what they should be


def refused(content: bytes, folder: Path) -> str:
    (folder / "bad.gnx").write_bytes(content)
    with pytest.raises(FileError) as caught:
        gnomon.runtime.load(folder / "bad.gnx")
    assert "bad.gnx" in str(caught.value)
    return str(caught.value)


def test_a_file_that_is_not_there(file, tmp_path):
    with pytest.raises(MissingFileError, match=r"In that folder are 'article.gnx'"):
        gnomon.runtime.load(file.with_name("articel.gnx"))
    assert "cannot read" in str(pytest.raises(FileError, gnomon.runtime.load, tmp_path).value)


def test_cut_short_or_altered(file, tmp_path):
    content = file.read_bytes()
    for length in (0, 7, 40):
        assert "is not a compiled model" in refused(content[:length], tmp_path)
    assert "is not a compiled model" in refused(b"x" * 1000, tmp_path)
    for length in (64, 500, len(content) - 1):
        assert f"is cut short: {length} bytes instead of" in refused(content[:length], tmp_path).replace(",", "")
    assert "is too long" in refused(content + b"\0", tmp_path)
    for place in (20, 70, 2000, len(content) - 3):
        changed = bytearray(content)
        changed[place] ^= 16
        assert "is damaged" in refused(bytes(changed), tmp_path)


def test_another_form_is_not_read(file, tmp_path):
    content = bytearray(file.read_bytes())
    struct.pack_into("<I", content, 8, 2)
    assert "is a compiled model of form 2, and this gnomon reads form 1" in refused(bytes(content), tmp_path)


@pytest.mark.parametrize(
    "platform, message",
    [
        ({"machine": "aarch64"}, "was compiled for aarch64 on linux, and this is"),
        ({"system": "win32"}, "on win32, and this is"),
        ({"flags": ["avx4096"]}, "was compiled for a processor that can do avx4096, and this one cannot"),
    ],
)
@pytest.mark.skipif(gnx.here()[0] != "linux", reason="flags are told by Linux")
def test_another_machine(file, tmp_path, platform, message):
    content = bytearray(file.read_bytes())
    (length,) = struct.unpack_from("<I", content, 12)
    text = json.loads(content[64 : 64 + length])
    text["platform"] |= {"system": "linux", "machine": gnx.here()[1]} | platform
    library, weights = (content[at : at + size] for at, size in (text["library"], text["weights"]))
    assert message in refused(gnx.pack(text, bytes(library), bytes(weights)), tmp_path)


def test_equal_models_give_equal_files(file, tmp_path):
    again = save(article(), tmp_path / "elsewhere")
    assert again.read_bytes() == file.read_bytes()
    assert gnomon.runtime.load(again).digest == gnomon.runtime.load(file).digest
    other = save(article(), tmp_path / "other", max_batch=3)
    assert gnomon.runtime.load(other).digest != gnomon.runtime.load(file).digest
