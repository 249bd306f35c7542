"""What the functions of a library return: codes, and texts that say what they mean."""

from __future__ import annotations

import re
from dataclasses import replace

from gnomon.compiler.aot.library import Library, Routine
from gnomon.compiler.program import Check
from gnomon.compiler.sizes import Dim, Size, maximum, non_negative

OK, POINTER, SIZE, WORKSPACE, STATE, DATA, THREADS = range(7)
CHECKS = 16
"""What functions return; from CHECKS on, the messages of the programs' own checks."""

_PLACE = re.compile(r"(?<=\()[^()]*[/\\](?=[^()/\\]+:\d+\))|[^\s(),]*[/\\](?=[^\s(),/\\]+:\d+)")
"""The folder of a file and line in a message: it is nobody else's business, and would make bytes differ."""


def checks_of(library: Library) -> list[str]:
    """What the programs' own checks say, in the order of their codes."""
    found: dict[str, None] = {}
    for routine in library.routines:
        for check in all_checks(routine):
            found.setdefault(check.message, None)
    return list(found)


def error_texts(library: Library) -> dict[int, str]:
    """What each code means."""
    texts = {
        OK: "all right",
        POINTER: "a pointer is NULL",
        SIZE: "a size is larger than this library allows",
        WORKSPACE: "the memory given is too small",
    }
    if library.stateful:
        texts[STATE] = "the state was not made by init or load of this library"
    if library.stateful or not library.embed:
        texts[DATA] = "the data is damaged, cut short, or of another model or version"
    if library.pool:
        texts[THREADS] = "the system does not start another thread"
    return texts | {CHECKS + k: message for k, message in enumerate(checks_of(library))}


def all_checks(routine: Routine) -> list[Check]:
    """The program's checks, and that no axis of an array has less than no elements."""
    program = routine.program
    own = [replace(c, message=_named(_PLACE.sub("", c.message), routine)) for c in program.checks]
    open_axes: dict[Dim, Check] = {}
    for slot in program.slots:
        for d in slot.shape:
            if isinstance(d, Size) and not non_negative(d) and d not in open_axes:
                message = _named(f"an array would have {d} elements along an axis, which is less than none", routine)
                open_axes[d] = Check(maximum(d, 0), d, message)
    return [*own, *open_axes.values()]


def _named(message: str, routine: Routine) -> str:
    """A message in which sizes that are the value of an input are called like it: their own names have a number that is
    another in each process."""
    for size in routine.program.sizes:
        message = message.replace(size, size.partition(".")[0])
    return message
