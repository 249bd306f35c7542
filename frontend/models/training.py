"""compile, fit, evaluate, predict: a model's graph, loss, gradients, optimizer and metrics as one compiled program.

One program serves the whole data set, single batches and generators: it takes arrays and a table of indices
[steps, batch] and runs a step for each row, gathering the batch inside. `fit` hands it as many rows at a time as callbacks
and the progress bar allow. Sizes are symbolic: a ragged last batch needs no other program.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from gnomon.compiler import grad as differentiate
from gnomon.compiler.errors import ArgumentError, DataError, StateError
from gnomon.compiler.ops import build
from gnomon.compiler.passes import stabilize
from gnomon.compiler.sizes import symbol
from gnomon.models import data as adapters
from gnomon.models.data import ArrayData, BatchData
from gnomon.models.heads import CompiledLoss, CompiledMetrics, flat_for
from gnomon.tensor import Tensor, getitem, new_input, node_of
from gnomon.utils import tree
from gnomon.variable import Variable, collecting_updates

SLICE = 0.25
"""Seconds that one call of the program may take about: how soon Ctrl-C and the progress bar are served."""
LARGE_BATCH = 512
"""Rows that `predict` hands over at a time if no callback looks at batches."""


class Trainer:
    """What Model inherits to be trained. Subclasses may override train_step, test_step, predict_step and compute_loss:
    they are traced once with symbolic tensors."""

    optimizer: Any
    stop_training: bool

    # ---- compile

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Say how the model is trained.

        optimizer   a name or an Optimizer
        loss        a name, Loss or function (y_true, y_pred); a list or dictionary for several outputs
        loss_weights   factors of the losses of several outputs
        metrics, weighted_metrics   names, Metrics or functions, the latter with sample weights
        steps_per_execution   batches for which `fit` does not return to Python even if a callback asks for every batch
        run_eagerly, jit_compile, auto_scale_loss   accepted for Keras's sake: a program is always compiled as a whole
        """
        from gnomon import losses, optimizers

        state = self._trainer_state()
        state.optimizer = optimizers.get(optimizer)
        for f in tree.flatten(loss):
            if f is not None:
                losses.get(f)  # an unknown name fails here, on the user's own line
        _check_metrics(metrics)
        _check_metrics(weighted_metrics)
        self.optimizer = state.optimizer
        state.loss, state.loss_weights, state.metrics, state.weighted = loss, loss_weights, metrics, weighted_metrics
        state.steps_per_execution = adapters.check_positive("steps_per_execution", steps_per_execution)
        state.compiled = True
        state.compiled_loss = state.compiled_metrics = None
        state.trackers = {}
        state.programs.clear()
        state.arguments = {
            "optimizer": optimizer, "loss": loss, "loss_weights": loss_weights, "metrics": metrics,
            "weighted_metrics": weighted_metrics, "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution, "jit_compile": jit_compile,
        }  # fmt: skip
        self.stop_training = False

    @property
    def compiled(self) -> bool:
        return self._trainer_state().compiled

    def _trainer_state(self) -> TrainerState:
        state = self.__dict__.get("_trainer")
        if state is None:
            state = TrainerState()
            object.__setattr__(self, "_trainer", state)
        return state

    def _ready(self, what: str) -> TrainerState:
        state = self._trainer_state()
        if not state.compiled:
            raise StateError(
                f"You must call `compile()` before calling `{what}()`: model {getattr(self, 'name', '')!r} is not compiled"
            )
        return state

    @property
    def metrics(self) -> list[Any]:
        """The metrics that fit and evaluate report: loss first."""
        state = self._trainer_state()
        found = [state.trackers["loss"]] if "loss" in state.trackers else []
        if state.compiled_metrics is not None:
            found += state.compiled_metrics.metrics
        found += [m for name, m in state.trackers.items() if name != "loss"]
        return found + self._own_metrics()

    def _own_metrics(self) -> list[Any]:
        """Metrics that the model and its layers hold as attributes."""
        return list(getattr(self, "_layer_metrics", ()))

    @property
    def metrics_names(self) -> list[str]:
        return list(self._log_names())

    def _log_names(self) -> Iterator[str]:
        state = self._trainer_state()
        if "loss" in state.trackers:
            yield "loss"
        if state.compiled_metrics is not None:
            yield from state.compiled_metrics.labels
        yield from (name for name in state.trackers if name != "loss")
        yield from (m.name for m in self._own_metrics())

    def reset_metrics(self) -> None:
        """Start all metrics afresh."""
        for m in self.metrics:
            m.reset_state()

    # ---- what is traced: override these

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The total loss of a batch, regularizers and add_loss included, as a scalar tensor."""
        state = self._trainer_state()
        predictions = tree.flatten(y_pred)
        names = state.output_names
        total: Any = None
        if state.loss is not None:
            if state.compiled_loss is None:
                state.compiled_loss = CompiledLoss(state.loss, state.loss_weights, names)
            truths = flat_for(y, names, "y")
            weights = _weights_for(sample_weight, names, truths)
            total, each = state.compiled_loss(truths, predictions, weights)
            if len(names) > 1:
                for name, value in each.items():
                    self._tracker(f"{name}_loss").update_state(value, sample_weight=_batch_of(predictions))
        extra = list(self.losses)  # type: ignore[attr-defined]  # Layer's
        for value in extra:
            total = value if total is None else total + value
        if total is None:
            raise StateError(
                "No loss to compute. Provide a `loss` argument in `compile()`, or call `add_loss` in a layer."
            )
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics of `compile` with a batch; all results by name."""
        state = self._trainer_state()
        predictions, names = tree.flatten(y_pred), state.output_names
        if state.compiled_metrics is None:
            state.compiled_metrics = CompiledMetrics(state.metrics, state.weighted, names)
        truths = flat_for(y, names, "y")
        losses = state.compiled_loss.losses if state.compiled_loss is not None else []
        state.compiled_metrics.build(truths, predictions, losses)
        state.compiled_metrics.update(truths, predictions, _weights_for(sample_weight, names, truths))
        return self.get_metrics_result()

    def get_metrics_result(self) -> dict[str, Any]:
        """The present results of all metrics by name."""
        state = self._trainer_state()
        found: dict[str, Any] = {}
        if "loss" in state.trackers:
            found["loss"] = state.trackers["loss"].result()
        if state.compiled_metrics is not None:
            found.update(state.compiled_metrics.results())
        found.update({name: m.result() for name, m in state.trackers.items() if name != "loss"})
        for m in self._own_metrics():
            value = m.result()
            found.update(value) if isinstance(value, dict) else found.update({m.name: value})
        return found

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on symbolic tensors: predict, loss, gradients, update, metrics. Returns the logs."""
        x, y, sample_weight = adapters.unpack(data)
        y_pred = self(x, training=True)  # type: ignore[operator]  # a Model is called
        self._note_outputs(y_pred)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True)
        self._tracker("loss").update_state(loss, sample_weight=_batch_of(tree.flatten(y_pred)))
        variables = self.trainable_variables  # type: ignore[attr-defined]  # Layer's
        if variables:
            (cost,) = stabilize([node_of(loss)])
            gradients = differentiate.grad(cost, [v.node for v in variables], disconnected="zero")
            self.optimizer.apply([Tensor(g) for g in gradients], variables)
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of evaluation on symbolic tensors."""
        x, y, sample_weight = adapters.unpack(data)
        y_pred = self(x, training=False)  # type: ignore[operator]  # a Model is called
        self._note_outputs(y_pred)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)
        self._tracker("loss").update_state(loss, sample_weight=_batch_of(tree.flatten(y_pred)))
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def predict_step(self, data: Any) -> Any:
        """One batch of predictions on symbolic tensors."""
        x, _, _ = adapters.unpack(data)
        return self(x, training=False)  # type: ignore[operator]  # a Model is called

    def _tracker(self, name: str) -> Any:
        from gnomon.metrics import Mean

        state = self._trainer_state()
        if name not in state.trackers:
            state.trackers[name] = Mean(name=name)
        return state.trackers[name]

    def _note_outputs(self, y_pred: Any) -> None:
        state = self._trainer_state()
        known = getattr(self, "output_names", None)
        if isinstance(y_pred, dict):
            state.output_names = sorted(y_pred)
        elif known and len(known) == len(tree.flatten(y_pred)):
            state.output_names = list(known)
        else:
            state.output_names = [f"output_{k + 1}" for k in range(len(tree.flatten(y_pred)))]

    # ---- programs

    def _step_program(self, mode: str, data: tuple[Any, Any, Any]) -> Program:
        """The program that trains on (or tests) data of these dtypes, ranks and inner shapes; made once."""
        state = self._trainer_state()
        variables = tuple((id(v), v.trainable) for v in self.variables)  # type: ignore[attr-defined]  # Layer's
        signature = (
            mode,
            repr(tree.map_structure(lambda a: None if a is None else (a.dtype.name, a.shape[1:]), data)),
            variables,
        )
        program = state.programs.get(signature)
        if program is None:
            program = Program(self, mode, data)
            variables = tuple((id(v), v.trainable) for v in self.variables)  # type: ignore[attr-defined]  # built by now
            state.programs[(*signature[:2], variables)] = program
        return program

    def _predictor(self, x: Any) -> Predictor:
        state = self._trainer_state()
        signature = ("predict", repr(tree.map_structure(lambda a: (a.dtype.name, a.shape[1:]), x)))
        program = state.programs.get(signature)
        if program is None:
            program = state.programs[signature] = Predictor(self, x)
        return program

    # ---- fit

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
        nb_epoch: int | None = None,
    ) -> Any:
        """Train. Returns the History of losses and metrics by epoch.

        x, y          arrays, lists or dictionaries of arrays for several inputs and outputs; or x alone, something that
                      yields (x, y) or (x, y, sample_weight): a generator, an iterable, a PyDataset
        batch_size    samples of one step, 32 by default
        verbose       0 silent, 1 a progress bar, 2 a line for each epoch
        validation_split, validation_data   what to evaluate after each epoch
        shuffle       whether arrays are taken in another order every epoch
        class_weight, sample_weight   weights of the loss by class or by sample
        initial_epoch the epoch to begin with, when training goes on
        steps_per_epoch   batches of an epoch

        Raises StateError before compile(), DataError for data that does not fit, ArgumentError for unfit arguments.
        """
        from gnomon.callbacks import CallbackList
        from gnomon.callbacks.callback import BATCH_HOOKS

        state = self._ready("fit")
        if nb_epoch is not None:
            warnings.warn("the argument `nb_epoch` is now called `epochs`", DeprecationWarning, stacklevel=2)
            epochs = nb_epoch
        _check_epochs(epochs, initial_epoch)
        verbose = _verbosity(verbose)
        source = adapters.adapt(x, y, sample_weight, batch_size, steps_per_epoch)
        if validation_split:
            if not isinstance(source, ArrayData):
                raise ArgumentError(
                    "`validation_split` is only supported for arrays, not for data that comes in batches"
                )
            if validation_data is None:
                source, validation_data = adapters.split(source, validation_split)
        validation = self._validation(validation_data, validation_batch_size or batch_size)
        if isinstance(source, ArrayData):
            self._inspect(source)
            if class_weight is not None:
                source.sample_weight = _with_class_weight(source, class_weight)
        steps = steps_per_epoch or source.steps
        if isinstance(source, BatchData) and not source.ends and steps is None:
            raise ArgumentError("a generator has no end that is known: pass `steps_per_epoch`")
        hooks = CallbackList(
            callbacks, add_history=True, add_progbar=verbose != 0, model=self,
            verbose=verbose, epochs=epochs, steps=steps,
        )  # fmt: skip
        each = state.steps_per_execution if hooks.each_batch(BATCH_HOOKS) else 0
        feed = _ArrayFeed(source, shuffle) if isinstance(source, ArrayData) else None
        batches = iter(source) if isinstance(source, BatchData) else None
        self.stop_training = False
        hooks.on_train_begin()
        logs: dict[str, Any] = {}
        try:
            for epoch in range(initial_epoch, epochs):
                self.reset_metrics()
                hooks.on_epoch_begin(epoch)
                if feed is not None:
                    logs = self._run("train", feed.epoch(steps), each, hooks, verbose)
                else:
                    assert batches is not None and isinstance(source, BatchData)
                    logs, batches = self._run_batches("train", source, batches, steps, hooks, class_weight)
                logs = dict(logs)
                if validation is not None and _is_due(epoch, validation_freq):
                    logs.update({f"val_{k}": v for k, v in self._evaluate(validation, validation_steps, hooks).items()})
                hooks.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            state.running = False
        hooks.on_train_end(logs)
        return hooks.history

    def _run(
        self, mode: str, feed: Iterator[tuple[tuple, np.ndarray, int]], each: int, hooks: Any, verbose: int
    ) -> dict[str, float]:
        """Run an epoch over arrays. `each`: steps between calls of batch hooks, 0 as many as take SLICE seconds."""
        begin, end = (
            (hooks.on_train_batch_begin, hooks.on_train_batch_end)
            if mode == "train"
            else (hooks.on_test_batch_begin, hooks.on_test_batch_end)
        )
        logs: dict[str, float] = {}
        done = 0
        program: Program | None = None
        for data, rows, ragged in feed:
            if program is None:
                program = self._step_program(mode, data)
            blocks = [(rows[:-1], False), (rows[-1:, :ragged], True)] if ragged else [(rows, False)]
            for table, _ in blocks:
                at = 0
                while at < len(table):
                    take = each or program.steps_in(SLICE if verbose != 1 else SLICE / 4, table.shape[1])
                    part = table[at : at + take]
                    begin(done)
                    logs = program.run(part, data)
                    done += len(part)
                    at += len(part)
                    end(done - 1, logs)
                    if self.stop_training:
                        return logs
        return logs

    def _run_batches(
        self, mode: str, source: BatchData, batches: Iterator, steps: int | None, hooks: Any, class_weight: Any
    ):
        """Run an epoch over data that comes in batches; also the iterator to go on with."""
        begin, end = (
            (hooks.on_train_batch_begin, hooks.on_train_batch_end)
            if mode == "train"
            else (hooks.on_test_batch_begin, hooks.on_test_batch_end)
        )
        logs: dict[str, float] = {}
        step = 0
        while steps is None or step < steps:
            try:
                x, y, w = next(batches)
            except StopIteration:
                if step == 0 and not source.ends:
                    raise DataError("the generator yielded nothing more: it must go on for all epochs") from None
                if steps is not None and step < steps and not (source.steps == steps or step):
                    raise DataError("the data set yielded no batch") from None
                if steps is not None and step < steps and source.steps is None:
                    warnings.warn(f"the data ended after {step} of {steps} steps: the epoch is cut short", stacklevel=3)
                    self.stop_training = True
                break
            if class_weight is not None:
                own = adapters.class_weights(y, class_weight)
                w = own if w is None else own * w
            begin(step)
            table = np.arange(len(tree.flatten(x)[0]), dtype=np.int64)[None]
            logs = self._step_program(mode, (x, y, w)).run(table, (x, y, w))
            end(step, logs)
            step += 1
            if self.stop_training:
                break
        source.finished()
        if step == 0:
            raise DataError("the data set is empty: it yielded no batch")
        return logs, (
            iter(source)
            if source.ends and (steps is None or source.steps == steps or source.steps is None)
            else batches
        )

    def _inspect(self, source: ArrayData) -> None:
        """Find what would silently spoil training: NaN, labels that are none."""
        adapters.find_nan("x", source.x)
        adapters.find_nan("y", source.y)
        adapters.find_nan("sample_weight", source.sample_weight)

    def _validation(self, given: Any, batch_size: int | None) -> Any:
        if given is None:
            return None
        if isinstance(given, (list, tuple)) and len(given) in (2, 3) or isinstance(given, tuple):
            x, y, w = adapters.unpack(given)
            return adapters.adapt(x, y, w, batch_size)
        return adapters.adapt(given, None, None, batch_size)

    # ---- evaluate and predict

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and metrics on data: one number, a list in the order of `metrics_names`, or a dictionary."""
        from gnomon.callbacks import CallbackList

        self._ready("evaluate")
        verbose = _verbosity(verbose)
        source = adapters.adapt(x, y, sample_weight, batch_size, steps)
        hooks = CallbackList(
            callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=steps or source.steps
        )
        logs = self._evaluate(source, steps, hooks, verbose)
        if return_dict:
            return logs
        values = self._in_order(logs)
        return values[0] if len(values) == 1 else values

    def _evaluate(self, source: Any, steps: int | None, hooks: Any, verbose: int = 0) -> dict[str, float]:
        from gnomon.callbacks.callback import TEST_HOOKS

        self.reset_metrics()
        hooks.on_test_begin()
        if isinstance(source, ArrayData):
            each = 1 if hooks.each_batch(TEST_HOOKS) else 0
            logs = self._run("test", _ArrayFeed(source, False).epoch(steps or source.steps), each, hooks, verbose)
        else:
            logs, _ = self._run_batches("test", source, iter(source), steps or source.steps, hooks, None)
        hooks.on_test_end(logs)
        return logs

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The model's outputs for x, as arrays in the structure of the outputs."""
        if type(x) is np.ndarray and verbose == 0 and callbacks is None and 0 < len(x) <= (batch_size or 32):
            return self._predictor(adapters.as_array(x, "x")).run(adapters.as_array(x, "x"))
        from gnomon.callbacks import CallbackList
        from gnomon.callbacks.callback import PREDICT_HOOKS

        verbose = _verbosity(verbose)
        source = adapters.adapt(x, None, None, batch_size, steps)
        if steps is None:
            steps = source.steps
        hooks = CallbackList(callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=steps)
        hooks.on_predict_begin()
        parts: list[Any] = []
        step = 0
        for batch, covered in _predict_batches(source, steps, hooks.each_batch(PREDICT_HOOKS)):
            hooks.on_predict_batch_begin(step)
            outputs = self._predictor(batch).run(batch)
            parts.append(outputs)
            step += covered
            hooks.on_predict_batch_end(step - 1, {"outputs": outputs})
        if not parts:
            raise DataError("the data set is empty: there is nothing to predict")
        hooks.on_predict_end()
        if len(parts) == 1:
            return parts[0]
        return tree.map_structure(lambda *pieces: np.concatenate(pieces), *parts)

    # ---- single batches

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step on one batch; metrics go on from where they were. Returns the loss and metrics."""
        self._ready("train_on_batch")
        return self._on_batch("train", x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """Loss and metrics of one batch, without training."""
        self._ready("test_on_batch")
        return self._on_batch("test", x, y, sample_weight, None, return_dict)

    def _on_batch(self, mode: str, x: Any, y: Any, sample_weight: Any, class_weight: Any, return_dict: bool) -> Any:
        x, y = adapters.as_arrays(x, "x"), None if y is None else adapters.as_arrays(y, "y")
        w = None if sample_weight is None else adapters.as_arrays(sample_weight, "sample_weight")
        if class_weight is not None:
            if w is not None:
                raise ArgumentError("`sample_weight` and `class_weight` cannot both be given")
            w = adapters.class_weights(y, class_weight)
        n = adapters.check_cardinality(x=x, y=y, sample_weight=w)
        if n == 0:
            raise DataError("the batch is empty")
        logs = self._step_program(mode, (x, y, w)).run(np.arange(n, dtype=np.int64)[None], (x, y, w))
        if return_dict:
            return logs
        values = self._in_order(logs)
        return values[0] if len(values) == 1 else values

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        x = adapters.as_arrays(x, "x")
        return self._predictor(x).run(x)

    def _in_order(self, logs: dict[str, float]) -> list[float]:
        known = [name for name in self._log_names() if name in logs]
        return [logs[name] for name in dict.fromkeys([*known, *logs])]


class TrainerState:
    """What a model knows of its training; not part of its layers."""

    def __init__(self) -> None:
        self.compiled = False
        self.optimizer: Any = None
        self.loss: Any = None
        self.loss_weights: Any = None
        self.metrics: Any = None
        self.weighted: Any = None
        self.compiled_loss: CompiledLoss | None = None
        self.compiled_metrics: CompiledMetrics | None = None
        self.trackers: dict[str, Any] = {}
        self.programs: dict[Any, Any] = {}
        self.steps_per_execution = 1
        self.output_names: list[str] = []
        self.arguments: dict[str, Any] = {}
        self.running = False


class Program:
    """A compiled train or test step: arrays and a table of indices in, logs out."""

    def __init__(self, model: Any, mode: str, data: tuple[Any, Any, Any]):
        from gnomon.functions import function

        self.mode = mode
        leaves = tree.map_structure(lambda a: None if a is None else _leaf(a, "samples"), data)
        self.leaves = [leaf for leaf in tree.flatten(leaves) if leaf is not None]
        rows = Tensor(new_input("rows", "int64", (symbol("steps"), symbol("batch"))))
        counter = Tensor(new_input("step", "int64", ()))
        index = getitem(rows.node, counter)
        batch = tree.map_structure(lambda t: None if t is None else Tensor(build.gather(t.node, index, 0)), leaves)
        batch = (_for_inputs(model, batch[0]), *batch[1:])
        _check_labels_fit(model, data[1])
        with collecting_updates() as updates:
            if mode == "train":
                model._trainer_state().optimizer.build(_trainable(model, batch[0]))
                logs = model.train_step(batch)
            else:
                logs = model.test_step(batch)
            values = {name: v if isinstance(v, Tensor) else Tensor(node_of(v)) for name, v in logs.items()}
            values = {name: Tensor(node_of(v)) for name, v in values.items()}
        self.names = list(values)
        self.function = function(
            [rows, *self.leaves], list(values.values()), updates=updates, name=f"{model.name}_{mode}",
            on_unused_input="ignore", repeat=(counter, symbol("steps")),
        )  # fmt: skip
        self.seconds = 0.0  # of one step, as measured
        self.size = 0

    def run(self, rows: np.ndarray, data: tuple[Any, Any, Any]) -> dict[str, float]:
        arrays = [a for a in tree.flatten(data) if a is not None]
        start = time.perf_counter()
        results = self.function.run([np.ascontiguousarray(rows), *arrays])
        took = (time.perf_counter() - start) / max(1, len(rows))
        self.seconds = (
            took if not self.seconds or rows.shape[1] != self.size else min(took, 0.5 * (took + self.seconds))
        )
        self.size = rows.shape[1]
        return {name: _plain(value) for name, value in zip(self.names, results, strict=True)}

    def steps_in(self, seconds: float, size: int) -> int:
        """How many steps to run in one call."""
        if not self.seconds or size != self.size:
            return 1
        return max(1, int(seconds / max(self.seconds, 1e-7)))


class Predictor:
    """A compiled forward pass."""

    def __init__(self, model: Any, x: Any):
        from gnomon.functions import function

        leaves = tree.map_structure(lambda a: _leaf(a, "batch"), x)
        outputs = model.predict_step(_for_inputs(model, leaves))
        self.single = not tree.is_nested(x)
        self.function = function(
            tree.flatten(leaves), outputs, name=f"{model.name}_predict", on_unused_input="ignore"
        )  # fmt: skip

    def run(self, x: Any) -> Any:
        return self.function(x) if self.single else self.function(*tree.flatten(x))


class _ArrayFeed:
    """Rows of indices into arrays, an epoch at a time."""

    def __init__(self, source: ArrayData, shuffle: bool):
        self.source, self.shuffle = source, bool(shuffle)
        self.at = 0
        self.data = tree.map_structure(
            lambda a: None if a is None else np.ascontiguousarray(a), (source.x, source.y, source.sample_weight)
        )

    def epoch(self, steps: int | None) -> Iterator[tuple[tuple, np.ndarray, int]]:
        """(arrays, table of indices [steps, batch], how many of the last row are meant or 0 for all)."""
        from gnomon.random_state import generator

        source = self.source
        n, b = source.count, source.batch_size
        order = generator().permutation(n) if self.shuffle else np.arange(n)
        order = order.astype(np.int64, copy=False)
        wanted = steps or source.steps
        if wanted > source.steps:  # an epoch longer than the data goes round
            order = np.concatenate([order] * -(-wanted * b // n))[: wanted * b]
        else:
            order = order[: wanted * b]
        ragged = len(order) % b
        if ragged:
            order = np.concatenate([order, np.zeros(b - ragged, np.int64)])
        yield self.data, order.reshape(-1, b), ragged


def _predict_batches(source: Any, steps: int | None, single: bool) -> Iterator[tuple[Any, int]]:
    """Batches of x with the number of the user's batches each covers."""
    if isinstance(source, BatchData):
        for k, (x, _, _) in enumerate(source):
            if steps is not None and k >= steps:
                return
            yield x, 1
        return
    size = source.batch_size
    group = 1 if single else max(1, LARGE_BATCH // size)
    stop = min(source.count, (steps or source.steps) * size)
    for at in range(0, stop, size * group):
        end = min(at + size * group, stop)
        yield tree.map_structure(lambda a, at=at, end=end: a[at:end], source.x), -(-(end - at) // size)


def _leaf(a: np.ndarray, size: str) -> Tensor:
    return Tensor(new_input("data", a.dtype.name, (symbol(size), *a.shape[1:])))


def _for_inputs(model: Any, x: Any) -> Any:
    """x with the dtypes of the model's declared inputs."""
    declared = getattr(model, "inputs", None)
    if not declared:
        return x
    leaves = tree.flatten(x)
    flat = tree.flatten(declared)
    if len(leaves) != len(flat):
        return x  # the call itself says what is wrong
    cast = iter(
        [Tensor(build.cast(t.node, d.dtype)) if isinstance(t, Tensor) else t for t, d in zip(leaves, flat, strict=True)]
    )
    return tree.map_structure(lambda _: next(cast), x)


def _trainable(model: Any, x: Any) -> list[Variable]:
    """The model's trainable variables, the model built if it was not."""
    if not model.built:
        model(x, training=True)
    return model.trainable_variables


def _batch_of(tensors: list[Any]) -> Any:
    """The number of samples as a scalar: what a mean over batches weighs them by."""
    first = tensors[0]
    return Tensor(build.size(node_of(first).shape[0], "float32")) if node_of(first).rank else None


def _weights_for(sample_weight: Any, names: list[str], truths: list[Any]) -> list[Any]:
    """A sample weight for each output; a single one is for all."""
    if sample_weight is None:
        return [None] * len(names)
    if not tree.is_nested(sample_weight):
        return [sample_weight] * len(names)
    return flat_for(sample_weight, names, "sample_weight")


def _with_class_weight(source: ArrayData, weights: dict[int, float]) -> Any:
    if not isinstance(weights, dict):
        raise ArgumentError(f"class_weight must be a dictionary from class to weight, got {weights!r}")
    if source.y is None:
        raise ArgumentError("class_weight needs y")
    own = adapters.class_weights(source.y, weights)
    return own if source.sample_weight is None else own * source.sample_weight


def _check_labels_fit(model: Any, y: Any) -> None:
    """A hook for what is known of labels before tracing; shapes are checked by losses."""


def _check_metrics(metrics: Any) -> None:
    from gnomon import metrics as known

    for m in tree.flatten(metrics):
        if isinstance(m, str) and m.lower() not in ("accuracy", "acc", "crossentropy", "ce"):
            known.get(m)  # an unknown name fails here, on the user's own line


def _check_epochs(epochs: Any, initial: Any) -> None:
    for name, value in (("epochs", epochs), ("initial_epoch", initial)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
            raise ArgumentError(f"{name} must be an integer >= 0, got {value!r}")


def _verbosity(verbose: Any) -> int:
    if verbose == "auto":
        return 1
    if verbose in (0, 1, 2, True, False):
        return int(verbose)
    raise ArgumentError(f"verbose must be 0, 1, 2 or 'auto', got {verbose!r}")


def _is_due(epoch: int, frequency: Any) -> bool:
    if isinstance(frequency, int):
        return (epoch + 1) % frequency == 0
    return epoch + 1 in frequency


def _plain(value: np.ndarray) -> Any:
    return value.item() if value.ndim == 0 else value
