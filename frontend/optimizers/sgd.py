"""Steps along the gradient: SGD, and Lion along its sign."""

from __future__ import annotations

from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError
from gnomon.optimizers.optimizer import Optimizer


class SGD(Optimizer):
    """w <- w - learning_rate * g; with momentum v <- momentum * v - learning_rate * g and w <- w + v.

    `nesterov` looks ahead: w <- w + momentum * v - learning_rate * g.
    Sutskever, Martens, Dahl, Hinton 2013, "On the importance of initialization and momentum in deep learning",
    equations 3 and 4, rewritten to step from where the gradient is taken.
    """

    _own = ("momentum", "nesterov")

    def __init__(self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **options: Any):
        super().__init__(learning_rate, **options)
        if not 0 <= momentum <= 1:
            raise ArgumentError(f"SGD: momentum is between 0 and 1, got {momentum!r}")
        self.momentum, self.nesterov = momentum, nesterov

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self.momentums = self.add_optimizer_variables(variables, "momentum") if self.momentum else []

    def _leaves_zeros(self):
        return not self.momentum and type(self).update_step is SGD.update_step

    def update_step(self, gradient, variable, learning_rate):
        step = gradient * learning_rate
        if not self.momentum:
            variable.assign_sub(step)
            return
        velocity = self.momentums[self._get_variable_index(variable)]
        velocity.assign(velocity * self.momentum - step)
        variable.assign_add(velocity * self.momentum - step if self.nesterov else velocity)


class Lion(Optimizer):
    """w <- w - learning_rate * sign(beta_1 * m + (1 - beta_1) * g), then m <- beta_2 * m + (1 - beta_2) * g.

    Chen et al. 2023, "Symbolic discovery of optimization algorithms", program 1.
    """

    _own = ("beta_1", "beta_2")

    def __init__(self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **options: Any):
        super().__init__(learning_rate, **options)
        if not 0 < beta_1 <= 1:
            raise ArgumentError(f"Lion: beta_1 is above 0 and at most 1, got {beta_1!r}")
        self.beta_1, self.beta_2 = beta_1, beta_2

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        m = self._momentums[self._get_variable_index(variable)]
        variable.assign_sub(learning_rate * ops.sign(m * self.beta_1 + gradient * (1 - self.beta_1)))
        m.assign(m * self.beta_2 + gradient * (1 - self.beta_2))
