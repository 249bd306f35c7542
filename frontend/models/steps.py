"""Training, evaluation and prediction steps as compiled programs.

A `Step` takes whole arrays and a table of row numbers [steps, batch]: it gathers and runs one batch after the other
inside the program. So one serves data sets, single batches and generators, and a ragged last batch needs no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DataError, StateError
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import size_of
from gnomon.compiler.sizes import Dim, Size, symbol, symbols
from gnomon.layers.tracking import Tracked
from gnomon.metrics.metric import Metric
from gnomon.models import data as adapters
from gnomon.models.data import Data
from gnomon.models.heads import leaves_for, names_of
from gnomon.placement import chosen_device
from gnomon.tensor import Tensor, getitem, new_input, node_of
from gnomon.utils import tree
from gnomon.variable import Variable, collecting_updates

CHUNK = 64 * 2**20
"""Bytes of samples that go to a device at once where not all fit its memory."""

AT_ONCE = 16 * 2**20
"""Bytes of temporary memory that one call of a Predictor may take, unless a single batch of the user's takes more."""


class TrainableState:
    """Which layers and variables were trainable when the model was compiled: that is what training goes by.

    So a discriminator that was compiled before it was frozen inside a generator's model goes on learning on its own.
    """

    def __init__(self, model: Any):
        self.layers: dict[int, tuple[Any, bool]] = {}
        self.variables: dict[int, tuple[Variable, bool]] = {}
        self.note(model)

    def note(self, model: Any) -> None:
        """Note the layers and variables that have come since."""
        for layer in model._flatten_layers():
            self.layers.setdefault(id(layer), (layer, layer._trainable))
            for v in layer._own_variables():
                self.variables.setdefault(id(v), (v, v.trainable))

    @property
    def changed(self) -> list[str]:
        """The names of layers that are now trainable and were not, or the reverse."""
        return [layer.name for layer, flag in self.layers.values() if layer._trainable != flag]

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Inside, layers and variables are trainable as they were."""
        layers = [(layer, layer._trainable) for layer, flag in self.layers.values() if layer._trainable != flag]
        variables = [(v, v.trainable) for v, flag in self.variables.values() if v.trainable != flag]
        for layer, now in layers:
            layer._trainable = not now
        for v, now in variables:
            v.trainable = not now
        try:
            yield
        finally:
            for layer, now in layers:
                layer._trainable = now
            for v, now in variables:
                v.trainable = now


def fingerprint(model: Any) -> tuple:
    """What a program traced from the model depends on: its layers, their public attributes, their variables."""
    found: list[Any] = []
    for layer in model._flatten_layers():
        found.append(_Same(layer))
        found.extend(
            (name, value if isinstance(value, (bool, int, float, str, type(None))) else _Same(value))
            for name, value in vars(layer).items()
            if not name.startswith("_") and name not in layer.untraced and not isinstance(value, (Tracked, Variable))
        )
        found.extend(_Same(v) for v in layer._own_variables())
    return tuple(found)


class _Same:
    """Equal to itself wrapped again, whatever `==` means for it."""

    __slots__ = ("value",)

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


def form_of(value: Any) -> Any:
    """Dtypes and inner shapes of a structure of arrays, or the types of Tensors, as a key."""
    if type(value) is np.ndarray:
        return value.dtype, value.shape[1:]
    if value is None:
        return None
    if isinstance(value, Tensor):
        return value.node.type
    if isinstance(value, dict):
        return tuple((k, form_of(value[k])) for k in value)
    return type(value), tuple(form_of(v) for v in value)


# ---- symbolic data


def symbolic_data(model: Any, data: Data, rows: str) -> Data:
    """Inputs for x, y and sample weights of any number of rows (the size `rows`).

    Inner sizes are those of the data where the model's are fixed, and open where the model's are open.
    """
    x, y, w = data
    arrays, tensors = tree.flatten(x), tree.flatten(model.symbolic_inputs(x))
    inputs = dict(zip(map(id, arrays), tensors, strict=True))
    bound = {
        d: size
        for array, t in zip(arrays, tensors, strict=True)
        if array is not None
        for d, size in zip(t.node.shape[1:], array.shape[1:], strict=True)
    }
    graph = getattr(model, "_graph", None)

    def outputs_by_label(structure: Any) -> dict[int, Tensor]:
        """The output that each of y or of the sample weights is for, if the model says what it gives."""
        if graph is None or structure is None:
            return {}
        names = names_of(graph.output_structure, model.output_names)
        try:
            each = leaves_for(structure, names, "y") if tree.is_nested(structure) else [structure] * len(names)
        except DataError:  # said where the loss is computed, if it matters
            return {}
        return {id(a): t for a, t in zip(each, graph.outputs, strict=True)}

    def leaf(a: np.ndarray | None, like: Tensor | None, name: str) -> Tensor | None:
        if a is None:
            return None
        known = () if like is None else like.node.shape
        shape: list[Dim] = [symbol(rows)] if a.ndim else []
        for axis, size in enumerate(a.shape[1:], 1):
            dim = known[axis] if axis < len(known) else size
            computed = isinstance(dim, Size) and [dim] != [symbol(s) for s in symbols(dim)]
            if computed or (isinstance(dim, Size) and bound.get(dim, size) != size):
                # computed from the input's: found equal when it runs; or other than the input's: labels of some steps
                dim = symbol(f"{name}_{axis}")
            shape.append(dim if isinstance(dim, Size) else size)
        return Tensor(new_input(name, a.dtype.name, tuple(shape)), name)

    def leaves(structure: Any, like: dict[int, Tensor], name: str) -> Any:
        count = iter(range(1_000_000))
        named = lambda: f"{name}_{next(count)}" if tree.is_nested(structure) else name
        return tree.map_structure(lambda a: leaf(a, like.get(id(a)), named()), structure)

    return (
        leaves(x, inputs, "x"),
        leaves(y, outputs_by_label(y), "y"),
        leaves(w, outputs_by_label(w), "sample_weight"),
    )


def _for_inputs(model: Any, x: Any) -> Any:
    """x with the dtypes of the model's declared inputs: integers become floats where those are wanted."""
    graph = getattr(model, "_graph", None)
    if graph is None:
        return x
    wanted = {id(t): d.dtype for t, d in zip(graph.arranged(x, model.name), graph.inputs, strict=True)}
    return tree.map_structure(
        lambda t: Tensor(build.cast(t.node, wanted[id(t)]), t.name) if id(t) in wanted and t is not None else t, x
    )


# ---- compiled steps


class Step:
    """A compiled train or test step: `run(rows, arrays)` gives the logs after the last of the steps.

    data     `symbolic_data` with the size "samples"
    arrays   the leaves of x, y and sample_weight that are not None, in order
    """

    def __init__(self, model: Any, mode: str, data: Data, device: str | None = None):
        from gnomon.functions import function

        self.device = chosen_device(device)
        self.leaves: list[Tensor] = [t for t in tree.flatten(list(data)) if t is not None]
        rows = Tensor(new_input("rows", "int64", (symbol("steps"), symbol("batch"))))
        count: Tensor | None = None
        if self.device.apart:  # a table has more rows than there are steps, so that few sizes of tables are met
            count = Tensor(new_input("count", "int64", ()))
        counter = Tensor(new_input("step", "int64", ()))
        index = getitem(rows.node, counter)
        x, y, w = tree.map_structure(
            lambda t: None if t is None else Tensor(build.gather(t.node, index, 0), t.name), data
        )
        batch = adapters.pack(_for_inputs(model, x), y, w)
        with collecting_updates() as updates:
            if mode == "train":
                _build_optimizer(model)
                logs = model.train_step(batch)
            else:
                logs = model.test_step(batch)
            if not isinstance(logs, dict):
                raise ArgumentError(f"{mode}_step of {model.name!r} must return a dictionary of logs, got {logs!r:.80}")
            values = _flat_logs(logs)
        model._clear_losses()
        self.names = list(values)
        self.function = function(
            [rows, *([] if count is None else [count]), *self.leaves], list(values.values()), updates=updates,
            name=f"{model.name}_{mode}", on_unused_input="ignore",
            repeat=(counter, symbol("steps") if count is None else symbol(size_of(count.node))),
            device=self.device.name,
        )  # fmt: skip
        self.reset = reset_of(model)
        self.seconds = 0.0  # of one step, as measured
        self._size = 0  # of the batch that was measured

    def run(self, rows: np.ndarray, arrays: Sequence[Any]) -> dict[str, Any]:
        start = time.perf_counter()
        if self.device.apart:
            results = self._run_apart(rows, arrays)
        else:
            results = self.function.executable(rows, *arrays)
        took = (time.perf_counter() - start) / len(rows)
        size = rows.shape[1]
        if size == self._size:  # the first call is slow and no measure of those that follow
            self.seconds = min(took, 0.5 * (took + self.seconds)) if self.seconds else took
        else:
            self.seconds, self._size = took, size
        return {
            name: value.item() if value.ndim == 0 else value for name, value in zip(self.names, results, strict=True)
        }

    def _run_apart(self, rows: np.ndarray, arrays: Sequence[Any]) -> list[np.ndarray]:
        """`run` on a device: what is not in its memory goes there for some steps at a time."""
        if any(not isinstance(a, np.ndarray) for a in arrays) or sum(a.nbytes for a in arrays) <= AT_ONCE:
            return self.function.executable(*self.arguments(rows, arrays))
        row = sum(a.nbytes // max(1, len(a)) for a in arrays)
        at_once = 1 << max(0, (CHUNK // max(1, row * rows.shape[1])).bit_length() - 1)
        results: list[np.ndarray] = []
        for at in range(0, len(rows), at_once):
            part = _padded(rows[at : at + at_once])
            count = np.asarray(min(at_once, len(rows) - at), np.int64)
            table = np.arange(part.size, dtype=np.int64).reshape(part.shape)
            results = self.function.executable(table, count, *(a[part.reshape(-1)] for a in arrays))
        return results

    def arguments(self, rows: np.ndarray, arrays: Sequence[Any]) -> list[Any]:
        """What the function takes for these row numbers and arrays."""
        if not self.device.apart:
            return [rows, *arrays]
        return [_padded(rows), np.asarray(len(rows), np.int64), *arrays]

    def placed(self, arrays: Sequence[np.ndarray], known: dict[int, tuple[Any, Any]]) -> list[Any]:
        """The arrays as the device reads them quickest; `known` are those that are there already. If they are too large
        for its memory, they stay where they are."""
        if not self.device.apart:
            return list(arrays)
        missing = [a for a in arrays if id(a) not in known]
        if missing and sum(a.nbytes for a in missing) > self.device.room():
            return list(arrays)
        for a in missing:
            known[id(a)] = a, self.device.array(a)
        return [known[id(a)][1] for a in arrays]

    def steps_in(self, seconds: float, size: int) -> int:
        """About how many steps of batches of this size take so long; 1 if that is not known."""
        if not self.seconds or size != self._size:
            return 1
        return max(1, int(seconds / self.seconds))


def _padded(rows: np.ndarray) -> np.ndarray:
    """A table with as many rows as the next power of two; nothing is done with those that are added."""
    whole = np.zeros((1 << max(0, len(rows) - 1).bit_length(), *rows.shape[1:]), np.int64)
    whole[: len(rows)] = rows
    return whole


def _build_optimizer(model: Any) -> None:
    """Make the optimizer's state, if it has none yet. Raises StateError for weights that it does not know."""
    optimizer, variables = model.optimizer, model.trainable_variables
    if optimizer is None:
        raise StateError(f"model {model.name!r} was compiled without an optimizer: it can be evaluated, not trained")
    if not optimizer.built:
        optimizer.build(variables)
        return
    unknown = [v.path for v in variables if id(v) not in optimizer._indices]
    if unknown:
        raise StateError(
            f"model {model.name!r} trains {', '.join(map(repr, unknown[:3]))}, which its optimizer {optimizer.name!r} "
            "does not know: the optimizer was built for other weights (of another model, or before layers were "
            "unfrozen). Call compile() with a new optimizer."
        )


def _flat_logs(logs: dict[str, Any]) -> dict[str, Tensor]:
    """Logs in the order of their names, those of metrics with several results among them."""
    flat: dict[str, Tensor] = {}
    for name, value in sorted(logs.items()):
        flat |= _flat_logs(value) if isinstance(value, dict) else {name: Tensor(node_of(value))}
    return dict(sorted(flat.items()))


def reset_of(model: Any) -> Callable[[], None]:
    """`model.reset_metrics`, quick if no class redefines it."""
    from gnomon.models.training import Trainer

    metrics = [part for m in model.metrics for part in (getattr(m, "metrics", None) or [m])]
    plain = [m for m in metrics if type(m).reset_state is Metric.reset_state]
    if type(model).reset_metrics is not Trainer.reset_metrics or len(plain) < len(metrics):
        return model.reset_metrics
    buffers = [v.buffer for m in metrics for v in m.variables]

    def reset() -> None:
        for buffer in buffers:
            buffer.clear()

    return reset


class Predictor:
    """A compiled forward pass.

    x   of `symbolic_data` with the size "batch"
    """

    def __init__(self, model: Any, x: Any, device: str | None = None):
        from gnomon.functions import function

        with collecting_updates() as updates:
            outputs = model.predict_step(adapters.pack(_for_inputs(model, x)))
        model._clear_losses()
        given = [t for t in tree.flatten(x) if t is not None]
        self.function = function(
            given, outputs, updates, name=f"{model.name}_predict", on_unused_input="ignore", device=device
        )
        self.single = self.function.graph.form == 0
        self._rows: dict[int, int] = {}

    def run(self, x: Any) -> Any:
        """The outputs for arrays x, in the structure of the model's."""
        if self.single and type(x) is np.ndarray:
            return self.function.executable(x)[0]
        return self.function(*(a for a in tree.flatten(x) if a is not None))

    def rows_at_once(self, x: Any, batch: int) -> int:
        """How many rows to take in one call: as many batches as AT_ONCE allows, at least one."""
        if self.function.graph.updates:  # a batch goes on from where the one before ended
            return batch
        if batch not in self._rows:
            arrays = [a for a in tree.flatten(x) if a is not None]
            self._rows[batch] = rows_at_once(lambda n: self._memory(arrays, n), batch)
        return self._rows[batch]

    def _memory(self, arrays: Sequence[np.ndarray], rows: int) -> int:
        """Bytes that a call on so many rows takes."""
        program = self.function.executable.program
        sizes = {
            name: arrays[number].shape[axis] if axis else rows
            for name, (number, axis) in zip(program.sizes, program.bindings, strict=True)
        }
        return self.function.executable.memory(sizes)


def rows_at_once(memory: Callable[[int], int], batch: int) -> int:
    """Rows of as many batches as AT_ONCE allows, at least one. `memory` tells the bytes that so many rows take."""
    once, twice = memory(batch), memory(2 * batch)
    spare = max(0, AT_ONCE - once)
    return batch * (1 + spare // max(twice - once, AT_ONCE // 256))
