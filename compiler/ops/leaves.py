"""Ops without tensor inputs: arguments, variables, numbers, literal arrays, sizes as values, counting."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import count

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.graph import Node, Op, Shape, TensorType
from gnomon.compiler.kernel import Const, IndexValue
from gnomon.compiler.sizes import Dim


@dataclass(frozen=True)
class Input(Op):
    """An argument of a function. `key` makes it its own: two inputs are never merged."""

    key: int
    name: str
    dtype: str
    shape: Shape

    def infer(self):
        return TensorType(self.dtype, self.shape)

    def __repr__(self) -> str:
        return f"Input({self.name})"


@dataclass(frozen=True)
class Parameter(Input):
    """The value of a variable when the function is entered."""

    def __repr__(self) -> str:
        return f"Parameter({self.name})"


_fresh = count(1)


def fresh_input(name: str, type: TensorType) -> Node:
    """A leaf that only the compiler knows, to be replaced again; its key is negative, where users' are positive."""
    return Input(-next(_fresh), name, type.dtype, type.shape)()


@dataclass(frozen=True)
class Literal(Op):
    """A number. Kept as a bit pattern, for Python's equality is too kind: 0.0 == -0.0, nan != nan."""

    dtype: str
    bits: int

    @classmethod
    def of(cls, dtype: str, value) -> Literal:
        with np.errstate(over="ignore"):
            raw = dtypes.encoded(dtype, value).tobytes()
        return cls(dtype, int.from_bytes(raw, "little"))

    @property
    def value(self):
        memory = dtypes.named(self.dtype).memory
        return dtypes.decoded(self.dtype, np.frombuffer(struct.pack("<Q", self.bits)[: memory.itemsize], memory))[0]

    def infer(self):
        return TensorType(self.dtype, ())

    def numpy(self, env):
        return np.asarray(self.value)

    def grad(self, g, out):
        return ()

    def element(self, index, out):
        return Const(self.dtype, self.value)

    def __repr__(self) -> str:
        return f"{self.value!s}"


@dataclass(frozen=True)
class Array(Op):
    """A literal array, row-major bytes as they are in memory."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def infer(self):
        return TensorType(self.dtype, self.shape)

    def numpy(self, env):
        memory = np.frombuffer(self.data, dtypes.named(self.dtype).memory)
        return dtypes.decoded(self.dtype, memory).reshape(self.shape)

    def grad(self, g, out):
        return ()

    def __repr__(self) -> str:
        return f"Array({len(self.data)} bytes)"


@dataclass(frozen=True)
class SizeValue(Op):
    """A size as a number: what a mean divides by."""

    dtype: str
    size: Dim

    def infer(self):
        return TensorType(self.dtype, ())

    def numpy(self, env):
        return np.asarray(env.size(self.size), dtypes.named(self.dtype).numpy)

    def grad(self, g, out):
        return ()

    def element(self, index, out):
        return IndexValue(self.dtype, self.size)

    def __repr__(self) -> str:
        return f"{self.dtype}({self.size})"


@dataclass(frozen=True)
class Iota(Op):
    """0, 1, 2 … along `axis`, the same along all others."""

    dtype: str
    shape: Shape
    axis: int

    def infer(self):
        return TensorType(self.dtype, self.shape)

    def numpy(self, env):
        shape = env.shape(self.shape)
        count = np.arange(shape[self.axis], dtype=dtypes.named(self.dtype).numpy)
        return np.broadcast_to(count.reshape([-1 if k == self.axis else 1 for k in range(len(shape))]), shape)

    def grad(self, g, out):
        return ()

    def element(self, index, out):
        return IndexValue(self.dtype, index[self.axis])


def key_of(leaf: Node) -> int:
    """What makes an input or parameter its own."""
    assert isinstance(leaf.op, Input), leaf
    return leaf.op.key


def size_of(leaf: Node) -> str:
    """The name of the size that an integer argument is, where it is used as one."""
    assert isinstance(leaf.op, Input), leaf
    return f"{leaf.op.name}.{leaf.op.key}"
