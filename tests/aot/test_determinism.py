"""The same model, version and target give the same bytes: in another process, on another day, in another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = """
    import gnomon
    from gnomon import layers

    def make():
        gnomon.utils.set_random_seed(1)
        image = gnomon.Input((8, 8, 2), name="image")
        x = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(image))
        x = layers.Dense(3, activation="softmax")(layers.Dropout(0.2)(layers.Flatten()(x)))
        model = gnomon.Model(image, x, name="net")
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model
"""


def made(folder: Path, seed: str, *options: str) -> dict[str, bytes]:
    """The files of a compilation in a process of its own."""
    folder.mkdir()
    (folder / "net.py").write_text(textwrap.dedent(SCRIPT))
    own = {"PYTHONHASHSEED": seed, "GNOMON_CACHE_DIR": str(folder / "cache"), "TZ": f"UTC+{seed}"}
    command = [sys.executable, "-m", "gnomon.cli.commands", "compile", "net.py:make()", "-o", *options]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **own}, capture_output=True, text=True)
    if "no linker" in done.stderr:
        pytest.skip("there is no linker here")
    assert done.returncode == 0, done.stderr
    return {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file() and f.suffix != ".py"}


@pytest.mark.parametrize(
    "options",
    [
        ["net.gnx", "--train"], ["net.a", "--target", "cortex-m4", "--batch", "1", "--weights", "file"],
        ["net.obj", "--target", "windows"], ["net.so", "--threads", "pthreads", "--class-weight", "1=2", "--train"],
    ],  # fmt: skip
)
def test_bytes_are_the_same_elsewhere(options, tmp_path):
    one, two = (made(tmp_path / name, seed, *options) for name, seed in (("a", "1"), ("another", "7")))
    assert one.keys() == two.keys()
    for name in one:
        assert one[name] == two[name], name
        assert str(tmp_path).encode() not in one[name]
