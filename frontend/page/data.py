"""What the page knows of a function: its nodes, which stages have which, and what became of them.

A node that a pass leaves alone is the same one before and after, as nodes are interned. One that reads something else
afterwards is a new node, and so are all behind it. So that this does not look as if everything had changed, nodes of
neighbouring stages are matched, and those that are one thing through all stages make a *row*.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterable, Sequence
from typing import Any

from gnomon.compiler import dtypes, program, show
from gnomon.compiler.graph import Node, TensorType, origins, walk
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.elementwise import Elementwise
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.ops.reduce import Reduce
from gnomon.compiler.sizes import Dim, FloorDiv, Max, Size, product
from gnomon.page.assembly import Assemblies

GIVEN = {"steps": 1}
"""Sizes that are shown for another number than COMMON at first."""
COMMON = 32


def collected(target: Any) -> list[dict[str, Any]]:
    """The data of all functions of a model, its training step first, or of a function alone."""
    from gnomon import inspecting
    from gnomon.models import Model

    if not isinstance(target, Model):
        return [function_data(target, target.name, target.name)]
    modes = ["train", "predict"] if target.compiled else ["predict"]
    layers, assemblies, begun = layers_of(target), Assemblies(), []
    for mode in modes:  # assembly is made while the next one is compiled
        fn = inspecting.function_of(target, mode)
        begun.append((_Collector(fn, target.name, assemblies), mode))
    return [collector.run() | {"name": mode, "title": target.name, "layers": layers} for collector, mode in begun]


def layers_of(model: Any) -> list[str]:
    """The names of a model's layers in the order in which they are called, those of models in it below theirs."""
    names: list[str] = []
    stack = [("", layer) for layer in reversed(model.layers)]
    while stack:
        outer, layer = stack.pop()
        names.append(outer + layer.name)
        stack += [(f"{outer}{layer.name}/", inner) for inner in reversed(getattr(layer, "layers", ()))]
    return names


def function_data(fn: Any, name: str, title: str) -> dict[str, Any]:
    """All that the page shows of one function, as JSON holds it."""
    return _Collector(fn, title, Assemblies()).run() | {"name": name, "title": title, "layers": []}


class _Table:
    """Values by number, each once."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.numbers: dict[Any, int] = {}

    def number(self, key: Any, row: Any = None) -> int:
        found = self.numbers.get(key)
        if found is None:
            found = self.numbers[key] = len(self.rows)
            self.rows.append(key if row is None else row)
        return found


class _Collector:
    def __init__(self, fn: Any, title: str, assemblies: Assemblies):
        self.fn, self.stages, self.program = fn, fn.stages, fn.program
        self.sources = {s.name: s for s in self.program.sources}
        self.assemblies = assemblies
        if self.program.target != "cuda":
            assemblies.begin([self.sources[name] for name in self.stages.kernels])
        self.outermost = f"{title}/"  # a layer is called inside its model, or was alone when that was built
        self.ops, self.types, self.origins, self.sizes = _Table(), _Table(), _Table(), _Table()
        self.numbers: dict[Node, int] = {}
        self.row: dict[Node, int] = {}  # before they are put in order
        self.depth: dict[Node, int] = {}
        self.own: dict[Node, bool] = {}  # whether a node depends on inputs or variables

    def run(self) -> dict[str, Any]:
        stages = self._stages()
        self._match([nodes for _, nodes, _ in stages])
        rows = self._order([nodes for _, nodes, _ in stages])
        kernels = {name: k for k, name in enumerate(self.stages.kernels)}
        made = self._made(kernels)
        steps = self._steps(kernels)
        outputs = self._outputs()
        return {
            "target": self.program.target,
            "sizes": [[s, GIVEN.get(s, COMMON)] for s in self.program.sizes],
            "nodes": [self._node(node) for node in self.numbers],
            "rowOf": [rows[self.row[node]] for node in self.numbers],
            "stages": [
                {"name": stage, "nodes": sorted(self.numbers[n] for n in nodes), "outputs": outputs(roots)}
                for stage, nodes, roots in stages
            ],
            "made": {self.numbers[n]: sorted(found) for n, found in made.items()},
            "melted": {self.numbers[n]: sorted(found) for n, found in self._melted(made).items()},
            "steps": steps,
            "kernels": [[name, kernel.label] for name, kernel in self.stages.kernels.items()],
            "texts": [self._texts(name) for name in self.stages.kernels] + [self._entry()],
            "ops": self.ops.rows,
            "types": self.types.rows,
            "origins": self.origins.rows,
            "formulas": self.sizes.rows,
            "slots": [[s.name, s.kind, f"{TensorType(s.dtype, s.shape)}"] for s in self.program.slots],
        }

    # ---- the graph

    def _stages(self) -> list[tuple[str, list[Node], Sequence[Node]]]:
        """Name, nodes and results of each stage of the graph."""
        found = [("graph", self.stages.graph), *self.stages.passes]
        return [(name, self._everything(roots), roots) for name, roots in found]

    def _everything(self, roots: Iterable[Node], depth: int = 0) -> list[Node]:
        """The nodes of a graph, and before each those of the graphs inside it."""
        nodes: list[Node] = []
        for node in walk(roots):
            for _, inside in show.held_graphs(node.op):
                nodes += self._everything(inside, depth + 1)
            nodes.append(node)
            self.depth.setdefault(node, depth)
        return nodes

    def _match(self, stages: Sequence[Sequence[Node]]) -> None:
        """Give each node a row, that of the node before the pass which it stands for. Such are of the same op, type and
        layer; if there are several, that which reads the same rows, or most of them."""
        count = 0
        before: set[Node] = set()
        for nodes in stages:
            left: dict[tuple[Any, ...], list[Node]] = {}
            here = set(nodes)
            for node in sorted(before - here, key=lambda n: n.serial):
                left.setdefault(self._alike(node), []).append(node)
            for node in nodes:
                if node not in self.row:
                    candidates = left.get(self._alike(node))
                    if candidates:
                        partner = self._nearest(node, candidates)
                        candidates.remove(partner)
                        self.row[node] = self.row[partner]
                    else:
                        self.row[node], count = count, count + 1
                self.numbers.setdefault(node, len(self.numbers))
            before = here

    def _alike(self, node: Node) -> tuple[Any, ...]:
        made = origins(node)
        return type(node.op), str(node.op), str(node.type), made[0].layer if made else ""

    def _nearest(self, node: Node, candidates: Sequence[Node]) -> Node:
        read = [self.row[x] for x in node.inputs]

        def shared(other: Node) -> int:
            return sum(self.row[x] == r for x, r in zip(other.inputs, read, strict=False))

        return max(candidates, key=shared)  # the first of equals

    def _order(self, stages: Sequence[Sequence[Node]]) -> dict[int, int]:
        """The place of each row, so that what a pass made comes behind what it stands behind after the pass."""
        after: dict[int, int] = {-1: -1}
        for nodes in stages:
            last = -1
            for node in nodes:
                row = self.row[node]
                if row not in after:
                    after[row], after[last] = after[last], row
                last = row
        places: dict[int, int] = {}
        row = after[-1]
        while row != -1:
            places[row] = len(places)
            row = after[row]
        return places

    def _node(self, node: Node) -> list[Any]:
        inside = {name: show.view(found) for name, found in show.held_graphs(node.op)}
        label = show.op_text(node.op, inside)
        texts = {name: show.text(found) for name, found in inside.items()}
        simple = isinstance(node.type, TensorType)
        return [
            self.ops.number(label, [type(node.op).__name__, label]),
            self.types.number(str(node.type)),
            [self.numbers[x] for x in node.inputs],
            [self._origin(o) for o in self._owners(node)],
            self._formula(bytes_of(node)) if simple else -1,
            self._formula(arithmetic_of(node)) if simple else -1,
            self.depth[node],
            texts,
        ]

    def _owners(self, node: Node) -> tuple[Any, ...]:
        """Where a node was made; nowhere if it is the same in all models: others that live have made it, too."""
        if node not in self.own:
            for n in walk([node], stop=self.own.__contains__):
                self.own[n] = isinstance(n.op, Input) or any(self.own[x] for x in n.inputs)
        return tuple(origins(node)) if self.own[node] else ()

    def _origin(self, origin: Any) -> int:
        code = linecache.getline(origin.file, origin.line).strip() if origin.file else ""
        row = [origin.layer.removeprefix(self.outermost), os.path.basename(origin.file), origin.line, code]
        return self.origins.number((origin.layer, origin.file, origin.line), row)

    def _formula(self, d: Dim) -> int:
        return self.sizes.number(d, [str(d), formula(d)])

    def _outputs(self) -> Any:
        """Roots -> [node, what it is for] of each."""
        names = [f"output {k}" for k in range(len(self.fn.graph.outputs))]
        names += [f"new {v.path or v.name}" for v in self.fn.graph.updates]
        return lambda roots: [[self.numbers[r], name] for r, name in zip(roots, names, strict=True)]

    # ---- what became of it

    def _made(self, kernels: dict[str, int]) -> dict[Node, set[int]]:
        """The kernels that compute the value of each node that is computed as such."""
        made: dict[Node, set[int]] = {}
        for lowered in self.stages.lowered:
            names = {s.kernel for s in lowered.launches if isinstance(s, program.Launch)}
            launched = {kernels[name] for name in names if name in kernels}
            for node in lowered.nodes:
                if node in self.numbers:
                    made.setdefault(node, set()).update(launched)
        return made

    def _melted(self, made: dict[Node, set[int]]) -> dict[Node, set[int]]:
        """The kernels in which the other nodes of the last stage are computed, as parts of what reads them."""
        into: dict[Node, set[int]] = {}
        for node in reversed(walk(self.stages.simplified)):
            own = made.get(node) or into.get(node, set())
            for x in node.inputs:
                if x not in made and x.inputs:
                    into.setdefault(x, set()).update(own)
        return {n: found for n, found in into.items() if found and n in self.numbers}

    def _steps(self, kernels: dict[str, int]) -> list[list[Any]]:
        nodes = {s: lowered.nodes for lowered in self.stages.lowered for s in lowered.launches}
        rows: list[list[Any]] = []
        stack: list[tuple[program.Step, int]] = [(s, 0) for s in reversed(self.program.steps)]
        while stack:
            step, depth = stack.pop()
            text = show.step_lines(self.program, (step,))[0].partition("  ; ")[0].rstrip(":")
            stack += [(s, depth + 1) for s in reversed(program.parts(step))]
            launch = step if isinstance(step, (program.Launch, program.Library)) else None
            made = nodes.get(launch, []) if launch else []
            rows.append([
                type(step).__name__,
                depth,
                text,
                kernels.get(step.kernel, -1) if isinstance(step, program.Launch) else -1,
                self._formula(launch.bytes) if launch else -1,
                self._formula(launch.flops) if launch else -1,
                sorted(self.numbers[n] for n in made if n in self.numbers),
                [s for s in program.own(step) if s >= 0] if launch else [],
                list(launch.layers) if launch else [],
            ])  # fmt: skip
        return rows

    def _texts(self, name: str) -> dict[str, str]:
        return {"kernel": self.program.kernels[name], **self._code(self.sources[name])}

    def _entry(self) -> dict[str, str]:
        """The code that no kernel is: what runs the kernels. It is long and simple, and not worth its assembly."""
        rest = [s.text for s in self.program.sources if s.name not in self.stages.kernels]
        return {"cuda" if self.program.target == "cuda" else "llvm": "\n".join(rest)}

    def _code(self, source: program.Source) -> dict[str, str]:
        if self.program.target == "cuda":
            return {"cuda": source.text}
        return {"llvm": source.text, "assembly": self.assemblies.of(source.text)}


# ---- sizes and costs


def formula(d: Dim) -> Any:
    """A size as the page evaluates it: a number, or terms [factor, [atoms]]; an atom is a name, or ['div' or 'max', a,
    b]."""
    if not isinstance(d, Size):
        return d
    return [[c, [_atom(a) for a in monomial]] for monomial, c in d.terms]


def _atom(a: Any) -> Any:
    if isinstance(a, FloorDiv | Max):
        return ["div" if isinstance(a, FloorDiv) else "max", formula(a.a), formula(a.b)]
    return a.name


def bytes_of(node: Node) -> Dim:
    """Bytes of a node's value."""
    return product(node.shape) * dtypes.named(node.dtype).bytes


def arithmetic_of(node: Node) -> Dim:
    """About how many additions and multiplications a node's value is."""
    match node.op:
        case Contract():
            x, w = node.inputs
            extent = dict(zip(node.op.x + node.op.w, x.shape + w.shape, strict=True))
            return 2 * product(extent.values())
        case Reduce():
            return product(node.inputs[0].shape)
        case Elementwise():
            return product(node.shape) * node.op.fn.cost
    return 0


__all__ = ["arithmetic_of", "bytes_of", "collected", "formula", "function_data"]
