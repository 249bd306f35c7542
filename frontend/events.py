"""What was compiled, when and why: one line per function, so that a recompilation cannot hide."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("gnomon")
log.addHandler(logging.NullHandler())


@dataclass
class CompileEvent:
    """One compilation.

    what      name of the function
    inputs    types of its inputs; symbolic sizes are compiled once for all their values
    seconds   from graph to callable
    compiled, cached, shared   how many pieces of code LLVM made now, came from disk, or were in memory already
    """

    what: str
    inputs: tuple[str, ...]
    seconds: float = 0.0
    compiled: int = 0
    cached: int = 0
    shared: int = 0
    at: float = field(default_factory=time.time)

    @property
    def from_cache(self) -> bool:
        """Whether LLVM had nothing to do."""
        return self.compiled == 0

    def loaded(self, executable: Any) -> None:
        for event in executable.loaded.events:
            self.compiled += event.how == "compiled"
            self.cached += event.how == "cache"
            self.shared += event.how == "shared"


_events: list[CompileEvent] = []


def compile_events() -> list[CompileEvent]:
    """Every compilation of this process so far, in order."""
    return list(_events)


@contextmanager
def compiling(what: str, inputs: list[str]) -> Iterator[CompileEvent]:
    event = CompileEvent(what, tuple(inputs))
    start = time.perf_counter()
    yield event
    event.seconds = time.perf_counter() - start
    _events.append(event)
    log.info(
        "compiled %s(%s) in %.3f s: %d new, %d from the cache, %d shared",
        what, ", ".join(inputs), event.seconds, event.compiled, event.cached, event.shared,
    )  # fmt: skip
