"""What of a model becomes a program of its own, predicting, training, testing: graphs, with names for their arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon import ops
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


@dataclass(frozen=True)
class Weighing:
    """What samples count in training.

    samples   whether steps of training and testing take weights of the samples, one array for each output
    classes   weights of classes that are known beforehand, for training; classes that are not named count 1
    """

    samples: bool = False
    classes: Mapping[int, float] | None = None


def traced(source: Model | Function, train: bool = False, weighing: Weighing | None = None) -> list[Traced]:
    """What a library of a model or function has: its outputs, and with `train` its steps of training and testing.

    weighing   what samples count in them; left out, the steps take weights if the model was compiled with
               `weighted_metrics`
    Raises ArgumentError for a function that is to be trained or repeats its graph, StateError for a model that is not
    built, or not compiled where it is to be trained.
    """
    if weighing is not None and not train:
        raise ArgumentError("weights of samples and classes are for training: they go with `train`")
    if isinstance(source, Function):
        if train:
            raise ArgumentError(f"{source.name!r} is a function: only a model can be trained")
        if source.graph.repeat is not None:
            raise ArgumentError(f"{source.name!r} repeats its graph: only a function without `repeat` can be compiled")
        outputs = output_names(source)
        return [Traced("run", f"The function {source.name!r}.", source.graph, source.input_names, outputs)]
    if not train:
        return [_prediction(source)]
    told = source._ready("compile").arguments.get("weighted_metrics")
    weighing = weighing or Weighing(any(m is not None for m in tree.flatten(told)))
    if weighing.samples and weighing.classes is not None:
        raise ArgumentError("weights are given for each sample or for each class, not both")
    return [_prediction(source), _step(source, "train", weighing), _step(source, "test", weighing)]


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


def _step(model: Model, mode: str, weighing: Weighing) -> Traced:
    """One step of training or testing, on one batch."""
    state = model._ready("compile")
    x = _samples(model, mode)
    model.build_for(x)
    labels = _labels(model, state)
    given = tree.map_structure(lambda a: np.empty((0,), "float32"), labels) if weighing.samples else None
    x, y, weights = symbolic_data(model, (x, labels, given), BATCH)
    by_class = None
    if mode == "train" and weighing.classes is not None:
        by_class = _class_weights(model, y, weighing.classes)
    with ExitStack() as stack:
        if state.trainable is not None:
            state.trainable.note(model)
            stack.enter_context(state.trainable.in_force())
        updates = stack.enter_context(collecting_updates())
        batch = adapters.pack(_for_inputs(model, x), y, weights if by_class is None else by_class)
        if mode == "train":
            _build_optimizer(model)
            logs = model.train_step(batch)
        else:
            logs = model.test_step(batch)
        values = _flat_logs(logs)
    model._clear_losses()
    inputs, labels, own = ([t for t in tree.flatten(part) if t is not None] for part in (x, y, weights))
    graph = Graph.of([*inputs, *labels, *own], list(values.values()), updates, None, f"{model.name}_{mode}", "ignore")
    assert model._graph is not None  # or there would be no labels
    outputs = names_of(model._graph.output_structure, model.output_names)
    names = _input_names(model, inputs)
    for what, leaves in (("y", labels), ("sample_weight", own)):
        names += [what] if len(leaves) == 1 else [f"{what}_{name}" for name in outputs][: len(leaves)]
    what = {
        "train": f"One step of training {model.name!r} on a batch. What it fills in are means since reset_metrics.",
        "test": f"Evaluates {model.name!r} on a batch. What it fills in are means since reset_metrics.",
    }[mode]
    return Traced({"train": "step", "test": "evaluate"}[mode], what, graph, names, list(values))


def _class_weights(model: Model, y: Any, weights: Mapping[int, float]) -> Any:
    """The weight of each sample by its class: labels, or one-hot rows. As `fit` has it from `class_weight`."""
    leaves = tree.flatten(y)
    if len(leaves) != 1:
        raise ArgumentError(f"weights of classes are for models with one output; {model.name!r} has {len(leaves)}")
    (label,) = leaves
    if len(label.shape) > 2:
        shape = ", ".join("batch" if d is None else str(d) for d in label.shape)
        raise ArgumentError(f"weights of classes need labels of shape (batch,) or (batch, classes), not ({shape})")
    if any(int(c) != c or c < 0 for c in weights):
        raise ArgumentError(f"classes are whole numbers from 0 on, not {sorted(weights)}")
    count = max(weights, default=-1) + 1
    table = np.array([*(weights.get(c, 1.0) for c in range(count)), 1.0], "float32")  # the last is for all others
    if len(label.shape) == 2:
        label = ops.argmax(label, axis=1) if label.shape[1] > 1 else ops.reshape(label, (-1,))
    label = ops.cast(ops.round(label), "int32")
    return ops.take(table, ops.where(ops.logical_and(label >= 0, label < count), label, count))


def _input_names(model: Model, given: Sequence[Any]) -> list[str]:
    names = list(getattr(model, "input_names", ()) or ())
    return names if len(names) == len(given) else [t.name for t in given]


__all__ = ["BATCH", "Traced", "Weighing", "output_names", "traced"]
