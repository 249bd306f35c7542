"""One row per dtype: NumPy, LLVM and C++ spelling, width; and the promotion table.

`kind` is 'f' float, 'i' signed, 'u' unsigned, 'b' bool. A bool is one byte in memory and one bit in a register.
float16 and bfloat16 are stored in 16 bits and computed in 32 (`compute`).

NumPy has no bfloat16. Inside the compiler such numbers are float32 arrays that hold nothing else (`numpy`, `rounded`),
in memory two opaque bytes each (`memory`, `encoded`, `decoded`). What users get is the runtime's affair.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from gnomon.compiler.errors import DTypeError, nearest


@dataclass(frozen=True)
class DType:
    """A row.

    llvm, cuda   an element in memory, as the targets spell it
    numpy        what arrays have in which the compiler and the oracle hold such numbers
    memory       what arrays have that are memory of programs
    compute      the dtype of values in registers
    """

    name: str
    kind: str
    bits: int
    llvm: str
    cuda: str
    numpy: np.dtype
    memory: np.dtype
    compute: str

    @property
    def bytes(self) -> int:
        """Size of one element in memory."""
        return max(1, self.bits // 8)


def _row(name: str, kind: str, bits: int, llvm: str, cuda: str, compute: str = "") -> tuple[str, DType]:
    numpy = np.dtype("float32" if name == "bfloat16" else name)
    memory = np.dtype("V2") if name == "bfloat16" else numpy
    return name, DType(name, kind, bits, llvm, cuda, numpy, memory, compute or name)


TABLE: dict[str, DType] = dict([
    _row("bool", "b", 1, "i1", "bool"),
    _row("uint8", "u", 8, "i8", "unsigned char"),
    _row("uint16", "u", 16, "i16", "unsigned short"),
    _row("uint32", "u", 32, "i32", "unsigned int"),
    _row("uint64", "u", 64, "i64", "unsigned long long"),
    _row("int8", "i", 8, "i8", "signed char"),
    _row("int16", "i", 16, "i16", "short"),
    _row("int32", "i", 32, "i32", "int"),
    _row("int64", "i", 64, "i64", "long long"),
    _row("float16", "f", 16, "half", "__half", "float32"),
    _row("float32", "f", 32, "float", "float"),
    _row("float64", "f", 64, "double", "double"),
    _row("bfloat16", "f", 16, "i16", "gn_bfloat16", "float32"),
])


@cache
def named(dtype: str) -> DType:
    """The row of `dtype`. Raises DTypeError with near names if there is none."""
    try:
        return TABLE[dtype]
    except KeyError:
        raise DTypeError(f"Unknown dtype {dtype!r}.{nearest(dtype, TABLE)}") from None


def canonical(dtype) -> str:
    """The name of anything that means a dtype: 'float', np.float32, np.dtype, Python's int. Raises DTypeError."""
    if isinstance(dtype, str) and dtype in TABLE:
        return dtype
    if dtype is float or (isinstance(dtype, str) and dtype == "float"):
        return "float32"
    if dtype is int or (isinstance(dtype, str) and dtype == "int"):
        return "int32"
    try:
        name = np.dtype(dtype).name  # ml_dtypes names its type as we do
    except TypeError:
        raise DTypeError(f"Unknown dtype {dtype!r}.{nearest(str(dtype), TABLE)}") from None
    return named(name).name


def is_float(dtype: str) -> bool:
    return TABLE[dtype].kind == "f"


def is_integer(dtype: str) -> bool:
    """Signed or unsigned; bool is not one."""
    return TABLE[dtype].kind in "iu"


@cache
def promote(*dtypes: str) -> str:
    """The dtype that holds all of `dtypes` as Keras 3 (and JAX) promote: an integer with a float gives the float.

    Bradbury et al., JAX, "Type promotion semantics"; unlike NumPy, int64 with float32 is float32. float16 and bfloat16,
    of which neither holds the other, meet in float32.
    """
    rows = [named(d) for d in dtypes]
    floats = {r.name: r.bits for r in rows if r.kind == "f"}
    if floats:
        largest = max(floats, key=lambda name: floats[name])
        return "float32" if floats.keys() >= {"float16", "bfloat16"} and floats[largest] == 16 else largest
    integers = [r for r in rows if r.kind in "iu"]
    if not integers:
        return "bool"
    signed = [r for r in integers if r.kind == "i"]
    unsigned = [r for r in integers if r.kind == "u"]
    if not signed or not unsigned:
        return max(integers, key=lambda r: r.bits).name
    widest, other = max(r.bits for r in signed), max(r.bits for r in unsigned)
    if widest > other:
        return f"int{widest}"
    return f"int{other * 2}" if other < 64 else "float32"


# ---- numbers of a dtype


@dataclass(frozen=True)
class Limits:
    """What `np.finfo` tells of a float: the distance from 1 to the next, the largest and the smallest normal number."""

    eps: float
    max: float
    tiny: float

    @property
    def min(self) -> float:
        return -self.max


@cache
def limits(dtype: str) -> Limits:
    """The limits of a float dtype."""
    if dtype == "bfloat16":
        return Limits(2.0**-7, (2 - 2.0**-7) * 2.0**127, 2.0**-126)
    found = np.finfo(named(dtype).numpy)
    return Limits(float(found.eps), float(found.max), float(found.tiny))


def rounded(dtype: str, value: Any) -> Any:
    """An array or number as the nearest of `dtype`, in NumPy's form; overflow gives infinity, NaN stays."""
    row = named(dtype)
    array = np.asarray(value)
    if row.memory is row.numpy:
        return array.astype(row.numpy, copy=False)
    return decoded(dtype, encoded(dtype, array))


def encoded(dtype: str, value: Any) -> np.ndarray:
    """An array as it lies in the memory of programs: of bfloat16 the upper half of a float32, rounded to even."""
    row = named(dtype)
    array = np.asarray(value)
    if array.dtype == row.memory:
        return array
    if row.memory is row.numpy:
        return array.astype(row.memory)
    if array.dtype.name == dtype:
        return array.view(row.memory)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    upper = (bits >> 16).astype(np.uint16)
    near = ((bits.astype(np.uint64) + 0x7FFF + (upper & 1)) >> 16).astype(np.uint16)
    is_nan = (bits & 0x7FFFFFFF) > 0x7F800000
    return np.where(is_nan, upper | np.uint16(0x40), near).view(row.memory).reshape(array.shape)


def of_memory(memory: np.dtype) -> str:
    """The name of the dtype that arrays of this type are the memory of; NumPy's own for what is none of ours."""
    return next((row.name for row in TABLE.values() if row.memory == memory), memory.name)


def decoded(dtype: str, array: np.ndarray) -> np.ndarray:
    """Memory of programs as numbers in NumPy's form."""
    row = named(dtype)
    if row.memory is row.numpy or array.dtype != row.memory:
        return array
    bits = np.ascontiguousarray(array).view(np.uint16).astype(np.uint32)
    return (bits << np.uint32(16)).view(np.float32).reshape(array.shape)
