"""The debug modes: what environment variables ask of every function that is made while they are set.

    GNOMON_CHECK=1    each rewrite, each pass and each launch is compared with NumPy on the call's own arrays; the first
                      that differs is named in a CheckError. The stages' invariants (`compiler.verify`) are checked too
    GNOMON_NAN=1      the first NaN or infinity that a kernel makes is a NumericError naming the op, its layer and line
    GNOMON_SHOW=graph,kernels   prints these stages (see `Function.show`) on stderr when a function is compiled

The first two run a program step by step from Python. When they raise, variables are as they were before the call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gnomon.agreement import Difference, evaluate, expected
from gnomon.compiler import dtypes, verify
from gnomon.compiler.compile import Lowered
from gnomon.compiler.errors import CheckError, NumericError
from gnomon.compiler.graph import Node, TensorType, origins, walk
from gnomon.compiler.interpret import bind
from gnomon.compiler.ops.control import Cond
from gnomon.compiler.ops.leaves import Array, Input, Literal, Parameter
from gnomon.compiler.passes import stabilize
from gnomon.compiler.passes.rewrite import Rule, observing
from gnomon.compiler.program import Launch, Library, Repeat, Step
from gnomon.compiler.sizes import evaluate as size_value
from gnomon.runtime.stepwise import Arrays, Observer


def is_set(name: str) -> bool:
    """Whether an environment variable switches something on."""
    return os.environ.get(name, "").strip().lower() not in ("", "0", "no", "off", "false")


class Watch:
    """What the debug modes, as they are set now, do to one function."""

    def __init__(self, function: Any):
        self.function = function
        self.check, self.nan = is_set("GNOMON_CHECK"), is_set("GNOMON_NAN")
        shown = os.environ.get("GNOMON_SHOW", "")
        self.show = [s.strip() for s in shown.split(",") if s.strip()] if is_set("GNOMON_SHOW") else []
        self.rewrites: list[tuple[Rule, Node, Node]] = []

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Around the compiler: remember each rewrite, then check what must hold between stages."""
        if not self.check:
            yield
            return
        with observing(lambda rule, before, after: self.rewrites.append((rule, before, after))):
            yield
        self._verify()

    def _verify(self) -> None:
        function, stages = self.function, self.function.stages
        leaves = [*function.graph.inputs, *([function.graph.repeat[0]] if function.graph.repeat else [])]
        verify.check_graph(stages.graph, leaves)
        before = stages.graph
        for name, after in stages.passes:
            verify.check_pass(name, before, after)
            before = after
        verify.check_program(function.program, stages.kernels)

    def executable(self, executable: Any) -> Any:
        """The executable to call: one that checks what it does, if that was asked for."""
        for stage in self.show:
            print(f"---- {stage} of {self.function.name}\n{self.function.show(stage)}", file=sys.stderr)
        return Watched(self, executable) if self.check or self.nan else executable


class Watched:
    """An executable that is run step by step, each step looked at."""

    def __init__(self, watch: Watch, executable: Any):
        self.watch, self.executable = watch, executable

    def __getattr__(self, name: str) -> Any:
        return getattr(self.executable, name)

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        function, watch = self.watch.function, self.watch
        self.executable.fitting(arrays)  # what is wrong with the arguments is told as without a debug mode
        saved = [v.numpy() for v in self.executable.variables]
        try:
            if watch.check:
                _check_rewrites(watch, arrays)
            return self.executable.run_stepwise(arrays, _Inspector(function, watch.check, watch.nan))
        except BaseException:
            for variable, value in zip(self.executable.variables, saved, strict=True):
                variable.set(value)
            raise


# ---- rewrites and passes


def _check_rewrites(watch: Watch, arrays: Sequence[np.ndarray]) -> None:
    """Compare both sides of each rewrite, and the graph before and after each pass, as NumPy computes them."""
    function = watch.function
    graph, stages = function.graph, function.stages
    sizes = bind(graph.inputs, arrays, function.input_names)
    values: dict[Node, Any] = dict(zip(graph.inputs, arrays, strict=True))
    values.update({v.node: v.numpy() for v in graph.variables})
    if graph.repeat is not None:
        if size_value(graph.repeat[1], sizes) < 1:
            return
        values[graph.repeat[0]] = np.asarray(0, np.int64)
    _bind_branches(values, [*stages.graph, *stages.simplified, *(n for _, _, n in watch.rewrites)], sizes)
    known = [r for r in watch.rewrites if _is_known(r[1:], values)]
    wanted = expected([before for _, before, _ in known], values, sizes)
    found = evaluate([after for _, _, after in known], values, sizes, wide=True)
    for (rule, before, after), right, value in zip(known, wanted, found, strict=True):
        wrong = right.difference(value, gains=_is_stabilizing(rule))
        if wrong is not None:
            formula = " ".join((rule.__doc__ or "").split())
            raise CheckError(
                f"the rewrite {rule.__name__!r} changes a value in function {function.name!r}: {wrong}\n"
                + (f"  it says      {formula}\n" if formula else "")
                + f"  it rewrote   {describe(before)}\n  into         {describe(after)}"
            )
    before = stages.graph
    for name, after in stages.passes:
        _check_pass(function.name, name, before, after, values, sizes)
        before = after


def _check_pass(function: str, name: str, before: list[Node], after: list[Node], values: Any, sizes: Any) -> None:
    changed = [k for k, (a, b) in enumerate(zip(before, after, strict=True)) if a is not b]
    if name == "stabilize" and not _is_finite([before[k] for k in changed], values, sizes):
        return  # what comes of an infinity that is none any more is another thing
    wanted = expected([before[k] for k in changed], values, sizes)
    found = evaluate([after[k] for k in changed], values, sizes, wide=True)
    for k, right, value in zip(changed, wanted, found, strict=True):
        wrong = right.difference(value)
        if wrong is not None:
            raise CheckError(
                f"the pass {name!r} changes result {k} of function {function!r}, though none of its rewrites alone "
                f"changes a value: {wrong}\n  the result is   {describe(before[k])}"
            )


def _is_finite(nodes: list[Node], values: Any, sizes: Any) -> bool:
    """Whether no NaN or infinity is met on the way to `nodes`."""
    found: list[bool] = []
    evaluate(nodes, values, sizes, observe=lambda node, value: found.append(_is_bad(value)))
    return not any(found)


def _bind_branches(values: dict[Node, Any], nodes: Sequence[Node], sizes: Any) -> None:
    """Give the leaves of graphs inside conditions the values that they are called with."""
    seen: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        found = [n for n in walk(waiting) if isinstance(n.op, Cond) and n not in seen]
        waiting = []
        for node in found:
            seen.add(node)
            operands = [x for x in node.inputs[1:] if _is_known((x,), values)]
            given = dict(zip(operands, evaluate(operands, values, sizes), strict=True))
            for side in (node.op.then, node.op.orelse):  # type: ignore[attr-defined]  # a Cond
                for leaf, operand in zip(side.inputs, node.inputs[1:], strict=True):
                    if operand in given:
                        values[leaf] = given[operand]
                waiting += side.outputs


def _is_known(nodes: Sequence[Node], values: dict[Node, Any]) -> bool:
    return all(n in values for n in walk(nodes) if isinstance(n.op, Input))


def _is_stabilizing(rule: Rule) -> bool:
    """Whether the rule is there to give numbers where the formula as written gives NaN or infinity."""
    return any(rule in rules for rules in stabilize.by_class.values())


# ---- launches


class _Inspector(Observer):
    """Looks at what each launch read and wrote."""

    def __init__(self, function: Any, check: bool, nan: bool):
        self.function, self.check, self.nan = function, check, nan
        program = function.program
        self.first: dict[int, list[Lowered]] = {}  # groups by their first launch, which on a GPU may be that of several
        self.last: dict[int, list[Lowered]] = {}
        for g in function.stages.lowered:
            if g.launches:
                self.first.setdefault(id(g.launches[0]), []).append(g)
                self.last.setdefault(id(g.launches[-1]), []).append(g)
        repeats = [s for s in program.steps if isinstance(s, Repeat)]
        self.counter = repeats[0].counter if repeats else -1
        self.round = -1
        self.given: dict[int, dict[Node, np.ndarray]] = {}  # what the launches of each group under way read
        self.values: dict[Node, np.ndarray] = {}  # the same of the present group
        self.held: dict[Node, np.ndarray] = {}  # what was written in this round, and the variables at its begin
        self.intended: set[Node] = set()  # infinities that come from the user's own
        self.bounded: set[tuple[str, tuple[int, ...]]] = set()

    def before(self, step: Step, arrays: Arrays) -> None:
        number = int(arrays[self.counter]) if self.counter >= 0 else 0
        if number != self.round:
            self._new_round(number, arrays)
        if not isinstance(step, (Launch, Library)):
            return
        if self.check and isinstance(step, Launch):
            self._check_bounds(step, arrays)
        for group in self.first.get(id(step), ()):
            fixed = {s for s, slot in enumerate(self.function.program.slots) if slot.kind in ("input", "constant")}
            self.given[id(group)] = {n: arrays[s] if s in fixed else arrays[s].copy() for s, n in group.reads}
            if self.check:
                self._check_reads(group, arrays)

    def after(self, step: Step, arrays: Arrays, nanoseconds: int) -> None:
        if not isinstance(step, (Launch, Library)):
            return
        for group in self.last.get(id(step), ()):
            self.values = self.given.pop(id(group), {})
            reached = walk(group.nodes, stop=self.values.__contains__)
            if not all(n in self.values for n in reached if isinstance(n.op, Input)):
                continue
            if self.check:
                self._check_writes(group, arrays)
            if self.nan:
                self._find_nan(group, arrays)

    def _new_round(self, number: int, arrays: Arrays) -> None:
        self.round = number
        self.held = {}
        if self.check:
            slots = {key: slot for slot, key in self.function.program.variables}
            for v in self.function.graph.variables:
                slot = slots.get(v.node.op.key)
                if slot is not None:
                    self.held[v.node] = arrays[slot].copy()

    # ---- GNOMON_CHECK

    def _check_bounds(self, step: Launch, arrays: Arrays) -> None:
        values = tuple(size_value(d, arrays.sizes) for d in step.sizes)
        if (step.kernel, values) not in self.bounded:
            self.bounded.add((step.kernel, values))
            kernel = self.function.stages.kernels[step.kernel]
            verify.check_bounds(kernel, dict(zip(kernel.sizes, values, strict=True)))

    def _check_reads(self, group: Lowered, arrays: Arrays) -> None:
        """What is read is what was written: nobody has overwritten it in between."""
        for slot, node in group.reads:
            if node in self.held and self.held[node].tobytes() != arrays[slot].tobytes():
                raise CheckError(
                    f"the memory of slot {self.function.program.slots[slot].name!r} was overwritten before "
                    f"{self._kernel(group)} reads it\n  it held   {describe(node)}"
                )

    def _check_writes(self, group: Lowered, arrays: Arrays) -> None:
        nodes = [n for _, n in group.writes]
        for (slot, node), right in zip(group.writes, expected(nodes, self.values, arrays.sizes), strict=True):
            wrong = right.difference(arrays[slot])
            if wrong is not None:
                raise CheckError(self._wrong_kernel(group, node, wrong))
            self.held[node] = arrays[slot].copy()

    def _wrong_kernel(self, group: Lowered, node: Node, wrong: Difference) -> str:
        return (
            f"{self._kernel(group)} differs from NumPy: {wrong}\n  in the value of   {describe(node)}\n"
            f"  it computes\n{_listed(group.nodes)}"
        )

    def _kernel(self, group: Lowered) -> str:
        launch = group.launches[-1]
        there = f", round {self.round}" if self.counter >= 0 else ""
        made = launch.kernel if isinstance(launch, Launch) else launch.name
        return f"the kernel {launch.label!r} ({made}) of function {self.function.name!r}{there}"

    # ---- GNOMON_NAN

    def _find_nan(self, group: Lowered, arrays: Arrays) -> None:
        bad = [(s, n) for s, n in group.writes if dtypes.is_float(n.dtype) and _is_bad(_numbers(n, arrays[s]))]
        if not bad:
            return
        values: dict[Node, Any] = {}
        nodes = [n for _, n in bad]
        evaluate(nodes, self.values, arrays.sizes, observe=values.__setitem__)
        blamed = self._blame(nodes, values)
        for slot, node in bad:
            if not _is_bad(values[node]):
                what = _kind(_numbers(node, arrays[slot]))
                raise NumericError(
                    f"{what} in what {self._kernel(group)} wrote, where NumPy has none (GNOMON_CHECK=1 tells more)\n"
                    f"  in the value of   {describe(node)}"
                )
            if blamed[node] is None:
                self.intended.add(node)
                continue
            raise NumericError(self._explain(blamed[node], values, group))  # type: ignore[arg-type]  # not None

    def _blame(self, nodes: list[Node], values: dict[Node, Any]) -> dict[Node, Node | None]:
        """For each node the one that its NaN or infinity comes from, None if it has none or only the user's own."""
        blamed: dict[Node, Node | None] = {}
        for node in walk(nodes, stop=self.values.__contains__):
            value = values[node]
            blamed[node] = None
            if not _is_bad(value) or node in self.intended:
                continue
            inputs = () if node in self.values else node.inputs
            before = next((blamed[x] for x in inputs if blamed[x] is not None), None)
            has_nan = bool(np.isnan(value).any())
            if before is not None:
                blamed[node] = before
            elif isinstance(node.op, (Literal, Array)) and not has_nan:
                continue
            elif not any(_is_bad(values[x]) for x in inputs) or has_nan:
                blamed[node] = node
        return blamed

    def _explain(self, node: Node, values: dict[Node, Any], group: Lowered) -> str:
        value = np.asarray(values[node])
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(value))[0])
        what = _kind(value)
        count = f"{int((~np.isfinite(value)).sum())} of {value.size} elements, the first at {list(place)}"
        if isinstance(node.op, Input):
            kind = "variable" if isinstance(node.op, Parameter) else "argument"
            return (
                f"{what} in the {kind} {node.op.name!r} of function {self.function.name!r}: {count}\n"
                f"  read by {self._kernel(group)}"
            )
        operands = [np.asarray(values[x]) for x in node.inputs]
        numbers = [str(x[place]) for x in operands if x.shape == value.shape]
        of = f"\n  there it was made of   {', '.join(numbers)}" if numbers else ""
        there = " and ".join(repr(o) for o in origins(node) if repr(o))
        return (
            f"{what} from {node.op!r}{f' in {there}' if there else ''}: {count}\n"
            f"  it computes            {describe(node)}{of}\n"
            f"  in                     {self._kernel(group)}, which computes\n{_listed(group.nodes)}"
        )


def _numbers(node: Node, memory: np.ndarray) -> np.ndarray:
    """What a slot holds."""
    return dtypes.decoded(node.dtype, memory)


def _is_bad(value: Any) -> bool:
    array = np.asarray(value) if not isinstance(value, (tuple, list)) else np.zeros(())
    return array.dtype.kind == "f" and not np.isfinite(array).all()


def _kind(value: np.ndarray) -> str:
    return "NaN" if np.isnan(value).any() else "infinity"


# ---- words


def describe(node: Node) -> str:
    """One node in a line: op, types, layers and the user's lines."""
    types = ", ".join(str(x.type) for x in node.inputs if isinstance(x.type, TensorType))
    made = " | ".join(repr(o) for o in origins(node) if repr(o))
    return f"{node.op!r}({types}) : {node.type}" + (f"  ; {made}" if made else "")


def _listed(nodes: Sequence[Node], most: int = 12) -> str:
    lines = [f"    {describe(n)}" for n in nodes[:most]]
    return "\n".join(lines + [f"    and {len(nodes) - most} more"] * (len(nodes) > most))


__all__ = ["Watch", "Watched", "describe", "is_set"]
