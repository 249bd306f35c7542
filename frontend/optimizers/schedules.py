"""Learning rates that change with the iteration: `schedule(step)`, a number for a number, a Tensor for a Tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gnomon import ops
from gnomon.compiler.errors import ArgumentError
from gnomon.config import floatx
from gnomon.eager import compute
from gnomon.registry import Registry, serialize_object
from gnomon.tensor import Tensor


class LearningRateSchedule:
    """Base of schedules: a subclass defines `__call__(step)` with functions of `gnomon.ops`, and `get_config`."""

    def __call__(self, step: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, step)")

    def get_config(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} must define get_config() to be written to a file")

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateSchedule:
        return cls(**config)


class _Schedule(LearningRateSchedule):
    """A schedule by its formula `rate(step)`. `_own` names the arguments, which are attributes too."""

    _own: tuple[str, ...] = ()
    name: str

    def __call__(self, step: Any) -> Any:
        return compute(lambda given: self.rate(ops.cast(given[0], floatx())), [step])

    def rate(self, step: Tensor) -> Tensor:
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {**{key: getattr(self, key) for key in self._own}, "name": self.name}


def _positive(schedule: str, name: str, value: Any) -> Any:
    if not value > 0:
        raise ArgumentError(f"{schedule}: {name} must be above 0, got {value!r}")
    return value


class ExponentialDecay(_Schedule):
    """initial_learning_rate * decay_rate ** (step / decay_steps); `staircase` rounds step / decay_steps down."""

    _own = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ):
        self.initial_learning_rate, self.decay_rate = initial_learning_rate, decay_rate
        self.decay_steps = _positive("ExponentialDecay", "decay_steps", decay_steps)
        self.staircase, self.name = staircase, name

    def rate(self, step):
        part = step / float(self.decay_steps)
        return self.initial_learning_rate * self.decay_rate ** (ops.floor(part) if self.staircase else part)


class InverseTimeDecay(_Schedule):
    """initial_learning_rate / (1 + decay_rate * step / decay_steps); `staircase` rounds step / decay_steps down."""

    _own = ("initial_learning_rate", "decay_steps", "decay_rate", "staircase")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ):
        self.initial_learning_rate, self.decay_rate = initial_learning_rate, decay_rate
        self.decay_steps = _positive("InverseTimeDecay", "decay_steps", decay_steps)
        self.staircase, self.name = staircase, name

    def rate(self, step):
        part = step / float(self.decay_steps)
        return self.initial_learning_rate / (1.0 + self.decay_rate * (ops.floor(part) if self.staircase else part))


class PiecewiseConstantDecay(_Schedule):
    """values[0] up to and including step boundaries[0], then values[1] up to boundaries[1] ..."""

    _own = ("boundaries", "values")

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant"):
        if len(boundaries) != len(values) - 1:
            raise ArgumentError(
                f"PiecewiseConstantDecay needs one value more than boundaries, got {len(boundaries)} boundaries and "
                f"{len(values)} values"
            )
        self.boundaries, self.values, self.name = boundaries, values, name

    def __call__(self, step):
        return compute(lambda given: self.rate(given[0]), [step])

    def rate(self, step):
        result = ops.cast(ops.zeros_like(step), floatx()) + float(self.values[-1])
        for boundary, value in reversed([*zip(self.boundaries, self.values, strict=False)]):
            result = ops.where(step <= boundary, float(value), result)
        return result


class PolynomialDecay(_Schedule):
    """From `initial_learning_rate` to `end_learning_rate` over `decay_steps`, as (1 - step / decay_steps) ** power.

    With `cycle` the steps are stretched to the next multiple of `decay_steps` instead of ending.
    """

    _own = ("initial_learning_rate", "decay_steps", "end_learning_rate", "power", "cycle")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ):
        self.initial_learning_rate, self.end_learning_rate = initial_learning_rate, end_learning_rate
        self.decay_steps = _positive("PolynomialDecay", "decay_steps", decay_steps)
        self.power, self.cycle, self.name = power, cycle, name

    def rate(self, step):
        steps: Any = float(self.decay_steps)
        if self.cycle:
            steps = steps * ops.where(step == 0, 1.0, ops.ceil(step / steps))
        else:
            step = ops.minimum(step, steps)
        span = self.initial_learning_rate - self.end_learning_rate
        return span * (1.0 - step / steps) ** self.power + self.end_learning_rate


class CosineDecay(_Schedule):
    """Half a cosine from `initial_learning_rate` down to `alpha` times it, over `decay_steps`.

    With `warmup_target` it first climbs from `initial_learning_rate` to it, over `warmup_steps`, and falls from there.
    Loshchilov, Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", equation 5.
    """

    _own = ("initial_learning_rate", "decay_steps", "alpha", "warmup_target", "warmup_steps")

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ):
        self.initial_learning_rate, self.alpha, self.name = initial_learning_rate, alpha, name
        self.decay_steps = _positive("CosineDecay", "decay_steps", decay_steps)
        self.warmup_target, self.warmup_steps = warmup_target, warmup_steps

    def rate(self, step):
        steps, warmup = float(self.decay_steps), float(self.warmup_steps)
        if self.warmup_target is None:
            return self._fall(ops.minimum(step, steps), self.initial_learning_rate)
        step = ops.minimum(step, steps + warmup)
        fallen = self._fall(step - warmup, self.warmup_target)
        if not warmup:
            return fallen
        climbed = (self.warmup_target - self.initial_learning_rate) * (step / warmup) + self.initial_learning_rate
        return ops.where(step < warmup, climbed, fallen)

    def _fall(self, step: Tensor, top: float) -> Tensor:
        wave = 0.5 * (1.0 + ops.cos(math.pi * (step / float(self.decay_steps))))
        return top * ((1.0 - self.alpha) * wave + self.alpha)


class CosineDecayRestarts(_Schedule):
    """Cosine decays one after the other, each `t_mul` times as long and `m_mul` times as high as the one before.

    Loshchilov, Hutter 2017, "SGDR: stochastic gradient descent with warm restarts".
    """

    _own = ("initial_learning_rate", "first_decay_steps", "t_mul", "m_mul", "alpha")

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ):
        self.initial_learning_rate, self.alpha, self.name = initial_learning_rate, alpha, name
        self.first_decay_steps = _positive("CosineDecayRestarts", "first_decay_steps", first_decay_steps)
        self.t_mul, self.m_mul = t_mul, m_mul

    def rate(self, step):
        done, t = step / float(self.first_decay_steps), float(self.t_mul)
        if t == 1.0:
            restarts = ops.floor(done)
            part = done - restarts
        else:
            restarts = ops.floor(ops.log(1.0 - done * (1.0 - t)) / math.log(t))
            grown = t**restarts
            part = (done - (1.0 - grown) / (1.0 - t)) / grown
        wave = 0.5 * float(self.m_mul) ** restarts * (1.0 + ops.cos(math.pi * part))
        return self.initial_learning_rate * ((1.0 - self.alpha) * wave + self.alpha)


registry = Registry(
    "schedule",
    [
        LearningRateSchedule,
        ExponentialDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        InverseTimeDecay,
        CosineDecay,
        CosineDecayRestarts,
    ],
)


def serialize(learning_rate_schedule: Any) -> Any:
    return serialize_object(learning_rate_schedule)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    return registry.deserialize(config, custom_objects)
