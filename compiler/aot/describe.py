"""What a `.gnx` file says of the library in it, as JSON."""

from __future__ import annotations

from typing import Any

from gnomon.compiler.aot.library import HEAD, Argument, Library, Routine
from gnomon.compiler.sizes import Atom, Dim, FloorDiv, Max, Symbol


def describe(library: Library) -> dict[str, Any]:
    """Everything that a caller who does not read the header has to know."""
    return {
        "gnomon": library.version,
        "model": library.model,
        "prefix": library.prefix,
        "sizes": list(library.sizes),
        "largest": dict(library.largest),
        "state": HEAD + library.state_bytes if library.stateful else 0,
        "resets": bool(library.reset),
        "threads": library.threads,
        "pool": library.pool,
        "routines": [_routine(r) for r in library.routines],
    }


def _routine(routine: Routine) -> dict[str, Any]:
    program = routine.program
    return {
        "name": routine.name,
        "what": routine.what,
        "inputs": [_argument(a) for a in routine.inputs],
        "outputs": [_argument(a) for a in routine.outputs],
        "sizes": list(program.sizes),
        "bindings": [list(b) for b in program.bindings],
        "changes": routine.changes,
        "form": routine.form,
    }


def _argument(a: Argument) -> dict[str, Any]:
    return {"name": a.name, "label": a.label, "dtype": a.dtype, "shape": [size(d) for d in a.shape]}


def size(d: Dim) -> Any:
    """A size: a number, or how it reads and its terms, each a factor and atoms."""
    if isinstance(d, int):
        return d
    return {"text": str(d), "terms": [[c, [_atom(a) for a in monomial]] for monomial, c in d.terms]}


def _atom(a: Atom) -> Any:
    match a:
        case Symbol():
            return a.name
        case FloorDiv():
            return ["//", size(a.a), size(a.b)]
        case Max():
            return ["max", size(a.a), size(a.b)]
    raise AssertionError(f"{a!r} in a shape")
