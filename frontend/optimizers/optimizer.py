"""The base of optimizers: state, learning rate, clipping, decay, averaging, accumulation."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gnomon import initializers, ops
from gnomon.compiler.errors import ArgumentError, GraphError, ShapeError, StateError, nearest
from gnomon.config import floatx
from gnomon.eager import at_once, evaluate
from gnomon.naming import auto_name
from gnomon.optimizers.rows import GradientRows, worth_it
from gnomon.optimizers.schedules import LearningRateSchedule
from gnomon.registry import deserialize_object, serialize_object
from gnomon.tensor import Tensor
from gnomon.variable import Variable, is_tracing, rows_alone, updates_where


class Optimizer:
    """Base of optimizers.

    learning_rate      a number (settable at any time), a schedule, or a function of the iteration or of nothing
    weight_decay       takes this part of each weight away at each step, times the learning rate
    clipnorm           largest norm of each gradient
    clipvalue          largest magnitude of each gradient's elements
    global_clipnorm    largest norm of all gradients together
    use_ema            keeps a moving average of the weights, by `ema_momentum`; it replaces the weights every
                       `ema_overwrite_frequency` steps, and at the end (`finalize_variable_values`)
    loss_scale_factor  the loss is multiplied by it and the gradients divided, against underflow in float16
    gradient_accumulation_steps   the weights change every so many steps, by the mean of the gradients since
    name               shown in the paths of its variables

    A subclass defines `build(variables)`, which calls the base's and adds its own variables, and
    `update_step(gradient, variable, learning_rate)`, which assigns. `_own` names the attributes that its configuration
    holds besides the base's. Of a gradient that is a few rows of a table, an embedding's, `update_step` may be given
    these rows alone (`_rows_of`): variable and slots then read and assign as the same rows.
    Raises ArgumentError for an argument that is unknown, out of range, or excludes another.
    """

    _own: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **options: Any,
    ):
        kind = type(self).__name__
        if "lr" in options:
            learning_rate = options.pop("lr")
            _warn_user(f"{kind}(lr=...) is the older form: write learning_rate={learning_rate!r}")
        if options.pop("decay", None):
            raise ArgumentError(
                f"{kind}: decay= is no longer there: give learning_rate=gnomon.optimizers.schedules.InverseTimeDecay("
                "rate, decay_steps=1, decay_rate=decay), or weight_decay= if smaller weights are meant"
            )
        for option in options:
            known = [p for p in inspect.signature(type(self)).parameters if p != "options"]
            raise ArgumentError(f"{kind} has no argument {option!r}.{nearest(option, known)}")
        given = [
            n for n, v in (("clipnorm", clipnorm), ("clipvalue", clipvalue), ("global_clipnorm", global_clipnorm)) if v
        ]
        if len(given) > 1:
            raise ArgumentError(f"{kind}: only one of {' and '.join(given)} can be set")
        steps = gradient_accumulation_steps
        if steps is not None and (not isinstance(steps, int) or steps < 2):
            raise ArgumentError(f"{kind}: gradient_accumulation_steps is an integer from 2 on, or None; got {steps!r}")
        if use_ema and not 0 <= ema_momentum <= 1:
            raise ArgumentError(f"{kind}: ema_momentum is between 0 and 1, got {ema_momentum!r}")
        frequency = ema_overwrite_frequency
        if use_ema and frequency is not None and (not isinstance(frequency, int) or frequency < 1):
            raise ArgumentError(f"{kind}: ema_overwrite_frequency is an integer from 1 on, or None; got {frequency!r}")
        self.name = name or auto_name(kind)
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.use_ema, self.ema_momentum, self.ema_overwrite_frequency = use_ema, ema_momentum, ema_overwrite_frequency
        self.loss_scale_factor, self.gradient_accumulation_steps = loss_scale_factor, gradient_accumulation_steps
        self.built = False
        self._variables: list[Variable] = []
        self._trainable_variables: list[Variable] = []
        self._indices: dict[int, int] = {}
        self._slots: dict[int, list[Variable]] = {}  # by the id of the variable they belong to
        self._averages: list[Variable] = []
        self._accumulated: list[Variable] = []
        self._undecayed: set[int] = set()
        self._undecayed_names: re.Pattern | None = None
        self._iterations = self.add_variable((), dtype="int32", name="iteration")
        self._learning_rate = self._rate(learning_rate)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Show the base's arguments, which subclasses hand through as **options, in `help` and `inspect.signature`."""
        super().__init_subclass__(**kwargs)
        if "__init__" not in vars(cls):
            return
        own = list(inspect.signature(cls.__init__).parameters.values())
        if own[-1].kind is inspect.Parameter.VAR_KEYWORD and own[-1].name == "options":
            names = {p.name for p in own}
            base = [p for p in inspect.signature(Optimizer.__init__).parameters.values() if p.name not in names]
            cls.__signature__ = inspect.Signature([*own[1:-1], *base])  # type: ignore[attr-defined]  # read by inspect

    # ---- state

    def _rate(self, rate: Any) -> Any:
        if isinstance(rate, LearningRateSchedule) or callable(rate):
            return rate
        if isinstance(rate, dict):
            return deserialize_object(rate)
        if isinstance(rate, bool) or not isinstance(rate, (int, float, np.number, np.ndarray)):
            raise ArgumentError(
                f"{type(self).__name__}: learning_rate is a number, a schedule or a function, got {rate!r:.80}"
            )
        return self.add_variable((), initializers.Constant(float(rate)), dtype=floatx(), name="learning_rate")

    @property
    def variables(self) -> list[Variable]:
        """The iteration, the learning rate (if it is a number), then what `build` added."""
        return list(self._variables)

    @property
    def iterations(self) -> Any:
        """How many times the weights have changed."""
        steps = self.gradient_accumulation_steps
        return _settled(ops.floor_divide(self._iterations, steps)) if steps else self._iterations

    @property
    def learning_rate(self) -> Any:
        """The present learning rate. Set it at any time: a compiled training step reads it anew."""
        rate = self._learning_rate
        if isinstance(rate, Variable):
            return rate
        if isinstance(rate, LearningRateSchedule):
            return _settled(rate(self._iterations))
        needed = [
            p
            for p in inspect.signature(rate).parameters.values()
            if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        return _settled(rate(self._iterations) if needed else rate())

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        old = self._learning_rate
        if isinstance(rate, LearningRateSchedule) or (callable(rate) and not isinstance(rate, Tensor)):
            if isinstance(old, Variable):
                self._variables = [v for v in self._variables if v is not old]
            self._learning_rate = rate
        elif isinstance(old, Variable):
            old.assign(rate)
        else:
            raise StateError(
                f"{self.name!r} was made with the learning rate {old!r}, which decides the rate itself: it cannot be "
                f"set to {rate!r}. Make the optimizer with a number, or set another schedule"
            )

    def add_variable(
        self,
        shape: Sequence[int],
        initializer: Any = "zeros",
        dtype: Any = None,
        aggregation: str = "none",
        layout: Any = None,
        name: str | None = None,
    ) -> Variable:
        """A variable of the optimizer's own, saved with it."""
        made = Variable(
            initializers.get(initializer),
            tuple(shape),
            dtype or floatx(),
            trainable=False,
            name=name or "variable",
            aggregation=aggregation,
        )
        made.path = f"{self.name}/{made.name}"
        self._variables.append(made)
        return made

    def add_variable_from_reference(
        self, reference_variable: Variable, name: str | None = None, initializer: Any = "zeros"
    ) -> Variable:
        """A variable of the shape and dtype of another, named after it."""
        reference = reference_variable.path.replace("/", "_")
        made = self.add_variable(
            reference_variable.buffer.shape, initializer, reference_variable.dtype, name=f"{reference}_{name or 'var'}"
        )
        self._slots.setdefault(id(reference_variable), []).append(made)
        return made

    def add_optimizer_variables(
        self, trainable_variables: Sequence[Variable], name: str | Sequence[str], initializer: Any = "zeros"
    ) -> Any:
        """A list of variables like the trainable ones; for several names, a tuple of such lists."""
        names = [name] if isinstance(name, str) else list(name)
        many = list(initializer) if isinstance(initializer, (list, tuple)) else [initializer] * len(names)
        if len(many) != len(names):
            raise ArgumentError(f"{len(names)} names ({', '.join(names)}) need as many initializers, got {len(many)}")
        lists: tuple[list[Variable], ...] = tuple([] for _ in names)
        for variable in trainable_variables:
            for k, (own, first) in enumerate(zip(names, many, strict=True)):
                lists[k].append(self.add_variable_from_reference(variable, own, first))
        return lists[0] if isinstance(name, str) else lists

    def build(self, variables: Sequence[Variable]) -> None:
        """Make the state for these variables. Subclasses call this first."""
        variables = list(variables)
        for v in variables:
            if not isinstance(v, Variable):
                raise GraphError(f"an optimizer changes variables, got {v!r:.80}")
        if self.use_ema:
            self._averages = self.add_optimizer_variables(variables, "average")
        self._indices = {id(v): k for k, v in enumerate(variables)}
        if self.gradient_accumulation_steps:
            self._accumulated = self.add_optimizer_variables(variables, "gradient_accumulator")
        self._trainable_variables = variables
        self.built = True

    def _get_variable_index(self, variable: Variable) -> int:
        return self._indices[id(variable)]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Give the optimizer's variables new values. Raises StateError before `build`, ShapeError if they differ."""
        if not self.built:
            raise StateError(f"optimizer {self.name!r} has no weights yet: call build(trainable_variables) first")
        if len(weights) != len(self.variables):
            raise ShapeError(f"optimizer {self.name!r} has {len(self.variables)} variables, got {len(weights)} arrays")
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.set_value(weight)

    def save_own_variables(self, store: Any) -> None:
        for k, variable in enumerate(self.variables):
            store[str(k)] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        if len(store.keys()) != len(self.variables):
            warnings.warn(
                f"optimizer {self.name!r} has {len(self.variables)} variables and {len(store.keys())} were saved: "
                "they are not loaded" + ("" if self.built else ". It was not built yet"),
                stacklevel=2,
            )
            return
        for k, variable in enumerate(self.variables):
            variable.set_value(np.asarray(store[str(k)]))

    # ---- a step

    def assign(self, variable: Variable, value: Any) -> None:
        variable.assign(value)

    def assign_add(self, variable: Variable, value: Any) -> None:
        variable.assign_add(value)

    def assign_sub(self, variable: Variable, value: Any) -> None:
        variable.assign_sub(value)

    def update_step(self, gradient: Any, variable: Variable, learning_rate: Any) -> None:
        """Assign the variable, and the optimizer's own that belong to it, their next values."""
        raise NotImplementedError(f"{type(self).__name__} must define update_step(gradient, variable, learning_rate)")

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Variable:
        """One step by pairs of a gradient and its variable; returns the iteration."""
        pairs = list(grads_and_vars)
        self.apply([g for g, _ in pairs], [v for _, v in pairs])
        return self._iterations

    @at_once
    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Variable] | None = None) -> None:
        """One step by gradients, in the order of the variables (those it was built with, if none are given).

        In a traced program the new values become its updates; otherwise they are computed and stored now.
        Raises GraphError for variables that it was not built with and if there is no gradient at all.
        """
        if not len(grads):
            return
        if trainable_variables is None:
            if not self.built:
                raise StateError(f"optimizer {self.name!r} does not know its variables: give them, or call build first")
            trainable_variables = self._trainable_variables
        elif not self.built:
            self.build(list(trainable_variables))
        if len(grads) != len(trainable_variables):
            raise GraphError(
                f"optimizer {self.name!r}: {len(grads)} gradients for {len(trainable_variables)} variables"
            )
        for v in trainable_variables:
            if id(v) not in self._indices:
                raise GraphError(
                    f"optimizer {self.name!r} was not built with {v!r}: a new set of variables needs a new optimizer"
                )
        pairs = self._with_gradient(grads, trainable_variables)
        if self.loss_scale_factor is not None:
            pairs = [(g / self.loss_scale_factor, v) for g, v in pairs]
        self._apply_pairs(pairs)
        for _, v in pairs:
            if v.constraint is not None:
                v.assign(v.constraint(v.value))
        self._iterations.assign_add(1)

    def _with_gradient(self, grads: Sequence[Any], variables: Sequence[Variable]) -> list[tuple[Any, Variable]]:
        missing = [v.path for g, v in zip(grads, variables, strict=True) if g is None]
        if len(missing) == len(grads):
            raise GraphError("there are no gradients: the loss depends on none of the variables")
        if missing:
            _warn_user(
                f"there are no gradients for the variables {', '.join(missing)}: the loss does not depend on them"
            )
        return [(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]

    def _apply_pairs(self, pairs: list[tuple[Any, Variable]]) -> None:
        steps = self.gradient_accumulation_steps
        if steps:
            sums = [(self._accumulated[self._get_variable_index(v)], g) for g, v in pairs]
            for total, g in sums:
                total.assign_add(g)
            with updates_where(ops.equal((self._iterations + 1) % steps, 0)):
                self._change([(total / steps, v) for (total, _), (_, v) in zip(sums, pairs, strict=True)])
                for total in self._accumulated:
                    total.assign(ops.zeros_like(total))
        else:
            self._change(pairs)
        if self.use_ema:
            self._average()

    def _change(self, pairs: list[tuple[Any, Variable]]) -> None:
        variables = [v for _, v in pairs]
        rows = [self._rows_of(g, v) for g, v in pairs]
        grads = self._clip([g if r is None else Tensor(r.sums) for (g, _), r in zip(pairs, rows, strict=True)])
        self._apply_weight_decay(variables)
        touched = {}
        for v, r in zip(variables, rows, strict=True):
            if r is not None:
                touched.update(dict.fromkeys([v, *self._slots.get(id(v), ())], r.indices))
        with rows_alone(touched):
            self._update_all(grads, variables, self.learning_rate)

    def _leaves_zeros(self) -> bool:
        """Whether the rule leaves weights whose gradient is 0 as they are, with the slots that belong to them."""
        return False

    def _rows_of(self, gradient: Any, variable: Variable) -> GradientRows | None:
        """The rows of a gradient, if the update is to touch no others: where others stay as they are in any case."""
        stays = self._leaves_zeros() and not self.use_ema and not self._weight_decays(variable)
        found = GradientRows.of(gradient) if stays else None
        return found if found is not None and worth_it(found, variable) else None

    def _weight_decays(self, variable: Variable) -> bool:
        return self._weight_decay_of(variable) is not None and self._decays(variable)

    def _update_all(self, grads: list[Any], variables: list[Variable], learning_rate: Any) -> None:
        for g, v in zip(grads, variables, strict=True):
            self.update_step(ops.cast(g, v.dtype), v, ops.cast(learning_rate, v.dtype))

    def _clip(self, grads: list[Any]) -> list[Any]:
        if self.clipnorm:
            return [_clip_by_norm(g, self.clipnorm) for g in grads]
        if self.global_clipnorm:
            total = ops.sum(ops.stack([ops.cast(ops.sum(ops.square(g)), "float32") for g in grads]))
            return [ops.cast(_within(total, self.global_clipnorm), g.dtype) * g for g in grads]
        if self.clipvalue:
            return [ops.clip(g, -self.clipvalue, self.clipvalue) for g in grads]
        return grads

    def exclude_from_weight_decay(
        self, var_list: Sequence[Variable] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Variables that do not decay: these, and those in whose names one of the regular expressions is found."""
        self._undecayed = {id(v) for v in var_list or ()}
        self._undecayed_names = re.compile("|".join(sorted(set(var_names)))) if var_names else None

    def _decays(self, variable: Variable) -> bool:
        named = self._undecayed_names is not None and self._undecayed_names.search(variable.name)
        return id(variable) not in self._undecayed and not named

    def _weight_decay_of(self, variable: Variable) -> float | None:
        return self.weight_decay

    def _apply_weight_decay(self, variables: Sequence[Variable]) -> None:
        for v in variables:
            if self._weight_decays(v):
                v.assign(v - v * self._weight_decay_of(v) * ops.cast(self.learning_rate, v.dtype))

    def _average(self) -> None:
        """Move the averages towards the weights; the first step copies them."""
        started = ops.not_equal(self.iterations, 0)
        for v, average in zip(self._trainable_variables, self._averages, strict=True):
            momentum = ops.cast(started, v.dtype) * self.ema_momentum
            average.assign(momentum * average + (1 - momentum) * v)
        if self.ema_overwrite_frequency:
            with updates_where(ops.equal((self.iterations + 1) % self.ema_overwrite_frequency, 0)):
                for v, average in zip(self._trainable_variables, self._averages, strict=True):
                    v.assign(average)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Replace the weights by their averages, if they are kept: the end of training."""
        if self.use_ema:
            for v, average in zip(var_list, self._averages, strict=True):
                v.assign(average)

    def scale_loss(self, loss: Any) -> Any:
        """The loss that gradients are taken of."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    # ---- configuration

    def get_config(self) -> dict[str, Any]:
        rate = self._learning_rate
        config = {
            "name": self.name,
            "learning_rate": float(rate.numpy()) if isinstance(rate, Variable) else serialize_object(rate),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }
        return {**config, **{key: getattr(self, key) for key in self._own}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Optimizer:
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = deserialize_object(config["learning_rate"], custom_objects)
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"


def _settled(value: Any) -> Any:
    """A value computed from variables: as it is in a traced program, else its present number."""
    return evaluate(value, {}) if isinstance(value, Tensor) and not is_tracing() else value


def _within(square: Any, norm: float) -> Any:
    """The factor that brings a vector of this squared length to `norm` if it is longer; NaN for infinite ones."""
    length = ops.sqrt(square)
    return norm * ops.minimum(1.0 / length, 1.0 / norm) + (length - length)


def _clip_by_norm(g: Any, norm: float) -> Any:
    square = ops.sum(ops.square(g))
    some = square > 0
    length = ops.where(some, ops.sqrt(ops.where(some, square, 1.0)), 0.0)
    return g * norm / ops.maximum(length, norm)


def _warn_user(message: str) -> None:
    """Warn at the user's own line, however deep in gnomon the call is."""
    from gnomon.compiler.graph import user_line

    file, line = user_line()
    warnings.warn_explicit(message, UserWarning, file or "gnomon", line)
