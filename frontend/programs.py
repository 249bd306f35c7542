"""Programs from the disk: what one process compiled, the next one only reads.

A program is found by what it was made of (`gnomon.compiler.digest`), the target, and the compiler itself: its version
and the sizes and times of its files. It is stored without the texts of its kernels, which are found by their digests
as machine code, and without what belongs to one request only: keys and names of leaves, layers and lines. An entry that
cannot be read, or whose code is not there any more, costs a compilation.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from dataclasses import replace
from functools import cache
from typing import Any

from gnomon import __version__, compiler
from gnomon.compiler import program as forms
from gnomon.compiler import sizes
from gnomon.compiler.digest import Digest, digest
from gnomon.compiler.errors import GnomonError
from gnomon.compiler.graph import Origin, numbered_origins, user_line, with_origins
from gnomon.compiler.ops.leaves import Input, key_of
from gnomon.compiler.program import Branch, Launch, Library, Prepare, Program, Repeat, Step
from gnomon.compiler.request import Request, Stages
from gnomon.compiler.targets import Target
from gnomon.runtime import cache as disk

FORMAT = "program 1"


def program_for(request: Request, target: Target, stages: Stages) -> Program:
    """The program for a request. From the disk it comes without texts, and `stages` stays as it is.

    Raises CompileError. That machine code is not there any more shows when the program is loaded.
    """
    this = _this_compiler()
    if this is None or disk.path() is None:
        return compile(request, target, stages)
    made_of = digest(request.inputs, request.outputs, request.updates, request.repeat, request.prepare, request.tables)
    if made_of is None:
        return compile(request, target, stages)
    key = disk.key(FORMAT, this, repr(target), made_of.name)
    content = disk.get(key)
    stored = None if content is None else _read(content)
    if stored is not None:
        return _finished(stored, request, made_of)
    known: dict[Origin, int] = {o: k for k, o in enumerate(made_of.origins)}
    try:
        with numbered_origins(known):
            program = compile(request, target, stages)
    except GnomonError:
        return compile(request, target, Stages())  # whose message has the names of layers, not their numbers
    disk.put(key, f"program {request.name}", _written(program, made_of, len(known)))
    return _with_places(program, _names(made_of, len(known)))


def compile(request: Request, target: Target, stages: Stages) -> Program:
    """The compiler, which is loaded when there is something to compile."""
    from gnomon.compiler.compile import compile as compiled

    return compiled(request, target, stages)


def without_texts(program: Program) -> Program:
    """A program as it is kept once it is loaded: of its texts only their digests."""
    sources = tuple(replace(s, text="", digest=s.key) for s in program.sources)
    return replace(program, sources=sources, kernels={})


@cache
def _this_compiler() -> str | None:
    """What tells this compiler from all others; None if its files have been changed since it was loaded."""
    parts = [__version__, sys.version]
    for root in compiler.__path__:
        for folder, _, files in os.walk(root):
            for file in files:
                if file.endswith(".py"):
                    status = os.stat(os.path.join(folder, file))
                    if status.st_mtime > compiler.LOADED:
                        return None
                    parts.append(f"{os.path.relpath(folder, root)}/{file} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(sorted(parts))


# ---- what is stored


def _written(program: Program, made_of: Digest, places: int) -> bytes:
    number = {key_of(leaf): k for k, leaf in enumerate(made_of.leaves)}
    variables = tuple((slot, number[key]) for slot, key in program.variables)
    return pickle.dumps((places, replace(without_texts(program), name="", variables=variables)), protocol=5)


class _Reader(pickle.Unpickler):
    """Reads programs and nothing else."""

    KNOWN = {
        (module.__name__, name)
        for module in (forms, sizes)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"no program has a {module}.{name}")
        return super().find_class(module, name)


def _read(content: bytes) -> tuple[int, Program] | None:
    """What `_written` wrote; None if it is something else."""
    try:
        places, program = _Reader(io.BytesIO(content)).load()
    except Exception:
        return None
    return (places, program) if isinstance(places, int) and isinstance(program, Program) else None


def _finished(stored: tuple[int, Program], request: Request, made_of: Digest) -> Program:
    """A program that was read, with leaves, names and places of this request."""
    places, program = stored
    slots = list(program.slots)
    leaves = dict(zip(program.inputs, request.inputs, strict=True))
    leaves.update((slot, made_of.leaves[k]) for slot, k in program.variables)
    for slot, leaf in leaves.items():
        assert isinstance(leaf.op, Input), leaf
        slots[slot] = replace(slots[slot], name=leaf.op.name)
    variables = tuple((slot, key_of(made_of.leaves[k])) for slot, k in program.variables)
    whole = replace(program, name=request.name, slots=tuple(slots), variables=variables)
    return _with_places(whole, _names(made_of, places))


def _names(made_of: Digest, places: int) -> list[str]:
    """How the origins of a request print. What passes made of nothing that has one is of the line that asks."""
    found = [repr(o) for o in made_of.origins]
    return found + [repr(Origin("", *user_line()))] * (places - len(found))


def _with_places(program: Program, names: list[str]) -> Program:
    """A program with layers and lines where it has their numbers."""

    def placed(steps: tuple[Step, ...]) -> tuple[Step, ...]:
        return tuple(map(place, steps))

    def place(step: Step) -> Step:
        match step:
            case Launch() | Library():
                return replace(step, layers=tuple(with_origins(text, names) for text in step.layers))
            case Repeat() | Prepare():
                return replace(step, steps=placed(step.steps))
            case Branch():
                return replace(step, then=placed(step.then), orelse=placed(step.orelse))
        return step

    checks = tuple(replace(c, message=with_origins(c.message, names)) for c in program.checks)
    return replace(program, steps=placed(program.steps), checks=checks)


__all__ = ["compile", "program_for", "without_texts"]
