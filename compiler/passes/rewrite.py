"""The driver of rewrites: rules are filed under the op class they watch, and graphs are rebuilt from the leaves up.

A rule takes a node and returns a node of the same type that is better, or None. Rules per class, not every rule on
every node: twelve times cheaper on large graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from gnomon.compiler.graph import Node, inherit, walk
from gnomon.compiler.ops.leaves import Literal
from gnomon.compiler.ops.shape import Broadcast

Rule = Callable[[Node], Node | None]
Observer = Callable[[Rule, Node, Node], None]
_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)
ROUNDS = 12
"""Passes over the graph at most: each settles what the one before made possible."""


@contextmanager
def observing(observer: Observer) -> Iterator[None]:
    """Inside, `observer(rule, before, after)` is told of every rewrite: what GNOMON_CHECK checks."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


class Rules:
    """Rules of one pass, by the class of op that they watch."""

    def __init__(self) -> None:
        self.by_class: dict[type, list[Rule]] = {}

    def watch(self, *classes: type) -> Callable[[Rule], Rule]:
        """File a rule under op classes."""

        def enter(rule: Rule) -> Rule:
            for c in classes:
                self.by_class.setdefault(c, []).append(rule)
            return rule

        return enter

    def __call__(self, roots: Sequence[Node]) -> list[Node]:
        """`roots` with the rules applied until none has anything to say."""
        roots = list(roots)
        settled: set[Node] = set()  # nodes that no rule has anything to say about: they look at nothing else
        for _ in range(ROUNDS):
            new = self._once(roots, settled)
            if all(a is b for a, b in zip(new, roots, strict=True)):
                break
            roots = new
        return roots

    def _once(self, roots: Sequence[Node], settled: set[Node]) -> list[Node]:
        done: dict[Node, Node] = {}
        for node in walk(roots):
            inputs = tuple([done[x] for x in node.inputs])
            same = inputs == node.inputs  # nodes are equal if they are the same
            if same and (node in settled or type(node.op) not in self.by_class):
                done[node] = node
                continue
            with inherit(node):
                made = done[node] = self._settle(node if same else Node(node.op, inputs))
            settled.add(made)
        return [done[r] for r in roots]

    def _settle(self, node: Node) -> Node:
        """Rules at one node, and again at what they made."""
        observer = _observer.get()
        for _ in range(20):
            for rule in self.by_class.get(type(node.op), ()):
                new = rule(node)
                if new is not None and new is not node:
                    assert new.type == node.type, (rule.__name__, node, new)
                    if observer is not None:
                        observer(rule, node, new)
                    node = new
                    break
            else:
                return node
        return node


def number(node: Node):
    """The value of a node that is one number everywhere, else None."""
    if isinstance(node.op, Broadcast) and isinstance(node.inputs[0].op, Literal):
        return node.inputs[0].op.value
    return node.op.value if isinstance(node.op, Literal) else None


def is_number(node: Node, value: float) -> bool:
    """Whether a node is `value` everywhere (0 means 0.0 and -0.0)."""
    found = number(node)
    return found is not None and bool(found == value)
