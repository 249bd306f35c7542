"""Which dtype a layer computes in, and which its weights are stored in."""

from __future__ import annotations

from typing import Any

from gnomon import config
from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError

_global: DTypePolicy | None = None
_MIXED = {"mixed_float16": ("float16", "float32"), "mixed_bfloat16": ("bfloat16", "float32")}


class DTypePolicy:
    """'float32' and its like compute and store in one dtype; 'mixed_float16' and 'mixed_bfloat16' store weights in
    float32 and compute in 16 bits.

    A layer casts float inputs to the compute dtype, and its weights too while it is called; sums are taken in float32,
    and normalization is computed in it. Optimizers change the float32 weights. For float16, whose smallest numbers
    gradients reach, `compile(auto_scale_loss=True)` scales the loss; bfloat16 has the range of float32 and 8 binary
    digits, and needs none of that.

    Raises DTypeError for a name that is no dtype and no mixture.
    Micikevicius et al. 2018, "Mixed precision training", section 3; Kalamkar et al. 2019, "A study of bfloat16 for deep
    learning training".
    """

    keras_module = "keras"
    name: str

    def __init__(self, name: str | None = None):
        name = name or dtype_policy().name
        if not isinstance(name, str):
            raise DTypeError(f"a dtype policy is named by a string such as 'float32', got {name!r}")
        self.name = name
        if name in _MIXED:
            self.compute_dtype, self.variable_dtype = _MIXED[name]
        else:
            self.compute_dtype = self.variable_dtype = dtypes.named(name).name
        self.quantization_mode = None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DTypePolicy:
        return cls(**config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DTypePolicy) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f'<DTypePolicy "{self.name}">'


FloatDTypePolicy = DTypePolicy  # another name that Keras has for it


def get_policy(identifier: Any) -> DTypePolicy:
    """A policy from what users pass as `dtype`: None, a name, a NumPy dtype, a policy, or its serialized form."""
    if identifier is None:
        return dtype_policy()
    if isinstance(identifier, DTypePolicy):
        return identifier
    if isinstance(identifier, dict):
        kind = identifier.get("class_name", "DTypePolicy")
        if kind not in ("DTypePolicy", "FloatDTypePolicy"):
            raise ArgumentError(
                f"gnomon has no dtype policy {kind!r} (of Keras's quantized models): save the model before it is "
                "quantized, or give its layers dtype='mixed_bfloat16' or another of DTypePolicy's"
            )
        return DTypePolicy(**identifier.get("config", {}))
    if isinstance(identifier, str) and identifier.startswith("mixed_"):
        return DTypePolicy(identifier)
    try:
        return DTypePolicy(dtypes.canonical(identifier))
    except DTypeError as error:
        raise ArgumentError(f"cannot interpret dtype={identifier!r} as a dtype policy. {error}") from None


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are given none: what `set_dtype_policy` set, else `config.floatx()`."""
    return _global or DTypePolicy(config.floatx())


def set_dtype_policy(policy: Any) -> None:
    """Set the policy of all layers made from now on; None returns to `config.floatx()`."""
    global _global
    _global = None if policy is None else get_policy(policy)


def serialize_policy(policy: DTypePolicy) -> dict[str, Any]:
    """Keras's form of it."""
    return {"module": "keras", "class_name": "DTypePolicy", "config": policy.get_config(), "registered_name": None}
