"""Views of every level: a graph, a kernel or a program as text, DOT, JSON and a networkx graph.

All four are made from one `View`: entries with an id, a label, a type, what they read, and where they came from.
Ids are dense and in walk order, so that equal graphs print equally whatever was built before them.

    text(outputs)              %2 = Plus(%0, %1) : float32[batch, 784]  ; dense (train.py:7)
    dot(outputs)               for Graphviz
    json(outputs)              for programs
    networkx(outputs)          a DiGraph; `networkx.write_graphml` writes it
    diff(before, after)        what a pass changed
`outputs` is a node, several nodes, a `Kernel` or a `Program`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json as _json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any, TypeAlias

from gnomon.compiler import kernel as k
from gnomon.compiler import program as p
from gnomon.compiler.graph import Node, Origin, TensorType, origins, walk
from gnomon.compiler.ops.control import SubGraph

Showable: TypeAlias = "Node | Iterable[Node] | k.Kernel | p.Program | View"


@dataclass(frozen=True)
class Entry:
    """One box of a view.

    label    what it is, with its attributes; `kind` is the class alone
    type     what it yields ('' for a statement or a step)
    inputs   ids of what it reads, in order
    origins  layers and user lines
    inside   the graphs that an op holds (a loop's body), by field
    """

    id: int
    kind: str
    label: str
    type: str = ""
    dtype: str = ""
    shape: tuple[str, ...] = ()
    inputs: tuple[int, ...] = ()
    origins: tuple[Origin, ...] = ()
    inside: dict[str, View] = field(default_factory=dict)

    @property
    def origin(self) -> Origin:
        """Who made it first."""
        return self.origins[0] if self.origins else Origin("", "", 0)


@dataclass(frozen=True)
class View:
    """What the printers print: entries, inputs before users, and the ids of the results."""

    name: str
    entries: tuple[Entry, ...]
    outputs: tuple[int, ...] = ()


def view(outputs: Showable) -> View:
    """The view of a graph (a node or several), a kernel or a program; a view is its own."""
    if isinstance(outputs, View):
        return outputs
    if isinstance(outputs, k.Kernel):
        return _kernel_view(outputs)
    if isinstance(outputs, p.Program):
        return _program_view(outputs)
    return _graph_view([outputs] if isinstance(outputs, Node) else list(outputs))


def text(outputs: Showable, source: bool = True) -> str:
    """A graph as one line per node, a kernel or a program as its own text. `source` adds layers and user lines."""
    if isinstance(outputs, k.Kernel):
        return outputs.text()
    if isinstance(outputs, p.Program):
        return program_text(outputs)
    return "\n".join(_view_lines(view(outputs), "", source))


def dot(outputs: Showable) -> str:
    """The view in Graphviz's language, one cluster per layer."""
    shown = view(outputs)
    by_layer: dict[str, list[Entry]] = {}
    for entry in shown.entries:
        by_layer.setdefault(entry.origin.layer, []).append(entry)
    lines = [f"digraph {_quote(shown.name)} {{", '  node [shape=box, fontname="monospace"];']
    for number, (layer, entries) in enumerate(by_layer.items()):
        pad = "  "
        if layer:
            lines += [f"  subgraph cluster_{number} {{", f"    label={_quote(layer)};"]
            pad = "    "
        for entry in entries:
            title = "\n".join(t for t in (entry.label, entry.type, _place(entry.origin)) if t)
            outline = ", peripheries=2" if entry.id in shown.outputs else ""
            lines.append(f"{pad}n{entry.id} [label={_quote(title)}{outline}];")
        if layer:
            lines.append("  }")
    lines += [f"  n{x} -> n{entry.id};" for entry in shown.entries for x in entry.inputs]
    return "\n".join([*lines, "}"])


def json(outputs: Showable, indent: int | None = 2) -> str:
    """The view as JSON: `{"name", "nodes": [{"id", "op", "type", "inputs", "layer", "file", ...}], "outputs"}`."""
    return _json.dumps(_plain(view(outputs)), indent=indent)


def networkx(outputs: Showable) -> Any:
    """The view as a `networkx.DiGraph` of plain strings and integers, which GraphML can hold.

    Edges carry `positions`, the operand numbers they feed ('0', or '0,1' for x * x).
    """
    import networkx as nx

    shown = view(outputs)
    graph = nx.DiGraph(name=shown.name)
    for e in shown.entries:
        o = e.origin
        source = {"layer": o.layer, "file": o.file, "line": o.line}
        graph.add_node(e.id, op=e.kind, label=e.label, type=e.type, output=e.id in shown.outputs, **source)
        for position, x in enumerate(e.inputs):
            before = graph.edges[x, e.id]["positions"] + "," if graph.has_edge(x, e.id) else ""
            graph.add_edge(x, e.id, positions=f"{before}{position}")
    return graph


def program_text(program: p.Program) -> str:
    """A program as its slots and its steps, kernels by name."""
    slots = program.slots
    lines = [f"program {program.name} for {program.target}"]
    for size, (number, axis) in zip(program.sizes, program.bindings, strict=True):
        of = slots[program.inputs[number]].name
        lines.append(f"  size {size} = {of}" + ("" if axis < 0 else f".shape[{axis}]"))
    lines += [f"  check {c.left} == {c.right}" for c in program.checks]
    keys = dict(program.variables)
    for i, s in enumerate(slots):
        live = f" live {s.first}..{s.last}" if s.kind == "temporary" else ""
        alias = f" is {_part(slots, s)}" if s.alias >= 0 else ""
        variable = f" #{list(keys).index(i)}" if i in keys else ""
        lines.append(f"  {s.kind}{variable} {s.name}: {TensorType(s.dtype, s.shape)}{live}{alias}")
    lines += step_lines(program, program.steps, 1)
    lines.append("  return " + ", ".join(slots[i].name for i in program.outputs))
    return "\n".join(lines)


def _part(slots: tuple[p.Slot, ...], slot: p.Slot) -> str:
    """What memory an alias or a view is."""
    of, row = slots[slot.alias].name, slot.row
    if row is None:
        return of
    place = slots[row.counter].name + ("" if row.shift == 0 else f" + ({row.shift})")
    edge = f", or {slots[row.edge].name}" if row.edge >= 0 else ""
    return f"{of}[{place}{f' modulo {row.ring}' if row.ring else ''}]{edge}"


def diff(before: str, after: str, names: tuple[str, str] = ("before", "after"), context: int = 3) -> str:
    """The unified diff of two texts; '' if they are equal.

    A pass that drops one node renumbers all that follow. So nodes are matched first by what they are, and those of
    `before` take the numbers of their partners in `after`; a node without a partner is marked `%5'`.
    """
    a, b = before.splitlines(), after.splitlines()
    a = _renumber(a, b)
    return "\n".join(difflib.unified_diff(a, b, *names, n=context, lineterm=""))


# ---- graphs


def _graph_view(outputs: list[Node]) -> View:
    nodes = walk(outputs)
    ids = {node: i for i, node in enumerate(nodes)}
    entries = []
    for node in nodes:
        inside = {name: _graph_view(found) for name, found in held_graphs(node.op)}
        simple = node.type if isinstance(node.type, TensorType) else None
        entries.append(
            Entry(
                id=ids[node],
                kind=type(node.op).__name__,
                label=op_text(node.op, inside),
                type=str(node.type),
                dtype=simple.dtype if simple else "",
                shape=tuple(map(str, simple.shape)) if simple else (),
                inputs=tuple(ids[x] for x in node.inputs),
                origins=origins(node),
                inside=inside,
            )
        )
    return View("graph", tuple(entries), tuple(ids[o] for o in outputs))


def held_graphs(op: Any) -> Iterator[tuple[str, list[Node]]]:
    """The nodes in an op's own fields: bodies of loops and branches."""
    for f in dataclasses.fields(op):
        value = getattr(op, f.name)
        if isinstance(value, Node):
            yield f.name, [value]
        elif isinstance(value, tuple) and value and all(isinstance(v, Node) for v in value):
            yield f.name, list(value)
        elif isinstance(value, SubGraph):
            yield f.name, list(value.outputs)


def op_text(op: Any, inside: Mapping[str, Any]) -> str:
    """The op's repr, without the graphs inside it, which are printed below it, and what is as it is by default."""
    if not inside:
        return str(op)
    usual = {f.name for f in dataclasses.fields(op) if getattr(op, f.name) == f.default}
    shown = [f.name for f in dataclasses.fields(op) if f.repr and f.name not in inside and f.name not in usual]
    return f"{type(op).__name__}({', '.join(f'{name}={getattr(op, name)!r}' for name in shown)})"


def _view_lines(shown: View, pad: str, source: bool) -> Iterator[str]:
    for e in shown.entries:
        operands = f"({', '.join(f'%{x}' for x in e.inputs)})" if e.inputs else ""
        op = e.label.removesuffix("()") if operands else e.label
        made = " | ".join(filter(None, map(origin_text, e.origins))) if source else ""
        yield f"{pad}%{e.id} = {op}{operands} : {e.type}" + (f"  ; {made}" if made else "")
        for name, graph in e.inside.items():
            yield f"{pad}  {name}:"
            yield from _view_lines(graph, pad + "    ", source)
    yield f"{pad}return {', '.join(f'%{o}' for o in shown.outputs)}"


def _place(origin: Origin) -> str:
    return f"{os.path.basename(origin.file)}:{origin.line}" if origin.file else ""


def origin_text(origin: Origin) -> str:
    """Layer and line, the file without its folders: 'dense (train.py:7)'."""
    place = _place(origin)
    return " ".join(filter(None, (origin.layer, f"({place})" if place else "")))


def _plain(shown: View) -> dict[str, Any]:
    nodes = []
    for e in shown.entries:
        node: dict[str, Any] = {
            "id": e.id,
            "op": e.kind,
            "label": e.label,
            "type": e.type,
            "dtype": e.dtype,
            "shape": list(e.shape),
            "inputs": list(e.inputs),
            "layer": e.origin.layer,
            "file": e.origin.file,
            "line": e.origin.line,
            "origins": [dataclasses.asdict(o) for o in e.origins],
        }
        if e.inside:
            node["graphs"] = {name: _plain(graph) for name, graph in e.inside.items()}
        nodes.append(node)
    return {"name": shown.name, "nodes": nodes, "outputs": list(shown.outputs)}


# ---- kernels: a tree of statements


def _kernel_view(kernel: k.Kernel) -> View:
    entries: list[Entry] = []
    names = count()
    stack: list[tuple[k.Stmt, tuple[int, ...]]] = [(s, ()) for s in reversed(kernel.body)]
    while stack:
        s, parent = stack.pop()
        number = len(entries)
        text = "\n".join(k.heading(s, names))
        entries.append(Entry(number, type(s).__name__, text.rstrip(":"), inputs=parent))
        match s:
            case k.For() | k.Rounds():
                stack += [(inner, (number,)) for inner in reversed(s.body)]
            case k.If():
                stack += [(inner, (number,)) for inner in reversed(s.then + s.orelse)]
    return View(kernel.label, tuple(entries))


# ---- programs: steps, each after the steps that touched its slots


def _program_view(program: p.Program) -> View:
    entries: list[Entry] = []
    last: dict[int, int] = {}
    for step in program.steps:
        touched = {_memory(program, s) for s in p.touched(step)}
        lines = step_lines(program, (step,), 0)
        layers = tuple(Origin(layer, "", 0) for layer in getattr(step, "layers", ()))
        before = tuple(sorted({last[s] for s in touched if s in last}))
        entries.append(Entry(len(entries), type(step).__name__, "\n".join(lines), inputs=before, origins=layers))
        last.update(dict.fromkeys(touched, entries[-1].id))
    results = tuple(dict.fromkeys(last[m] for s in program.outputs if (m := _memory(program, s)) in last))
    return View(program.name, tuple(entries), results)


def _memory(program: p.Program, slot: int) -> int:
    """The slot that owns the memory of `slot`."""
    while program.slots[slot].alias >= 0:
        slot = program.slots[slot].alias
    return slot


def step_lines(program: p.Program, steps: tuple[p.Step, ...], depth: int = 0) -> list[str]:
    """Steps as text, those inside others two blanks further in."""
    pad = "  " * depth
    slots = program.slots
    lines: list[str] = []

    def names(numbers: Iterable[int]) -> str:
        return ", ".join(slots[i].name for i in numbers)

    for step in steps:
        match step:
            case p.Launch():
                sizes = f"; {', '.join(map(str, step.sizes))}" if step.sizes else ""
                made = f"  ; {', '.join(step.layers)}" if step.layers else ""
                lines.append(f"{pad}launch {step.kernel}({names(step.buffers)}{sizes}) x {step.extent}{made}")
            case p.Copy():
                lines.append(f"{pad}copy {names([step.target])} = {names([step.source])}")
            case p.Clear():
                lines.append(f"{pad}clear {names([step.target])}")
            case p.Library():
                told = ", ".join(f"{key}={value}" for key, value in step.parameters)
                made = f"  ; {', '.join(step.layers)}" if step.layers else ""
                given = names(step.inputs) + (f"; {told}" if told else "")
                lines.append(f"{pad}library {names(step.outputs)} = {step.name}({given}){made}")
            case p.Repeat():
                until = f" until {names([step.until])}" if step.until >= 0 else ""
                down = " down" if step.reverse else ""
                limits = [str(step.count)] if step.count is not None else []
                limits += [names([step.limit])] if step.limit >= 0 else []
                count = f" < {' and '.join(limits)}" if limits else ""
                shares = f" in shares of rows, {step.shares} of them" if step.shares != 0 else ""
                lines.append(f"{pad}repeat {names([step.counter])}{count}{down}{until}{shares}:")
                lines += step_lines(program, step.steps, depth + 1)
            case p.Branch():
                lines.append(f"{pad}if {names([step.condition])}:")
                lines += step_lines(program, step.then, depth + 1)
                if step.orelse:
                    lines.append(f"{pad}else:")
                    lines += step_lines(program, step.orelse, depth + 1)
            case p.Prepare():
                lines.append(f"{pad}if variables changed:")
                lines += step_lines(program, step.steps, depth + 1)
            case p.Changed():
                lines.append(f"{pad}variables changed")
    return lines


# ---- text


_NUMBER = re.compile(r"%(\d+)\b")
_DEFINES = re.compile(r"%(\d+) = ")


def _renumber(before: list[str], after: list[str]) -> list[str]:
    """Lines of `before` with the node numbers of their partners in `after`."""
    bare_before, bare_after = ([_NUMBER.sub("%", line) for line in lines] for lines in (before, after))
    partner: dict[str, str] = {}
    for i, j, size in difflib.SequenceMatcher(None, bare_before, bare_after, autojunk=False).get_matching_blocks():
        for old, new in zip(before[i : i + size], after[j : j + size], strict=True):
            defined, defined_after = _DEFINES.match(old), _DEFINES.match(new)
            if defined and defined_after:
                partner[defined[1]] = defined_after[1]
    if not partner:
        return before
    return [_NUMBER.sub(lambda m: f"%{partner[m[1]]}" if m[1] in partner else f"%{m[1]}'", line) for line in before]


def _quote(label: str) -> str:
    escaped = label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
