"""A loss scale that adapts itself, for training in float16."""

from __future__ import annotations

from typing import Any

from gnomon import initializers, ops
from gnomon.compiler.errors import ArgumentError
from gnomon.eager import at_once
from gnomon.optimizers.optimizer import Optimizer
from gnomon.registry import deserialize_object, serialize_object
from gnomon.tensor import Tensor
from gnomon.variable import updates_where


class LossScaleOptimizer(Optimizer):
    """Multiplies the loss by a scale and divides the gradients by it, so that small ones do not vanish in float16.

    A step with an infinite or NaN gradient is left out and halves the scale; `dynamic_growth_steps` good ones in a row
    double it.
    Micikevicius et al. 2018, "Mixed precision training", section 3.2.
    """

    def __init__(
        self,
        inner_optimizer: Optimizer,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **options: Any,
    ):
        for option, value in options.items():
            if value not in (None, False) and (option, value) not in (("ema_momentum", 0.99), ("dynamic", True)):
                raise ArgumentError(
                    f"LossScaleOptimizer does not take {option}={value!r}: give it to the inner optimizer"
                )
        super().__init__(0.0, name=name)
        self.inner_optimizer, self.initial_scale = inner_optimizer, initial_scale
        self.dynamic_growth_steps = dynamic_growth_steps
        inner_optimizer.loss_scale_factor = None

    def build(self, variables):
        if self.built:
            return
        self.step_counter = self.add_variable((), dtype="int32", name="step_counter")
        first = initializers.Constant(self.initial_scale)
        self.dynamic_scale = self.add_variable((), first, dtype="float32", name="dynamic_scale")
        self.inner_optimizer.build(variables)
        super().build(variables)

    @property
    def variables(self):
        return [*self._variables, *self.inner_optimizer.variables]

    @at_once
    def apply(self, grads, trainable_variables=None):
        if not self.built:
            self.build(list(trainable_variables or ()))
        variables = self._trainable_variables if trainable_variables is None else trainable_variables
        looked_at = [self._looked_at(g, v) for g, v in zip(grads, variables, strict=True) if g is not None]
        finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in looked_at]))
        scale, count = self.dynamic_scale.value, self.step_counter.value
        grows = count == self.dynamic_growth_steps - 1
        with updates_where(finite):
            self.inner_optimizer.apply([None if g is None else g / ops.cast(scale, g.dtype) for g in grads], variables)
        self.step_counter.assign(ops.where(ops.logical_and(finite, ops.logical_not(grows)), count + 1, 0))
        self.dynamic_scale.assign(scale * ops.where(finite, ops.where(grows, 2.0, 1.0), 0.5))

    def _looked_at(self, gradient: Any, variable: Any) -> Any:
        """A gradient, or all of it that is not 0, where the update needs no more."""
        rows = self.inner_optimizer._rows_of(gradient, variable)
        return gradient if rows is None else Tensor(rows.sums)

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, rate):
        self.inner_optimizer.learning_rate = rate

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    def scale_loss(self, loss):
        return loss * (self.dynamic_scale if self.built else self.initial_scale)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)

    def get_config(self):
        return {
            "name": self.name,
            "inner_optimizer": serialize_object(self.inner_optimizer),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        return cls(deserialize_object(config.pop("inner_optimizer"), custom_objects), **config)
