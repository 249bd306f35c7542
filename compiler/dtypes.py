"""One row per dtype: NumPy, LLVM and C++ spelling, width; and the promotion table.

`kind` is 'f' float, 'i' signed, 'u' unsigned, 'b' bool. A bool is one byte in memory and one bit in a register.
float16 is stored in 16 bits and computed in 32 (`compute`).
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from gnomon.compiler.errors import DTypeError, nearest


@dataclass(frozen=True)
class DType:
    name: str
    kind: str
    bits: int
    llvm: str
    cuda: str
    numpy: np.dtype
    compute: str

    @property
    def bytes(self) -> int:
        """Size of one element in memory."""
        return max(1, self.bits // 8)


def _row(name: str, kind: str, bits: int, llvm: str, cuda: str, compute: str = "") -> tuple[str, DType]:
    return name, DType(name, kind, bits, llvm, cuda, np.dtype(name), compute or name)


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
        name = np.dtype(dtype).name
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

    Bradbury et al., JAX, "Type promotion semantics"; unlike NumPy, int64 with float32 is float32.
    """
    rows = [named(d) for d in dtypes]
    floats = [r for r in rows if r.kind == "f"]
    if floats:
        return max(floats, key=lambda r: r.bits).name
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
