"""Arrays with an address that never changes: the state of variables, the arenas of temporaries."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

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
    own = dtypes.named(dtype).memory
    count = own.itemsize
    for extent in shape:
        count *= extent
    memory = (np.zeros if zero else np.empty)(count + ALIGNMENT, np.uint8)
    skip = -address_of(memory) % ALIGNMENT
    return memory[skip : skip + count].view(own).reshape(shape)


def stored(dtype: str, array: Any) -> Any:
    """An array as a program is given it for an input of the dtype.

    That of bfloat16 may be float32, which is rounded, or of ml_dtypes' type. What is neither is returned as it is, for
    the program to take or refuse.
    """
    row = dtypes.named(dtype)
    if row.memory is row.numpy or not isinstance(array, np.ndarray):
        return array
    return dtypes.encoded(dtype, array) if array.dtype == row.numpy or array.dtype.name == dtype else array


def shown(dtype: str, array: np.ndarray) -> np.ndarray:
    """An array of the dtype, in memory's form or NumPy's, as users get it.

    That of bfloat16, which NumPy does not have, is of ml_dtypes' type if that package is installed; if not, it is
    float32, which holds each of its numbers.
    """
    row = dtypes.named(dtype)
    if row.memory is row.numpy:
        return array
    own = _bfloat16()
    if own is None:
        return dtypes.decoded(dtype, array)
    return array.view(own) if array.dtype == row.memory else array.astype(own)


@cache
def _bfloat16() -> np.dtype | None:
    """The bfloat16 that JAX and Keras give to NumPy, if it is installed; looked for where there is such an array."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    return np.dtype(ml_dtypes.bfloat16)


CLOCK = aligned((), "int64")
"""Counts the changes of variables in this process, from 1 on: programs keep what they made of variables until then."""
CLOCK[...] = 1


def changed() -> None:
    """Variables were written to."""
    CLOCK[...] += 1


def lent() -> None:
    """Variables may be written to at any time from now on, so that nothing made of them can be kept."""
    CLOCK[...] = -(1 << 62)


MIRRORS: list[bool] = []
"""Not empty once a variable has been on a device: programs of the CPU then see to it that they read present values."""


class Mirror(Protocol):
    """A buffer's values on a device other than the CPU.

    valid   whether they are the present ones
    """

    valid: bool

    def upload(self, array: np.ndarray) -> None: ...

    def download(self, array: np.ndarray) -> None: ...

    def clear(self) -> None: ...


class Buffer:
    """A variable's values: fixed shape and dtype, aligned, zeroed at first.

    address   where they are in this process's memory, for compiled code
    A device may have them too (`mirrors`), and be the only one to have the present ones (`newest`): what is read here
    is then fetched first, and what is written here makes the others invalid.
    """

    __slots__ = ("_memory", "address", "shape", "dtype", "mirrors", "newest", "is_lent")

    def __init__(self, shape: tuple[int, ...], dtype: str):
        self.shape, self.dtype = tuple(shape), dtype
        self._memory = aligned(self.shape, dtype)
        self.address = address_of(self._memory)
        self.mirrors: dict[Any, Mirror] = {}
        self.newest: Mirror | None = None
        self.is_lent = False

    @property
    def nbytes(self) -> int:
        return self._memory.nbytes

    @property
    def array(self) -> np.ndarray:
        """The memory itself (bfloat16: opaque) with the present values: who writes to it calls `changed` afterwards."""
        self.fetch()
        self.written()
        return self._memory

    def lend(self) -> np.ndarray:
        """The memory itself, which may be written to at any time from now on: devices take and leave values here at
        every call."""
        self.is_lent = True
        lent()
        return self.array

    def fetch(self) -> None:
        """Have the present values here, if only a device has them."""
        if self.newest is not None:
            self.newest.download(self._memory)
            self.newest = None

    def written(self) -> None:
        """What is here are the present values, and no device has them."""
        self.newest = None
        for mirror in self.mirrors.values():
            mirror.valid = False

    def on(self, device: Any, make: Callable[[Buffer], Any]) -> Any:
        """The mirror on a device, with the present values; `make` makes it if there is none."""
        if device not in self.mirrors:
            self.mirrors[device] = make(self)
            MIRRORS[:] = [True]
        mirror = self.mirrors[device]
        if not mirror.valid or self.is_lent:
            if self.newest is not mirror:
                self.fetch()
            mirror.upload(self._memory)
            mirror.valid = True
        return mirror

    def written_on(self, mirror: Mirror) -> None:
        """What a device has are the present values now."""
        for other in self.mirrors.values():
            other.valid = other is mirror
        self.newest = mirror
        if self.is_lent:
            self.fetch()

    def clear(self) -> None:
        """Set all to 0, wherever it is."""
        self._memory[...] = np.zeros((), self._memory.dtype)  # opaque memory has no number 0
        self.newest = None
        for mirror in self.mirrors.values():
            mirror.clear()
            mirror.valid = True
        changed()

    def set(self, value: Any) -> None:
        """Copy `value` in, converted as NumPy's assignment does within a kind of number.

        Raises ShapeError if its shape is another (nothing is broadcast), DTypeError if it would lose its kind: a
        complex or text value, or a float for an integer buffer.
        """
        new = np.asarray(value)
        if new.shape != self.shape:
            raise ShapeError(f"The value has shape {new.shape}, but the variable has shape {self.shape}.")
        row = dtypes.named(self.dtype)
        if new.dtype not in (row.memory, row.numpy) and not np.can_cast(new.dtype, row.numpy, "same_kind"):
            raise DTypeError(f"A value of dtype {new.dtype} cannot be stored in a variable of dtype {self.dtype}.")
        self._memory[...] = new if row.memory is row.numpy else dtypes.encoded(self.dtype, new)
        self.written()
        changed()

    def numpy(self) -> np.ndarray:
        """A copy of the values."""
        self.fetch()
        return shown(self.dtype, self._memory.copy())

    def __repr__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}] at {self.address:#x}"
