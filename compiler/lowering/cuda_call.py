"""A library's routine where a kernel would be, and the work it is chosen for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gnomon.compiler.kernel import Buffer, Load, Rewriter, Value, expressions
from gnomon.compiler.lowering.cuda_epilogue import Epilogue, Stores, Sums
from gnomon.compiler.lowering.cuda_parts import extent_of
from gnomon.compiler.lowering.cuda_together import BRIEF_FLOPS
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.sizes import Dim, Index, Size, atoms, coefficient, evaluate, symbols
from gnomon.compiler.targets import Target

LARGE = 2 * 128**3
"""Operations from which a product is a library's."""
DEEP, HARD = 256, 2 * 512**3
"""Terms of each sum, and operations, from which a product and what follows it may be two steps. An estimate, not
measured: 8 bytes of traffic for each element and a launch of 2 microseconds are what a library gains that is a third
quicker than our own 40 TFLOP/s."""
TYPICAL = 128
"""What a symbolic size is taken to be when work is estimated."""
WORKSPACE = {"sm_90": 32 << 20}
OTHERWISE = 4 << 20
"""Bytes that a routine may use while it runs, as NVIDIA recommends: "cuBLAS Library", cublasSetWorkspace."""

Generated = Callable[[RowProgram], Piece]
"""The kernel that runs a row program."""
Parameters = tuple[tuple[str, Dim | str], ...]


@dataclass(frozen=True)
class Call:
    """A library's routine where a kernel would be.

    reads, writes   buffers in the order in which the routine takes them
    workspace       memory that it may use while it runs
    others          memory that is written here and had from others, besides the workspace
    relu            the array whose positive elements it must know, made by another call
    sums            what it writes sums over rows to
    """

    name: str
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    parameters: Parameters
    workspace: Buffer
    flops: Dim
    label: str
    others: tuple[Buffer, ...] = ()
    relu: Buffer | None = None
    sums: Buffer | None = None
    early = False

    @property
    def scratch(self) -> tuple[Buffer, ...]:
        return (self.workspace, *self.others)


@dataclass(frozen=True)
class Around:
    """What there is around a product.

    relus   (name of a buffer, rows, columns) of what calls of cublasLt have made by relu
    sums    how many sums over all rows of the result are wanted: as many as there are columns, or none
    loop    it is done again and again: a loop of brief steps becomes one kernel, if all of them are kernels
    """

    relus: tuple[tuple[str, Dim, Dim], ...] = ()
    sums: Dim = 0
    loop: bool = False


NOTHING = Around()


@dataclass
class Work:
    """A row program that may be a library's, and what else there is to know of it."""

    rows: RowProgram
    sums: Sums
    target: Target
    label: str
    constant: frozenset[str]
    generated: Generated
    around: Around = NOTHING

    @property
    def outer(self) -> tuple[Index, ...]:
        return self.rows.outer

    @property
    def compute(self) -> str:
        """What factors may be rounded to. Those of 16 bits are what they are."""
        return self.target.matrix if self.sums.left.dtype == "float32" else "float32"

    @property
    def is_large(self) -> bool:
        """Whether a library is worth thinking of."""
        least = BRIEF_FLOPS if self.around.loop else LARGE
        return 2 * typical(extent_of((*self.outer, *self.sums.axes))) >= least

    def pays_in_two(self) -> bool:
        """Whether what follows the sums may be a step of its own."""
        depth = typical(extent_of(self.sums.axes))
        return depth >= DEEP and 2 * depth * typical(extent_of(self.outer)) >= HARD

    def workspace(self) -> Buffer:
        return Buffer("workspace", "uint8", (WORKSPACE.get(self.target.cpu, OTHERWISE),))

    def result(self, epilogue: Epilogue) -> tuple[Buffer, Stores]:
        """Where the library stores what it computes, row-major, and what a kernel has to store of that then."""
        index, shape = tuple(Size.of(a) for a in self.outer), tuple(a.extent for a in self.outer)
        scratch = Buffer("product", epilogue.value.dtype, shape)
        taken = {load.buffer for load in (self.sums.left, self.sums.right)}
        for k, (buffer, place, x) in enumerate(self.sums.stores):
            if x is not epilogue.value or buffer in taken or buffer.offset(place) != scratch.offset(index):
                continue
            here = Load(buffer, place)
            rest = self.rest(epilogue, here, skip=k)
            read = {e.buffer for e in expressions([x for _, _, x in rest]) if isinstance(e, Load) and e is not here}
            if buffer not in read:
                return buffer, rest
        return scratch, self.rest(epilogue, Load(scratch, index))

    def rest(self, epilogue: Epilogue, here: Load, skip: int = -1) -> Stores:
        """What is stored besides store number `skip`, the library's result being read from memory."""
        change = {epilogue.value: here}
        return [(b, i, Rewriter(change.get).expr(x)) for k, (b, i, x) in enumerate(self.sums.stores) if k != skip]

    def kernel_of(self, stores: Stores) -> Piece:
        """The kernel that stores what is left, element by element."""
        return self.generated(elementwise(self.outer, stores))


def elementwise(outer: tuple[Index, ...], stores: Stores) -> RowProgram:
    """A row program that stores values without folds."""
    reads = dict.fromkeys(e.buffer for e in expressions([x for _, _, x in stores]) if isinstance(e, Load))
    writes = dict.fromkeys(b for b, _, _ in stores)
    return RowProgram(outer, (Stage((), stores=list(stores)),), (), tuple(reads), tuple(writes))


def typical(d: Dim) -> int:
    return d if isinstance(d, int) else evaluate(d, dict.fromkeys(symbols(d), TYPICAL))


@dataclass
class Place:
    """Where the elements of an array are: at `base` + the sum of steps[a] * a, counted in elements."""

    buffer: Buffer
    steps: dict[Index, Dim]
    base: Dim

    @classmethod
    def of(cls, load: Load, axes: Iterable[Index]) -> Place | None:
        return cls.at(load.buffer, load.buffer.offset(load.index), axes)

    @classmethod
    def at(cls, buffer: Buffer, offset: Dim, axes: Iterable[Index]) -> Place | None:
        """None if the offset is no such sum."""
        steps: dict[Index, Dim] = {}
        base = offset
        for a in axes:
            step = coefficient(offset, a)
            if step is None:
                return None
            if step != 0:
                steps[a] = step
                base = base - step * Size.of(a)
        inner = [x for d in (base, *steps.values()) for x in atoms(d)]
        return None if any(isinstance(x, (Index, Value)) for x in inner) else cls(buffer, steps, base)

    def step(self, axis: Index | None) -> Dim:
        return 0 if axis is None else self.steps.get(axis, 0)


__all__ = ["NOTHING", "Around", "Call", "Generated", "Parameters", "Place", "Work", "elementwise", "typical"]
