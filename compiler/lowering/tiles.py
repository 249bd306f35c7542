"""Products on the CPU: register tiles over packed panels, with whatever consumes the product in the epilogue.

The row program of a product has one fold, the sum of x * w; an outer axis belongs to the operands that change along it:
    lanes   the last outer axis: neighbouring elements of the result are the lanes of vectors
    columns other axes of the operand that changes along the lanes
    rows    axes of the other operand, seen as one
    batch   axes of both
A tile is `rows x width` numbers in registers; its inner loop over the summed axis loads one vector of the lanes'
operand and one number of each row. The lanes' operand is read in place if its lanes are neighbours in memory and its
rows short; else another kernel packs it into panels [panel, k, width] first, melting its producers. Rows left over by
whole tiles are done one at a time, with the sum split in four to keep the adders busy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Buffer,
    Cast,
    Const,
    CopyTransposed,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Let,
    Load,
    Local,
    Prefetch,
    Rewriter,
    Stmt,
    Store,
    expressions,
)
from gnomon.compiler.lowering.cpu import less
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.taps import Edge
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import (
    Atom,
    Dim,
    Index,
    Size,
    atoms,
    ceildiv,
    coefficient,
    floordiv,
    known_factor,
    maximum,
    modulo,
    product,
)
from gnomon.compiler.targets import Target

IN_PLACE = 64
"""The lanes' operand is read in place if its rows have at most this many numbers: then its panels are nearly packed."""
FEW_ROWS = 8
"""With fewer rows than this, reading an unpacked operand once is cheaper than packing it."""
SHALLOW = 16
"""Rows are read in place, however scattered, if there are fewer terms than this in each sum."""
HELD = 256 << 10
"""Bytes of a panel that one parallel iteration may keep for itself."""
STRIP = 2048
"""Numbers of the result that are kept at hand while few rows are multiplied."""
TOGETHER = 8
"""Terms added to a strip in one pass."""
LINE = 64
"""Bytes that a cache fetches at once."""
RUN = 16
"""Blocks of rows that are done with a panel packed for them."""
FAR, AHEAD = 512, 16
"""Bytes from one row to the next from which rows are asked for before they are packed, and how many rows before."""
PAGE_PART = 512
"""Bytes: numbers that are a multiple of this apart compete for the same places of a cache."""
ASKED = 64
"""Tiles up to which the time to read a panel is worth a question in each of them."""
EVEN = 1.02
"""How much later than possible the last thread may be done."""
BLOCK = 4
"""Tiles of rows that one parallel iteration does, one after the other, with the same panel."""


@dataclass
class Piece:
    """A kernel, the extent of its parallel loop, its arithmetic, and the memory it needs from others. `early`: what it
    computes is the same from call to call. `share`: iterations that do the rows of one share (see `shares`), one share
    after the other; 0 if they are not in this order."""

    kernel: Kernel
    extent: Dim
    flops: Dim
    scratch: tuple[Buffer, ...] = ()
    early: bool = False
    share: Dim = 0


@dataclass(frozen=True)
class Panels:
    """An operand packed as [axes, panel, k, width]: `width` neighbouring lanes (or rows) of it for each k together.

    at      the indices of the operand's axes at a lane
    alone   only one panel is kept at a time: [k, width]
    """

    operand: Expr
    axes: tuple[Index, ...]
    summed: tuple[Index, ...]
    extent: Dim
    width: int
    at: Callable[[Dim], dict[Index, Dim]]
    alone: bool = False

    @property
    def count(self) -> Dim:
        return ceildiv(self.extent, self.width)

    @property
    def total(self) -> Dim:
        return product(a.extent for a in self.axes) * self.count

    @property
    def exact(self) -> bool:
        """Whether the last panel is full."""
        return isinstance(self.extent, int) and self.extent % self.width == 0

    def place(self, panel: Dim) -> Dim:
        """Where the lanes of k begin in a panel."""
        place: Dim = 0
        if not self.alone:
            for a in self.axes:
                place = place * a.extent + Size.of(a)
            place = place * self.count + panel
        for a in self.summed:
            place = place * a.extent + (Size.of(a) if a.extent != 1 else 0)
        return place * self.width


Step = Callable[[int, int], tuple[Stmt, ...]]
"""What is done for some rows of a tile: the first, and how many."""


@dataclass(frozen=True)
class Tile:
    rows: int
    width: int


def tile_for(target: Target, dtype: str, extent: Dim, rows_of: int = 0) -> Tile:
    """The register tile for a result whose lanes' axis has `extent` elements; `rows_of`: what its rows must divide."""
    lanes = target.lanes(dtypes.named(dtype).bits)
    # rows and registers of a tile; the width is a power of two, for LLVM takes other vectors apart into single numbers
    shapes: tuple[tuple[int, int], ...]
    if target.registers >= 32:
        shapes = ((8, 2), (8, 1))
    elif target.registers >= 16:
        shapes = ((4, 2), (6, 1))
    else:
        shapes = ((2, 2), (2, 1))
    shapes = tuple(s for s in shapes if not rows_of or rows_of % s[0] == 0)
    if not isinstance(extent, int):
        return Tile(shapes[0][0], shapes[0][1] * lanes)

    def waste(shape: tuple[int, int]) -> float:
        rows, vectors = shape
        width = vectors * lanes
        padded = -(-extent // width) * width
        intensity = rows * vectors / (rows + vectors)  # products for each number loaded
        return padded / max(extent, 1) * (1 + 0.12 / intensity)

    rows, vectors = min(shapes, key=waste)
    return Tile(rows, vectors * lanes)


@dataclass
class Product:
    """A row program taken apart: fold of left * right, and the stages after it."""

    rows: RowProgram
    total: Local
    left: Expr  # changes along the rows
    right: Expr  # changes along the lanes
    summed: tuple[Index, ...]
    lanes: Index
    columns: tuple[Index, ...]
    row_axes: tuple[Index, ...]
    batch: tuple[Index, ...]
    after: list[Stage]

    @classmethod
    def of(cls, rows: RowProgram) -> Product | None:
        first, *after = rows.stages
        if len(first.folds) != 1 or first.stores or first.lets or not rows.outer or rows.scratch:
            return None
        total, kind, body = first.folds[0]
        if kind != "sum" or not isinstance(body, Apply) or body.fn.name != "multiply" or any(s.axes for s in after):
            return None
        x, w = body.args
        lanes = rows.outer[-1]
        along = [axes_of(x), axes_of(w)]
        if lanes in along[0] and lanes not in along[1]:
            x, w = w, x
            along.reverse()
        elif not (lanes in along[1] and lanes not in along[0]):
            return None
        others = rows.outer[:-1]
        batch = tuple(a for a in others if a in along[0] and a in along[1])
        columns = tuple(a for a in others if a in along[1] and a not in along[0])
        row_axes = tuple(a for a in others if a not in batch and a not in columns)
        return cls(rows, total, x, w, first.axes, lanes, columns, row_axes, batch, after)


def axes_of(e: Expr) -> set[Index]:
    """Loop indices that an expression depends on."""
    found: set[Index] = set()
    for x in expressions([e]):
        for d in x.index if isinstance(x, Load) else (x.size,) if isinstance(x, IndexValue) else ():
            found |= {a for a in atoms(d) if isinstance(a, Index)}
    return found


class Schedule:
    def __init__(
        self,
        p: Product,
        target: Target,
        tile: Tile | None = None,
        constant: frozenset[str] = frozenset(),
        share: Dim = 0,
        edges: tuple[Edge, ...] = (),
    ):
        """`share`: how many rows of the first axis neighbouring parallel iterations are to do; 0: in any order.
        `edges`: where taps meet nothing."""
        self.p, self.target, self.constant = p, target, constant
        self.edges = {e.tap: e for e in edges if e.row in p.row_axes and e.tap in p.summed}
        self.dtype = p.total.dtype
        self.share = share
        self.rows = product(a.extent for a in p.row_axes)
        self.tile = tile or self._fitting(tile_for(target, self.dtype, p.lanes.extent, known_factor(share)))
        self.depth = product(a.extent for a in p.summed)
        self.panels = ceildiv(p.lanes.extent, self.tile.width)
        self.lane = Index(f"l{self.tile.width}", self.tile.width)
        self.left: Buffer | None = None  # packed operands
        self.right: Buffer | None = None
        self.chunks = 0  # vectors of a strip, if the result is computed by strips
        self.alone = False  # the packed lanes are one panel, of the parallel iteration's own
        self.flops: Dim = 0
        self.counter = 0
        self.allocs: list[Buffer] = []

    def _fitting(self, tile: Tile) -> Tile:
        """The tile with a row or two less if their number is surely a multiple of that, as 7x7 places are of 7: single
        rows take several times as long as those of a tile."""
        if self.share != 0 or tile.rows < 8:
            return tile
        factor = known_factor(self.rows)
        fitting = [r for r in range(tile.rows, tile.rows - 3, -1) if factor % r == 0]
        rows = [e.row.extent for e in self.edges.values()]
        best = [r for r in fitting if all(n % r == 0 for n in rows)]  # and all taps that meet nothing can be told
        return next((Tile(r, tile.width) for r in (*best, *fitting)), tile)

    def run(self, label: str) -> list[Piece]:
        p = self.p
        self.flops = 2 * product(a.extent for a in p.rows.outer) * self.depth
        if isinstance(self.rows, int) and self.rows < FEW_ROWS and self.contiguous():
            wide = self._wide()
            wide.share = self.share
            return [wide._main(label, self.flops)]
        pieces: list[Piece] = []
        if self.share != 0 and not p.batch:
            return self._by_shares(label)
        early = self._packed_early()
        if early:
            self.right, piece = self._pack(self._right_panels(), "lanes", label)
            piece.early = True
            pieces.append(piece)
        elif self._held():
            self.alone = True
            self.right = Buffer("lanes", self.dtype, (self.depth * self.tile.width,), "local")
        elif not (self.contiguous() and self._short()):
            self.right, piece = self._pack(self._right_panels(), "lanes", label)
            pieces.append(piece)
        if self._scattered():
            self.left, piece = self._pack(self._left_panels(), "rows", label)
            pieces.append(piece)
        pieces.append(self._main(label, self.flops))
        if self._perhaps_few() and self.right is not None and self.contiguous():
            few = maximum(0, 1 - floordiv(self.rows, FEW_ROWS))  # 1 if there are few rows, else 0: one way does not run
            for piece in pieces:
                if not piece.early:
                    piece.extent = piece.extent * (1 - few)
            plain = self._wide()._main(f"{label} few rows", self.flops)
            plain.extent = plain.extent * few
            pieces.append(plain)
        return pieces

    def can_share(self) -> bool:
        """Whether the first axis is one of rows alone, or of a batch of products."""
        first = self.p.rows.outer[:1]
        if self.p.batch:
            return self.p.batch[:1] == first and isinstance(self.rows, int)
        return self.p.row_axes == first

    def _by_shares(self, label: str) -> list[Piece]:
        """The rows of a share with all lanes, then the next ones."""
        pieces: list[Piece] = []
        if self._packed_early():
            self.right, piece = self._pack(self._right_panels(), "lanes", label)
            piece.early = True
            pieces.append(piece)
        elif not self.contiguous():
            self.right, piece = self._pack(self._right_panels(), "lanes", label)
            pieces.append(piece)
        panel, tiles = Index("panel", self.panels), Index("tiles", ceildiv(self.rows, self.share))
        self.panel = Size.of(panel) if panel.extent != 1 else 0
        t = self._index("t", floordiv(self.share, self.tile.rows))
        at = Size.of(tiles) * self.share + Size.of(t) * self.tile.rows
        body = self._tile(at)
        if not (isinstance(self.rows, int) and isinstance(self.share, int) and self.rows % self.share == 0):
            r = self._index("r", self.tile.rows)
            rest = For(r, (If(less(at + Size.of(r), self.rows), self._row(at + Size.of(r))),))
            body = (If(less(at + (self.tile.rows - 1), self.rows), body, (rest,)),)
        main = self._kernel((For(t, body),), [tiles, *self.p.columns, panel], label, self.flops)
        main.share = product(a.extent for a in (*self.p.columns, panel))
        return [*pieces, main]

    def _perhaps_few(self) -> bool:
        """Whether the rows' number is symbolic, and not a multiple of many."""
        return not isinstance(self.rows, int) and known_factor(self.rows) < FEW_ROWS

    def _wide(self) -> Schedule:
        """The schedule for few rows: one row at a time. Where the result is long, strips of it stay in the nearest
        cache while rows of the lanes' operand run by, several at once: what is read are long runs of memory."""
        lanes = self.target.lanes(dtypes.named(self.dtype).bits)
        width = 4 * lanes
        extent = self.p.lanes.extent
        if isinstance(extent, int):
            while width > lanes and (width // 2 >= extent or extent // width < self.target.threads):
                width //= 2
        schedule = Schedule(self.p, self.target, Tile(1, width))
        strip = STRIP
        if isinstance(extent, int):
            while strip > width and extent // strip < self.target.threads:
                strip //= 2
        if strip >= 4 * width:
            schedule.chunks = strip // width
        return schedule

    # ---- operands

    def contiguous(self) -> bool:
        """Whether lanes are neighbours in memory, read by a plain load."""
        e = read(self.p.right)
        return e is not None and coefficient(e.index[0], self.p.lanes) == 1

    def _packed_early(self) -> bool:
        """Whether the lanes' operand is packed once for all calls: it stays the same, and is not in panels already."""
        if not self.constant or any(b.name not in self.constant for b in loads([self.p.right])):
            return False
        sizes = [self.depth, *(a.extent for a in (*self.p.batch, *self.p.columns)), self.p.lanes.extent]
        if not all(isinstance(d, int) for d in sizes):
            return False
        return not (self.contiguous() and self._exact() and self.panels == 1)

    def _short(self) -> bool:
        """Whether in place is as good as packed: short rows, or too little work for packing to pay."""
        extent = self.p.lanes.extent
        if isinstance(extent, int) and extent <= max(IN_PLACE, self.tile.width):
            return True
        return isinstance(self.rows, int) and self.rows <= 2 * self.tile.rows

    def _held(self) -> bool:
        """Whether one panel fits the cache next to a core, so that each parallel iteration packs its own."""
        if self.contiguous() and self._short():
            return False
        size = self.depth * self.tile.width * dtypes.named(self.dtype).bytes
        others = product(a.extent for a in (*self.p.batch, *self.p.columns)) * self.panels
        enough = not isinstance(others, int) or others >= 2 * self.target.threads
        return isinstance(size, int) and size <= min(HELD, self.target.l2 // 2) and enough

    def _scattered(self) -> bool:
        """Whether the numbers that a row reads one after the other are far apart: then rows are packed too."""
        e, (*_, last) = read(self.p.left), self.p.summed
        if e is None or (isinstance(self.depth, int) and self.depth < SHALLOW) or self.tile.rows == 1:
            return False
        stride = coefficient(e.index[0], last)
        if isinstance(stride, int):  # a power of two apart they fall into few sets of the cache
            return stride != 1 and stride * dtypes.named(e.dtype).bytes % PAGE_PART == 0
        return True

    def _right_panels(self) -> Panels:
        p = self.p
        axes = (*p.batch, *p.columns)
        return Panels(p.right, axes, p.summed, p.lanes.extent, self.tile.width, lambda at: {p.lanes: at}, self.alone)

    def _left_panels(self) -> Panels:
        return Panels(self.p.left, self.p.batch, self.p.summed, self.rows, self.tile.rows * BLOCK, self._rows_at)

    def _pack(self, panels: Panels, name: str, label: str) -> tuple[Buffer, Piece]:
        """The kernel that fills panels with an operand, and where they are."""
        packed = Buffer(name, self.dtype, (panels.total * self.depth * panels.width,))
        panel = Index("panel", panels.count)
        body = self._filled(panels, packed, Size.of(panel))
        outer = Index("p", panels.total)
        body = self._decode(body, outer, [*panels.axes, panel])
        reads = loads([panels.operand])
        kernel = Kernel(reads, (packed,), (For(outer, body, "parallel"),), label=f"pack {label}")
        return packed, Piece(kernel, outer.extent, 0, (packed,))

    def _filled(self, panels: Panels, packed: Buffer, panel: Dim) -> tuple[Stmt, ...]:
        """Statements that fill one panel."""
        return self._turned(panels, packed, panel) or self._copied(panels, packed, panel)

    def _copied(self, panels: Panels, packed: Buffer, panel: Dim) -> tuple[Stmt, ...]:
        """One vector of a panel for each k, whatever it takes to compute its lanes."""
        lane = Index(f"l{panels.width}", panels.width)
        body = (*self._asked_for(panels, panel), *self._vectors(panels, packed, panel, Size.of(lane), lane))
        for a in reversed(self.p.summed):
            body = (For(a, body),)
        return body

    def _asked_for(self, panels: Panels, panel: Dim) -> tuple[Stmt, ...]:
        """The lines that a panel will need of rows further on: too far apart for the machine to foresee them."""
        e, (*_, last) = panels.operand, panels.summed
        if not isinstance(e, Load) or e.mask is not None:
            return ()
        lane, size = Index("lane", panels.extent), dtypes.named(self.dtype).bytes
        place = placed(e, panels.at(Size.of(lane)))
        assert isinstance(place, Load)
        stride = coefficient(e.index[0], last)
        if coefficient(place.index[0], lane) != 1 or not isinstance(stride, int) or stride * size < FAR:
            return ()
        later = {last: Size.of(last) + AHEAD, lane: panel * panels.width}
        first = Rewriter(index=lambda a: later.get(a) if isinstance(a, Index) else None).size(place.index[0])
        return tuple(Prefetch(e.buffer, first + k) for k in range(0, panels.width, LINE // size))

    def _vectors(self, panels: Panels, packed: Buffer, panel: Dim, within: Dim, lane: Index) -> tuple[Stmt, ...]:
        """The lanes `within` a panel at one k, zero beyond the operand's last."""
        at = panel * panels.width + within
        place = panels.place(panel) + within
        store: tuple[Stmt, ...] = (Store(packed, (place,), placed(panels.operand, panels.at(at))),)
        if not panels.exact:
            store = (Store(packed, (place,), Const(self.dtype, 0)), If(less(at, panels.extent), store))
        return (For(lane, store, "vector"),)

    def _turned(self, panels: Panels, packed: Buffer, panel: Dim) -> tuple[Stmt, ...] | None:
        """An operand whose neighbours in memory are along k: square blocks turned over in registers, else None."""
        e, (*outer, last) = panels.operand, panels.summed
        size = self.target.lanes(dtypes.named(self.dtype).bits)
        if not isinstance(e, Load) or e.mask is not None or size < 4 or panels.width % size:
            return None
        lane = Index("lane", panels.extent)
        place = placed(e, panels.at(Size.of(lane)))
        assert isinstance(place, Load)
        stride = coefficient(place.index[0], lane)
        if coefficient(place.index[0], last) != 1 or stride is None or (isinstance(stride, int) and stride < size):
            return None
        if isinstance(last.extent, int) and last.extent < size:
            return None
        part = self._index("part", panels.width // size)
        block = self._index("kb", floordiv(last.extent, size))
        first = panel * panels.width + Size.of(part) * size
        source = Rewriter(index=lambda a: first if a is lane else Size.of(block) * size if a is last else None)
        target = Rewriter(index=lambda a: Size.of(block) * size if a is last else None)
        turn: Stmt = CopyTransposed(
            packed,
            target.size(panels.place(panel)) + Size.of(part) * size,
            panels.width,
            e.buffer,
            source.size(place.index[0]),
            stride,
            size,
        )
        vector = Index(f"l{size}", size)
        within = Size.of(part) * size + Size.of(vector)
        plain = self._vectors(panels, packed, panel, within, vector)
        if not panels.exact:
            k = self._index("k", size)
            edge = Rewriter(index=lambda a: Size.of(block) * size + Size.of(k) if a is last else None).body(plain)
            turn = If(less(first + (size - 1), panels.extent), (turn,), (For(k, edge),))
        body: list[Stmt] = [For(block, (turn,))]
        rest = last.extent - floordiv(last.extent, size) * size
        if rest != 0:
            k = self._index("k", rest)
            after = floordiv(last.extent, size) * size + Size.of(k)
            body.append(For(k, Rewriter(index=lambda a: after if a is last else None).body(plain)))
        nest: tuple[Stmt, ...] = (For(part, tuple(body)),)
        for a in reversed(outer):
            nest = (For(a, nest),)
        return nest

    def _exact(self) -> bool:
        extent = self.p.lanes.extent
        return isinstance(extent, int) and extent % self.tile.width == 0

    # ---- the product

    def _main(self, label: str, flops: Dim) -> Piece:
        p, tile = self.p, self.tile
        panel = Index("panel", self.panels)
        block = tile.rows * BLOCK
        blocks = ceildiv(self.rows, block)
        if self.chunks:
            panel = Index("panel", ceildiv(p.lanes.extent, self.chunks * tile.width))
        self.panel = Size.of(panel) if panel.extent != 1 else 0
        body: tuple[Stmt, ...]
        if self.right is not None:  # a run of blocks with the same panel, so that it stays in the nearest caches
            several = self._run()
            run = Index("run", ceildiv(blocks, several))
            first = Size.of(run) * several if run.extent != 1 else 0
            b = Index("block", blocks if run.extent == 1 and isinstance(blocks, int) else several)
            self.block = first + (Size.of(b) if b.extent != 1 else 0)
            body = self._block(self.block * block, block)
            if not isinstance(blocks, int) or (run.extent != 1 and blocks % several):
                body = (If(less(self.block, blocks), body),)
            body = (For(b, body),)
            if self.alone:  # packed once for the run
                body = (*self._filled(self._right_panels(), self.right, self.panel), *body)
                self.allocs.append(self.right)
            axes = [*p.batch, *p.columns, run, panel]
        else:
            b = Index("block", blocks)
            self.block = Size.of(b) if b.extent != 1 else 0
            body = self._block(self.block * block, block)
            axes = [*p.batch, *p.columns, b, panel]
        return self._kernel(body, axes, label, flops)

    def _kernel(self, body: tuple[Stmt, ...], axes: list[Index], label: str, flops: Dim) -> Piece:
        """The parallel loop over `axes`, the first slowest, around a body that does some rows of one panel."""
        p = self.p
        extent = product(a.extent for a in axes)
        outer = Index("p", extent)
        body = self._decode(body, outer, axes)
        unpacked = self.right is None or self.alone
        operands = loads([p.left] if self.left is None else []) + loads([p.right] if unpacked else [])
        values = epilogue(p)
        packed = tuple(b for b in (self.left, self.right) if b is not None and b.space == "global")
        reads = tuple(dict.fromkeys([*operands, *loads(values), *packed]))
        allocs = tuple(Alloc(x) for x in self.allocs)
        kernel = Kernel(reads, p.rows.writes, (*allocs, For(outer, body, "parallel")), label=label)
        rows = self.share * product(a.extent for a in axes[1:]) if p.batch else 0
        return Piece(kernel, extent, flops, share=rows)

    def _run(self) -> int:
        """Blocks of rows done one after the other with the same panel: many, but so that all threads are done at about
        the same time, and that the rows are still near when the next panel comes."""
        others = product(a.extent for a in (*self.p.batch, *self.p.columns)) * self.panels
        if not isinstance(others, int):
            return RUN if self.alone else 1
        block = self.tile.rows * BLOCK
        rows = known_factor(self.rows)  # of one picture, where their number is symbolic
        most = RUN if self.alone else min(RUN, max(1, self.target.l2 // 2 // (block * self._row_bytes())))
        least = most // 2 if self.alone else 1  # each packs its panel
        ends = {n: _ending(rows, n * block, others, self.target.threads) for n in range(max(1, least), most + 1)}
        return max(n for n in ends if ends[n] <= EVEN * min(ends.values()))

    def _row_bytes(self) -> int:
        """About how much of memory a row reads and writes that its neighbours do not."""
        own = self.p.summed[-1].extent if len(self.p.summed) > 1 else self.depth
        values = [e for e in expressions(epilogue(self.p)) if isinstance(e, Load)]
        places = [*(e.index[0] for e in values), *(index[0] for s in self.p.after for _, index, _ in s.stores)]
        along = sum(any(coefficient(i, a) != 0 for a in self.p.row_axes) for i in places)
        numbers = [n if isinstance(n, int) else 1 for n in (own, self.p.lanes.extent)]
        return max(1, numbers[0] + along * numbers[1]) * dtypes.named(self.dtype).bytes

    def _decode(self, body: tuple[Stmt, ...], outer: Index, axes: list[Index]) -> tuple[Stmt, ...]:
        """Indices of `axes` from the position of the parallel loop, the last axis fastest."""
        change: dict[Index, Dim] = {}
        rest: Dim = Size.of(outer)
        for k, a in enumerate(reversed(axes)):
            if all(x.extent == 1 for x in axes[: len(axes) - k]):
                change.update(dict.fromkeys(axes[: len(axes) - k], 0))
                break
            if k == len(axes) - 1 or all(x.extent == 1 for x in axes[: len(axes) - k - 1]):
                change[a] = rest
            else:
                change[a], rest = modulo(rest, a.extent), floordiv(rest, a.extent)
                continue
            change.update(dict.fromkeys(axes[: len(axes) - k - 1], 0))
            break
        return Rewriter(index=lambda x: change.get(x) if isinstance(x, Index) else None).body(body)

    def _block(self, start: Dim, block: int) -> tuple[Stmt, ...]:
        """`block` rows from `start` on: whole tiles, then single rows."""
        tile, rows = self.tile, self.rows
        if tile.rows == 1 or (isinstance(rows, int) and rows < tile.rows):
            r = self._index("r", min_of(rows, block))
            single = self._strip(start + Size.of(r)) if self.chunks else self._row(start + Size.of(r))
            surely = isinstance(rows, int) and (rows <= block or rows % block == 0)
            return (For(r, single if surely else (If(less(start + Size.of(r), rows), single),)),)
        t = self._index("t", min(BLOCK, rows // tile.rows) if isinstance(rows, int) else BLOCK)
        at = start + Size.of(t) * tile.rows
        body = self._tile(at)
        if not (isinstance(rows, int) and rows % block == 0):
            body = (If(less(at + (tile.rows - 1), rows), body),)
        result: list[Stmt] = [For(t, body)]
        if not (isinstance(rows, int) and rows % tile.rows == 0):  # rows that no whole tile covers: in the last block
            first = floordiv(rows, tile.rows) * tile.rows
            r = self._index("r", rows - first)
            rest = For(r, self._row(first + Size.of(r)))
            last = floordiv(rows - 1, block) * block
            result.append(If(_equal(start, last), (rest,)) if start != 0 else rest)
        return tuple(result)

    def _tile(self, at: Dim) -> tuple[Stmt, ...]:
        """A whole tile: rows at … at + tile.rows - 1."""
        tile, lane = self.tile, Size.of(self.lane)
        acc = self._register(tile.rows)
        r = self._index("u", tile.rows)
        own = Size.of(r) * tile.width + lane
        zero = For(r, (For(self.lane, (Store(acc, (own,), Const(self.dtype, 0)),), "vector"),), "unroll")

        def step(first: int, count: int) -> tuple[Stmt, ...]:
            """One term of the sums of `count` rows from the `first` on."""
            u = self._index("u", count)
            row = first + Size.of(u)
            own = row * tile.width + lane
            b, right = self._right()
            update = Store(acc, (own,), self._fma(self._left(at + row), b, Load(acc, (own,))))
            term = For(self.lane, (*self._masked_right(b, right), For(u, (update,), "unroll")), "vector")
            return (*self._next_panel(at), term)

        sums = self._summed(step, at)(0, tile.rows)
        finish = For(r, (self._finish(at + Size.of(r), Load(acc, (own,))),), "unroll")
        near = self._prefetched(at + Size.of(r))
        return (zero, *([For(r, near, "unroll")] if near else []), *sums, finish)

    def _next_panel(self, at: Dim) -> tuple[Stmt, ...]:
        """A part of the panel after this one, asked for while the tile at `at` has the processor wait for nothing:
        where all panels together do not stay near a core anyway. Each tile asks for one of a panel's lines."""
        size = dtypes.named(self.dtype).bytes
        lines = self.tile.width * size // LINE
        if self.right is None or lines == 0:
            return ()
        line = modulo(floordiv(at, self.tile.rows), lines) * (LINE // size)
        if self.alone:  # what it will be packed from
            e = read(placed(self.p.right, {self.p.lanes: (self.panel + 1) * self.tile.width + line}))
            many = isinstance(self.rows, int) and self.rows > ASKED * self.tile.rows
            if e is None or many or not self.contiguous():  # its numbers would be of as many lines as it is wide
                return ()
            return (Prefetch(e.buffer, e.index[0]),)
        panels = self._right_panels()
        every = panels.total * self.depth * panels.width
        if isinstance(every, int) and every * size <= self.target.l2 // 4:
            return ()
        return (Prefetch(self.right, panels.place(self.panel) + self.depth * self.tile.width + line),)

    def _summed(self, step: Step, at: Dim) -> Step:
        """`step` for all terms of some rows of the tile at `at`, without those that are surely nothing."""
        for a in reversed(self.p.summed):
            edge = self.edges.get(a)
            if edge is None:
                step = self._each(a, step) if a.extent != 1 else step
                continue
            place = self._rows_at(at)[edge.row]
            later = self.p.row_axes[self.p.row_axes.index(edge.row) + 1 :]
            if known_factor(product(x.extent for x in later)) % self.tile.rows == 0:  # it is the same of all rows
                step = self._met(edge, step, place)
            elif not later and edge.row.extent % self.tile.rows == 0:
                step = self._met_by_some(edge, step, place)
            else:
                step = self._each(a, step)
        return step

    def _each(self, a: Index, step: Step) -> Step:
        return lambda first, count: (For(a, step(first, count)),)

    def _met(self, edge: Edge, step: Step, place: Dim) -> Step:
        """Taps where they meet something, at a place that all rows of a tile share."""
        at = place * edge.stride + Size.of(edge.tap) * edge.dilation
        inside = Apply(scalar("logical_and"), (less(edge.low - 1, at), less(at, edge.high)))
        return lambda first, count: (For(edge.tap, (If(inside, step(first, count)),)),)

    def _met_by_some(self, edge: Edge, step: Step, place: Dim) -> Step:
        """Taps for the rows at which they meet something: some miss the first ones of a line, some its last ones."""
        rows, extent, every = self.tile.rows, edge.row.extent, edge.tap.extent
        assert isinstance(extent, int)
        assert isinstance(every, int)

        def some(tap: int, first: int, count: int) -> tuple[Stmt, ...]:
            change = Rewriter(index=lambda a: tap if a is edge.tap else None)
            return change.body(step(first, count)) if count > 0 else ()

        def taps(first: int, count: int) -> tuple[Stmt, ...]:
            assert (first, count) == (0, rows)
            body: list[Stmt] = []
            for tap in range(every):
                before, after = edge.before(tap, rows), edge.after(tap, rows)
                if extent == rows:
                    body += some(tap, before, rows - before - after)
                    continue
                inside = some(tap, 0, rows)
                if after:
                    inside = (If(_equal(place, extent - rows), some(tap, 0, rows - after), inside),)
                if before:
                    inside = (If(_equal(place, 0), some(tap, before, rows - before), inside),)
                body += inside
            return tuple(body)

        return taps

    def _prefetched(self, row: Dim) -> tuple[Stmt, ...]:
        """The lines that the epilogue of a row will read, asked for before the sums."""
        if isinstance(self.depth, int) and self.depth < SHALLOW:
            return ()
        change = {**self._rows_at(row), self.p.lanes: self.panel * self.tile.width}
        values = epilogue(self.p)
        found: dict[tuple[Buffer, Dim], None] = {}
        for e in expressions(values):
            if isinstance(e, Load) and e.mask is None and coefficient(e.index[0], self.p.lanes) == 1:
                if all(coefficient(e.index[0], a) != 0 for a in self.p.row_axes):
                    place = placed(e, change)
                    assert isinstance(place, Load)
                    line = LINE // dtypes.named(e.dtype).bytes
                    found.update({(e.buffer, place.index[0] + k): None for k in range(0, self.tile.width, line)})
        return tuple(Prefetch(b, place) for b, place in found)

    def _row(self, at: Dim) -> tuple[Stmt, ...]:
        """One row, the innermost summed axis split among four sums."""
        lane, width = Size.of(self.lane), self.tile.width
        parts = 4 if width <= 4 * self.target.lanes(dtypes.named(self.dtype).bits) else 1
        acc = self._register(parts)
        u = self._index("u", parts)
        own = Size.of(u) * width + lane
        zero = For(u, (For(self.lane, (Store(acc, (own,), Const(self.dtype, 0)),), "vector"),), "unroll")
        axes = [a for a in self.p.summed if a.extent != 1]
        result: list[Stmt] = [zero]

        def step(place: Dim | None, part: Dim, last: Index | None) -> Stmt:
            b, right = self._right()
            where = (part * width + lane) if part != 0 else lane
            update = Store(acc, (where,), self._fma(self._left(at), b, Load(acc, (where,))))
            body: tuple[Stmt, ...] = (*self._masked_right(b, right), update)
            if last is not None and place is not None:
                body = Rewriter(index=lambda x: place if x is last else None).body(body)
            return For(self.lane, body, "vector")

        if not axes:
            result.append(step(None, 0, None))
        else:
            last = axes[-1]
            quarter = floordiv(last.extent, parts)
            inner: list[Stmt] = []
            if quarter != 0:
                k = self._index("k", quarter)
                inner.append(For(k, (For(u, (step(Size.of(k) * parts + Size.of(u), Size.of(u), last),), "unroll"),)))
            rest = last.extent - quarter * parts
            if rest != 0:
                k = self._index("k", rest)
                inner.append(For(k, (step(quarter * parts + Size.of(k), 0, last),)))
            nest: tuple[Stmt, ...] = tuple(inner)
            for a in reversed(axes[:-1]):
                nest = (For(a, nest),)
            result += nest
        sums: list[Expr] = [Load(acc, (k * width + lane,)) for k in range(parts)]
        while len(sums) > 1:
            sums = [Apply(scalar("add"), (a, b)) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        total = sums[0]
        result.append(self._finish(at, total))
        return tuple(result)

    def _strip(self, at: Dim) -> tuple[Stmt, ...]:
        """One row of the result, a strip of it at a time: sums kept in a buffer, `TOGETHER` terms added in one pass."""
        width, strip = self.tile.width, self.panel
        sums = Buffer("strip", self.dtype, (self.chunks * width,), "local")
        if sums not in self.allocs:
            self.allocs.append(sums)
        c = self._index("c", self.chunks)
        self.panel = strip * self.chunks + Size.of(c)
        own = (Size.of(c) * width + Size.of(self.lane),)
        extent = self.p.lanes.extent

        def each(*body: Stmt) -> Stmt:
            inside: tuple[Stmt, ...] = body
            if not (isinstance(extent, int) and extent % (self.chunks * width) == 0):
                inside = (If(less(self.panel * width, extent), inside),)
            return For(c, inside)

        def terms(places: list[Dim], last: Index | None) -> Stmt:
            total: Expr = Load(sums, own)
            names: list[Stmt] = []
            ahead: list[Stmt] = []
            for place in places:
                if len(places) == TOGETHER:  # runs of memory far apart, which the machine does not foresee
                    ahead += self._asked_for_later(partial(_moved, last, place + TOGETHER))
                name, right = self._right()
                change = Rewriter(index=partial(_moved, last, place))
                names += change.body(self._masked_right(name, right))
                total = self._fma(change.expr(self._left(at)), name, total)
            return each(*ahead, For(self.lane, (*names, Store(sums, own, total)), "vector"))

        zero = each(For(self.lane, (Store(sums, own, Const(self.dtype, 0)),), "vector"))
        axes = [a for a in self.p.summed if a.extent != 1]
        if not axes:
            nest: tuple[Stmt, ...] = (terms([0], None),)
        else:
            last = axes[-1]
            groups = self._index("k", floordiv(last.extent, TOGETHER))
            done = floordiv(last.extent, TOGETHER) * TOGETHER
            rest = self._index("k", last.extent - done)
            nest = ()
            if groups.extent != 0:
                nest += (For(groups, (terms([Size.of(groups) * TOGETHER + u for u in range(TOGETHER)], last),)),)
            if rest.extent != 0:
                nest += (For(rest, (terms([done + Size.of(rest)], last),)),)
            for a in reversed(axes[:-1]):
                nest = (For(a, nest),)
        finish = each(self._finish(at, Load(sums, own)))
        self.panel = strip
        return (zero, *nest, finish)

    def _asked_for_later(self, change: Callable[[Atom], Dim | None]) -> list[Stmt]:
        """The lines of a strip's vector that are read where the summed axis is further on."""
        e = read(placed(self.p.right, {self.p.lanes: self.panel * self.tile.width}))
        if e is None:
            return []
        (place,) = (Rewriter(index=change).size(i) for i in e.index)
        each = LINE // dtypes.named(e.dtype).bytes
        return [Prefetch(e.buffer, place + k) for k in range(0, self.tile.width, each)]

    def _right(self) -> tuple[Local, Expr]:
        self.counter += 1
        name, lane = Local(f"w{self.counter}", self.dtype), Size.of(self.lane)
        if self.right is not None:
            return name, Load(self.right, (self._right_panels().place(self.panel) + lane,))
        return name, placed(self.p.right, {self.p.lanes: self.panel * self.tile.width + lane})

    def _masked_right(self, name: Local, value: Expr) -> tuple[Stmt, ...]:
        """Name the vector of the lanes' operand, reading nothing beyond the last lane."""
        if self.right is None and not self._exact():
            value = masked(value, less(self.panel * self.tile.width + Size.of(self.lane), self.p.lanes.extent))
        return (Let(name, value),)

    def _left(self, row: Dim) -> Expr:
        if self.left is not None:
            panels = self._left_panels()
            return Load(self.left, (panels.place(self.block) + (row - self.block * panels.width),))
        return placed(self.p.left, self._rows_at(row))

    def _rows_at(self, row: Dim) -> dict[Index, Dim]:
        """Indices of the row axes for row number `row`."""
        change: dict[Index, Dim] = {}
        axes = self.p.row_axes
        for k, a in enumerate(reversed(axes)):
            if k == len(axes) - 1:
                change[a] = row
            else:
                change[a], row = modulo(row, a.extent), floordiv(row, a.extent)
        return change

    def _fma(self, x: Expr, w: Expr, total: Expr) -> Expr:
        return Apply(scalar("fma"), (x, w, total))

    def _finish(self, row: Dim, total: Expr) -> Stmt:
        """The epilogue of one row of the tile: what consumes the product, then the stores."""
        at = self.panel * self.tile.width + Size.of(self.lane)
        self.counter += 1
        inner = finished(self.p, {**self._rows_at(row), self.p.lanes: at}, total, f"y{self.counter}_")
        if not self._exact():
            inner = (If(less(at, self.p.lanes.extent), inner),)
        return For(self.lane, inner, "vector")

    def _register(self, rows: int) -> Buffer:
        self.counter += 1
        b = Buffer(f"acc{self.counter}", self.dtype, (rows * self.tile.width,), "register")
        self.allocs.append(b)
        return b

    def _index(self, name: str, extent: Dim) -> Index:
        self.counter += 1
        return Index(f"{name}{self.counter}", extent)


def epilogue(p: Product) -> list[Expr]:
    """What is computed of a product."""
    return [e for s in p.after for e in [*(x for _, x in s.lets), *(x for _, _, x in s.stores)]]


def finished(p: Product, change: dict[Index, Dim], total: Expr, name: str) -> tuple[Stmt, ...]:
    """What consumes one element of a product, whose value is `total`, then the stores."""
    rewriter = Rewriter(
        lambda e: total if e is p.total else None, lambda a: change.get(a) if isinstance(a, Index) else None
    )
    body: list[Stmt] = []
    stores: list[Stmt] = []
    for s in p.after:
        body += [Let(n, rewriter.expr(e)) for n, e in s.lets]
        for b, index, e in s.stores:  # all values before any store: what is updated in place is read first
            value = Local(f"{name}{len(stores)}", e.dtype)
            body.append(Let(value, rewriter.expr(e)))
            stores.append(Store(b, tuple(rewriter.size(i) for i in index), value))
    return (*body, *stores)


def _moved(last: Index | None, place: Dim, a: Atom) -> Dim | None:
    return place if a is last else None


def _ending(rows: int, run: int, panels: int, threads: int) -> int:
    """When the last thread is done with all panels of all runs of rows, one after the other, in rows."""
    busy = [0] * threads
    for start in range(0, rows, run):
        for _ in range(panels):
            busy[busy.index(min(busy))] += min(run, rows - start)
    return max(busy)


def min_of(a: Dim, b: Dim) -> Dim:
    """The smaller of two sizes."""
    return a + b - maximum(a, b)


def placed(e: Expr, change: dict[Index, Dim]) -> Expr:
    return Rewriter(index=lambda a: change.get(a) if isinstance(a, Index) else None).expr(e)


def read(e: Expr) -> Load | None:
    """The load that an operand is, of a number that is widened perhaps; None if it is more than that."""
    if isinstance(e, Cast) and dtypes.named(e.x.dtype).compute == e.dtype:
        e = e.x
    return e if isinstance(e, Load) and e.mask is None else None


def masked(e: Expr, inside: Expr) -> Expr:
    """`e` with whatever it loads read only where `inside` holds, and 0 elsewhere."""

    def change(x: Expr) -> Expr | None:
        if isinstance(x, Load):
            return Load(x.buffer, x.index, inside if x.mask is None else Apply(scalar("logical_and"), (x.mask, inside)))
        return None

    return Rewriter(change).expr(e)


def loads(roots: list[Expr]) -> tuple[Buffer, ...]:
    return tuple(dict.fromkeys(e.buffer for e in expressions(roots) if isinstance(e, Load)))


def _equal(a: Dim, b: Dim) -> Expr:
    return Apply(scalar("equal"), (IndexValue("int64", a), IndexValue("int64", b)))
