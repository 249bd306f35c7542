"""The progress bar, `fit`, `evaluate`, `predict` and the callbacks print what Keras prints."""

import contextlib
import io
import sys

import pytest

import gnomon
from gnomon.models import steps, training
from gnomon.utils import progbar
from tests.frontend.training.support import Clock, assert_close, assert_prints
from tests.frontend.training.test_recorded_fit import UNSAID
from tests.recorded.load import load
from tests.recorded.playback import play

TEXTS = load("texts")


class SetClock(Clock):
    """A clock that is set by hand."""

    def time(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("output", [io.StringIO, Terminal])
@pytest.mark.parametrize("name", TEXTS["progress"])
def test_progress_bar(name, output, monkeypatch):
    case = TEXTS["progress"][name]
    clock = SetClock()
    clock.now = 0.0
    monkeypatch.setattr(progbar, "time", clock)
    out = output()
    with contextlib.redirect_stdout(out):
        bar = gnomon.utils.Progbar(**case["arguments"])
        for seconds, current, values, *finalize in case["updates"]:
            clock.now = seconds
            bar.update(current, [tuple(value) for value in values], *finalize)
    assert out.getvalue() == case["text"]


def test_the_bar_has_plain_characters_where_there_are_no_others(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    gnomon.utils.Progbar(4).update(4, [("loss", 1.0)])
    assert b"====================" in written.getvalue()


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("fit", "callbacks") for name in TEXTS[kind]])
def test_printed(kind, name, monkeypatch):
    gnomon.utils.clear_session()
    case, clock = TEXTS[kind][name], Clock()
    for module in (progbar, steps, training):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(steps, "AT_ONCE", 0)  # predict shows each batch
    found = play(case, gnomon)
    assert_prints(found.get("text"), case.get("text"))
    if "log" in case["result"]:  # a file of numbers
        assert_prints(found["result"]["log"], case["result"]["log"])
    else:
        assert_close(found["result"], case["result"])
    assert found.get("warnings", []) == [w for w in case.get("warnings", []) if not w.startswith(UNSAID)]
