# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Cases that are source text: run here with `keras` as Keras, and in a test with `keras` as gnomon."""

import contextlib
import io
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from textwrap import dedent
from typing import Any

import keras
import numpy as np

from .store import random_of


def namespace(given: dict[str, Any]) -> dict[str, Any]:
    """What a snippet may use: `keras`, `layers`, `np`, the given arrays, and `result`, where it leaves values."""
    return {"keras": keras, "layers": keras.layers, "np": np, "result": {}, **given}


def train(name: str, build: str, run: str, **given: Any) -> dict[str, Any]:
    """Run `build` (makes `model`), set weights drawn by the case's name, run `run`; keep `result` and the weights."""
    keras.utils.clear_session()
    build, run, names = dedent(build).strip(), dedent(run).strip(), namespace(given)
    with _watched() as seen:
        exec(build, names)
        model = names["model"]
        weights = initial_weights(name, [tuple(w.shape) for w in model.get_weights()])
        model.set_weights(weights)
        names["history"] = None
        exec(run, names)
    result = dict(names["result"])
    if names["history"] is not None:
        result["history"], result["epoch"] = names["history"].history, names["history"].epoch
    result["weights"] = model.get_weights()
    return {"given": given, "build": build, "initial weights": weights, "run": run, "result": tidy(result), **seen}


@contextlib.contextmanager
def _watched() -> Iterator[dict[str, Any]]:
    """Run in an empty folder; what was written to standard output and warned of comes into the dict, if anything."""
    seen: dict[str, Any] = {}
    before, out = os.getcwd(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        os.chdir(folder)
        try:
            with contextlib.redirect_stdout(out):
                yield seen
        finally:
            os.chdir(before)
    if out.getvalue():
        seen["text"] = mask_times(out.getvalue())
    # NumPy's complaint about JAX arrays is no matter of Keras's users
    told = [warning for warning in caught if "__array__" not in str(warning.message)]
    if told:
        texts = [f"{warning.category.__name__}: {plain_text(str(warning.message))}" for warning in told]
        seen["warnings"] = list(dict.fromkeys(texts))


def initial_weights(name: str, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    random = random_of(f"initial weights of {name}")
    return [(0.5 * random.standard_normal(shape)).astype("float32") for shape in shapes]


def printed(name: str, code: str, **given: Any) -> dict[str, Any]:
    """Run `code`; keep what it writes to standard output, times masked, its warnings, and `result`."""
    keras.utils.clear_session()
    code, names = dedent(code).strip(), namespace(given)
    names["set_weights"] = lambda model: model.set_weights(
        initial_weights(name, [tuple(w.shape) for w in model.get_weights()])
    )
    with _watched() as seen:
        exec(code, names)
    return {"code": code, "given": given, "result": tidy(names["result"]), **seen}


def error(code: str, **given: Any) -> dict[str, Any]:
    """Run `code`, which should raise; keep the exception's type and text (None where Keras lets it pass)."""
    keras.utils.clear_session()
    code, names = dedent(code).strip(), namespace(given)
    found: dict[str, Any] = {"code": code, "given": given, "type": None}
    with _watched() as seen:
        try:
            exec(code, names)
        except Exception as raised:
            found["type"], found["bases"] = type(raised).__name__, [c.__name__ for c in type(raised).__mro__[1:-1]]
            found["message"] = plain_text(str(raised))
    return {**found, "result": tidy(names["result"]), **seen}


def plain_text(text: str) -> str:
    """Without colours and addresses."""
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", re.sub(r"\x1b\[[0-9;]*m", "", text))


def mask_times(text: str) -> str:
    """Put <t> where durations and rates stand: `0s`, `1:05`, `12ms/step`; colours and backspaces stay."""
    return re.sub(r"(?<![\w.])(\d+:)?\d+(\.\d+)?(s|ms|us|µs)(?=[/ \x1b\n]|$)", "<t>", text)


def tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: tidy(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tidy(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return value if np.ndim(value) else value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    array = np.asarray(value)
    assert array.dtype != object, value
    return array if array.ndim else array.item()
