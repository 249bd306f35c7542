"""A line on the terminal about a compilation that takes long, gone again when it is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from gnomon import config
from gnomon.compiler.request import Stages
from gnomon.runtime import cpu

AFTER, EVERY = 2.0, 0.5
"""Seconds until the line appears, and between two of its states."""


@contextmanager
def told(what: str, state: Callable[[], str]) -> Iterator[None]:
    """Around work called `what`: after a while say in one line what `state` it is in, where somebody sees it."""
    stream = sys.stderr
    if not (config.is_interactive_logging_enabled() and _is_seen(stream)):
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_tell, args=(what, state, stream, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _is_seen(stream: TextIO | None) -> bool:
    """A terminal or a notebook: they take back what they have written in a line."""
    return stream is not None and (stream.isatty() or type(stream).__module__.startswith("ipykernel"))


def _tell(what: str, state: Callable[[], str], stream: TextIO, done: threading.Event) -> None:
    began, width = time.monotonic(), 0
    wait = AFTER
    while not done.wait(wait):
        wait = EVERY
        line = f"compiling {what}: {state()}, {time.monotonic() - began:.0f} s"[:100]
        stream.write("\r" + line.ljust(width))
        stream.flush()
        width = len(line)
    if width:
        stream.write("\r" + " " * width + "\r")
        stream.flush()


def state_of(stages: Stages) -> str:
    """How far a compilation is, in words, from what it has filled in."""
    if not stages.groups:
        return f"simplifying the graph ({len(stages.passes)} passes done)"
    lowered, groups = len(stages.lowered), len(stages.groups)
    made, sources = cpu.made()
    return f"machine code {made} of {sources}" if sources else f"kernels {lowered} of {groups}"
