"""What the tests of training share."""

import re
from typing import Any

import numpy as np

import gnomon
from gnomon import layers

NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")


def assert_close(found: Any, wanted: Any, rtol: float = 2e-4, atol: float = 1e-5, where: str = "result") -> None:
    """Nested values as recorded: numbers to tolerance, all else exactly. Integers and text in lists count as exact."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict), where
        assert sorted(map(str, found)) == sorted(map(str, wanted)), where
        for key, value in wanted.items():
            assert_close(found[key], value, rtol, atol, f"{where}[{key!r}]")
    elif isinstance(wanted, list):
        assert isinstance(found, list), where
        assert len(found) == len(wanted), where
        for k, value in enumerate(wanted):
            assert_close(found[k], value, rtol, atol, f"{where}[{k}]")
    elif isinstance(wanted, (float, np.ndarray)):
        np.testing.assert_allclose(found, wanted, rtol, atol, equal_nan=True, err_msg=where)
    else:
        assert found == wanted, where


def assert_prints(found: str | None, wanted: str | None, rtol: float = 1e-3) -> None:
    """The same text, numbers with a decimal point to tolerance."""
    assert (found is None) == (wanted is None), (found, wanted)
    if found is None or wanted is None:
        return
    assert NUMBER.sub("#", found) == NUMBER.sub("#", wanted)
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (found, wanted)]
    np.testing.assert_allclose(*numbers, rtol=rtol, atol=2e-4)


class Clock:
    """Stands for the module `time`: each look is 60 ms later, so that each step is shown, as when it was recorded."""

    now = 1000.0

    def time(self) -> float:
        self.now += 0.06
        return self.now

    perf_counter = time


def data(rows: int = 50, width: int = 6, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """x, and labels that depend on it."""
    random = np.random.default_rng(7)
    x = random.standard_normal((rows, width)).astype("float32")
    return x, (x[:, :classes] + 0.3 * random.standard_normal((rows, classes))).argmax(-1)


def classifier(width: int = 6, classes: int = 4, **options: Any) -> gnomon.Sequential:
    """A compiled model of two layers, always with the same weights."""
    model = gnomon.Sequential(
        [gnomon.Input((width,)), layers.Dense(8, activation="tanh"), layers.Dense(classes, activation="softmax")]
    )
    given = {"optimizer": "sgd", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **options}
    random = np.random.default_rng(3)
    model.set_weights([0.3 * random.standard_normal(w.shape) for w in model.get_weights()])
    model.compile(**given)
    return model


class Calls:
    """How often the programs of a model are called, and with how many steps: `with Calls(model) as calls`."""

    def __init__(self, monkeypatch: Any):
        from gnomon.models.steps import Step

        self.steps: list[int] = []
        run = Step.run

        def counted(step: Step, rows: np.ndarray, arrays: Any) -> Any:
            self.steps.append(len(rows))
            return run(step, rows, arrays)

        monkeypatch.setattr(Step, "run", counted)
