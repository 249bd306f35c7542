"""How much memory programs take: what `Function.memory` and `Model.memory` answer, before anything is run.

All of it is known beforehand: variables and constants have fixed sizes, temporaries lie in one arena that is laid out
from their lifetimes for given sizes, inputs and outputs have the shapes that the program says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, nearest
from gnomon.compiler.program import Program
from gnomon.compiler.sizes import evaluate, product
from gnomon.models.data import as_arrays, check_positive, rows_of
from gnomon.variable import Variable


class _Table:
    """Bytes by what they are for, in a frozen dataclass. All of it is `total`."""

    name: str
    sizes: dict[str, int]

    @property
    def parts(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if name not in ("name", "sizes")}

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def __repr__(self) -> str:
        given = ", ".join(f"{k} = {v}" for k, v in self.sizes.items())
        lines = [f"memory of {self.name}" + (f" where {given}" if given else "")]
        lines += [f"{count:>16,} bytes  {what}" for what, count in (*self.parts.items(), ("total", self.total))]
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Memory(_Table):
    """Bytes that a call of a function takes."""

    name: str
    sizes: dict[str, int]
    arguments: int
    results: int
    variables: int
    constants: int
    kept: int
    temporaries: int


@dataclass(frozen=True, repr=False)
class ModelMemory(_Table):
    """Bytes that a model takes while it trains, is tested or predicts.

    weights      of layers, trained or not, and the state of their random streams
    optimizer    its state
    metrics      theirs, and that of the loss
    data         the samples, in the dtypes that the model takes, and the table of which are in which batch
    outputs      what a step gives, or all predictions
    constants    literal arrays
    kept         what is made of weights once and kept: they lie there in the order that kernels read
    temporaries  activations, gradients and the like: the largest that is alive at any time, in one arena
    """

    name: str
    sizes: dict[str, int]
    weights: int
    optimizer: int
    metrics: int
    data: int
    outputs: int
    constants: int
    kept: int
    temporaries: int


# ---- functions


def memory_of(fn: Any, sizes: dict[str, Any]) -> Memory:
    """See `Function.memory`."""
    values = _values(fn, sizes)
    owned = _owned(fn.executable.program, values)
    return Memory(
        fn.name,
        values,
        owned["input"],
        owned["output"],
        owned["variable"],
        owned["constant"],
        owned["kept"],
        _temporaries(fn, values),
    )


def _values(fn: Any, sizes: dict[str, Any]) -> dict[str, int]:
    """The values of all sizes of a program. Raises ArgumentError for one that is missing, unknown or no size."""
    known = fn.executable.program.sizes
    for name, value in sizes.items():
        if name not in known:
            raise ArgumentError(f"{fn.name!r} has no size {name!r}.{nearest(name, known)}")
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise ArgumentError(f"The size {name!r} must be an integer >= 0, got {value!r}.")
    missing = [name for name in known if name not in sizes]
    if missing:
        raise ArgumentError(f"memory of {fn.name!r} depends on {', '.join(missing)}: pass {missing[0]}=...")
    return {name: int(v) for name, v in sizes.items()}


def _owned(program: Program, sizes: dict[str, int]) -> dict[str, int]:
    """Bytes of the slots of each kind that have memory of their own."""
    owned = dict.fromkeys(("input", "output", "variable", "constant", "kept"), 0)
    for slot in program.slots:
        if slot.alias < 0 and slot.kind in owned:
            owned[slot.kind] += evaluate(product(slot.shape), sizes) * dtypes.named(slot.dtype).bytes
    return owned


def _temporaries(fn: Any, sizes: dict[str, int]) -> int:
    executable = getattr(fn.executable, "executable", fn.executable)  # itself, if a debug mode watches it
    return executable.memory(sizes)


# ---- models

MODES = {"train": "train", "evaluate": "test", "predict": "predict"}


def memory_of_model(
    model: Any,
    batch_size: Any,
    training: bool,
    samples: Any,
    mode: str | None,
    x: Any,
    y: Any,
    sample_weight: Any,
    sizes: dict[str, Any],
) -> ModelMemory:
    """See `Model.memory`."""
    from gnomon.inspecting import function_of

    batch = check_positive("batch_size", batch_size)
    count = batch if samples is None else check_positive("samples", samples)
    mode = mode or ("train" if training else "predict")
    if mode not in MODES:
        raise ArgumentError(f"mode must be 'train', 'evaluate' or 'predict', got {mode!r}.{nearest(mode, MODES)}")
    if x is None:
        fn = function_of(model, MODES[mode])
    else:
        data = tuple(None if a is None else rows_of(as_arrays(a, "x"), 0, 1) for a in (x, y, sample_weight))
        if mode == "predict":
            fn = model._predictor(data[0]).function
        else:
            model._ready("memory")
            fn = model._step_program(MODES[mode], data).function
    if mode == "predict":
        return _of_prediction(model, fn, batch, count, sizes)
    own = {"samples": count, "batch": batch, "steps": -(-count // batch)}
    own |= {name: own["steps"] for name in fn.executable.program.sizes if name.startswith("count.")}  # on a GPU
    values = _values(fn, {**{k: v for k, v in own.items() if k in fn.executable.program.sizes}, **sizes})
    owned = _owned(fn.executable.program, values)
    return _model_memory(model, fn, mode, values, owned, owned["input"], owned["output"])


def _of_prediction(model: Any, fn: Any, batch: int, count: int, sizes: dict[str, Any]) -> ModelMemory:
    """Of predicting `count` samples: as many batches are taken in one call as need little memory."""
    from gnomon.models.steps import rows_at_once

    def at(rows: int) -> dict[str, int]:
        return _values(fn, {**({"batch": rows} if "batch" in fn.executable.program.sizes else {}), **sizes})

    rows = min(count, rows_at_once(lambda n: _temporaries(fn, at(n)), batch) if count > batch else batch)
    whole, part = (_owned(fn.executable.program, at(n)) for n in (count, rows))
    outputs = whole["output"] + (part["output"] if rows < count else 0)
    return _model_memory(model, fn, "predict", at(rows), part, whole["input"], outputs)


def _model_memory(
    model: Any, fn: Any, mode: str, values: dict[str, int], owned: dict[str, int], data: int, outputs: int
) -> ModelMemory:
    layers, optimizer, metrics = _variables(model)
    own = set(map(id, (*layers, *optimizer, *metrics)))
    others = [v for v in fn.graph.variables if id(v) not in own]  # of layers that keep them out of sight
    what = {"train": "a training step", "evaluate": "a step of evaluation", "predict": "prediction"}[mode]
    return ModelMemory(
        f"{what} of {model.name!r}",
        values,
        _bytes((*layers, *others)),
        _bytes(optimizer),
        _bytes(metrics),
        data,
        outputs,
        owned["constant"],
        owned["kept"],
        _temporaries(fn, values),
    )


def _variables(model: Any) -> tuple[list[Variable], list[Variable], list[Variable]]:
    """The variables of layers, of the optimizer and of metrics: all of them are there, whatever the model does."""
    optimizer = getattr(model, "optimizer", None)
    own = list(optimizer.variables) if optimizer is not None and optimizer.built else []
    metrics = [v for m in model.metrics for v in m.variables]
    return list(model.variables), own, metrics


def _bytes(variables: Iterable[Variable]) -> int:
    return sum(v.buffer.nbytes for v in {id(v): v for v in variables}.values())


__all__ = ["Memory", "ModelMemory", "memory_of", "memory_of_model"]
