# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Every initializer: exact values where they are fixed, the exact distribution where they are random, configs."""

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import initializers
from keras.src.initializers import random_initializers

from .store import plain

SHAPES = [(3, 4), (100, 7), (1, 1), (5,), (3, 3, 8, 16), (2, 5, 4), (2, 3, 4, 5, 6), ()]

FIXED: list[tuple[str, dict[str, Any], tuple[int, ...], str]] = [
    ("Zeros", {}, (2, 3), "float32"), ("Ones", {}, (2, 3), "float32"), ("Zeros", {}, (), "int32"),
    ("Ones", {}, (4,), "bool"), ("Constant", {}, (2,), "float32"), ("Constant", {"value": 0.25}, (2, 3), "float32"),
    ("Constant", {"value": 3}, (2,), "int32"), ("Constant", {"value": [1.0, 2.0, 3.0]}, (2, 3), "float32"),
    ("Identity", {}, (3, 3), "float32"), ("Identity", {"gain": 2.0}, (2, 4), "float32"),
    ("Identity", {}, (4, 2), "float32"), ("STFT", {}, (8, 1, 5), "float32"),
    ("STFT", {"side": "imag", "window": "hamming", "scaling": "spectrum", "periodic": True}, (8, 1, 5), "float32"),
    ("STFT", {"window": None, "scaling": None}, (6, 1, 4), "float32"),
]  # fmt: skip
SCALED = ("GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "LecunUniform", "LecunNormal")
RANDOM: list[tuple[str, dict[str, Any]]] = [
    ("RandomNormal", {}), ("RandomNormal", {"mean": 1.0, "stddev": 2.0}),
    ("RandomUniform", {}), ("RandomUniform", {"minval": -1.0, "maxval": 3.0}),
    ("TruncatedNormal", {}), ("TruncatedNormal", {"mean": 1.0, "stddev": 2.0}),
    *((name, {}) for name in SCALED),
    *(("VarianceScaling", {"scale": 2.0, "mode": mode, "distribution": distribution})
      for mode in ("fan_in", "fan_out", "fan_avg")
      for distribution in ("truncated_normal", "untruncated_normal", "uniform", "normal")),
    ("VarianceScaling", {}), ("VarianceScaling", {"input_axes": [0, 1], "output_axes": [-1]}),
]  # fmt: skip


def record() -> dict[str, Any]:
    return {"fixed": _fixed(), "random": _random(), "fans": _fans(), "orthogonal": _orthogonal(), "seeds": _seeds(),
            "configs": _configs()}  # fmt: skip


def _label(name: str, arguments: dict[str, Any]) -> str:
    return name + "".join(f", {key}={value}" for key, value in arguments.items())


def _fixed() -> dict[str, Any]:
    return {
        f"{_label(name, arguments)}, {shape} {dtype}": {
            "class": name, "arguments": arguments, "shape": shape, "dtype": dtype,
            "value": np.asarray(getattr(initializers, name)(**arguments)(shape, dtype)),
        }
        for name, arguments, shape, dtype in FIXED
    }  # fmt: skip


def _random() -> dict[str, Any]:
    """The call of keras.random that each makes, and what a large sample looks like."""
    found = {}
    for name, arguments in RANDOM:
        draws = []
        for shape in SHAPES:
            if len(shape) < 2 and "input_axes" in arguments:
                continue
            calls: list[dict[str, Any]] = []
            with _Spied(calls):
                getattr(initializers, name)(**arguments)(shape)
            draws.append({"shape": shape, **calls[0]})
        sample = np.asarray(getattr(initializers, name)(seed=1, **arguments)((400, 250)), "float64")
        statistics = {"mean": sample.mean(), "std": sample.std(), "min": sample.min(), "max": sample.max()}
        found[_label(name, arguments)] = {"class": name, "arguments": arguments, "draws": draws,
                                          "sample of (400, 250)": statistics}  # fmt: skip
    return found


class _Spied:
    """Note which function of keras.random the initializers call, and with what numbers."""

    def __init__(self, calls: list[dict[str, Any]]):
        self.calls = calls

    def __enter__(self) -> None:
        self.real = random_initializers.random
        spies = {name: self._spy(name) for name in ("uniform", "normal", "truncated_normal")}
        random_initializers.random = SimpleNamespace(**{**vars(self.real), **spies})

    def __exit__(self, *_: object) -> None:
        random_initializers.random = self.real

    def _spy(self, name: str) -> Any:
        def call(shape: Any, seed: Any = None, dtype: Any = None, **numbers: float) -> Any:
            self.calls.append({"draws": name, **numbers})
            return getattr(self.real, name)(shape, seed=seed, dtype=dtype, **numbers)

        return call


def _fans() -> list[Any]:
    return [{"shape": shape, "fans": random_initializers.compute_fans(shape)} for shape in SHAPES]


def _orthogonal() -> list[Any]:
    """As a matrix of its last axis, either the value's columns or its rows are orthonormal, times gain."""
    found = []
    for shape, gain in (((4, 4), 1.0), ((6, 3), 1.0), ((3, 6), 2.0), ((3, 3, 4, 8), 1.0)):
        value = np.asarray(initializers.Orthogonal(gain=gain, seed=1)(shape))
        flat = value.reshape(-1, shape[-1])
        tall = flat.shape[0] >= flat.shape[1]
        gram = flat.T @ flat if tall else flat @ flat.T
        error = float(np.abs(gram - gain**2 * np.eye(len(gram))).max())
        orthonormal = "columns" if tall else "rows"
        found.append({"shape": shape, "gain": gain, "orthonormal": orthonormal, "largest error": error})
    return found


def _seeds() -> dict[str, bool]:
    def same(initializer: Any, other: Any = None) -> bool:
        return bool((np.asarray(initializer((3, 4))) == np.asarray((other or initializer)((3, 4)))).all())

    class_ = initializers.GlorotUniform
    generator = keras.random.SeedGenerator(1)
    unseeded = class_()
    return {
        "one object, seed 1, called twice: equal": same(class_(seed=1)),
        "one object, no seed, called twice: equal": same(unseeded),
        "one object, a SeedGenerator, called twice: equal": same(class_(seed=generator)),
        "two objects, seed 1: equal": same(class_(seed=1), class_(seed=1)),
        "two objects, no seed: equal": same(class_(), class_()),
        "after clone, no seed: equal": same(unseeded, unseeded.clone()),
    }


def _configs() -> dict[str, Any]:
    names = [*SCALED, "Zeros", "Ones", "Constant", "Identity", "Orthogonal", "RandomNormal", "RandomUniform",
             "TruncatedNormal", "VarianceScaling", "STFT"]  # fmt: skip
    made = {name: getattr(initializers, name)() for name in names}
    made["GlorotUniform, seed"] = initializers.GlorotUniform(seed=7)
    made["Constant, value"] = initializers.Constant(0.5)
    return {
        name: {"get_config": plain(initializer.get_config()), "serialize": plain(initializers.serialize(initializer))}
        for name, initializer in made.items()
    }
