"""Settings of the session: dtypes, the small number of the formulas, the image layout, limits and messages of fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError
from gnomon.runtime import device

if TYPE_CHECKING:
    from gnomon.layers.policy import DTypePolicy

_floatx = "float32"
_epsilon = 1e-7
_image_data_format = "channels_last"
_max_epochs: int | None = None
_max_steps_per_epoch: int | None = None
_interactive_logging = True
_traceback_filtering = True
_flash_attention = True


def floatx() -> str:
    """The float type that variables and layers have unless told otherwise."""
    return _floatx


def set_floatx(value: str) -> None:
    """Raises ArgumentError for a type other than float16, bfloat16, float32 and float64."""
    global _floatx
    name = dtypes.canonical(value)
    if not dtypes.is_float(name):
        raise ArgumentError(f"floatx must be float16, bfloat16, float32 or float64, got {value!r}")
    _floatx = name


def epsilon() -> float:
    """The number that keeps divisors and logarithms away from 0."""
    return _epsilon


def set_epsilon(value: float) -> None:
    global _epsilon
    _epsilon = float(value)


def image_data_format() -> str:
    """'channels_last' or 'channels_first'."""
    return _image_data_format


def set_image_data_format(value: str) -> None:
    """Raises ArgumentError for anything else than the two layouts."""
    global _image_data_format
    if value not in ("channels_last", "channels_first"):
        raise ArgumentError(f"image_data_format must be 'channels_last' or 'channels_first', got {value!r}")
    _image_data_format = value


# ---- dtypes of layers


def dtype_policy() -> DTypePolicy:
    """The policy of layers that are given none: what `set_dtype_policy` set, else `floatx()`."""
    from gnomon.layers import policy

    return policy.dtype_policy()


def set_dtype_policy(policy: Any) -> None:
    """Set the policy of all layers made from now on: "float32", "mixed_bfloat16" ... None returns to `floatx()`.

    Raises ArgumentError or DTypeError for what is no policy.
    """
    from gnomon.layers import policy as policies

    policies.set_dtype_policy(policy)


# ---- limits, for trying out programs


def max_epochs() -> int | None:
    """How many epochs `fit` trains at most; None: as many as it is told."""
    return _max_epochs


def set_max_epochs(max_epochs: int | None) -> None:
    """Raises ArgumentError unless it is a positive integer or None."""
    global _max_epochs
    _max_epochs = _limit("max_epochs", max_epochs)


def max_steps_per_epoch() -> int | None:
    """How many batches `fit`, `evaluate` and `predict` take at most; None: all there are."""
    return _max_steps_per_epoch


def set_max_steps_per_epoch(max_steps_per_epoch: int | None) -> None:
    """Raises ArgumentError unless it is a positive integer or None."""
    global _max_steps_per_epoch
    _max_steps_per_epoch = _limit("max_steps_per_epoch", max_steps_per_epoch)


def _limit(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value <= 0):
        raise ArgumentError(f"{name} must be a positive integer or None, got {value!r}")
    return value


# ---- messages


def is_interactive_logging_enabled() -> bool:
    """Whether progress bars and callbacks print, or write to Python's logger "gnomon"."""
    return _interactive_logging


def enable_interactive_logging() -> None:
    """Let progress bars and callbacks print."""
    global _interactive_logging
    _interactive_logging = True


def disable_interactive_logging() -> None:
    """Let progress bars and callbacks write to Python's logger "gnomon" (level INFO) instead of printing."""
    global _interactive_logging
    _interactive_logging = False


def is_traceback_filtering_enabled() -> bool:
    """What was set; tracebacks are whole in any case, and errors name the user's line."""
    return _traceback_filtering


def enable_traceback_filtering() -> None:
    """Taken for Keras's sake: nothing is filtered."""
    global _traceback_filtering
    _traceback_filtering = True


def disable_traceback_filtering() -> None:
    """Taken for Keras's sake: nothing is filtered."""
    global _traceback_filtering
    _traceback_filtering = False


# ---- how attention over many keys is done


def is_flash_attention_enabled() -> bool:
    """Whether attention over many keys goes by blocks where its `flash_attention` is None."""
    return _flash_attention


def enable_flash_attention() -> None:
    """Let attention over many keys go by blocks, so that no matrix of scores is stored; it is so from the start."""
    global _flash_attention
    _flash_attention = True


def disable_flash_attention() -> None:
    """Let attention store its scores unless its `flash_attention` is True."""
    global _flash_attention
    _flash_attention = False


# ---- how exactly a GPU multiplies


def matmul_precision() -> str:
    """What factors of float32 products may be rounded to on a GPU: 'float32' (not at all), 'tensorfloat32' or
    'bfloat16'."""
    return device.matmul_precision()


def set_matmul_precision(precision: str | None) -> None:
    """Let programs that are compiled from now on multiply float32 numbers with a GPU's matrix units.

    precision   'float32': factors are not rounded, as from the start; 'tensorfloat32' (or 'tf32'): to 10 digits of
                significand; 'bfloat16': to 7. Sums are float32 in any case. None: as GNOMON_MATMUL_PRECISION says.
    Programs on a CPU are exact in any case. Raises ArgumentError for another name.
    """
    device.set_matmul_precision(precision)


# ---- what Keras chooses between and gnomon does not


def backend() -> str:
    """'gnomon': there is one, with nothing to choose."""
    return "gnomon"


def set_backend(backend: str) -> None:
    """Raises ArgumentError for all but 'gnomon'."""
    if backend != "gnomon":
        raise ArgumentError(f"gnomon has a compiler of its own and no back ends to choose from, got {backend!r}")


def is_nnx_enabled() -> bool:
    """False: that is a mode of Keras on JAX."""
    return False


def enable_unsafe_deserialization() -> None:
    """Raises ArgumentError: code in files is never run. Functions are written with def and found by their names."""
    raise ArgumentError(
        "gnomon never runs code that it finds in files: define functions with def, and register them with "
        "gnomon.saving.register_keras_serializable or name them in a custom_object_scope"
    )
