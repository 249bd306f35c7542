"""Settings of the session: the float type that layers use, the small number of the formulas, the image layout."""

from __future__ import annotations

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError

_floatx = "float32"
_epsilon = 1e-7
_image_data_format = "channels_last"


def floatx() -> str:
    """The float type that variables and layers have unless told otherwise."""
    return _floatx


def set_floatx(value: str) -> None:
    """Raises ArgumentError for a type other than float16, float32 and float64."""
    global _floatx
    name = dtypes.canonical(value)
    if not dtypes.is_float(name):
        raise ArgumentError(f"floatx must be float16, float32 or float64, got {value!r}")
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
