"""What is asked of the compiler, and what it tells on its way. Apart from it, for a program that was compiled before is
found without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gnomon.compiler.graph import Node
from gnomon.compiler.sizes import Dim

if TYPE_CHECKING:
    from gnomon.compiler.kernel import Kernel
    from gnomon.compiler.lowering.emit import RowProgram
    from gnomon.compiler.lowering.fuse import Group
    from gnomon.compiler.program import Launch, Library


@dataclass
class Request:
    """What is to be compiled.

    inputs     leaves in the caller's order
    outputs    nodes in the caller's order
    updates    (parameter, new value) pairs: all values are computed from the old state, then stored
    repeat     (counter, count): run the whole graph `count` times, `counter` (a leaf, int64) being 0, 1, 2 …; outputs
               are those of the last round
    prepare    keep what depends on nothing but variables and constants from call to call, until a variable changes
    tables     and spend memory on it: products of whole tables instead of those of the rows that a call asks for
    """

    name: str
    inputs: Sequence[Node]
    outputs: Sequence[Node]
    updates: Sequence[tuple[Node, Node]] = ()
    repeat: tuple[Node, Dim] | None = None
    prepare: bool = False
    tables: bool = False


@dataclass
class Lowered:
    """A group as it was lowered: its nodes, its launches and calls of libraries in order, and the nodes whose values
    the slots hold that they read and write."""

    nodes: list[Node]
    reads: list[tuple[int, Node]]
    writes: list[tuple[int, Node]]
    launches: list[Launch | Library] = field(default_factory=list)


@dataclass
class Stages:
    """What the pipeline went through, for people: each stage as it was."""

    graph: list[Node] = field(default_factory=list)
    passes: list[tuple[str, list[Node]]] = field(default_factory=list)  # the graph after each pass
    simplified: list[Node] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    rows: list[tuple[str, RowProgram]] = field(default_factory=list)
    kernels: dict[str, Kernel] = field(default_factory=dict)
    nodes: dict[str, list[Node]] = field(default_factory=dict)  # what each kernel computes
    lowered: list[Lowered] = field(default_factory=list)
