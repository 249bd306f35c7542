"""Run a recorded case that is source text: with Keras when it is recorded, with gnomon when it is tested."""

import contextlib
import io
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


def play(case: dict[str, Any], keras: Any, set_weights: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Run the case's `build` and `run`, or its `code`, with `keras` under that name; give what Keras's recording holds.

    The source uses `keras`, `layers`, `np`, the names in `given`, `set_weights(model)`, and leaves values in the dict
    `result`. After `build` the `model` gets the `initial weights`. The answer has `result` (NumPy arrays and Python
    values; `history` and `epoch` of the variable `history`, and the model's `weights`, if there was a `build`) and, if
    there are any, the printed `text`, times masked, and `warnings`. A case recorded with a `type` may raise: the
    answer then has the exception's `type`, `bases` and `message`.
    """
    if set_weights is None:

        def set_weights(model: Any) -> None:
            model.set_weights(case["initial weights"])

    names = {"keras": keras, "layers": keras.layers, "np": np, "set_weights": set_weights, **case["given"]}
    names["result"], names["history"] = {}, None
    found: dict[str, Any] = {}
    with _watched() as seen:
        if "type" in case:
            found["type"] = None
            try:
                exec(case["code"], names)
            except Exception as raised:
                found["type"], found["bases"] = type(raised).__name__, [c.__name__ for c in type(raised).__mro__[1:-1]]
                found["message"] = without_colours(str(raised))
        elif "code" in case:
            exec(case["code"], names)
        else:
            exec(case["build"], names)
            set_weights(names["model"])
            exec(case["run"], names)
    result = dict(names["result"])
    if names["history"] is not None:
        result["history"], result["epoch"] = names["history"].history, names["history"].epoch
    if "build" in case:
        result["weights"] = names["model"].get_weights()
    return {**found, "result": tidy(result), **seen}


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
        texts = [f"{warning.category.__name__}: {without_colours(str(warning.message))}" for warning in told]
        seen["warnings"] = list(dict.fromkeys(texts))


def without_colours(text: str) -> str:
    """The text without terminal colours, and with addresses masked."""
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", re.sub(r"\x1b\[[0-9;]*m", "", text))


def mask_times(text: str) -> str:
    """Put <t> where durations and rates stand: `0s`, `1:05`, `12ms/step`.

    Colours stay. A run of backspaces becomes one, and padding before a line's end goes: both depend on the times.
    """
    text = re.sub("\b+", "\b", text)  # a backspace here, and no word boundary: the string is not raw
    text = re.sub(r"(?<=\x1b\[1m)(\d+:)*\d+s?(?=\x1b)", "<t>", text)
    text = re.sub(r"(?<![\w.])\d+(s|ms|us)(?=[/ \n])", "<t>", text)
    return re.sub(r" +(?=\n)", "", text) if "<t>" in text else text


def tidy(value: Any) -> Any:
    """Tensors as NumPy arrays, scalars as Python's, tuples as lists."""
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
