"""Graph to graph. `simplify` runs all passes in their order."""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.compiler.graph import Node


def simplify(roots: Sequence[Node]) -> list[Node]:
    return list(roots)
