"""`function`: where compiler and runtime meet."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DataError, GraphError
from gnomon.compiler.graph import Node, TensorType, walk
from gnomon.compiler.interpret import bind, evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input, Parameter, key_of, size_of
from gnomon.compiler.ops.scan import Scan
from gnomon.compiler.program import Program
from gnomon.compiler.request import Request, Stages
from gnomon.compiler.resize import resize
from gnomon.compiler.sizes import Dim, Size, evaluate, symbol, symbols
from gnomon.events import compiling
from gnomon.placement import chosen_device
from gnomon.programs import compile, program_for, without_texts
from gnomon.progress import state_of, told
from gnomon.runtime.buffer import shown
from gnomon.runtime.device import TextMissing
from gnomon.tensor import Tensor, node_of
from gnomon.variable import Variable, variable_of


def function(
    inputs: Sequence[Tensor] | Tensor,
    outputs: Any = (),
    updates: Any = None,
    givens: Any = None,
    name: str | None = None,
    on_unused_input: str = "raise",
    allow_input_downcast: bool = True,
    repeat: tuple[Tensor, Dim] | None = None,
    device: str | None = None,
) -> Function:
    """Compile a graph: `function([x, y], z)` returns a callable that computes z from arrays.

    inputs    symbolic inputs, in the order of the arguments
    outputs   a Tensor, or a list, tuple or dictionary of them (returned in the same form); none is allowed
    updates   new values of variables, computed from the old ones and stored after the outputs: a dictionary
              {variable: tensor} or pairs
    givens    replacements in the graph, {tensor: tensor}
    name      shown in dumps and profiles
    on_unused_input   'raise', 'warn' or 'ignore'
    allow_input_downcast   whether arguments of a wider dtype are converted
    repeat    (counter, count): run the whole graph `count` times (a size) within the program, `counter` (a scalar int64
              input that the caller does not pass) being 0, 1, 2 …; updates carry over from round to round, outputs are
              those of the last one
    device    'cpu', 'gpu' or 'gpu:1'; by default the one that `gnomon.device`, `gnomon.set_device` or GNOMON_DEVICE
              chooses, else the first GPU that can be used, else the CPU

    Raises GraphError for an input that is not a leaf, given twice or missing; ShapeError or DTypeError for an update
    of another type than its variable; DeviceError for a device that cannot be used.
    """
    arguments = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    graph = Graph.of(arguments, outputs, updates, givens, name or "function", on_unused_input, repeat)
    return Function(graph, allow_input_downcast, device)


class Graph:
    """What `function` was asked for, checked: leaves, outputs and updates as nodes."""

    def __init__(self, name: str, inputs: list[Node], outputs: list[Node], updates: dict[Variable, Node]):
        self.name, self.inputs, self.outputs, self.updates = name, inputs, outputs, updates
        self.variables: list[Variable] = []
        self.form: Any = None
        self.cuts: list[tuple[int, int]] = []  # (output, the output that says how many of its rows there are)
        self.repeat: tuple[Node, Dim] | None = None

    @classmethod
    def of(cls, arguments, outputs, updates, givens, name, on_unused_input, repeat=None) -> Graph:
        leaves = [t.node for t in arguments]
        for t in arguments:
            if isinstance(t, Variable) or not isinstance(t.node.op, Input) or isinstance(t.node.op, Parameter):
                raise GraphError(f"function {name!r}: {t!r} is not an input but a computed value or a variable")
        if len(set(leaves)) != len(leaves):
            twice = next(t for k, t in enumerate(arguments) if t.node in leaves[:k])
            raise GraphError(f"function {name!r}: the input {twice!r} is given twice")
        flat: list[Node] = []
        cuts: list[tuple[int, Node]] = []
        form = _flatten(outputs, flat, cuts)
        ends = list(dict.fromkeys(end for _, end in cuts))
        cut = [(k, len(flat) + ends.index(end)) for k, end in cuts]
        flat += ends
        changes = list(updates.items() if hasattr(updates, "items") else updates or ())
        new: dict[Variable, Node] = {}
        for variable, value in changes:
            if not isinstance(variable, Variable):
                raise GraphError(f"function {name!r}: updates are of variables, got {variable!r}")
            if variable in new:
                raise GraphError(f"function {name!r}: {variable!r} is updated twice")
            new[variable] = as_update(variable, value)
        pairs = givens.items() if hasattr(givens, "items") else givens or ()
        if pairs:
            changed = _given([*flat, *new.values()], [(node_of(a), node_of(b)) for a, b in pairs])
            flat = changed[: len(flat)]
            new = dict(zip(new, changed[len(flat) :], strict=True))
        used = walk([*flat, *new.values()])
        for leaf in used:  # Theano's default updates: random streams go on by themselves
            if isinstance(leaf.op, Parameter):
                variable = variable_of(leaf)
                if variable.default_update is not None and variable not in new:
                    new[variable] = variable.default_update
        used = walk([*flat, *new.values()])
        graph = cls(name, leaves, flat, new)
        graph.form, graph.cuts = form, cut
        if repeat is not None:
            graph.repeat = (repeat[0].node, repeat[1])
        for leaf in used:
            if isinstance(leaf.op, Parameter):
                graph.variables.append(variable_of(leaf))
            elif isinstance(leaf.op, Input) and leaf not in leaves and not (repeat and leaf is repeat[0].node):
                raise GraphError(
                    f"function {name!r}: the outputs depend on the input {leaf.op.name!r} ({leaf.type}), "
                    "which is not among the inputs"
                )
        known = {id(v) for v in graph.variables}  # == on variables is elementwise
        graph.variables += [v for v in new if id(v) not in known]
        read = {s for n in used if isinstance(n.type, TensorType) for d in n.shape for s in symbols(d)}
        read |= {s for n in used if isinstance(n.op, Scan) and n.op.steps is not None for s in symbols(n.op.steps)}
        told = lambda n: {size_of(n)} if not n.rank else {s for d in n.shape for s in symbols(d)}
        unused = [n for n in leaves if n not in set(used) and not told(n) & read]
        if unused and on_unused_input != "ignore":
            names = ", ".join(repr(leaf.op.name) for leaf in unused)
            message = (
                f"function {name!r}: the outputs do not depend on the input {names}; on_unused_input='ignore' allows it"
            )
            if on_unused_input == "raise":
                raise GraphError(message)
            import warnings

            warnings.warn(message, stacklevel=4)
        return graph


def as_update(variable: Variable, value: Any) -> Node:
    """The node of a new value, of the variable's type."""
    node = node_of(value)
    if node.dtype != variable.dtype and dtypes.promote(node.dtype, variable.dtype) == variable.dtype:
        node = build.cast(node, variable.dtype)
    if node.shape != variable.node.shape and node.rank <= variable.ndim:
        node = build.broadcast_to(node, variable.node.shape)
    if node.type != variable.node.type:
        raise GraphError(f"the update of {variable!r} must be {variable.node.type}, got {node.type}")
    return node


def _given(outputs: list[Node], pairs: list[tuple[Node, Node]]) -> list[Node]:
    """`outputs` with the first node of each pair replaced by the second, whose sizes they take over."""
    sizes: dict[str, Dim] = {}
    for old, new in pairs:
        for d, given in zip(old.shape, new.shape, strict=False):
            if d != given and isinstance(d, Size) and [d] == [symbol(s) for s in symbols(d)]:
                sizes.setdefault(str(d), given)
    replacements = {}
    for old, new in pairs:
        shape = tuple(sizes.get(str(d), d) for d in old.shape)
        replacements[old] = build.broadcast_to(build.cast(new, old.dtype), shape)
    return resize(outputs, sizes, replacements)


def _flatten(value: Any, flat: list[Node], cuts: list[tuple[int, Node]]) -> Any:
    """The form of nested outputs, leaves replaced by positions in `flat`; `cuts`: what says how many rows some have."""
    if isinstance(value, dict):
        return {k: _flatten(v, flat, cuts) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_flatten(v, flat, cuts) for v in value)
    if value is None:
        return None
    if isinstance(value, Tensor) and hasattr(value, "cut_at"):
        cuts.append((len(flat), value.cut_at))
    flat.append(node_of(value))
    return len(flat) - 1


def _unflatten(form: Any, values: Sequence[Any]) -> Any:
    if isinstance(form, dict):
        return {k: _unflatten(v, values) for k, v in form.items()}
    if isinstance(form, (list, tuple)):
        return type(form)(_unflatten(v, values) for v in form)
    return None if form is None else values[form]


class Function:
    """A compiled graph. Call it with arrays in the order of its inputs.

    program   what it was compiled to
    stages    what the compiler went through, for `show`
    Neither is kept: they are made when somebody looks, for a program that runs takes much less.
    """

    def __init__(self, graph: Graph, allow_input_downcast: bool = True, device: str | None = None):
        self.graph, self.name, self.allow_input_downcast = graph, graph.name, allow_input_downcast
        self.input_names = [leaf.op.name for leaf in graph.inputs]  # type: ignore[attr-defined]  # Inputs
        self._dtypes = [dtypes.named(leaf.dtype).numpy for leaf in graph.inputs]
        self._single = graph.form == 0 and not graph.cuts
        self.device = chosen_device(device)
        self.executable: Any
        watch = _watch(self)
        with (
            compiling(graph.name, [repr(leaf.type) for leaf in graph.inputs]) as event,
            nullcontext() if watch is None else watch.compiling(),
        ):
            updates = [(v.node, node) for v, node in graph.updates.items()]
            self.device.prepare()
            self._request = Request(
                graph.name, graph.inputs, graph.outputs, updates, graph.repeat, prepare=watch is None, tables=True
            )
            self._looked: tuple[Program, Stages] | None = None
            stages = Stages()
            with told(graph.name, lambda: state_of(stages)):
                if watch is None:
                    program = program_for(self._request, self.device.target(), stages)
                else:
                    program = self.program
                try:
                    self.executable = self._load(program)
                except TextMissing:
                    self.executable = self._load(self.program)
            event.loaded(self.executable)
        if watch is not None:
            self.executable = watch.executable(self.executable)
        guards = sys.modules.get("gnomon.guards")  # the layers that mark what they demand have imported it
        if guards is not None:
            roots = [*graph.outputs, *graph.updates.values()]
            self.executable = guards.guarded(self.executable, roots, graph.inputs, graph.repeat)

    def _load(self, program: Program) -> Any:
        by_key = {key_of(v.node): v for v in self.graph.variables}
        executable: Any = self.device.executable(program, [by_key[key].buffer for _, key in program.variables])
        executable.program = without_texts(program)
        changed = {key_of(v.node) for v in self.graph.updates}
        executable.updated = [k for k, (_, key) in enumerate(program.variables) if key in changed]
        return executable

    @property
    def program(self) -> Program:
        return self._compiled()[0]

    @property
    def stages(self) -> Stages:
        return self._compiled()[1]

    def _compiled(self) -> tuple[Program, Stages]:
        if self._looked is None:
            stages = Stages()
            self._looked = compile(self._request, self.device.target(), stages), stages
        return self._looked

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs and len(args) == len(self._dtypes):
            for value, dtype in zip(args, self._dtypes, strict=True):
                if type(value) is not np.ndarray or value.dtype != dtype:
                    break
            else:
                results = self.executable(*args)
                return results[0] if self._single else self._formed(results)
        return self._formed(self.executable(*self._arguments(args, kwargs)))

    def _formed(self, results: Sequence[Any]) -> Any:
        """The outputs in the form that was asked for, without the rows of loops that ended before."""
        if self.graph.cuts:
            results = list(results)
            for k, end in self.graph.cuts:
                results[k] = results[k][: int(results[end])]
        return _unflatten(self.graph.form, results)

    def show(self, stage: str = "graph", format: str = "text", diff: str | None = None) -> str:
        """A stage of the compiler as text: each node with its layer and the user's line.

        stage    'graph' (as asked for, derivatives included), a pass by its name, 'simplified', 'rows', 'kernels',
                 'program', 'llvm', 'assembly'
        format   'text', 'dot' (Graphviz), 'json', 'graphml'
        diff     another stage: what is different in it

        Raises ArgumentError for a stage or format that there is not.
        """
        from gnomon import inspecting

        return inspecting.show_function(self, stage, format, diff)

    def profile(self, *arrays: Any, repeat: int = 10, **named: Any) -> Any:
        """Time, bytes and arithmetic of each kernel when called with `arrays`, with the layers it comes from.

        The median of `repeat` calls. Variables are as they were when it returns. It prints as a table.
        """
        from gnomon import inspecting

        return inspecting.profile_function(self, arrays, named, repeat)

    def memory(self, **sizes: int) -> Any:
        """Bytes that a call takes with these values of the symbolic sizes: `fn.memory(batch=128)`. Prints as a table.

        Raises ArgumentError for a size that is missing or unknown.
        """
        from gnomon.memory import memory_of

        return memory_of(self, sizes)

    def on_device(self, *args: Any, **kwargs: Any) -> Any:
        """As a call, but the results stay in the device's memory.

        They are arrays that CuPy, PyTorch and JAX take without a copy, by `__dlpack__` or `__cuda_array_interface__`,
        and that functions on the device take as arguments. It returns when the work is started. On the CPU they are
        NumPy's.
        """
        arrays = self._arguments(args, kwargs)
        if not self.device.apart:
            return self._formed(self.executable(*arrays))
        return self._formed(self.executable.on_device(*arrays))

    def run(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs in order, updates done; `arrays` have exactly the inputs' dtypes."""
        return self.executable(*arrays)

    def interpret(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Outputs as NumPy computes them from the graph as it was given; no variable changes."""
        graph = self.graph
        sizes = bind(graph.inputs, arrays, self.input_names)
        values = dict(zip(graph.inputs, arrays, strict=True))
        values.update({v.node: v.numpy() for v in graph.variables})
        rounds = 1 if graph.repeat is None else evaluate(graph.repeat[1], sizes)
        results: list[np.ndarray] = []
        for k in range(rounds):
            if graph.repeat is not None:
                values[graph.repeat[0]] = np.asarray(k, np.int64)
            results = evaluate_graph([*graph.outputs, *graph.updates.values()], values, sizes)
            values.update(zip((v.node for v in graph.updates), results[len(graph.outputs) :], strict=True))
        return [shown(n.dtype, np.array(r)) for n, r in zip(graph.outputs, results, strict=False)]

    def _arguments(self, args: Iterable[Any], kwargs: dict[str, Any]) -> list[np.ndarray]:
        values = list(args)
        if len(values) > len(self.graph.inputs):
            raise DataError(
                f"{self.name} takes {len(self.graph.inputs)} arguments ({', '.join(self.input_names)}), "
                f"got {len(values)}"
            )
        if kwargs or len(values) < len(self.graph.inputs):
            for name in self.input_names[len(values) :]:
                if name not in kwargs:
                    raise DataError(f"{self.name} needs the argument {name!r}")
                values.append(kwargs.pop(name))
            if kwargs:
                raise DataError(
                    f"{self.name} has no free argument {next(iter(kwargs))!r}; it takes {', '.join(self.input_names)}"
                )
        return [self._argument(k, v) for k, v in enumerate(values)]

    def _argument(self, k: int, value: Any) -> np.ndarray:
        wanted = self.graph.inputs[k].type
        if self.device.apart and not isinstance(value, np.ndarray):
            there = self.device.adopt(value)
            if there is not None and there.dtype_name == wanted.dtype:
                return there
        array = np.asarray(value)
        dtype = dtypes.named(wanted.dtype).numpy
        if array.dtype != dtype and array.dtype.name != wanted.dtype:
            same_kind = np.can_cast(array.dtype, dtype, "same_kind") or (
                array.dtype.kind in "iub" and dtype.kind == "f"
            )
            exact = np.can_cast(array.dtype, dtype, "safe")
            if not (exact or (same_kind and self.allow_input_downcast)):
                raise DataError(
                    f"{self.name}: argument {self.input_names[k]!r} must be {wanted}, "
                    f"got {array.dtype} of shape {array.shape}"
                )
            array = array.astype(dtype)
        return array


def _watch(function: Function) -> Any:
    """What the debug modes want of a function, None if none is on."""
    if not any(os.environ.get(mode) for mode in ("GNOMON_CHECK", "GNOMON_NAN", "GNOMON_SHOW")):
        return None
    from gnomon.debug import Watch

    return Watch(function)
