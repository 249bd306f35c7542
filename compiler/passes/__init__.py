"""Graph to graph. `PASSES` is the one list of them, in the order they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gnomon.compiler.graph import Node
from gnomon.compiler.ops.control import without_unused_results
from gnomon.compiler.ops.remat import inlined
from gnomon.compiler.passes.algebra import algebra
from gnomon.compiler.passes.loops import join_families, loops, read_in_place, undelayed
from gnomon.compiler.passes.narrow import narrowed
from gnomon.compiler.passes.padded import read_padded
from gnomon.compiler.passes.parts import parts
from gnomon.compiler.passes.split import split
from gnomon.compiler.passes.stabilize import stabilize
from gnomon.compiler.passes.windows import windows

PASSES: tuple[tuple[str, Callable[[Sequence[Node]], list[Node]]], ...] = (
    ("take out of loops", loops),
    ("simplify", algebra),
    ("join parts", parts),
    ("windows", windows),
    ("stabilize", stabilize),
    ("multiply delayed", undelayed),
    ("simplify again", algebra),
    ("compute what is read", narrowed),
    ("split reductions", split),
    ("read in place", read_in_place),
    ("read what is padded", read_padded),
)


def simplify(roots: Sequence[Node], observe: Callable[[str, list[Node]], None] | None = None) -> list[Node]:
    """All passes in order; `observe` is told the name of each and what it made of the graph."""
    roots = without_unused_results(join_families(inlined(roots)))
    for name, run in PASSES:
        roots = run(roots)
        if observe is not None:
            observe(name, roots)
    return roots


def simplify_body(roots: Sequence[Node]) -> list[Node]:
    """The passes for what is inside a loop, before it is decided what of it leaves the loop."""
    roots = without_unused_results(join_families(inlined(roots)))
    for run in (loops, algebra, parts, windows, stabilize, algebra):
        roots = run(roots)
    return roots


__all__ = ["PASSES", "simplify", "simplify_body", "stabilize"]
