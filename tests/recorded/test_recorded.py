"""Each recorded topic can be read without Keras, and README.md says what it holds."""

import re
import sys

import numpy as np
import pytest

from .load import FOLDER, load

TOPICS = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("topic", TOPICS)
def test_topic_loads_without_keras(topic: str) -> None:
    content = load(topic)
    assert content
    assert all(not array.flags.writeable for array in _arrays(content))
    assert "keras" not in sys.modules


def test_readme_lists_every_topic() -> None:
    assert sorted(re.findall(r"^\| `(\w+)`", (FOLDER / "README.md").read_text(), re.M)) == TOPICS


def _arrays(value: object) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [array for item in items for array in _arrays(item)]
