"""A rate for each weight by the size of its gradients: RMSprop, Adagrad, Adadelta, Ftrl, Adafactor."""

from __future__ import annotations

from typing import Any

from gnomon import initializers, ops
from gnomon.compiler.errors import ArgumentError
from gnomon.optimizers.optimizer import Optimizer
from gnomon.tensor import Tensor
from gnomon.variable import Variable


class RMSprop(Optimizer):
    """v <- rho * v + (1 - rho) * g², w <- w - learning_rate * g / sqrt(v + epsilon).

    `centered` takes the squared mean gradient from v; `momentum` accumulates the steps.
    Hinton 2012, "Neural networks for machine learning", lecture 6e; Graves 2013, "Generating sequences with recurrent
    neural networks", equations 38 to 45, for the centered form.
    """

    _own = ("rho", "momentum", "epsilon", "centered")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._velocities = self.add_optimizer_variables(variables, "velocity")
            self._momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum > 0 else []
            self._means = self.add_optimizer_variables(variables, "average_gradient") if self.centered else []

    def update_step(self, gradient, variable, learning_rate):
        k = self._get_variable_index(variable)
        velocity, rho = self._velocities[k], self.rho
        velocity.assign(rho * velocity + (1 - rho) * ops.square(gradient))
        variance: Any = velocity
        if self.centered:
            mean = self._means[k]
            mean.assign(rho * mean + (1 - rho) * gradient)
            variance = velocity - ops.square(mean)
        step = learning_rate * gradient / ops.sqrt(variance + self.epsilon)
        if self.momentum > 0:
            momentum = self._momentums[k]
            momentum.assign(self.momentum * momentum + step)
            step = momentum
        variable.assign_sub(step)


class Adagrad(Optimizer):
    """a <- a + g², w <- w - learning_rate * g / sqrt(a + epsilon).

    Duchi, Hazan, Singer 2011, "Adaptive subgradient methods for online learning and stochastic optimization".
    """

    _own = ("initial_accumulator_value", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon

    def build(self, variables):
        if not self.built:
            super().build(variables)
            first = initializers.Constant(self.initial_accumulator_value)
            self._accumulators = self.add_optimizer_variables(variables, "accumulator", first)

    def _leaves_zeros(self):
        some = self.initial_accumulator_value + self.epsilon > 0  # or 0 / 0 is taken away from weights
        return some and type(self).update_step is Adagrad.update_step

    def update_step(self, gradient, variable, learning_rate):
        total = self._accumulators[self._get_variable_index(variable)]
        total.assign_add(ops.square(gradient))
        variable.assign_sub(learning_rate * gradient / ops.sqrt(total + self.epsilon))


class Adadelta(Optimizer):
    """Steps in the units of the weights: the running size of the steps over that of the gradients.

    Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1; the step is multiplied by the learning rate.
    """

    _own = ("rho", "epsilon")

    def __init__(self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **options: Any):
        super().__init__(learning_rate, **options)
        self.rho, self.epsilon = rho, epsilon

    def build(self, variables):
        if not self.built:
            super().build(variables)
            names = ["accumulated_grad", "accumulated_delta_var"]
            self._grads, self._steps = self.add_optimizer_variables(variables, names)

    def update_step(self, gradient, variable, learning_rate):
        k, rho = self._get_variable_index(variable), self.rho
        grads, steps = self._grads[k], self._steps[k]
        grads.assign(rho * grads + (1 - rho) * ops.square(gradient))
        step = -ops.sqrt(steps + self.epsilon) * gradient / ops.sqrt(grads + self.epsilon)
        steps.assign(rho * steps + (1 - rho) * ops.square(step))
        variable.assign_add(learning_rate * step)


class Ftrl(Optimizer):
    """Follow the regularized leader: weights that the L1 term keeps at 0 until their gradients say otherwise.

    McMahan et al. 2013, "Ad click prediction: a view from the trenches", algorithm 1; shrinkage as in TensorFlow.
    """

    _own = (
        "learning_rate_power",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
        "beta",
    )

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        if learning_rate_power > 0:
            raise ArgumentError(f"Ftrl: learning_rate_power is at most 0, got {learning_rate_power!r}")
        self.learning_rate_power = learning_rate_power
        self.initial_accumulator_value = initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength = l2_shrinkage_regularization_strength
        self.beta = beta
        for name in self._own[1:5]:
            if getattr(self, name) < 0:
                raise ArgumentError(f"Ftrl: {name} is at least 0, got {getattr(self, name)!r}")

    def build(self, variables):
        if not self.built:
            super().build(variables)
            first = [initializers.Constant(self.initial_accumulator_value), "zeros"]
            self._accumulators, self._linears = self.add_optimizer_variables(
                variables, ["accumulator", "linear"], first
            )

    def update_step(self, gradient, variable, learning_rate):
        k, power = self._get_variable_index(variable), -self.learning_rate_power
        total, linear = self._accumulators[k], self._linears[k]
        l1 = self.l1_regularization_strength
        l2 = self.l2_regularization_strength + self.beta / (2.0 * learning_rate)
        shrunk = gradient + 2.0 * self.l2_shrinkage_regularization_strength * variable
        grown = total + ops.square(gradient)
        root, new_root = ops.power(total, power), ops.power(grown, power)
        linear.assign_add(shrunk - (new_root - root) / learning_rate * variable)
        quadratic = new_root / learning_rate + 2.0 * l2
        variable.assign((ops.clip(linear, -l1, l1) - linear) / quadratic)
        total.assign(grown)


class Adafactor(Optimizer):
    """The squared gradients of a matrix kept as one number per row and per column, their product as the estimate.

    Shazeer, Stern 2018, "Adafactor: adaptive learning rates with sublinear memory cost", algorithm 4.
    """

    _own = ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.beta_2_decay, self.epsilon_1, self.epsilon_2 = beta_2_decay, epsilon_1, epsilon_2
        self.clip_threshold, self.relative_step = clip_threshold, relative_step

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._rows: list[Variable] = []
        self._columns: list[Variable] = []
        self._velocities: list[Variable] = []
        for v in variables:
            shape = v.buffer.shape
            matrix = len(shape) >= 2  # others have a number in both places, unused, as in Keras's files
            self._rows.append(self.add_variable(shape[:-1] if matrix else (), dtype=v.dtype, name=v.name))
            rest = (*shape[:-2], *shape[-1:])
            self._columns.append(self.add_variable(rest if matrix else (), dtype=v.dtype, name=v.name))
            self._velocities.append(self.add_variable_from_reference(v, "velocity"))

    def update_step(self, gradient, variable, learning_rate):
        k = self._get_variable_index(variable)
        rows, columns, velocity = self._rows[k], self._columns[k], self._velocities[k]
        count = ops.cast(self.iterations + 1, variable.dtype)
        if self.relative_step and isinstance(self._learning_rate, Variable):
            learning_rate = ops.minimum(learning_rate, ops.rsqrt(count))
        scale = ops.maximum(self.epsilon_2, _root_mean_square(variable)) * ops.minimum(learning_rate, ops.rsqrt(count))
        square = ops.square(gradient) + self.epsilon_1
        kept = 1.0 - ops.power(count, self.beta_2_decay)
        if variable.ndim >= 2:
            rows.assign(kept * rows + (1.0 - kept) * ops.mean(square, axis=-1))
            columns.assign(kept * columns + (1.0 - kept) * ops.mean(square, axis=-2))
            share = rows / ops.mean(rows, axis=-1, keepdims=True)
            velocity.assign(ops.expand_dims(share, -1) * ops.expand_dims(columns, -2))
        else:
            velocity.assign(kept * velocity + (1.0 - kept) * square)
        step = gradient / ops.sqrt(velocity)
        step = step / ops.maximum(1.0, _root_mean_square(step) / self.clip_threshold)
        variable.assign_sub(scale * step)


def _root_mean_square(x: Any) -> Tensor:
    return ops.sqrt(ops.mean(ops.square(x)))
