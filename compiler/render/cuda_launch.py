"""How a rendered CUDA kernel is launched: blocks, threads and shared memory, as sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gnomon.compiler import dtypes
from gnomon.compiler.errors import CompileError
from gnomon.compiler.kernel import (
    Alloc,
    Buffer,
    CopyTransposed,
    CopyVector,
    Expr,
    For,
    If,
    Kernel,
    Let,
    MultiplyFragments,
    Rounds,
    Stmt,
    Store,
    Value,
    View,
    expressions,
    statements,
)
from gnomon.compiler.sizes import Dim, Symbol, atoms, ceildiv, evaluate, maximum, product

THREADS = 256
"""Threads of a block where the kernel does not say: enough to hide latency, few enough for any register count."""

MOST_THREADS = 1024
STATIC_SHARED = 48 << 10
"""A kernel may declare this much shared memory statically; what is beyond must be asked for at launch."""

ALIGNED = 16
"""Bytes that places in the launch's shared memory are multiples of."""

GREEDY = 64
"""Elements of a thread's tile from which the compiler must be told to leave registers for others."""

WARP = 32

AXES = ("x", "y", "z")


def all_expressions(body: tuple[Stmt, ...]) -> list[Expr]:
    """Every expression in `body`, each once, inner ones first."""
    return expressions(e for s in statements(body) for e in operands(s))


def operands(s: Stmt) -> Iterator[Expr]:
    """The expressions that stand in a statement itself, those inside its indices and its extent too."""
    sizes: tuple[Dim, ...] = ()
    match s:
        case Store():
            yield s.value
            sizes = s.index
        case Let():
            yield s.value
        case If():
            yield s.condition
        case For():
            sizes = (s.index.extent,)
        case Rounds():
            yield from () if s.until is None else (s.until,)
            sizes = (s.index.extent,)
        case View():
            yield from () if s.inside is None else (s.inside,)
            sizes = (s.number,)
        case CopyTransposed():
            sizes = (s.t, s.target_stride, s.s, s.source_stride)
        case CopyVector():
            sizes = (s.t, s.s)
        case MultiplyFragments():
            sizes = (s.t, s.x, s.w)
    yield from (a.x for d in sizes for a in atoms(d) if isinstance(a, Value))


@dataclass(frozen=True)
class Geometry:
    """`grid` blocks of `block` threads, each block with `shared` bytes of dynamic shared memory.

    The grid is in the kernel's named sizes; where one of its extents is 0 there is nothing to launch.
    """

    grid: tuple[Dim, Dim, Dim]
    block: tuple[int, int, int]
    shared: Dim = 0

    def launch(self, values: dict[str, int]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """Grid, block and shared bytes where the named sizes have `values`."""
        return tuple(evaluate(g, values) for g in self.grid), self.block, evaluate(self.shared, values)


def geometry(kernel: Kernel) -> Geometry:
    """Blocks, threads and dynamic shared bytes that the rendered kernel is to be launched with.

    Raises CompileError if the kernel asks for more threads than a block can have.
    """
    loops = [s for s in statements(kernel.body) if isinstance(s, For)]
    grid: dict[str, Dim] = dict.fromkeys(AXES, 1)
    block: dict[str, int] = dict.fromkeys(AXES, 1)
    for loop in loops:
        extent = loop.index.extent
        if loop.kind == "block":
            grid[loop.axis] = extent if grid[loop.axis] == 1 else maximum(grid[loop.axis], extent)
        elif loop.kind == "thread":
            wanted = extent if isinstance(extent, int) and extent <= MOST_THREADS else THREADS
            block[loop.axis] = max(block[loop.axis], wanted)
    parallel = kernel.parallel
    if is_cooperative(kernel):
        block["x"] = max(block["x"], WARP)
        if any(loop.kind == "parallel" for loop in loops):
            block["x"] = max(block["x"], THREADS)
        grid["x"] = _most_blocks(loops, block["x"])
    elif parallel is not None:
        if any(loop.kind in ("block", "thread") for loop in loops):
            raise CompileError(f"{kernel.label}: a parallel loop is blocks of threads: no other may be there.")
        extent = parallel.index.extent
        block["x"] = min(THREADS, max(WARP, -(-extent // WARP) * WARP)) if isinstance(extent, int) else THREADS
        grid["x"] = ceildiv(extent, block["x"])
    threads = block["x"] * block["y"] * block["z"]
    if threads > MOST_THREADS:
        raise CompileError(f"{kernel.label}: {threads} threads in a block, of which {MOST_THREADS} is the most.")
    _, shared = pooled(kernel)
    return Geometry((grid["x"], grid["y"], grid["z"]), (block["x"], block["y"], block["z"]), shared)


def is_cooperative(kernel: Kernel) -> bool:
    """Whether all blocks of the kernel have to run at once. It then takes any number of blocks along x."""
    whole = kernel.body[0] if len(kernel.body) == 1 else None
    return has_rounds(kernel) and not (isinstance(whole, For) and whole.kind == "block")


def has_rounds(kernel: Kernel) -> bool:
    """Whether the kernel goes through rounds by itself."""
    return any(isinstance(s, Rounds) for s in statements(kernel.body))


def _most_blocks(loops: Sequence[For], threads: int) -> Dim:
    """How many blocks of so many threads find something to do."""
    most: Dim = 1
    for loop in loops:
        if loop.kind in ("block", "parallel") and all(isinstance(a, Symbol) for a in atoms(loop.index.extent)):
            blocks = loop.index.extent if loop.kind == "block" else ceildiv(loop.index.extent, threads)
            most = maximum(most, blocks)
    return most


def pooled(kernel: Kernel) -> tuple[dict[Buffer, Dim], Dim]:
    """Shared buffers that are not declared one by one, and where they lie in the bytes that a launch asks for; how many
    these are.

    They are those that cannot be declared with a static extent; and all of a kernel of which some belong to one side of
    a condition, for both sides can have the same bytes. So can loops over blocks that follow each other.
    """
    places: dict[Buffer, Dim] = {}
    sides = [(*s.then, *s.orelse) for s in statements(kernel.body) if isinstance(s, If)]
    if is_cooperative(kernel) or any(map(_has_shared, sides)):
        return places, _placed(kernel.body, 0, places)
    static = 0
    total: Dim = 0
    for s in statements(kernel.body):
        if isinstance(s, Alloc) and s.buffer.space == "shared":
            size = _bytes(s.buffer)
            if isinstance(size, int) and static + size <= STATIC_SHARED:
                static += size
            else:
                places[s.buffer] = total
                total = total + ceildiv(size, ALIGNED) * ALIGNED
    return places, total


def is_greedy(kernel: Kernel) -> bool:
    """Whether it has a tile so large that the compiler takes more registers than leave room for others, unless it is
    told. Of others it makes more than they need when it is told how many there are. Where threads go through rounds it
    takes too few: it wants several blocks beside each other, for which there is no other room."""
    held = [s.buffer for s in statements(kernel.body) if isinstance(s, Alloc) and s.buffer.space == "register"]
    return has_rounds(kernel) or any(isinstance(n := product(b.shape), int) and n >= GREEDY for b in held)


def _placed(body: tuple[Stmt, ...], first: Dim, places: dict[Buffer, Dim]) -> Dim:
    """Lay the shared buffers of `body` out from byte `first` on; the first byte after them."""
    last = first
    for s in body:
        match s:
            case Alloc() if s.buffer.space == "shared":
                places[s.buffer] = first
                first = first + ceildiv(_bytes(s.buffer), ALIGNED) * ALIGNED
            case For() if s.kind == "block":
                last = maximum(last, _placed(s.body, first, places))
            case For() | Rounds():
                first = _placed(s.body, first, places)
            case If():
                first = maximum(_placed(s.then, first, places), _placed(s.orelse, first, places))
    return maximum(first, last)


def _has_shared(body: tuple[Stmt, ...]) -> bool:
    return any(isinstance(s, Alloc) and s.buffer.space == "shared" for s in statements(body))


def _bytes(b: Buffer) -> Dim:
    return product(b.shape) * dtypes.named(b.dtype).bytes
