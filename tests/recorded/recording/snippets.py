# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs, and `playback` is found beside record_keras.py)
"""Record cases that are source text; `playback.play` runs them here and in the tests."""

from textwrap import dedent
from typing import Any

import keras
import numpy as np
from playback import play

from .store import random_of


class Clock:
    """Stands for the module `time` in Keras's progress bar: each look is 60 ms later, so that every step is shown."""

    now = 1000.0

    def time(self) -> float:
        self.now += 0.06
        return self.now


def train(name: str, build: str, run: str, **given: Any) -> dict[str, Any]:
    """A model that `build` makes, weights drawn by the case's name, then `run`."""
    return _record(name, {"given": given, "build": dedent(build).strip(), "run": dedent(run).strip()})


def printed(name: str, code: str, **given: Any) -> dict[str, Any]:
    """Code that prints or leaves something in `result`."""
    return _record(name, {"given": given, "code": dedent(code).strip()})


def error(name: str, code: str, **given: Any) -> dict[str, Any]:
    """Code that should raise; `type` is None where Keras lets it pass."""
    return _record(name, {"given": given, "code": dedent(code).strip(), "type": None})


def _record(name: str, case: dict[str, Any]) -> dict[str, Any]:
    def set_weights(model: Any) -> None:
        random = random_of(f"initial weights of {name}")
        shapes = [array.shape for array in model.get_weights()]
        assert shapes, "a model without weights yet would get random ones"
        case["initial weights"] = [(0.5 * random.standard_normal(shape)).astype("float32") for shape in shapes]
        model.set_weights(case["initial weights"])

    keras.utils.clear_session()
    keras.src.utils.progbar.time = Clock()
    # Keras may show batches from several threads, in any order; here they come in order
    keras.callbacks.CallbackList._async_dispatch = lambda self, function, *given: function(*given)
    played = play(case, keras, set_weights)  # which puts the initial weights into `case`
    return {**case, **played}


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Normal arrays, each drawn by its name and shape."""
    return {
        name: random_of(f"{name} {shape}").standard_normal(shape).astype("float32") for name, shape in shapes.items()
    }
