"""Ahead of time: a model or a compiled function as a C library (`gnomon compile` on the command line).

The same graph goes through the same compiler as in the process, for another target if wanted; what comes out is an
object file and a header for C instead of code in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import gnomon
from gnomon.compiler import aot, dtypes
from gnomon.compiler.aot import targets
from gnomon.compiler.compile import Request
from gnomon.compiler.compile import compile as compile_graph
from gnomon.compiler.errors import ArgumentError, DataError, nearest
from gnomon.compiler.graph import Node, TensorType
from gnomon.compiler.ops.leaves import fresh_input, key_of
from gnomon.compiler.program import Program, lifetimes
from gnomon.compiler.resize import resize
from gnomon.compiler.sizes import Dim, Symbol, evaluate, product, substitute, symbols
from gnomon.compiler.targets import Target
from gnomon.functions import Function, Graph
from gnomon.linking import NoLinkerError, shared_library
from gnomon.models import Model
from gnomon.quantize import Report, quantize, rounded
from gnomon.runtime import gnx
from gnomon.runtime.device import device
from gnomon.runtime.executable import Executable
from gnomon.saving.files import to_write, written_aside
from gnomon.tracing import BATCH, Traced, Weighing, traced
from gnomon.variable import Variable

THREADS = ("callback", "pthreads")
"""Ways to share the work of a call."""

LITTLE = 64 << 10
"""Bytes of weights that nobody minds where there is an operating system."""


@dataclass
class Quantized:
    """A model or function whose weights have 8 bits, and what that costs: `build` takes it in place of a model.

    whole   whether it computes with whole numbers
    """

    name: str
    traced: list[Traced]
    report: Report
    whole: bool = False


@dataclass(frozen=True)
class Written:
    """Files with their sizes, and the bytes of a library's code, constants but no weights included.

    stack   about how many bytes of stack a call takes, told where there is no operating system
    """

    files: dict[str, int]
    code: int
    stack: int | None = None


def quantized(
    source: Model | Function,
    arrays: Sequence[Any],
    labels: Any = None,
    target: Target | None = None,
    compare: tuple[Sequence[Any], Any] | None = None,
    whole: bool = False,
) -> Quantized:
    """The model or function with weights of 8 bits, calibrated on arrays for its inputs.

    labels   classes, if the report is to say what becomes of the accuracy
    target   what it is for: without an operating system, weights are read as they are stored
    compare  other arrays and classes (or None) that the report is to be about
    whole    compute with whole numbers: what weights are multiplied with has 8 bits too
    Raises DataError for data that do not fit, or if there is nothing to quantize.
    """
    found = traced(source)
    graph = found[0].graph

    def fitting(arrays: Sequence[Any]) -> list[np.ndarray]:
        if len(arrays) != len(graph.inputs):
            raise DataError(f"{source.name!r} takes {len(graph.inputs)} arrays, but {len(arrays)} were given")
        pairs = zip(arrays, graph.inputs, strict=True)
        return [np.ascontiguousarray(a, dtypes.named(leaf.dtype).numpy) for a, leaf in pairs]

    given = fitting(arrays)
    in_place = target is not None and targets.is_bare(target)
    compared, classes = (given, labels) if compare is None else (fitting(compare[0]), compare[1])
    classes = None if classes is None else np.asarray(classes)
    small, report = quantize(graph, given, classes, in_place, whole, compared)
    return Quantized(source.name, [replace(found[0], graph=small)], report, whole)


def build(
    source: Model | Function | Quantized,
    prefix: str,
    target: Target | None = None,
    batch: int | None = None,
    max_batch: int | None = None,
    sizes: Mapping[str, int] | None = None,
    embed: bool = True,
    threads: bool | str = False,
    train: bool = False,
    weighing: Weighing | None = None,
    pack: bool | None = None,
    told: Callable[[str], None] = lambda what: None,
) -> aot.Library:
    """A library that runs a model or function.

    source     a model, built, or a compiled function
    prefix     of all names in C
    target     this machine if left out
    batch      the number of samples of each call; any if left out
    max_batch  the largest number of samples, where any is allowed
    sizes      values of other open sizes, by name
    embed      whether the weights are inside; else they are a file of their own
    threads    whether the functions can share their work among threads: of the caller's ('callback' or True), or such
               that the library can also start by itself ('pthreads')
    train      whether it can be trained too; the model must be compiled
    weighing   what samples count in training; left out, its functions take a weight for each sample if the model was
               compiled with `weighted_metrics`
    pack       whether weights are stored as products read them quickest, which may be beside what they are for calls of
               few samples; left out, if that makes them no more than a quarter larger. Weights that are trained or
               have 8 bits are never packed
    told       called with what is being done, before each part of the work

    Raises ArgumentError for a size that there is not, StateError for a model that is not built, or not compiled where
    it is to be trained, CompileError for a layer that cannot be compiled so.
    """
    aot.check_prefix(prefix)
    target = target or device("cpu").target()
    fixed = dict(sizes or {})
    if batch is not None:
        fixed[BATCH] = batch
    _check_threads(threads, target)
    told("tracing the model")
    if isinstance(source, Quantized) and train:
        raise ArgumentError(f"{source.name!r} has weights of 8 bits, which cannot be trained")
    parts = source.traced if isinstance(source, Quantized) else traced(source, train, weighing)
    _check_sizes([t.graph for t in parts], fixed, {} if max_batch is None else {BATCH: max_batch})
    if targets.is_bare(target) and max_batch is None:
        _check_closed(parts, fixed, target)
    variables = {key_of(v.node): v for t in parts for v in t.graph.variables}
    routines: list[aot.Routine] = []
    changed: set[int] = set()
    for t in parts:
        told(f"compiling {t.name!r}")
        request = _fixed(t.graph, fixed)
        plain = len(parts) > 1 or isinstance(source, Quantized)  # packed, small weights would be large again
        if isinstance(source, Quantized):
            kept = [*request.outputs, *rounded(request.outputs)]
            program = _hidden(compile_graph(replace(request, outputs=kept), target), len(request.outputs))
        else:
            program = _compiled(request, variables, target, False if plain else pack)
        changed |= {key_of(p) for p, _ in request.updates}
        routines.append(_routine(t, program, bool(request.updates)))
    aot.check_steps(r.program for r in routines)
    largest = {} if max_batch is None or batch is not None else {BATCH: max_batch}
    metrics: list[int] = []
    if train and isinstance(source, Model):
        metrics = [key_of(v.node) for m in source.metrics for v in m.variables]
    return aot.Library(
        prefix, f"{_kind(source)} {source.name!r}", gnomon.__version__, target, tuple(routines),
        _stored(routines, variables, changed), embed, bool(threads), threads == "pthreads", largest,
        tuple(k for k in metrics if k in changed),
    )  # fmt: skip


def _hidden(program: Program, count: int) -> Program:
    """The program with `count` outputs, and temporaries in place of the others: they were asked for so that they have
    memory of their own, for the compiler would make them again wherever they are read."""
    lives = lifetimes(program.slots, program.steps)
    slots = list(program.slots)
    for k in set(program.outputs[count:]) - set(program.outputs[:count]):
        first, last = lives[k]
        slots[k] = replace(slots[k], kind="temporary", first=first, last=last)
    return replace(program, outputs=program.outputs[:count], slots=tuple(slots))


def _compiled(request: Request, variables: Mapping[int, Variable], target: Target, pack: bool | None) -> Program:
    """The program, with weights packed beforehand where that is wanted or does not cost much."""
    plain = None if pack else compile_graph(request, target)
    if pack is False:
        assert plain is not None
        return plain
    program = compile_graph(replace(request, prepare=True), target)
    host = device("cpu").target()
    first = aot.preparation(program, target, host)
    kept: dict[int, bytes] = {}
    if first is not None:
        results = Executable(first, [variables[key].buffer for _, key in first.variables])()
        pairs = zip(first.outputs, results, strict=True)
        kept = {slot: dtypes.encoded(first.slots[slot].dtype, r).tobytes() for slot, r in pairs}
    packed = aot.prepared(program, kept, target)
    if plain is None:
        return packed
    before, after = (_memory(p, target) for p in (plain, packed))
    little = 0 if targets.is_bare(target) else LITTLE
    return packed if after <= max(before * 1.25, little) else plain


def _memory(program: Program, target: Target) -> int:
    """Bytes of the weights of a program; where every byte counts, of its temporaries too, if their sizes are fixed."""
    slots = program.slots
    total = sum(len(data) for _, data in program.constants)
    for slot, _ in program.variables:
        total += evaluate(product(slots[slot].shape), {}) * dtypes.named(slots[slot].dtype).bytes
    if targets.is_bare(target) and not program.sizes:
        blocks = aot.blocks_of(program)
        total += aot.arrange(blocks, {}).place({}, 8)[1]
    return total


def target_for(name: str | None = None, cpu: str | None = None) -> Target:
    """The target with this short name or triple and cpu; this machine without either.

    Raises ArgumentError, with near names, if there is none.
    """
    host = device("cpu").target()
    if name in (None, "host", "native"):
        return host if cpu in (None, "", "native") else targets.for_host(host, str(cpu))
    return targets.find(str(name), cpu or "")


def threads_of(target: Target) -> str:
    """The way in which a library shares its work that goes best with Python: it makes its own threads where it can."""
    return "pthreads" if aot.has_threads(target.triple) else "callback"


def can_build(source: Any) -> bool:
    """Whether `source` is something that `build` takes."""
    return isinstance(source, (Model, Function, Quantized))


def write(
    library: aot.Library, base: Any, kind: str, ending: str, told: Callable[[str], None] = lambda what: None
) -> Written:
    """Write a library, its header, and its weights if they are a file.

    base     where, without an ending
    kind     'obj', 'static' or 'shared'; 'gnx' for one file that `gnomon.runtime.load` reads, made of a library that
             does not embed its weights
    ending   of the library: '.o', '.a', '.so' and the like
    told     called with what is being done, before each part of the work
    All files are there when it returns, or none has changed. Raises FileError if they cannot be written.
    """
    base = Path(base)
    told(f"generating code for {library.target.cpu or library.target.triple}")
    texts, exported = aot.modules(library)
    content = aot.compile_object(texts, exported, library.target, library.weights if library.embed else b"")
    code = sum(aot.symbols.read(content).sections.values()) - (len(library.weights) if library.embed else 0)
    told("linking and writing")
    if kind == "static":
        content = aot.archive(f"{base.name}.o", content, exported, "apple" in library.target.triple)
    elif kind == "shared":
        content = shared_library(content, exported, library.target, f"{base.name}{ending}")
    elif kind == "gnx":
        description = {**aot.describe(library), "platform": _platform(library.target), "linked": True}
        try:
            content = shared_library(content, exported, library.target, library.prefix)
        except NoLinkerError:
            if not library.target.triple.startswith("x86_64") or "linux" not in library.target.triple:
                raise
            description["linked"] = False  # the runtime loads objects of this kind itself
        return Written(write_all({f"{base}{ending}": gnx.pack(description, content, library.weights_file)}), code)
    files = {f"{base}{ending}": content, f"{base}.h": aot.header(library).encode()}
    if not library.embed:
        files[f"{base}.weights"] = library.weights_file
    stack = aot.stack_bytes(texts, exported, library.target) if targets.is_bare(library.target) else None
    return Written(write_all(files), code, stack)


def _platform(target: Target) -> dict[str, Any]:
    """What a machine must be for a library to run on it."""
    architecture, system = target.triple.split("-")[0], "linux"
    for part, name in (("apple", "darwin"), ("windows", "win32")):
        system = name if part in target.triple else system
    machine = "aarch64" if architecture == "arm64" else architecture
    flags: Iterable[str] = gnx.cpu_flags() or ()
    if target.cpu:
        flags = targets.X86_LEVELS[targets.level_of(target.cpu)] if machine == "x86_64" else ()
    return {"system": system, "machine": machine, "flags": sorted(set(flags) & targets.INSTRUCTIONS)}


def write_all(files: Mapping[str, bytes]) -> dict[str, int]:
    """Write files aside and rename them when all are there. Returns their sizes."""
    paths = [to_write(file, Path(file).suffix, True) for file in files]
    with ExitStack() as stack:
        for path, content in zip(paths, files.values(), strict=True):
            stack.enter_context(written_aside(path)).write_bytes(content)
    return {file: len(content) for file, content in files.items()}


def _kind(source: Model | Function | Quantized) -> str:
    if isinstance(source, Quantized):
        return "int8 weights and products of" if source.whole else "int8 weights of"
    return "model" if isinstance(source, Model) else "function"


def _routine(part: Traced, program: Program, changes: bool) -> aot.Routine:
    taken = {"state", "weights", "workspace", "workspace_bytes", "threads"}
    asked = (s for s, (_, axis) in zip(program.sizes, program.bindings, strict=True) if axis >= 0)
    taken |= {aot.identifier(s.partition(".")[0]) for s in asked}
    inputs = aot.arguments_of(program, program.inputs, part.inputs, taken)
    outputs = aot.arguments_of(program, program.outputs, part.outputs, taken)
    return aot.Routine(part.name, part.what, program, inputs, outputs, changes, part.graph.form)


def _stored(
    routines: Sequence[aot.Routine], variables: Mapping[int, Variable], changed: set[int]
) -> tuple[aot.Stored, ...]:
    """The variables of all programs, then their constants."""
    found: dict[Any, aot.Stored] = {}
    for routine in routines:
        slots = routine.program.slots
        for slot, key in routine.program.variables:
            if key not in found:
                data = dtypes.encoded(slots[slot].dtype, variables[key].numpy()).tobytes()
                shape = variables[key].buffer.shape
                found[key] = aot.Stored(slots[slot].name, slots[slot].dtype, shape, data, key in changed, key)
    for routine in routines:
        for slot, data in routine.program.constants:
            shape = tuple(d for d in routine.program.slots[slot].shape if isinstance(d, int))
            found.setdefault(data, aot.Stored("constant", routine.program.slots[slot].dtype, shape, data))
    return tuple(found.values())


# ---- sizes


def _check_sizes(graphs: Sequence[Graph], fixed: Mapping[str, int], largest: Mapping[str, int]) -> None:
    known = {s for g in graphs for leaf in g.inputs for d in leaf.shape for s in symbols(d)}
    for name, value in (*fixed.items(), *largest.items()):
        if name not in known:
            has = f"Its open sizes are {', '.join(sorted(known))}." if known else "All its sizes are fixed."
            raise ArgumentError(f"there is no size {name!r} to be set.{nearest(name, known) if known else ''} {has}")
        if value < 1:
            raise ArgumentError(f"the size {name!r} must be at least 1, got {value}")


def _check_threads(threads: bool | str, target: Target) -> None:
    if threads not in (False, True, *THREADS):
        raise ArgumentError(f"threads are {' or '.join(map(repr, THREADS))}, not {threads!r}")
    if threads == "pthreads" and not aot.has_threads(target.triple):
        raise ArgumentError(
            f"{target.triple} has no POSIX threads that a library could start: with 'callback' it uses threads of the "
            "caller's"
        )


def _check_closed(parts: Sequence[Traced], fixed: Mapping[str, int], target: Target) -> None:
    """Where there is no operating system memory is static, and no size may be open."""
    still: dict[str, str] = {}
    for t in parts:
        for leaf, name in zip(t.graph.inputs, t.inputs, strict=True):
            for s in sorted(s for d in leaf.shape for s in symbols(d) if s not in fixed):
                still.setdefault(s, name)
    if still:
        which = " and ".join(f"{s!r} (an axis of {name!r})" for s, name in still.items())
        options = " ".join("--batch 1" if s == BATCH else f"--size {s}=N" for s in still)
        raise ArgumentError(
            f"{target.cpu} has no operating system, so all memory has to be known beforehand, but these sizes are "
            f"open: {which}. Fix them: {options}"
        )


def _fixed(graph: Graph, values: Mapping[str, int]) -> Request:
    """The graph with values for some of its sizes."""
    inputs, outputs = list(graph.inputs), list(graph.outputs)
    updates = [(v.node, node) for v, node in graph.updates.items()]

    def settle(d: Dim) -> Dim:
        return substitute(d, lambda a: values.get(a.name) if isinstance(a, Symbol) else None)

    if any(symbols(d) & set(values) for leaf in inputs for d in leaf.shape):
        leaves: dict[Node, Node] = {}
        for leaf in inputs:
            shape = tuple(map(settle, leaf.shape))
            leaves[leaf] = fresh_input(leaf.op.name, TensorType(leaf.dtype, shape))  # type: ignore[attr-defined]
        roots = resize([*outputs, *(value for _, value in updates)], dict(values), leaves)
        inputs, outputs = [leaves[leaf] for leaf in inputs], roots[: len(outputs)]
        updates = [(p, value) for (p, _), value in zip(updates, roots[len(outputs) :], strict=True)]
    return Request(graph.name, inputs, outputs, updates)


__all__ = [
    "Quantized", "Weighing", "Written", "build", "can_build", "quantized", "target_for", "threads_of", "write",
    "write_all",
]  # fmt: skip
