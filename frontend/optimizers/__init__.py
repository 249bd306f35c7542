"""Optimizers: how gradients change weights. Keras's classes, arguments and numbers."""

from __future__ import annotations

from typing import Any

from gnomon.compiler.errors import ArgumentError
from gnomon.optimizers import schedules
from gnomon.optimizers.adam import Adam, Adamax, AdamW, Lamb, LazyAdam, Nadam, ScheduleFreeAdamW
from gnomon.optimizers.adaptive import Adadelta, Adafactor, Adagrad, Ftrl, RMSprop
from gnomon.optimizers.loss_scale import LossScaleOptimizer
from gnomon.optimizers.muon import Muon
from gnomon.optimizers.optimizer import Optimizer
from gnomon.optimizers.sgd import SGD, Lion
from gnomon.registry import Registry, serialize_object

registry = Registry(
    "optimizer",
    [
        Optimizer, Adam, SGD, RMSprop, Adadelta, AdamW, Adagrad, Adamax, Adafactor, Nadam, Ftrl, Lion, Lamb, Muon,
        LossScaleOptimizer, ScheduleFreeAdamW, LazyAdam,
    ],
    ignore_case=True,
)  # fmt: skip


def get(identifier: Any) -> Any:
    """An optimizer by name (in any case), configuration, class or as it is; None stays None.

    Raises ArgumentError if it is unknown.
    """
    found = registry.get(identifier)
    if found is not None and not isinstance(found, Optimizer):
        raise ArgumentError(
            f"cannot take {identifier!r:.80} as optimizer: give a name, a configuration or an Optimizer"
        )
    return found


def serialize(optimizer: Any) -> Any:
    return serialize_object(optimizer)


def deserialize(config: Any, custom_objects: dict | None = None) -> Any:
    return registry.deserialize(config, custom_objects)


__all__ = [
    "SGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "LazyAdam", "Lion",
    "LossScaleOptimizer", "Muon", "Nadam", "Optimizer", "RMSprop", "ScheduleFreeAdamW", "deserialize", "get",
    "schedules", "serialize",
]  # fmt: skip
