"""What of a model becomes a program of its own, predicting, training, testing: graphs, with names for their arrays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from gnomon.compiler.errors import ArgumentError
from gnomon.functions import Function, Graph
from gnomon.inspecting import _labels, _samples
from gnomon.models import Model
from gnomon.models import data as adapters
from gnomon.models.heads import names_of
from gnomon.models.steps import _build_optimizer, _flat_logs, _for_inputs, symbolic_data
from gnomon.utils import tree
from gnomon.variable import collecting_updates

BATCH = "batch"
"""The size that stands for the number of samples."""


@dataclass
class Traced:
    """What becomes one C function: a graph with names for its arrays."""

    name: str
    what: str
    graph: Graph
    inputs: list[str]
    outputs: list[str]


def traced(source: Model | Function, train: bool = False) -> list[Traced]:
    """What a library of a model or function has: its outputs, and with `train` its steps of training and testing.

    Raises ArgumentError for a function that is to be trained or repeats its graph, StateError for a model that is not
    built, or not compiled where it is to be trained.
    """
    if isinstance(source, Function):
        if train:
            raise ArgumentError(f"{source.name!r} is a function: only a model can be trained")
        if source.graph.repeat is not None:
            raise ArgumentError(f"{source.name!r} repeats its graph: only a function without `repeat` can be compiled")
        outputs = output_names(source)
        return [Traced("run", f"The function {source.name!r}.", source.graph, source.input_names, outputs)]
    if not train:
        return [_prediction(source)]
    return [_prediction(source), _step(source, "train"), _step(source, "test")]


def output_names(source: Function) -> list[str]:
    """What the outputs of a function are called: by their keys, or numbered."""
    form = source.graph.form
    if isinstance(form, dict) and all(isinstance(v, int) for v in form.values()):
        return [name for name, _ in sorted(form.items(), key=lambda item: item[1])]
    count = len(source.graph.outputs)
    return ["result"] if count == 1 else [f"result_{k}" for k in range(count)]


def _prediction(model: Model) -> Traced:
    """The model's forward pass."""
    x = _samples(model, "predict")
    model.build_for(x)
    leaves, _, _ = symbolic_data(model, (x, None, None), BATCH)
    with collecting_updates() as updates:
        outputs = model.predict_step(adapters.pack(_for_inputs(model, leaves)))
    model._clear_losses()
    given = [t for t in tree.flatten(leaves) if t is not None]
    graph = Graph.of(given, outputs, updates, None, f"{model.name}_predict", "ignore")
    names = list(getattr(model, "output_names", ()) or ())
    if len(names) != len(graph.outputs):
        names = ["output"] if len(graph.outputs) == 1 else [f"output_{k + 1}" for k in range(len(graph.outputs))]
    return Traced("run", f"The outputs of {model.name!r}.", graph, _input_names(model, given), names)


def _step(model: Model, mode: str) -> Traced:
    """One step of training or testing, on one batch."""
    state = model._ready("compile")
    x = _samples(model, mode)
    model.build_for(x)
    data = symbolic_data(model, (x, _labels(model, state), None), BATCH)
    x, y, _ = data
    with ExitStack() as stack:
        if state.trainable is not None:
            state.trainable.note(model)
            stack.enter_context(state.trainable.in_force())
        updates = stack.enter_context(collecting_updates())
        batch = adapters.pack(_for_inputs(model, x), y, None)
        if mode == "train":
            _build_optimizer(model)
            logs = model.train_step(batch)
        else:
            logs = model.test_step(batch)
        values = _flat_logs(logs)
    model._clear_losses()
    inputs, labels = ([t for t in tree.flatten(part) if t is not None] for part in (x, y))
    graph = Graph.of([*inputs, *labels], list(values.values()), updates, None, f"{model.name}_{mode}", "ignore")
    assert model._graph is not None  # or there would be no labels
    outputs = names_of(model._graph.output_structure, model.output_names)
    told = ["y"] if len(labels) == 1 else [f"y_{name}" for name in outputs]
    names = [*_input_names(model, inputs), *told]
    what = {
        "train": f"One step of training {model.name!r} on a batch. What it fills in are means since reset_metrics.",
        "test": f"Evaluates {model.name!r} on a batch. What it fills in are means since reset_metrics.",
    }[mode]
    return Traced({"train": "step", "test": "evaluate"}[mode], what, graph, names, list(values))


def _input_names(model: Model, given: Sequence[Any]) -> list[str]:
    names = list(getattr(model, "input_names", ()) or ())
    return names if len(names) == len(given) else [t.name for t in given]


__all__ = ["BATCH", "Traced", "output_names", "traced"]
