"""Compiled functions in files: the graph that `gnomon.function` was given, with the values of its variables.

A `.gnf` file is a zip archive of `graph.json` and `arrays.npz`. A node is the name of its op, the op's fields, and the
numbers of the nodes it reads. Reading one runs no code that is in it: ops are known by name, and their types are
checked as they are when a graph is made.
"""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from io import BytesIO
from typing import Any

import numpy as np

import gnomon
from gnomon.compiler import dtypes
from gnomon.compiler.aot.describe import size as written_size
from gnomon.compiler.errors import ArgumentError, FileError, GnomonError
from gnomon.compiler.graph import Node, Op, walk
from gnomon.compiler.ops.control import SubGraph, WithGradient
from gnomon.compiler.ops.leaves import Input, Parameter, fresh_input, size_of
from gnomon.compiler.sizes import Dim, Size, floordiv, maximum, symbol
from gnomon.functions import Function, Graph
from gnomon.saving.files import to_read, to_write, written_aside
from gnomon.tensor import new_input
from gnomon.variable import Variable

EXTENSION = ".gnf"
FORM = 1
GRAPH, ARRAYS = "graph.json", "arrays.npz"


def save_function(function: Function, filepath: Any, overwrite: bool = True) -> None:
    """Write a compiled function to a `.gnf` file: its graph and what its variables hold now. `load_function` reads it.

    Raises ArgumentError for another extension, FileError if the file cannot be written, or is there already and
    `overwrite` is false.
    """
    path = to_write(filepath, EXTENSION, overwrite)
    graph = function.graph
    writer = _Writer()
    variables = list(graph.variables)
    counter = None if graph.repeat is None else graph.repeat[0]
    for leaf in [*graph.inputs, *([] if counter is None else [counter])]:
        writer.leaf(leaf)
    for k, v in enumerate(variables):
        writer.numbers[v.node] = len(writer.nodes)
        writer.nodes.append({"op": "Parameter", "variable": k})
    roots = writer.add([*graph.outputs, *graph.updates.values()])
    count = len(graph.outputs)
    described = {
        "form": FORM,
        "gnomon": gnomon.__version__,
        "name": function.name,
        "nodes": writer.nodes,
        "inputs": [writer.numbers[leaf] for leaf in graph.inputs],
        "outputs": roots[:count],
        "updates": [
            [_position(variables, v), number] for v, number in zip(graph.updates, roots[count:], strict=True)
        ],
        "structure": _tagged(graph.form),
        "repeat": None if graph.repeat is None else [writer.numbers[graph.repeat[0]], _written(graph.repeat[1])],
        "variables": [{"name": v.name, "trainable": bool(v.trainable)} for v in variables],
        "downcast": function.allow_input_downcast,
    }
    content = BytesIO()
    arrays: dict[str, Any] = {f"v{k}": v.buffer.array.copy() for k, v in enumerate(variables)}
    np.savez(content, **arrays)
    with written_aside(path) as aside, zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((GRAPH, json.dumps(described, sort_keys=True)), (ARRAYS, content.getvalue())):
            archive.writestr(zipfile.ZipInfo(name), data)  # no time in it: equal functions are equal files


def load_function(filepath: Any) -> Function:
    """A compiled function from a `.gnf` file, with variables of its own.

    Raises FileError if the file cannot be read or is none, or is of a form that this version does not read.
    """
    path = to_read(filepath)
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read(GRAPH))
            with np.load(BytesIO(archive.read(ARRAYS)), allow_pickle=False) as arrays:
                values = [arrays[f"v{k}"] for k in range(len(described["variables"]))]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        raise FileError(f"{str(path)!r} is not a function saved by gnomon, or damaged ({error})") from None
    if described.get("form") != FORM:
        raise FileError(
            f"{str(path)!r} is a function of form {described.get('form')}, and this gnomon reads form {FORM}: "
            "save it again"
        )
    try:
        return _function(described, values)
    except (GnomonError, KeyError, IndexError, TypeError, ValueError, AssertionError) as error:
        raise FileError(f"{str(path)!r} is damaged: its graph makes no sense ({error})") from error


def _function(described: Mapping[str, Any], values: Sequence[np.ndarray]) -> Function:
    told = described["variables"]
    variables = [
        Variable(value, name=t["name"], trainable=t["trainable"], dtype=dtypes.of_memory(value.dtype))
        for t, value in zip(told, values, strict=True)
    ]
    reader = _Reader(variables)
    reader.add(described["nodes"])
    at = reader.nodes
    updates = {variables[k]: at[number] for k, number in described["updates"]}
    inputs, outputs = ([at[k] for k in described[which]] for which in ("inputs", "outputs"))
    graph = Graph(described["name"], inputs, outputs, updates)
    graph.variables, graph.form = variables, _untagged(described["structure"])
    if described["repeat"] is not None:
        counter, count = described["repeat"]
        graph.repeat = at[counter], reader.value(count)
    return Function(graph, described["downcast"])


def _position(variables: Sequence[Variable], v: Variable) -> int:
    return next(k for k, other in enumerate(variables) if other is v)  # == on variables is elementwise


# ---- writing


class _Writer:
    """Nodes as JSON, each once, in an order in which they can be made again."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.numbers: dict[Node, int] = {}

    def leaf(self, leaf: Node) -> None:
        op: Any = leaf.op
        self.numbers[leaf] = len(self.nodes)
        told = {"op": "Input", "name": op.name, "dtype": op.dtype, "shape": [_written(d) for d in op.shape]}
        if not op.shape and op.dtype in ("int32", "int64"):
            told["size"] = size_of(leaf)  # what it is called where its value is a size
        self.nodes.append(told)

    def add(self, roots: Sequence[Node]) -> list[int]:
        for node in walk(roots):
            if node in self.numbers:
                continue
            if isinstance(node.op, WithGradient):  # the function is differentiated already
                self.numbers[node] = self.numbers[node.inputs[-1]]
                continue
            if isinstance(node.op, Input):
                raise ArgumentError(f"{node!r} is no input and no variable of the function")
            told = {f.name: self.field(getattr(node.op, f.name)) for f in fields(node.op)}  # type: ignore[arg-type]
            self.numbers[node] = len(self.nodes)
            self.nodes.append(
                {"op": type(node.op).__name__, "fields": told, "inputs": [self.numbers[x] for x in node.inputs]}
            )
        return [self.numbers[n] for n in roots]

    def field(self, value: Any) -> Any:
        if isinstance(value, SubGraph):
            inner = _Writer()
            for leaf in value.inputs:
                inner.leaf(leaf)
            roots = inner.add(value.outputs)
            return {"graph": inner.nodes, "inputs": list(range(len(value.inputs))), "outputs": roots}
        return _written(value)


def _written(value: Any) -> Any:
    """A field of an op, or a size."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return {"float": value.hex()}
        case Size():
            return {"size": written_size(value)}
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case tuple():
            return [_written(v) for v in value]
    raise ArgumentError(f"a graph with {value!r:.80} of type {type(value).__name__} cannot be saved")


def _tagged(form: Any) -> Any:
    """The structure of the outputs: tuples are told from lists."""
    if isinstance(form, dict):
        return {"dict": [[k, _tagged(v)] for k, v in form.items()]}
    if isinstance(form, (list, tuple)):
        return {"tuple" if isinstance(form, tuple) else "list": [_tagged(v) for v in form]}
    return form


def _untagged(form: Any) -> Any:
    if isinstance(form, dict):
        ((kind, items),) = form.items()
        if kind == "dict":
            return {k: _untagged(v) for k, v in items}
        return tuple(map(_untagged, items)) if kind == "tuple" else list(map(_untagged, items))
    return form


# ---- reading


def _ops() -> dict[str, type[Op]]:
    """Every op by its name, those of layers too."""
    import gnomon.layers  # noqa: F401  # which defines some

    found: dict[str, type[Op]] = {}
    waiting: list[type[Op]] = [Op]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__module__.startswith("gnomon."):
                found[kind.__name__] = kind
    return found


class _Reader:
    """Nodes from JSON."""

    def __init__(self, variables: Sequence[Variable] = (), make: Callable[..., Node] | None = None):
        self.variables, self.make = variables, make or (lambda name, dtype, shape: new_input(name, dtype, shape))
        self.nodes: list[Node] = []
        self.sizes: dict[str, Dim] = {}
        self.ops = _ops()

    def add(self, told: Sequence[Mapping[str, Any]]) -> None:
        for t in told:
            if t["op"] == "Input":
                node = self.make(t["name"], t["dtype"], tuple(self.value(d) for d in t["shape"]))
                if "size" in t:
                    self.sizes[t["size"]] = symbol(size_of(node))
            elif t["op"] == "Parameter":
                node = self.variables[t["variable"]].node
            else:
                kind = self.ops.get(t["op"])
                if kind is None or issubclass(kind, (Input, Parameter)):
                    raise ArgumentError(f"there is no op {t['op']!r}")
                known = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # every op is a dataclass
                if set(t["fields"]) - known:
                    raise ArgumentError(f"{t['op']} has no {sorted(set(t['fields']) - known)}")
                op = kind(**{name: self.value(v) for name, v in t["fields"].items()})
                node = Node(op, tuple(self.nodes[k] for k in t["inputs"]))
            self.nodes.append(node)

    def value(self, told: Any) -> Any:
        match told:
            case list():
                return tuple(self.value(v) for v in told)
            case {"float": text}:
                return float.fromhex(text)
            case {"bytes": text}:
                return base64.b64decode(text)
            case {"size": size}:
                return self.size(size)
            case {"graph": nodes, "inputs": inputs, "outputs": outputs}:
                from gnomon.compiler.graph import TensorType

                inner = _Reader(make=lambda name, dtype, shape: fresh_input(name, TensorType(dtype, shape)))
                inner.sizes = self.sizes
                inner.add(nodes)
                return SubGraph(tuple(inner.nodes[k] for k in inputs), tuple(inner.nodes[k] for k in outputs))
        return told

    def size(self, told: Any) -> Dim:
        if isinstance(told, int):
            return told
        total: Dim = 0
        for factor, atoms in told["terms"]:
            part: Dim = factor
            for atom in atoms:
                if isinstance(atom, str):
                    part = part * self.sizes.get(atom, symbol(atom))
                else:
                    op, a, b = atom[0], self.size(atom[1]), self.size(atom[2])
                    part = part * (maximum(a, b) if op == "max" else floordiv(a, b))
            total = total + part
        return total


__all__ = ["load_function", "save_function"]
