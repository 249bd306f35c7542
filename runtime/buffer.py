"""Arrays with an address that never changes: the state of variables, the arenas of temporaries."""

from __future__ import annotations

from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DTypeError, ShapeError

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register there is."""


def address_of(array: np.ndarray) -> int:
    """Where the first element of `array` is."""
    return array.__array_interface__["data"][0]


def aligned(shape: tuple[int, ...], dtype: str, zero: bool = True) -> np.ndarray:
    """A row-major array that begins on a multiple of ALIGNMENT bytes, zeroed unless told otherwise."""
    numpy = dtypes.named(dtype).numpy
    count = numpy.itemsize
    for extent in shape:
        count *= extent
    memory = (np.zeros if zero else np.empty)(count + ALIGNMENT, np.uint8)
    skip = -address_of(memory) % ALIGNMENT
    return memory[skip : skip + count].view(numpy).reshape(shape)


CLOCK = aligned((), "int64")
"""Counts the changes of variables in this process, from 1 on: programs keep what they made of variables until then."""
CLOCK[...] = 1


def changed() -> None:
    """Variables were written to."""
    CLOCK[...] += 1


def lent() -> None:
    """Variables may be written to at any time from now on, so that nothing made of them can be kept."""
    CLOCK[...] = -(1 << 62)


class Buffer:
    """A variable's memory: fixed shape and dtype, aligned, zeroed at first.

    array     the memory itself as a NumPy array: who writes to it calls `changed` afterwards
    address   where it is, for compiled code
    """

    __slots__ = ("array", "address", "shape", "dtype")

    def __init__(self, shape: tuple[int, ...], dtype: str):
        self.shape, self.dtype = tuple(shape), dtype
        self.array = aligned(self.shape, dtype)
        self.address = address_of(self.array)

    def set(self, value: Any) -> None:
        """Copy `value` in, converted as NumPy's assignment does within a kind of number.

        Raises ShapeError if its shape is another (nothing is broadcast), DTypeError if it would lose its kind: a
        complex or text value, or a float for an integer buffer.
        """
        new = np.asarray(value)
        if new.shape != self.shape:
            raise ShapeError(f"The value has shape {new.shape}, but the variable has shape {self.shape}.")
        if not np.can_cast(new.dtype, self.array.dtype, "same_kind"):
            raise DTypeError(f"A value of dtype {new.dtype} cannot be stored in a variable of dtype {self.dtype}.")
        self.array[...] = new
        changed()

    def numpy(self) -> np.ndarray:
        """A copy of the values."""
        return self.array.copy()

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}] at {self.address:#x}"
