"""compile, fit, evaluate, predict: a model's graph, loss, gradients, optimizer and metrics as one compiled program.

`fit` hands the program (`gnomon.models.steps.Step`) as many batches at a time as callbacks and the progress bar allow.
"""

from __future__ import annotations

import functools
import inspect
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gnomon import config
from gnomon.compiler import grad as differentiate
from gnomon.compiler.errors import ArgumentError, DataError, StateError
from gnomon.compiler.passes import stabilize
from gnomon.layers.tracking import Tracked, change_count
from gnomon.models import data as adapters
from gnomon.models.data import ArrayData, ArrayFeed, BatchData, BatchFeed, Data, unpack
from gnomon.models.heads import CompileLoss, CompileMetrics, batch_of
from gnomon.models.steps import Predictor, Step, TrainableState, fingerprint, form_of, symbolic_data
from gnomon.placement import checked, chosen, chosen_device
from gnomon.tensor import Tensor, node_of
from gnomon.utils import tree

SLICE = 0.25
"""Seconds that one call of the program may take about: how soon Ctrl-C is served."""
KEPT = 16
"""Programs of each mode that a model keeps: for other dtypes, inner sizes, attributes of layers."""
DRAW = 0.06
"""The same while a progress bar moves: a little more than it waits between two drawings."""


class Trainer:
    """What Model inherits to be trained. Subclasses may override train_step, test_step, predict_step, compute_loss and
    compute_metrics: they are traced once with symbolic tensors, never called for each batch.

    optimizer   as `compile` got it
    stop_training, stop_evaluating, stop_predicting   set by callbacks: the batch that runs is the last
    history     of the latest `fit`
    """

    # what fit assigns to: no traced program depends on it
    untraced = Tracked.untraced | {
        "history", "optimizer", "stop_evaluating", "stop_predicting", "stop_training", "steps_per_execution",
    }  # fmt: skip
    optimizer: Any
    stop_training: bool
    stop_evaluating: bool
    stop_predicting: bool
    steps_per_execution: int

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
        device: str | None = None,
    ) -> None:
        """Say how the model is trained. Which layers are trainable is noted now: call it again if that changes.

        optimizer   a name or an Optimizer
        loss        a name, Loss or function (y_true, y_pred); a list or dictionary for several outputs
        loss_weights   factors of the losses of several outputs
        metrics, weighted_metrics   names, Metrics or functions, the latter with sample weights
        steps_per_execution   batches between two calls of a callback that asks for every batch
        auto_scale_loss   whether the loss is scaled if the model computes in float16 ("mixed_float16")
        run_eagerly, jit_compile   accepted for Keras's sake: a program is always compiled as a whole
        device   where the model runs, whatever is chosen elsewhere: 'cpu', 'gpu', 'gpu:1' (see `gnomon.device`)

        Raises ArgumentError for what is unknown, DeviceError for a device that cannot be used.
        """
        from gnomon import metrics as known
        from gnomon import optimizers

        found = optimizers.get(optimizer)
        names = _output_names(self)
        compile_loss = None if loss is None else CompileLoss(loss, loss_weights, names)
        compile_metrics = None
        if metrics is not None or weighted_metrics is not None:
            compile_metrics = CompileMetrics(metrics, weighted_metrics, names)
        steps_per_execution = adapters.check_positive("steps_per_execution", steps_per_execution)
        policy = getattr(self, "dtype_policy", None)
        if auto_scale_loss and getattr(policy, "name", "") == "mixed_float16" and found is not None:
            if not isinstance(found, optimizers.LossScaleOptimizer):
                found = optimizers.LossScaleOptimizer(found, name="loss_scale_optimizer")
        state = TrainerState()
        state.device = checked(device)
        state.compiled, state.loss = True, loss
        state.compile_loss, state.compile_metrics = compile_loss, compile_metrics
        state.loss_tracker = known.Mean(name="loss")
        state.trainable = TrainableState(self)
        before = self._trainer_state().programs.items()
        state.programs = {known: program for known, program in before if known[0] == "predict"}
        state.arguments = {
            "optimizer": optimizer, "loss": loss, "loss_weights": loss_weights, "metrics": metrics,
            "weighted_metrics": weighted_metrics, "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution, "jit_compile": jit_compile,
        }  # fmt: skip
        object.__setattr__(self, "_trainer", state)
        self.optimizer, self.steps_per_execution = found, steps_per_execution
        self.stop_training = self.stop_evaluating = self.stop_predicting = False

    @property
    def compiled(self) -> bool:
        return self._trainer_state().compiled

    @property
    def loss(self) -> Any:
        """As `compile` got it."""
        return self._trainer_state().loss

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
                f"You must call `compile()` before calling `{what}()`: model {getattr(self, 'name', '')!r} is not "
                "compiled"
            )
        if state.trainable is not None and state.seen_changes != change_count():
            state.seen_changes = change_count()
            changed = state.trainable.changed
            if changed and not state.warned:
                state.warned = True
                warnings.warn(
                    f"`trainable` of {', '.join(map(repr, changed))} has changed since the model was compiled. "
                    "Training goes by what it was then: call compile() for the change to take effect.",
                    stacklevel=3,
                )
        return state

    # ---- metrics

    @property
    def metrics(self) -> list[Any]:
        """The loss, all metrics of `compile` as one, the losses of several outputs, then those that layers hold."""
        state = self._trainer_state()
        found = [m for m in (state.loss_tracker, state.compile_metrics) if m is not None]
        if state.compile_loss is not None:
            found += state.compile_loss.metrics
        layers: list[Any] = self._flatten_layers()  # type: ignore[attr-defined]  # Layer's
        for layer in layers:
            nested = isinstance(layer, Trainer) and layer is not self  # a model inside reports its own
            if not nested:
                found += [m for m in layer._attributes() if hasattr(type(m), "update_state")]
        return list({id(m): m for m in found}.values())

    @property
    def metrics_names(self) -> list[str]:
        return [m.name for m in self.metrics]

    def reset_metrics(self) -> None:
        """Start all metrics afresh."""
        for m in self.metrics:
            m.reset_state()

    def get_metrics_result(self) -> dict[str, Any]:
        """The present results of all metrics by name."""
        found: dict[str, Any] = {}
        for m in self.metrics:
            value = m.result()
            found.update(value if isinstance(value, dict) else {m.name: value})
        return found

    # ---- what is traced: override these

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The total loss of a batch, regularizers and add_loss included, as a scalar tensor."""
        compile_loss = self._trainer_state().compile_loss
        losses = [] if compile_loss is None else [compile_loss(y, y_pred, sample_weight)]
        losses += self.losses  # type: ignore[attr-defined]  # Layer's
        if not losses and training:
            raise StateError(
                f"No loss to compute for model {getattr(self, 'name', '')!r}. Provide a `loss` argument in "
                "`compile()`, or call `add_loss` in a layer."
            )
        return functools.reduce(lambda a, b: a + b, losses) if losses else Tensor(node_of(np.float32(0)))

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Update the metrics of `compile` with a batch; all results by name."""
        metrics = self._trainer_state().compile_metrics
        if metrics is not None:
            metrics.update_state(y, y_pred, sample_weight)
        return self.get_metrics_result()

    def train_step(self, data: Any) -> dict[str, Any]:
        """One step on symbolic tensors: predict, loss, gradients, update, metrics. Returns the logs.

        data   x, (x,), (x, y) or (x, y, sample_weight), as there are
        """
        x, y, sample_weight = unpack(data)
        y_pred = self(x, training=True)  # type: ignore[operator]  # a Model is called
        loss = self._loss_of(x, y, y_pred, sample_weight, True)
        variables = self.trainable_variables  # type: ignore[attr-defined]  # Layer's
        if variables:
            (cost,) = stabilize([node_of(self.optimizer.scale_loss(loss))])
            gradients = differentiate.grad(cost, [v.node for v in variables], disconnected="zero")
            self.optimizer.apply([Tensor(g) for g in gradients], variables)
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def test_step(self, data: Any) -> dict[str, Any]:
        """One step of evaluation on symbolic tensors."""
        x, y, sample_weight = unpack(data)
        y_pred = self(x, training=False)  # type: ignore[operator]  # a Model is called
        self._loss_of(x, y, y_pred, sample_weight, False)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def predict_step(self, data: Any) -> Any:
        """One batch of predictions on symbolic tensors."""
        x, _, _ = unpack(data)
        return self(x, training=False)  # type: ignore[operator]  # a Model is called

    def _loss_of(self, x: Any, y: Any, y_pred: Any, sample_weight: Any, training: bool) -> Any:
        """`compute_loss`, in the form of before Keras 3.3 too; its mean is the log called loss."""
        given = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
        if "training" in inspect.signature(self.compute_loss).parameters:
            given["training"] = training
        loss = self.compute_loss(**given)
        tracker = self._trainer_state().loss_tracker
        if tracker is not None:
            tracker.update_state(loss, sample_weight=batch_of([*tree.flatten(x), *tree.flatten(y_pred)]))
        return loss

    # ---- programs

    def _step_program(self, mode: str, data: Data) -> Step:
        """The program that trains on (or tests) data of these dtypes, ranks and inner shapes; made once a device."""
        state, form = self._trainer_state(), form_of(data)
        step = state.quick.get((mode, form, change_count(), chosen()))
        if step is None:
            self.build_for(data[0])  # type: ignore[attr-defined]  # Model's
            leaves = symbolic_data(self, data, "samples")
            where = chosen_device(state.device).name
            step = state.programs.get((mode, form_of(leaves), fingerprint(self), where))
            if step is None:
                if state.trainable is None:
                    raise StateError(f"model {getattr(self, 'name', '')!r} is not compiled: call compile() first")
                state.trainable.note(self)
                with state.trainable.in_force():
                    step = Step(self, mode, leaves, where)
                # as it is now: tracing may build layers
                state.keep((mode, form_of(leaves), fingerprint(self), where), step)
            state.remember((mode, form, change_count(), chosen()), step)
        return step

    def _predictor(self, x: Any) -> Predictor:
        """The program that predicts for arrays of these dtypes, ranks and inner shapes; made once a device."""
        state, form = self._trainer_state(), form_of(x)
        predictor = state.quick.get(("predict", form, change_count(), chosen()))
        if predictor is None:
            self.build_for(x)  # type: ignore[attr-defined]  # Model's
            leaves, _, _ = symbolic_data(self, (x, None, None), "batch")
            where = chosen_device(state.device).name
            predictor = state.programs.get(("predict", form_of(leaves), fingerprint(self), where))
            if predictor is None:
                predictor = Predictor(self, leaves, where)
                state.keep(("predict", form_of(leaves), fingerprint(self), where), predictor)
            state.remember(("predict", form, change_count(), chosen()), predictor)
        return predictor

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
        shuffle: Any = True,
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
        verbose       0 silent, 1 or 'auto' a progress bar, 2 a line for each epoch
        validation_split, validation_data   what to evaluate after each epoch
        validation_freq   epochs between evaluations, or the epochs (from 1) after which to evaluate
        shuffle       whether arrays are taken in another order every epoch; "batch" for one within each batch
        class_weight, sample_weight   weights of the loss by class or by sample
        initial_epoch the epoch to begin with, when training goes on
        steps_per_epoch   batches of an epoch

        Interrupted (Ctrl-C), it leaves the model as it is after some whole number of steps.
        Raises StateError before compile(), DataError for data that does not fit, ArgumentError for unfit arguments.
        """
        from gnomon.callbacks import CallbackList

        self._ready("fit")
        if nb_epoch is not None:
            warnings.warn("the argument `nb_epoch` is now called `epochs`", DeprecationWarning, stacklevel=2)
            epochs = nb_epoch
        _check_epochs(epochs, initial_epoch)
        epochs = _limited("epochs", epochs, config.max_epochs())
        verbose = _verbosity(verbose)
        due = _due(validation_freq)
        source = adapters.adapt(x, y, sample_weight, batch_size, steps_per_epoch, bool(shuffle))
        if validation_split and validation_data is None:
            if not isinstance(source, ArrayData):
                raise ArgumentError(
                    "`validation_split` is only supported for arrays, not for data that comes in batches"
                )
            source, validation_data = adapters.split(source, validation_split)
        steps_per_epoch = _limited_steps(steps_per_epoch, source)
        if class_weight is not None and isinstance(source, ArrayData):
            source = _weighted(source, class_weight)
        if isinstance(source, ArrayData):
            feed: ArrayFeed | BatchFeed = ArrayFeed(source, shuffle)
        else:
            feed = BatchFeed(source, class_weight)
        validation = None
        if validation_data is not None:
            validation = _validation(validation_data, validation_batch_size or batch_size, validation_steps)
            validation_steps = _limited_steps(validation_steps, validation)
        hooks = callbacks
        if not isinstance(callbacks, CallbackList):
            hooks = CallbackList(
                callbacks, add_history=True, add_progbar=verbose != 0, model=self,
                verbose=verbose, epochs=epochs, steps=steps_per_epoch or source.steps,
            )  # fmt: skip
        if isinstance(source, ArrayData):
            self._prepared("train", source.data)
            self._refuse_nan(source.data, hooks)
        if isinstance(validation, ArrayData):  # a mistake in it is not to be found after a long epoch
            with _naming("validation_data"):
                self._prepared("test", validation.data)
        self.stop_training = False
        hooks.on_train_begin()
        logs: dict[str, Any] = {}
        initial_epoch = self.__dict__.pop("_initial_epoch", None) or initial_epoch  # a callback may have set it
        state = self._trainer_state()
        state.placed = {}
        try:
            for epoch in range(initial_epoch, epochs):
                if not feed.ready():
                    if epoch == initial_epoch:
                        raise DataError("the data set is empty: it yielded no batch")
                    warnings.warn(adapters.RAN_OUT, stacklevel=2)
                    break
                hooks.on_epoch_begin(epoch)
                blocks = feed.epoch(steps_per_epoch)
                if isinstance(source, BatchData):
                    blocks = self._without_nan(blocks, hooks)
                logs = dict(self._run("train", blocks, hooks, verbose, isinstance(source, ArrayData)))
                if validation is not None and due(epoch):
                    tested = self._evaluate(validation, validation_steps, hooks, 0)
                    logs.update({f"val_{name}": value for name, value in tested.items()})
                hooks.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            state.placed = None
            if epochs > 0 and self.optimizer is not None and self.optimizer.built:
                self.optimizer.finalize_variable_values(self.optimizer._trainable_variables)
        hooks.on_train_end(logs)
        return hooks.history

    def _run(
        self, mode: str, blocks: Iterator[tuple[Data, np.ndarray]], hooks: Any, verbose: int, whole: bool
    ) -> dict[str, Any]:
        """Run an epoch: many steps at a time, as far as callbacks need not be called in between. Returns the logs.

        whole   whether all blocks are of the same arrays
        """
        from gnomon.callbacks.callback import BATCH_HOOKS, TEST_HOOKS

        training = mode == "train"
        begin, end, wanted, flag = (
            (hooks.on_train_batch_begin, hooks.on_train_batch_end, BATCH_HOOKS, "stop_training")
            if training
            else (hooks.on_test_batch_begin, hooks.on_test_batch_end, TEST_HOOKS, "stop_evaluating")
        )
        each = self.steps_per_execution if hooks.each_batch(wanted) else 0
        seconds = DRAW if verbose == 1 else SLICE
        logs: dict[str, Any] = {}
        placed = self._trainer_state().placed
        placed = {} if placed is None else placed
        done, waiting = 0, False  # steps, and whether `begin` was called for some that `end` was not called for
        goal, limit = 0, 0.0  # when to call it: after so many steps, or then
        for data, table in blocks:
            step = self._prepared(mode, data)
            if not done:
                step.reset()
            arrays = [a for a in tree.flatten(list(data)) if a is not None]
            if whole:
                arrays = step.placed(arrays, placed)
            at = 0
            while at < len(table):
                now = time.perf_counter()
                if not waiting:
                    begin(done)
                    waiting, goal = True, done + each
                    limit = now if verbose == 1 and not done else now + seconds  # the first step is shown at once
                count = goal - done if each else step.steps_in(limit - now, table.shape[1])
                part = table[at : at + count]
                logs = step.run(part, arrays)
                at += len(part)
                done += len(part)
                if done == goal if each else time.perf_counter() >= limit:
                    end(done - 1, logs)
                    waiting = False
                    if getattr(self, flag):
                        return logs
        if waiting:
            end(done - 1, logs)
        return logs

    def _prepared(self, mode: str, data: Data) -> Step:
        """The program for this data. Raises DataError for labels that the losses can make nothing of."""
        step = self._step_program(mode, data)
        compile_loss = self._trainer_state().compile_loss
        if compile_loss is not None:
            compile_loss.check_labels(data[1], data[2])
        return step

    def _without_nan(
        self, blocks: Iterator[tuple[Data, np.ndarray]], hooks: Any
    ) -> Iterator[tuple[Data, np.ndarray]]:
        for number, (data, table) in enumerate(blocks):
            with _naming(f"batch {number}"):
                self._refuse_nan(data, hooks)
            yield data, table

    def _refuse_nan(self, data: Data, hooks: Any) -> None:
        """Raise DataError for NaN that reaches the loss and would destroy the weights, with its place.

        Not if TerminateOnNaN is there to see to it, or if the model's loss is a number all the same.
        """
        from gnomon.callbacks import TerminateOnNaN

        for name, structure in zip(("x", "y", "sample_weight"), data, strict=True):
            found = adapters.find_nan(structure)
            if found is None or any(isinstance(c, TerminateOnNaN) for c in hooks.callbacks):
                continue
            leaf, place = found
            if self._is_number(data, place[0]):
                continue  # a loss or a layer that leaves such values out
            which = f"{name}[{leaf}]" if tree.is_nested(structure) else name
            shape = tree.flatten(structure)[leaf].shape
            raise DataError(
                f"{which} holds NaN, first at position {place} of shape {shape}: the loss would be NaN, and the "
                "weights after the first step. Clean the data before training"
            )

    def _is_number(self, data: Data, row: int) -> bool:
        """Whether the loss of one sample is a number. Metrics are as they were when it returns."""
        sample = adapters.rows_of(data, row, row + 1)
        step = self._step_program("test", sample)
        state = [(v, v.numpy()) for m in self.metrics for v in m.variables]
        step.reset()
        loss = step.run(adapters.one_row(1), [a for a in tree.flatten(list(sample)) if a is not None]).get("loss")
        for variable, value in state:
            variable.buffer.set(value)
        return loss is not None and loss == loss

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
        """The loss and metrics on data: one number, a list (the loss first), or a dictionary by name."""
        from gnomon.callbacks import CallbackList

        self._ready("evaluate")
        verbose = _verbosity(verbose)
        source = adapters.adapt(x, y, sample_weight, batch_size, steps)
        steps = _limited_steps(steps, source)
        hooks = callbacks
        if not isinstance(callbacks, CallbackList):
            hooks = CallbackList(
                callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=steps or source.steps
            )
        return self._answer(self._evaluate(source, steps, hooks, verbose), return_dict)

    def _evaluate(self, source: ArrayData | BatchData, steps: int | None, hooks: Any, verbose: int) -> dict[str, Any]:
        self.stop_evaluating = False
        hooks.on_test_begin()
        feed = ArrayFeed(source) if isinstance(source, ArrayData) else BatchFeed(source)
        logs = self._run("test", feed.epoch(steps), hooks, verbose, isinstance(source, ArrayData))
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
        if type(x) is np.ndarray and verbose == 0 and callbacks is None and steps is None:
            if 0 < x.shape[0] <= (batch_size or 32):  # one call of the program: no more than that
                known = ("predict", (x.dtype, x.shape[1:]), change_count(), chosen())
                predictor = self._trainer_state().quick.get(known)
                if predictor is not None:
                    return predictor.run(x)
        from gnomon.callbacks import CallbackList

        verbose = _verbosity(verbose)
        source = adapters.adapt(x, None, None, batch_size, steps)
        steps = _limited_steps(steps, source)
        hooks = callbacks
        if not isinstance(callbacks, CallbackList):
            hooks = CallbackList(
                callbacks, add_progbar=verbose != 0, model=self, verbose=verbose, epochs=1, steps=steps or source.steps
            )
        self.stop_predicting = False
        hooks.on_predict_begin()
        if isinstance(source, ArrayData):
            outputs = self._predict_arrays(source, steps or source.steps, hooks)
        else:
            outputs = self._predict_batches(source, steps or source.steps, hooks)
        hooks.on_predict_end()
        return outputs

    def _predict_arrays(self, source: ArrayData, steps: int, hooks: Any) -> Any:
        """Predictions for arrays: many batches in one call, unless a callback wants each."""
        from gnomon.callbacks.callback import PREDICT_HOOKS

        predictor, size = self._predictor(source.x), source.batch_size
        stop = min(source.count, steps * size)
        group = size
        if stop > size and not hooks.each_batch(PREDICT_HOOKS):
            group = predictor.rows_at_once(source.x, size)
        whole: Any = None
        for at in range(0, stop, group):
            end = min(at + group, stop)
            hooks.on_predict_batch_begin(at // size)
            outputs = predictor.run(adapters.rows_of(source.x, at, end))
            if end - at == stop:
                whole = outputs
            else:
                if whole is None:
                    whole = tree.map_structure(lambda a: np.empty((stop, *a.shape[1:]), a.dtype), outputs)
                for place, part in zip(tree.flatten(whole), tree.flatten(outputs), strict=True):
                    place[at:end] = part
            hooks.on_predict_batch_end(-(-end // size) - 1, {"outputs": outputs})
            if self.stop_predicting:
                return adapters.rows_of(whole, 0, end)
        return whole

    def _predict_batches(self, source: BatchData, steps: int | None, hooks: Any) -> Any:
        parts: list[Any] = []
        for (x, _, _), _ in BatchFeed(source).epoch(steps):
            hooks.on_predict_batch_begin(len(parts))
            outputs = self._predictor(x).run(x)
            parts.append(outputs)
            hooks.on_predict_batch_end(len(parts) - 1, {"outputs": outputs})
            if self.stop_predicting:
                break
        return parts[0] if len(parts) == 1 else tree.map_structure(lambda *pieces: np.concatenate(pieces), *parts)

    # ---- single batches

    def train_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """One step on one batch. Returns its loss and metrics."""
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
                raise ArgumentError("`sample_weight` and `class_weight` cannot be specified at the same time")
            w = adapters.class_weights(y, class_weight)
        if w is None and type(x) is np.ndarray and type(y) is np.ndarray and x.ndim and y.ndim and len(x) == len(y):
            n, arrays = len(x), [x, y]
        else:
            n = adapters.check_cardinality(x=x, y=y, sample_weight=w)
            arrays = [a for a in tree.flatten([x, y, w]) if a is not None]
        if n == 0:
            raise DataError("the batch is empty")
        step = self._prepared(mode, (x, y, w))
        step.reset()
        return self._answer(step.run(adapters.one_row(n), arrays), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        x = adapters.as_arrays(x, "x")
        return self._predictor(x).run(x)

    def _answer(self, logs: dict[str, Any], return_dict: bool) -> Any:
        """Logs as evaluate returns them: in the order of the metrics, then of the names."""
        if return_dict:
            return logs
        if len(logs) == 1:
            return next(iter(logs.values()))
        state = self._trainer_state()
        order = state.log_order.get(tuple(logs))
        if order is None:
            names = [name for m in self.metrics for name in ([p.name for p in getattr(m, "metrics", ())] or [m.name])]
            order = list(dict.fromkeys([*(name for name in names if name in logs), *logs]))
            state.log_order[tuple(logs)] = order
        return [logs[name] for name in order]


class TrainerState:
    """What a model knows of its training; not part of its layers.

    programs   Steps and Predictors by mode, form of the data and what the model is like
    quick      the same by the number of changes seen, which is known at once
    device     what `compile` was told
    placed     arrays that were copied to a device, by identity, while a call that needs them again and again lasts
    """

    def __init__(self) -> None:
        self.compiled = False
        self.device: str | None = None
        self.placed: dict[int, tuple[Any, Any]] | None = None
        self.loss: Any = None
        self.compile_loss: CompileLoss | None = None
        self.compile_metrics: CompileMetrics | None = None
        self.loss_tracker: Any = None
        self.trainable: TrainableState | None = None
        self.arguments: dict[str, Any] = {}
        self.programs: dict[Any, Any] = {}
        self.quick: dict[Any, Any] = {}
        self.log_order: dict[tuple, list[str]] = {}
        self.seen_changes = -1
        self.warned = False

    def keep(self, key: Any, program: Any) -> None:
        """A new program. Of those of a mode the earliest goes when there are many: an attribute changes every epoch."""
        alike = [k for k in self.programs if k[0] == key[0]]
        if len(alike) >= KEPT:
            del self.programs[alike[0]]
            self.quick.clear()
        self.programs[key] = program

    def remember(self, key: Any, program: Any) -> None:
        """Where to find a program at once."""
        if len(self.quick) >= 1000:  # one for each length of sequences, perhaps
            self.quick.clear()
        self.quick[key] = program


def _output_names(model: Any) -> list[str] | None:
    return list(model.output_names) if getattr(model, "_graph", None) is not None else None


def _weighted(source: ArrayData, class_weight: Any) -> ArrayData:
    if source.sample_weight is not None:
        raise ArgumentError("You cannot give `class_weight` and `sample_weight` at the same time")
    weights = adapters.class_weights(source.y, class_weight)
    return ArrayData(source.x, source.y, weights, source.batch_size)


def _validation(given: Any, batch_size: int | None, steps: int | None) -> ArrayData | BatchData:
    """validation_data as data: (x, y) or (x, y, sample_weight), or what yields batches."""
    with _naming("validation_data"):
        if isinstance(given, (list, tuple)):
            return adapters.adapt(*unpack(given), batch_size, steps)
        return adapters.adapt(given, None, None, batch_size, steps)


@contextmanager
def _naming(argument: str) -> Iterator[None]:
    """Say in errors of data which argument they are about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{argument}: {error}") from error


def _limited(name: str, value: Any, limit: int | None) -> Any:
    """`value`, or the limit of `config` where that is less, with a warning."""
    if limit is None or (value is not None and value <= limit):
        return value
    if value is not None:
        warnings.warn(f"Limiting {name} to {limit}, as set in gnomon.config", stacklevel=3)
    return limit


def _limited_steps(steps: int | None, source: ArrayData | BatchData) -> int | None:
    limit = config.max_steps_per_epoch()
    if limit is None or (steps is None and source.steps is not None and source.steps <= limit):
        return steps
    return _limited("steps_per_epoch", steps, limit)


def _check_epochs(epochs: Any, initial: Any) -> None:
    for name, value in (("epochs", epochs), ("initial_epoch", initial)):
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 0:
            raise ArgumentError(f"{name} must be an integer >= 0, got {value!r}")


def _verbosity(verbose: Any) -> int:
    if verbose == "auto":
        return 1
    if isinstance(verbose, (int, np.integer)) and 0 <= verbose <= 2:
        return int(verbose)
    raise ArgumentError(f"verbose must be 0, 1, 2 or 'auto', got {verbose!r}")


def _due(frequency: Any) -> Any:
    """Whether an epoch (from 0) is one to validate after."""
    if isinstance(frequency, (int, np.integer)) and not isinstance(frequency, bool) and frequency > 0:
        return lambda epoch: (epoch + 1) % frequency == 0
    if isinstance(frequency, (list, tuple, set, range)):
        return lambda epoch: epoch + 1 in frequency
    raise ArgumentError(f"validation_freq must be a positive integer or a list of epochs, got {frequency!r}")
