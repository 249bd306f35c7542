"""What `Function.show`, `profile` and `memory` and the same of a model give: each stage of the compiler, readable.

fn.show()                          the graph as it was asked for, derivatives included
fn.show("kernels")                 what is compiled; also "llvm" and "assembly"
fn.show("simplified", "dot")       for Graphviz; also "json" and "graphml"
fn.show("graph", diff="simplified")   what the passes changed
model.show("layers")               the layers; "graph" the forward pass, "differentiated" the training step
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gnomon.compiler import dtypes, show
from gnomon.compiler.errors import ArgumentError, StateError, nearest
from gnomon.compiler.graph import Node, Origin, origins
from gnomon.compiler.passes import PASSES
from gnomon.layers.calls import Call
from gnomon.layers.input import InputLayer
from gnomon.placement import chosen_device

FORMATS = ("text", "dot", "json", "graphml")
STAGES = ("graph", *(name for name, _ in PASSES), "simplified", "rows", "kernels", "program", "llvm", "assembly")
"""Of a function, in the order in which they come about; the passes by their names."""
MODEL_STAGES = ("layers", "graph", "differentiated", *STAGES[1:])
TEXTS = ("llvm", "cuda", "assembly")
"""Stages that are text and no graph."""


class Shown(str):
    """A text that prints as it is at a prompt."""

    def __repr__(self) -> str:
        return str(self)


# ---- functions


def show_function(fn: Any, stage: str = "graph", format: str = "text", diff: str | None = None) -> Shown:
    """See `Function.show`."""
    if diff is not None:
        return _difference(fn.name, lambda s: show_function(fn, s, "text"), (stage, diff), format, STAGES)
    return Shown(_written(_function_stage(fn, _known(stage, STAGES)), format))


@dataclass
class Stage:
    """One stage: a text for people, and a view for the other formats (None where it is text only)."""

    name: str
    text: str
    view: show.View | None = None
    sections: list[dict[str, Any]] = field(default_factory=list)  # JSON of what is text only


def _function_stage(fn: Any, stage: str) -> Stage:
    stages, program = fn.stages, fn.program
    match stage:
        case "graph":
            return _graph_stage(fn, stage, stages.graph)
        case "simplified":
            return _graph_stage(fn, stage, stages.simplified)
        case "rows":
            text = "\n".join(f"; {label}\n{rows!r}" for label, rows in stages.rows)
            return Stage(stage, text, _tree(stage, text))
        case "kernels":
            texts = [f"; {name}{_made(stages.nodes.get(name, ()))}\n{k.text()}" for name, k in stages.kernels.items()]
            return Stage(stage, "\n\n".join(texts), _kernels(stages))
        case "program":
            return Stage(stage, show.text(program), show.view(program))
        case "llvm" | "cuda":
            own = "cuda" if program.target == "cuda" else "llvm"
            if stage != own:
                raise ArgumentError(f"{fn.name!r} runs on {fn.device.name!r}: its text is the stage {own!r}.")
            return _texts(stage, [(s.name, s.text) for s in program.sources], "//" if own == "cuda" else ";")
        case "assembly":
            if program.target == "cuda":
                raise ArgumentError(
                    f"{fn.name!r} runs on {fn.device.name!r}, whose machine code is NVIDIA's affair: look at 'cuda'."
                )
            from gnomon.runtime import codegen

            return _texts(stage, [(s.name, codegen.assembly(s.text)) for s in program.sources], "#")
    return _graph_stage(fn, stage, dict(stages.passes)[stage])


def _graph_stage(fn: Any, name: str, roots: Sequence[Node]) -> Stage:
    shown = show.view(roots)
    text = show.text(shown)
    count = len(fn.graph.outputs)
    parts = [f"outputs {', '.join(f'%{i}' for i in shown.outputs[:count])}"] if count else []
    updated = zip(fn.graph.updates, shown.outputs[count:], strict=True)
    parts += [f"{v.path or v.name} <- %{i}" for v, i in updated]
    return Stage(name, f"{text}  ; {'; '.join(parts)}" if parts else text, shown)


def _made(nodes: Sequence[Node]) -> str:
    found = dict.fromkeys(show.origin_text(o) for n in nodes for o in origins(n))
    return f"  ; {', '.join(filter(None, found))}" if any(found) else ""


def _texts(stage: str, parts: list[tuple[str, str]], comment: str) -> Stage:
    text = "\n".join(f"{comment} ---- {name}\n{text}" for name, text in parts)
    return Stage(stage, text, None, [{"name": name, "text": text} for name, text in parts])


def _kernels(stages: Any) -> show.View:
    """All kernels as one view: each a box of its own, its statements below it."""
    entries: list[show.Entry] = []
    for name, kernel in stages.kernels.items():
        made = tuple(dict.fromkeys(o for n in stages.nodes.get(name, ()) for o in origins(n)))[:4]
        top = len(entries)
        buffers = ", ".join(map(repr, kernel.buffers))
        entries.append(show.Entry(top, "Kernel", f"{name}({buffers})", origins=made))
        for e in show.view(kernel).entries:
            inputs = tuple(x + top + 1 for x in e.inputs) or (top,)
            entries.append(show.Entry(e.id + top + 1, e.kind, e.label, inputs=inputs, origins=made))
    return show.View("kernels", tuple(entries))


def _tree(name: str, text: str) -> show.View:
    """Indented lines as a view: a line hangs on the line it is indented below."""
    entries: list[show.Entry] = []
    above: list[tuple[int, int]] = []
    for line in text.splitlines():
        if not line or line.startswith(";"):
            continue
        depth = len(line) - len(line.lstrip())
        while above and above[-1][0] >= depth:
            above.pop()
        label = line.strip().rstrip(":")
        parents = (above[-1][1],) if above else ()
        entries.append(show.Entry(len(entries), label.partition("(")[0].partition(" ")[0], label, inputs=parents))
        above.append((depth, entries[-1].id))
    return show.View(name, tuple(entries))


# ---- writing


def _known(stage: str, stages: Sequence[str]) -> str:
    """The stage as it is called, '-' and '_' for spaces allowed."""
    wanted = str(stage).strip().lower().replace("-", " ").replace("_", " ")
    if wanted not in (*stages, "cuda"):
        known = ", ".join(stages)
        raise ArgumentError(f"There is no stage {stage!r}.{nearest(wanted, stages)} The stages are {known}.")
    return wanted


def _written(stage: Stage, format: str) -> str:
    if format not in FORMATS:
        raise ArgumentError(f"There is no format {format!r}.{nearest(str(format), FORMATS)}")
    if format == "text":
        return stage.text
    if stage.view is None:
        if format == "json":
            return json.dumps({"name": stage.name, "sources": stage.sections}, indent=2)
        raise ArgumentError(f"The stage {stage.name!r} is text that cannot be drawn: use the format 'text' or 'json'.")
    if format == "dot":
        return show.dot(stage.view)
    if format == "json":
        return show.json(stage.view)
    import networkx

    return "\n".join(networkx.generate_graphml(show.networkx(stage.view)))


def _difference(
    what: str, text: Callable[[str], str], pair: tuple[str, str], format: str, stages: Sequence[str]
) -> Shown:
    if format != "text":
        raise ArgumentError(f"A difference between two stages is text; it has no format {format!r}.")
    before, after = (_known(s, stages) for s in pair)
    found = show.diff(text(before), text(after), (f"{what}: {before}", f"{what}: {after}"))
    return Shown(found or f"the stages {before!r} and {after!r} of {what!r} are the same")


# ---- profiles


def profile_function(fn: Any, arrays: Sequence[Any], named: dict[str, Any], repeat: int) -> Any:
    """See `Function.profile`."""
    from gnomon.runtime.profile import profile

    return profile(_plain(fn.executable), fn._arguments(arrays, named), repeat)


def _plain(executable: Any) -> Any:
    """The executable itself if a debug mode watches it."""
    return getattr(executable, "executable", executable)


# ---- models


def show_model(model: Any, stage: str = "layers", format: str = "text", diff: str | None = None) -> Shown:
    """See `Model.show`."""
    if diff is not None:
        return _difference(model.name, lambda s: show_model(model, s), (stage, diff), format, MODEL_STAGES)
    wanted = _known(stage, MODEL_STAGES)
    if wanted == "layers":
        return Shown(_written(_layers(model), format))
    if wanted == "graph":
        return show_function(function_of(model, "predict"), "graph", format)
    if wanted == "differentiated":
        return show_function(function_of(model, "train"), "graph", format)
    return show_function(function_of(model, "train" if model.compiled else "predict"), wanted, format)


def _layers(model: Any) -> Stage:
    """The layers, each with what it reads; those of a model without a graph stand alone."""
    entries: list[show.Entry] = []
    graph = getattr(model, "_graph", None)
    if graph is None:
        for layer in model.layers:
            entries.append(show.Entry(len(entries), type(layer).__name__, _layer_text(layer)))
        shown = show.View(model.name, tuple(entries))
    else:
        ids: dict[Any, int] = {}
        for call in graph.calls:
            read = () if call in graph._starts else tuple(ids[graph.producer(t)[0]] for t in call.inputs)
            ids[call] = len(entries)
            entries.append(_call_entry(call, len(entries), read))
        shown = show.View(model.name, tuple(entries), tuple(ids[graph.producer(t)[0]] for t in graph.outputs))
    return Stage("layers", show.text(shown), shown)


def _call_entry(call: Call, number: int, read: tuple[int, ...]) -> show.Entry:
    types = [str(t.node.type) for t in call.outputs]
    first = call.outputs[0].node
    layer = "" if isinstance(call.layer, InputLayer) else call.layer.name
    return show.Entry(
        number,
        type(call.layer).__name__,
        _layer_text(call.layer),
        ", ".join(types) if len(types) == 1 else f"({', '.join(types)})",
        first.dtype,
        tuple(map(str, first.shape)),
        read,
        (Origin(layer, *call.place),),
    )


def _layer_text(layer: Any) -> str:
    count = layer.count_params() if layer.built else 0
    return f"{type(layer).__name__}[{layer.name}{f', {count:,} parameters' if count else ''}]"


def function_of(model: Any, mode: str) -> Any:
    """The Function that a model runs to 'train', 'test' or 'predict': the one it has, or one for its declared inputs.

    Raises StateError if it is not compiled and `mode` is not 'predict', or if its inputs are not known yet.
    """
    state = model._trainer_state()
    where = chosen_device(state.device).name
    if mode != "predict" and not model.compiled:
        raise StateError(f"model {model.name!r} has no {mode}ing step before `compile()` says how it is trained")
    for signature, program in state.programs.items():
        if signature[0] == mode and signature[-1] == where:
            return program.function
    x = _samples(model, mode)
    if mode == "predict":
        return model._predictor(x).function
    return model._step_program(mode, (x, _labels(model, state), None)).function


def _samples(model: Any, mode: str) -> Any:
    """No samples, but of the types that the model takes."""
    from gnomon.utils import tree

    graph = getattr(model, "_graph", None)
    use = {"train": "train_on_batch", "test": "test_on_batch", "predict": "predict"}[mode]
    if graph is None:
        raise StateError(
            f"what model {model.name!r} takes is not known: call `{use}` on a batch first, then look again"
        )
    return tree.map_structure(lambda t: _none_like(t, t.dtype), graph.input_structure)


def _none_like(t: Any, dtype: str, drop_last: bool = False) -> np.ndarray:
    """No rows of a tensor's type; axes that are open have 1 element."""
    inner = [1 if d is None else d for d in t.shape[1:]]
    return np.empty((0, *inner[: -1 if drop_last else None]), dtypes.named(dtype).numpy)


def _labels(model: Any, state: Any) -> Any:
    """Labels as the losses take them: whole numbers for sparse ones, else like the outputs."""
    from gnomon.utils import tree

    losses = state.loss
    outputs = tree.flatten(model._graph.output_structure)
    names = list(getattr(model, "output_names", ()))
    each = []
    for k, t in enumerate(outputs):
        if isinstance(losses, dict):
            loss = losses.get(names[k] if k < len(names) else None)
        elif isinstance(losses, (list, tuple)):
            loss = losses[k] if k < len(losses) else None
        else:
            loss = losses
        named = loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)
        sparse = "sparse" in str(named).lower()
        each.append(_none_like(t, "int32" if sparse else "float32", sparse))
    return tree.pack_sequence_as(model._graph.output_structure, each)


def profile_model(model: Any, x: Any, y: Any, batch_size: int, repeat: int) -> Any:
    """See `Model.profile`."""
    from gnomon.models import data as adapters
    from gnomon.runtime.profile import profile
    from gnomon.utils import tree

    x = adapters.as_arrays(x, "x")
    if y is None:
        batch = tree.map_structure(lambda a: np.ascontiguousarray(a[:batch_size]), x)
        fn = model._predictor(batch).function
        return profile(_plain(fn.executable), fn._arguments(tree.flatten(batch), {}), repeat)
    y = adapters.as_arrays(y, "y")
    count = min(batch_size, adapters.check_cardinality(x=x, y=y))
    model._ready("profile")
    step = model._step_program("train", (x, y, None))
    rows = np.arange(count, dtype=np.int64)[None]
    arguments = step.arguments(rows, [*tree.flatten(x), *tree.flatten(y)])
    return profile(_plain(step.function.executable), step.function._arguments(arguments, {}), repeat)


__all__ = [
    "FORMATS", "MODEL_STAGES", "STAGES", "Shown", "function_of", "profile_function",
    "profile_model", "show_function", "show_model",
]  # fmt: skip
