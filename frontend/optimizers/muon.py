"""Muon: steps whose matrices are made nearly orthogonal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from gnomon import ops
from gnomon.optimizers.optimizer import Optimizer
from gnomon.variable import Variable


class Muon(Optimizer):
    """Momentum whose matrix is brought near an orthogonal one by a few Newton-Schulz iterations; Adam for the rest.

    The rest are variables that are not matrices, those with "embedding" in their paths (`exclude_embeddings`), and
    those in whose paths one of `exclude_layers` is found. `rms_rate` scales the step by the longer side's root.
    Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et al. 2025, "Muon is scalable
    for LLM training", equation 4, for the scale.
    """

    _own = (
        "adam_beta_1",
        "adam_beta_2",
        "epsilon",
        "exclude_layers",
        "muon_a",
        "muon_b",
        "muon_c",
        "adam_lr_ratio",
        "momentum",
        "ns_steps",
        "nesterov",
        "exclude_embeddings",
        "adam_weight_decay",
        "rms_rate",
    )

    def __init__(
        self,
        learning_rate: Any = 0.001,
        adam_beta_1: float = 0.9,
        adam_beta_2: float = 0.999,
        adam_weight_decay: float | None = 0.004,
        epsilon: float = 1e-7,
        weight_decay: float | None = 0.004,
        exclude_layers: Sequence[str] | None = None,
        exclude_embeddings: bool = True,
        muon_a: float = 3.4445,
        muon_b: float = -4.775,
        muon_c: float = 2.0315,
        adam_lr_ratio: float = 1,
        momentum: float = 0.95,
        ns_steps: int = 5,
        nesterov: bool = True,
        rms_rate: float | None = 0.2,
        **options: Any,
    ):
        super().__init__(learning_rate, weight_decay=weight_decay, **options)
        self.adam_beta_1, self.adam_beta_2, self.adam_weight_decay = adam_beta_1, adam_beta_2, adam_weight_decay
        self.epsilon, self.momentum, self.nesterov, self.rms_rate = epsilon, momentum, nesterov, rms_rate
        self.exclude_layers, self.exclude_embeddings = list(exclude_layers or ()), exclude_embeddings
        self.muon_a, self.muon_b, self.muon_c, self.ns_steps = muon_a, muon_b, muon_c, ns_steps
        self.adam_lr_ratio = adam_lr_ratio

    def _by_adam(self, variable: Variable) -> bool:
        if variable.ndim != 2 or (self.exclude_embeddings and "embedding" in variable.path.lower()):
            return True
        return any(re.search(pattern, variable.path) for pattern in self.exclude_layers)

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momentums: list[Variable] = []
        self._velocities: list[Variable | None] = []
        for v in variables:
            self._momentums.append(self.add_variable_from_reference(v, "momentum"))
            self._velocities.append(self.add_variable_from_reference(v, "velocity") if self._by_adam(v) else None)

    def update_step(self, gradient, variable, learning_rate):
        k = self._get_variable_index(variable)
        m, v = self._momentums[k], self._velocities[k]
        if v is not None:
            t = ops.cast(self.iterations + 1, variable.dtype)
            alpha = learning_rate * self.adam_lr_ratio * ops.sqrt(1 - self.adam_beta_2**t) / (1 - self.adam_beta_1**t)
            m.assign_add((gradient - m) * (1 - self.adam_beta_1))
            v.assign_add((ops.square(gradient) - v) * (1 - self.adam_beta_2))
            variable.assign_sub(m * alpha / (ops.sqrt(v) + self.epsilon))
            return
        m.assign(m * self.momentum + gradient)
        step = self.orthogonal(gradient + self.momentum * m if self.nesterov else m.value)
        if self.rms_rate is not None:
            step = step * (math.sqrt(max(variable.buffer.shape)) * self.rms_rate)
        variable.assign_sub(learning_rate * step)

    def orthogonal(self, x: Any) -> Any:
        """x with its singular values brought near 1: x <- a x + (b A + c A²) x with A = x xᵀ, a few times."""
        tall = x.shape[0] > x.shape[1]
        if tall:
            x = ops.transpose(x)
        x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
        for _ in range(self.ns_steps):
            square = ops.matmul(x, ops.transpose(x))
            x = self.muon_a * x + ops.matmul(self.muon_b * square + ops.matmul(self.muon_c * square, square), x)
        return ops.transpose(x) if tall else x

    def _weight_decay_of(self, variable):
        return self.adam_weight_decay if self._by_adam(variable) else self.weight_decay
