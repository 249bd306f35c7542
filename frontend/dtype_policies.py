"""Which dtype layers compute in, and which their weights are stored in: Keras's `keras.dtype_policies`."""

from __future__ import annotations

from typing import Any

from gnomon.layers.policy import DTypePolicy, FloatDTypePolicy, get_policy, serialize_policy


def get(identifier: Any) -> DTypePolicy:
    """The policy of a name, a dtype, a policy or its serialized form; None: `config.dtype_policy()`."""
    return get_policy(identifier)


def serialize(dtype_policy: DTypePolicy) -> dict[str, Any]:
    """Keras's form of a policy."""
    return serialize_policy(dtype_policy)


def deserialize(config: dict[str, Any], custom_objects: Any = None) -> DTypePolicy:
    """The policy of its serialized form."""
    return get_policy(config)


__all__ = ["DTypePolicy", "FloatDTypePolicy", "deserialize", "get", "serialize"]
