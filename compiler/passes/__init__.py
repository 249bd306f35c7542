"""Graph to graph. `PASSES` is the one list of them, in the order they run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gnomon.compiler.graph import Node
from gnomon.compiler.ops.control import without_unused_results
from gnomon.compiler.passes.algebra import algebra
from gnomon.compiler.passes.split import split
from gnomon.compiler.passes.stabilize import stabilize
from gnomon.compiler.passes.windows import windows

PASSES: tuple[tuple[str, Callable[[Sequence[Node]], list[Node]]], ...] = (
    ("simplify", algebra),
    ("windows", windows),
    ("stabilize", stabilize),
    ("simplify again", algebra),
    ("split reductions", split),
)


def simplify(roots: Sequence[Node], observe: Callable[[str, list[Node]], None] | None = None) -> list[Node]:
    """All passes in order; `observe` is told the name of each and what it made of the graph."""
    roots = without_unused_results(roots)
    for name, run in PASSES:
        roots = run(roots)
        if observe is not None:
            observe(name, roots)
    return roots


__all__ = ["PASSES", "simplify", "stabilize"]
