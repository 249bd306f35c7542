"""What a library is made of: C functions that run programs, the arrays they take, the weights inside."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.aot.layout import Layout, arrange, blocks_of
from gnomon.compiler.errors import ArgumentError, CompileError
from gnomon.compiler.program import Library as LibraryCall
from gnomon.compiler.program import Program, all_steps
from gnomon.compiler.sizes import Dim
from gnomon.compiler.targets import Target

LARGEST = 2**31 - 1
"""The largest value of a size: byte counts of arrays with two such axes still fit 64 bits."""

LARGE = 4096
"""Bytes from which a stored array begins on a cache line of its own, on every target: so that states and weights saved
on one are read on another."""

HEAD = 64
"""Bytes before the arrays of a state, of what is saved of it, and of a file of weights: magic number, digest, bytes of
the arrays, check sum."""

MAGIC = int.from_bytes(b"gnomon 1", "little")

MIXED = 0x9E3779B97F4A7C15
"""An odd number that spreads the low bits of what it is multiplied by: 2^64 times the golden section."""

TYPICAL = 16
"""What an open size is taken to be where something has to be guessed from it."""

C_WORDS = frozenset(
    "alignas alignof asm auto bool break case catch char class const constexpr continue default delete do double else "
    "enum explicit export extern false float for friend goto if inline int long mutable namespace new operator private "
    "protected public register restrict return short signed sizeof static struct switch template this throw true try "
    "typedef typename union unsigned using virtual void volatile while".split()
)
"""Words of C and C++ that name nothing."""

C_TYPES = {
    "bool": "uint8_t", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t", "uint64": "uint64_t",
    "int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int64": "int64_t",
    "float16": "uint16_t", "bfloat16": "uint16_t", "float32": "float", "float64": "double",
}  # fmt: skip


@dataclass(frozen=True)
class Argument:
    """An array that a C function reads or fills: its name there, and in the model."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    label: str = ""

    @property
    def c_type(self) -> str:
        return C_TYPES[self.dtype]


@dataclass(frozen=True)
class Routine:
    """A C function `<prefix>_<name>` that runs a program.

    what      it does, in a line
    changes   whether it changes variables
    form      lists and dictionaries with the numbers of outputs: how a caller in Python gets them
    """

    name: str
    what: str
    program: Program
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    changes: bool = False
    form: Any = None

    @property
    def asked(self) -> tuple[str, ...]:
        """The open sizes that the caller passes."""
        program = self.program
        return tuple(s for s, (_, axis) in zip(program.sizes, program.bindings, strict=True) if axis >= 0)

    @property
    def read(self) -> dict[str, int]:
        """Open sizes that are the value of an input, with its number."""
        program = self.program
        return {s: k for s, (k, axis) in zip(program.sizes, program.bindings, strict=True) if axis < 0}

    @cached_property
    def layout(self) -> Layout:
        return arrange(blocks_of(self.program), dict.fromkeys(self.program.sizes, TYPICAL))


@dataclass(frozen=True)
class Stored:
    """A variable or constant: what it is called, what it holds at first, and whether any routine changes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes
    changes: bool = False
    key: int = 0


@dataclass(frozen=True)
class Place:
    """Where an array is kept: in the weights, or in the caller's state."""

    offset: int
    in_state: bool


@dataclass(frozen=True)
class Library:
    """All that is known of a library before it is machine code.

    prefix     of every name that it exports
    model      what it was made from, for people
    version    of gnomon
    embed      whether the weights are inside, or are handed to each function by the caller
    threads    whether functions take a `<prefix>_threads` to share their work
    pool       whether the library can make such threads itself
    largest    the largest value of each size
    reset      variables that `<prefix>_reset_metrics` sets to their first values, by key
    """

    prefix: str
    model: str
    version: str
    target: Target
    routines: tuple[Routine, ...]
    stored: tuple[Stored, ...]
    embed: bool = True
    threads: bool = False
    pool: bool = False
    largest: Mapping[str, int] = field(default_factory=dict)
    reset: tuple[int, ...] = ()

    @property
    def sizes(self) -> tuple[str, ...]:
        """The open sizes of all routines."""
        return tuple(dict.fromkeys(s for r in self.routines for s in r.program.sizes))

    @cached_property
    def size_names(self) -> dict[str, str]:
        """What each open size is called in C. That which is the value of an input has the input's name."""
        found: dict[str, str] = {}
        for s in self.sizes:
            found[s] = identifier(s.partition(".")[0], found.values())
        return found

    @property
    def align(self) -> int:
        """Of arrays in the workspace."""
        return 8 if self.target.vector_bytes < 16 else 64

    def most(self, size: str) -> int:
        return self.largest.get(size, LARGEST)

    @property
    def stateful(self) -> bool:
        return any(s.changes for s in self.stored)

    @cached_property
    def _laid(self) -> tuple[bytes, dict[int, Place], dict[bytes, int], int, int]:
        """The weights, the places of variables by key and of constants by content, and the bytes of the state: of its
        part that begins as the weights do, and of all of it."""
        blob = bytearray()
        places: dict[int, Place] = {}
        known: dict[bytes, int] = {}

        def add(data: bytes) -> int:
            blob.extend(bytes(-len(blob) % _aligned(data)))
            at = len(blob)
            blob.extend(data)
            return at

        changing = sorted((s for s in self.stored if s.changes), key=lambda s: not any(s.data))
        filled = [s for s in changing if any(s.data)]
        for s in filled:  # the state begins as a copy of the weights' beginning; zeros follow
            places[s.key] = Place(add(s.data), True)
        copied = state = len(blob)
        for s in changing[len(filled) :]:
            state += -state % _aligned(s.data)
            places[s.key] = Place(state, True)
            state += len(s.data)
        for s in self.stored:
            if not s.changes:
                if s.data not in known:
                    known[s.data] = add(s.data)
                if s.key:
                    places[s.key] = Place(known[s.data], False)
        blob.extend(bytes(-len(blob) % 8))
        return bytes(blob), places, known, copied, state + -state % 8

    @property
    def weights(self) -> bytes:
        """Every array that is kept, as the functions expect them."""
        return self._laid[0]

    def place_of(self, key: int) -> Place:
        """Where the variable with this key is."""
        return self._laid[1][key]

    def constant_at(self, data: bytes) -> int:
        """Where in the weights a constant is."""
        return self._laid[2][data]

    @property
    def copied_bytes(self) -> int:
        """Bytes at the beginning of the weights that a new state is a copy of."""
        return self._laid[3]

    @property
    def state_bytes(self) -> int:
        """Bytes of the variables in a state."""
        return self._laid[4]

    @cached_property
    def digest(self) -> bytes:
        """Of everything that decides what a state or a file of weights of this library looks like."""
        found = hashlib.sha256()
        for s in self.stored:
            place = self.place_of(s.key) if s.key else Place(self.constant_at(s.data), False)
            found.update(repr((s.name, s.dtype, s.shape, s.changes, place)).encode())
        return found.digest()[:8]

    @property
    def weights_file(self) -> bytes:
        """The weights as the functions expect them where they are not inside the library."""
        head = struct.pack("<Q8sQQ", MAGIC, self.digest, len(self.weights), check_sum(self.weights))
        return head.ljust(HEAD, b"\0") + self.weights

    def workspace_bytes(self, sizes: Mapping[str, int]) -> int:
        """Bytes that every routine can do with, for these sizes."""
        return max((self._needed(r, sizes) for r in self.routines), default=0)

    def _needed(self, routine: Routine, sizes: Mapping[str, int]) -> int:
        total = routine.layout.place(sizes, self.align)[1]
        return total + self.align - 1 if total else 0

    @cached_property
    def greatest_workspace(self) -> int | None:
        """Bytes that do for all sizes that are allowed, where that can be said."""
        if not self.sizes:
            return self.workspace_bytes({})
        if len(self.sizes) > 1 or self.most(self.sizes[0]) == LARGEST:
            return None
        (size,) = self.sizes
        most = self.most(size)
        step = max(1, most // 2048)
        return max(self.workspace_bytes({size: n}) for n in {*range(0, most, step), most})


def _aligned(data: bytes) -> int:
    return 64 if len(data) >= LARGE else 16


def check_sum(data: bytes) -> int:
    """Of words of 64 bits: their sum, and the sum of those sums, which tells their order.

    Fletcher 1982, "An Arithmetic Checksum for Serial Transmissions", modulo 2^64.
    """
    words = np.frombuffer(data, "<u8")
    order = np.arange(len(words), 0, -1, dtype=np.uint64)
    one, two = int(words.sum(dtype=np.uint64)), int((words * order).sum(dtype=np.uint64))
    mixed = two * MIXED & (1 << 64) - 1
    return one ^ (mixed << 32 | mixed >> 32) & (1 << 64) - 1


def check_steps(programs: Iterable[Program]) -> None:
    """Raise CompileError for a program that no library can hold: one that calls Python or LAPACK when it runs."""
    for program in programs:
        for step in all_steps(program.steps):
            if isinstance(step, LibraryCall):
                layers = ", ".join(getattr(step, "layers", ())) or program.name
                raise CompileError(
                    f"{layers}: {step.name!r} is a call of Python or LAPACK, which a compiled library cannot make. "
                    "Leave the layer out, or compute it without that function."
                )


def identifier(name: str, taken: Iterable[str] = ()) -> str:
    """A name for C that is like `name` and none of those taken."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "array"
    if plain[0].isdigit() or plain in C_WORDS:
        plain = f"_{plain}" if plain[0].isdigit() else f"{plain}_"
    known, found, k = set(taken), plain, 2
    while found in known:
        found, k = f"{plain}_{k}", k + 1
    return found


def check_prefix(prefix: str) -> str:
    """`prefix` itself. Raises ArgumentError if no C name can begin with it."""
    if not re.fullmatch(r"[A-Za-z]\w*", prefix, re.ASCII):
        near = identifier(prefix).lstrip("_0123456789") or "model"
        raise ArgumentError(f"{prefix!r} cannot begin a name in C: use letters, digits and _, such as {near!r}")
    return prefix


def arguments_of(
    program: Program, slots: Sequence[int], labels: Sequence[str], taken: set[str]
) -> tuple[Argument, ...]:
    """The arguments for some slots of a program, with names not in `taken`, to which they are added."""
    found = []
    for number, label in zip(slots, labels, strict=True):
        slot = program.slots[number]
        name = identifier(label, taken)
        taken.add(name)
        found.append(Argument(name, slot.dtype, slot.shape, label))
    return tuple(found)


def bytes_of(dtype: str, shape: Sequence[int]) -> int:
    count = dtypes.named(dtype).bytes
    for extent in shape:
        count *= extent
    return count
