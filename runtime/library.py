"""Library routines that programs call by name: what `Library` steps run.

The entry of a program declares and calls, for a step with name NAME,

    int32 @"gnomon.library.NAME"(ptr buffers, ptr shapes)

`buffers` holds the addresses of the step's inputs, then its outputs. `shapes` is int64: how many inputs, how many
outputs, then for each of them in the same order the number of its dtype (its place in `dtypes.TABLE`), its rank, its
dimensions. If the result is not 0 the entry returns it at once. The symbol is resolved when the program is loaded.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import DeviceError, nearest

PREFIX = "gnomon.library."
DTYPES = tuple(dtypes.TABLE)
FAILED = 100
"""What the entry returns after a routine raised."""

Routine = Callable[..., Any]

ROUTINES: dict[str, Routine] = {
    "cholesky": np.linalg.cholesky,
    "det": np.linalg.det,
    "eigh": lambda x: tuple(np.linalg.eigh(x)),
    "eigvalsh": np.linalg.eigvalsh,
    "inv": np.linalg.inv,
    "qr": lambda x: tuple(np.linalg.qr(x)),
    "slogdet": lambda x: tuple(np.linalg.slogdet(x)),
    "solve": np.linalg.solve,
    "svd": lambda x: tuple(np.linalg.svd(x, full_matrices=False)),
}
"""Every routine by name: it gets the inputs as arrays that it must not keep, and returns the outputs."""

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)
_entries: dict[str, tuple[int, Any]] = {}
_raised = threading.local()


def call(name: str, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> None:
    """Run routine `name` and copy what it returns into `outputs`. Raises DeviceError if there is no such routine."""
    if name not in ROUTINES:
        raise DeviceError(f"There is no library routine {name!r}.{nearest(name, ROUTINES)}")
    results = ROUTINES[name](*inputs)
    for output, result in zip(outputs, results if isinstance(results, tuple) else (results,), strict=True):
        output[...] = result


def address(name: str) -> int:
    """The address that compiled code calls for routine `name`. Raises DeviceError if there is no such routine."""
    if name not in ROUTINES:
        raise DeviceError(f"There is no library routine {name!r}.{nearest(name, ROUTINES)}")
    if name not in _entries:

        def enter(buffers: int, shapes: int) -> int:
            try:
                call(name, *_arrays(buffers, shapes))
            except BaseException as error:  # nothing may be raised through compiled code: `failure` hands it on
                _raised.error = error
                return FAILED
            return 0

        callback = _ENTRY(enter)
        made = ctypes.cast(callback, ctypes.c_void_p).value
        assert made is not None
        _entries[name] = made, callback  # kept for ever, as the code that calls it is
    return _entries[name][0]


def failure() -> BaseException | None:
    """What the last routine to fail in this thread raised, once."""
    error = getattr(_raised, "error", None)
    _raised.error = None
    return error


def _arrays(buffers: int, shapes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The arrays behind a call's arguments: inputs, outputs."""
    counts = (ctypes.c_int64 * 2).from_address(shapes)
    arrays = []
    at = shapes + 16
    for i in range(counts[0] + counts[1]):
        code, rank = (ctypes.c_int64 * 2).from_address(at)
        shape = tuple((ctypes.c_int64 * rank).from_address(at + 16))
        at += 16 + 8 * rank
        place = ctypes.c_void_p.from_address(buffers + 8 * i).value or 0
        arrays.append(view(place, shape, DTYPES[code]))
    return arrays[: counts[0]], arrays[counts[0] :]


def view(address: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The memory at `address` as an array. It is valid for as long as whoever owns the memory keeps it."""
    own = dtypes.named(dtype).memory
    size = own.itemsize
    for extent in shape:
        size *= extent
    memory: Any = (ctypes.c_char * size).from_address(address) if size else b""
    return np.frombuffer(memory, own, count=size // own.itemsize).reshape(shape)
