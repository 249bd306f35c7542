"""Running means of the gradient and of its square: Adam and what was made of it."""

from __future__ import annotations

from typing import Any

from gnomon import initializers, ops
from gnomon.compiler.errors import ArgumentError
from gnomon.optimizers.optimizer import Optimizer
from gnomon.optimizers.rows import GradientRows
from gnomon.tensor import Tensor
from gnomon.variable import Variable


class _Moments(Optimizer):
    """The running means m of g and v of g², which the optimizers of this module share."""

    _own: tuple[str, ...] = ("beta_1", "beta_2", "epsilon")
    beta_1: float
    beta_2: float
    epsilon: float
    _names = ["momentum", "velocity"]

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._momentums, self._velocities = self.add_optimizer_variables(variables, self._names)

    def moved(self, gradient: Any, variable: Variable) -> tuple[Variable, Variable]:
        """m and v, moved towards this gradient."""
        k = self._get_variable_index(variable)
        m, v = self._momentums[k], self._velocities[k]
        m.assign_add((gradient - m) * (1 - self.beta_1))
        v.assign_add((ops.square(gradient) - v) * (1 - self.beta_2))
        return m, v

    def powers(self, variable: Variable, ahead: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """The number t of this step (or one `ahead` of it), beta_1**t and beta_2**t."""
        t = ops.cast(self.iterations + ahead, variable.dtype)
        return t, self.beta_1**t, self.beta_2**t


class Adam(_Moments):
    """w <- w - learning_rate * m / (sqrt(v) + epsilon), m and v being running means of g and g².

    Both are corrected for their start at 0, by way of the learning rate. `epsilon` is the ε̂ of the paper's section 2,
    beside the uncorrected root. `amsgrad` takes the largest v so far.
    Kingma, Ba 2015, "Adam: a method for stochastic optimization"; Reddi, Kale, Kumar 2018, "On the convergence of Adam
    and beyond".
    """

    _own = ("beta_1", "beta_2", "epsilon", "amsgrad")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._largest = self.add_optimizer_variables(variables, "velocity_hat") if self.amsgrad else []

    def update_step(self, gradient, variable, learning_rate):
        _, power_1, power_2 = self.powers(variable)
        alpha = learning_rate * ops.sqrt(1 - power_2) / (1 - power_1)
        m, v = self.moved(gradient, variable)
        if self.amsgrad:
            largest = self._largest[self._get_variable_index(variable)]
            largest.assign(ops.maximum(largest, v))
            v = largest
        variable.assign_sub(m * alpha / (ops.sqrt(v) + self.epsilon))


class AdamW(Adam):
    """Adam with weight decay beside the gradient instead of in it.

    Loshchilov, Hutter 2019, "Decoupled weight decay regularization".
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ):
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options)
        if weight_decay is None:
            raise ArgumentError("AdamW: weight_decay is a number; for none use Adam")


class LazyAdam(Adam):
    """Adam that leaves rows of an embedding alone which no token of the batch has, with their means.

    Adam moves every row at every step, as long as it remembers a gradient, so a step costs as much as the whole table;
    here it costs as much as the rows that are touched. Other weights change as by Adam, and so do tables whose gradient
    is not made of rows only: that have a regularizer, are read elsewhere too, or accumulate gradients.
    The optimizer of this name in TensorFlow Addons; PyTorch calls it SparseAdam.
    """

    def _rows_of(self, gradient, variable):
        return GradientRows.of(gradient)


class Adamax(_Moments):
    """Adam with the largest gradient so far, slowly forgotten, instead of the root of v.

    Kingma, Ba 2015, "Adam: a method for stochastic optimization", algorithm 2.
    """

    _names = ["momentum", "norm"]

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def update_step(self, gradient, variable, learning_rate):
        k = self._get_variable_index(variable)
        m, u = self._momentums[k], self._velocities[k]
        m.assign_add((gradient - m) * (1 - self.beta_1))
        u.assign(ops.maximum(self.beta_2 * u, ops.abs(gradient)))
        _, power, _ = self.powers(variable)
        variable.assign_sub(learning_rate * m / ((1 - power) * (u + self.epsilon)))


class Nadam(_Moments):
    """Adam with Nesterov's look ahead, its first beta warmed up.

    Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables):
        if not self.built:
            super().build(variables)
            dtype = variables[0].dtype if variables else "float32"
            self._product = self.add_variable((), initializers.Constant(1.0), dtype=dtype, name="u_product")

    def _warmed(self, t: Any) -> Tensor:
        return self.beta_1 * (1.0 - 0.5 * 0.96**t)

    def _update_all(self, grads, variables, learning_rate):
        t = ops.cast(self.iterations + 1, self._product.dtype)
        self._product.assign(self._product * self._warmed(t))
        super()._update_all(grads, variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        t, _, power_2 = self.powers(variable)
        now, next_one = self._warmed(t), self._warmed(t + 1.0)
        product = ops.cast(self._product, variable.dtype)
        m, v = self.moved(gradient, variable)
        mean = next_one * m / (1 - product * next_one) + (1 - now) * gradient / (1 - product)
        variable.assign_sub(mean * learning_rate / (ops.sqrt(v / (1 - power_2)) + self.epsilon))


class Lamb(_Moments):
    """Adam whose step for each variable is as long as the variable's norm, times the learning rate.

    You et al. 2020, "Large batch optimization for deep learning: training BERT in 76 minutes", algorithm 2.
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def update_step(self, gradient, variable, learning_rate):
        _, power_1, power_2 = self.powers(variable)
        m, v = self.moved(gradient, variable)
        step = m / (1.0 - power_1) / (ops.sqrt(v / (1.0 - power_2)) + self.epsilon)
        own, length = (ops.sqrt(ops.sum(ops.square(x))) for x in (variable, step))
        some = ops.logical_and(own > 0, length > 0)
        ratio = ops.where(some, own / ops.where(some, length, 1.0), 1.0)
        variable.assign_sub(ratio * learning_rate * step)


class ScheduleFreeAdamW(_Moments):
    """Adam without a schedule: gradients are taken between the running average of the weights and the moving point.

    The variables hold the point y where gradients are taken; "momentum" is the moving point z, which starts there.
    Defazio et al. 2024, "The road less scheduled", algorithm 1, with every weight 1 / t.
    """

    _own = ("beta_1", "beta_2", "epsilon", "warmup_steps")

    def __init__(
        self,
        learning_rate: Any = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        warmup_steps: int = 0,
        **options: Any,
    ):
        super().__init__(learning_rate, **options)
        self.beta_1, self.beta_2, self.epsilon, self.warmup_steps = beta_1, beta_2, epsilon, warmup_steps

    def build(self, variables):
        if not self.built:
            super().build(variables)
            for z, variable in zip(self._momentums, variables, strict=True):
                z.set_value(variable.numpy())

    def update_step(self, gradient, variable, learning_rate):
        k = self._get_variable_index(variable)
        z, v = self._momentums[k], self._velocities[k]
        t, _, power_2 = self.powers(variable)
        if self.warmup_steps > 0:
            learning_rate = learning_rate * ops.minimum(t / float(self.warmup_steps), 1.0)
        before = z.value
        v.assign_add((ops.square(gradient) - v) * (1 - self.beta_2))
        z.assign_sub(learning_rate * gradient / (ops.sqrt(v / (1 - power_2)) + self.epsilon))
        average = (variable - (1 - self.beta_1) * before) / self.beta_1
        average = (1 - 1 / t) * average + 1 / t * z
        variable.assign((1 - self.beta_1) * z + self.beta_1 * average)
