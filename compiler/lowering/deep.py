"""Products whose sums are long: a kernel's gradient sums over every position of every picture.

Neither operand's panel of the whole sum would stay in a cache. One parallel iteration has a range of rows and one panel
of lanes; it goes through the sum in chunks: the lanes' operand of one chunk is packed next to it, then each tile of its
rows takes its sums so far from a buffer, adds the chunk, and puts them back. Where rows and lanes alone are too few to
share among threads, the sum is cut into `PARTS` parts, whose sums another kernel adds up; how many depends on sizes
that are known, never on the machine, so that the result is the same for any number of threads.
"""

from __future__ import annotations

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    Alloc,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Local,
    Prefetch,
    Rewriter,
    Stmt,
    Store,
)
from gnomon.compiler.lowering import cpu
from gnomon.compiler.lowering.cpu import less
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.tiles import FEW_ROWS, Panels, Piece, Product, Schedule, Tile, epilogue, loads, min_of
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, floordiv, known_factor, maximum, modulo, product
from gnomon.compiler.targets import Target

LONG = 4096
"""Terms from which a sum is gone through in chunks."""
POSITIONS = 32
"""The same for sums over a symbolic axis and so many terms for each of it."""
SOON = 8
"""Rows before their epilogue that what it reads is asked for."""
CHUNK = 512
"""Terms of a chunk."""
PARTS = 8
"""Into how many parts a sum is cut whose result is small."""
SHARES = 6
"""Parallel iterations below which a sum is cut."""
RANGE = 64 << 10
"""Bytes of the sums of one parallel iteration."""


class Deep(Schedule):
    """The schedule of a product with long sums."""

    def __init__(self, p: Product, target: Target, constant: frozenset[str] = frozenset()):
        super().__init__(p, target, constant=constant)
        self.usual = self.tile.rows
        if isinstance(self.rows, int):
            self.tile = Tile(rows_for(self.rows, self.tile, target, self.dtype), self.tile.width)
        self.range = self._range()
        self.ranges = ceildiv(self.rows, self.range)
        shares = product(a.extent for a in (*p.batch, *p.columns)) * self.panels * self.ranges
        self.parts = PARTS if isinstance(shares, int) and shares < SHARES else 1

    def pays(self) -> bool:
        """Whether the sums are long, and the rows enough for tiles."""
        if isinstance(self.rows, int) and self.rows < min(FEW_ROWS, self.usual):
            return False
        if self._packed_early() and isinstance(self.depth, int):  # then one panel may be larger: it is only read
            size = self.depth * self.tile.width * dtypes.named(self.dtype).bytes
            if size <= self.target.l2 * 3 // 4:
                return False
        if isinstance(self.depth, int):
            return self.depth >= LONG
        return isinstance(self.rows, int) and known_factor(self.depth) >= POSITIONS

    def _range(self) -> int:
        """Rows of one parallel iteration: many, but so that there are some iterations to share."""
        most = RANGE // (self.tile.width * dtypes.named(self.dtype).bytes) // self.tile.rows * self.tile.rows
        others = product(a.extent for a in (*self.p.batch, *self.p.columns)) * self.panels
        while most > 4 * self.tile.rows and isinstance(others, int) and isinstance(self.rows, int):
            if -(-self.rows // most) * others >= 2 * SHARES:
                break
            most = max(4 * self.tile.rows, most // 2 // self.tile.rows * self.tile.rows)
        if isinstance(self.rows, int):  # equal ranges
            count = -(-self.rows // most)
            most = -(-self.rows // count)
            most = -(-most // self.tile.rows) * self.tile.rows
        return most

    # ---- the kernels

    def run(self, label: str) -> list[Piece]:
        p = self.p
        self.flops = 2 * product(a.extent for a in p.rows.outer) * self.depth
        few: Dim = 0
        if self._perhaps_few() and self.contiguous():  # 1 if there are few rows
            few = maximum(0, 1 - floordiv(self.rows, FEW_ROWS))
        partial = None
        if self.parts > 1:
            size = product(a.extent for a in p.rows.outer)
            partial = Buffer("partial", self.dtype, (self.parts * size,))
        pieces = []
        if self._packed_early():
            self.right, piece = self._pack(self._right_panels(), "lanes", label)
            piece.early = True
            pieces.append(piece)
        pieces.append(self._sums(label, partial))
        if partial is not None:
            pieces.append(self._added(label, partial))
        if few != 0:
            for piece in pieces:
                if not piece.early:
                    piece.extent = piece.extent * (1 - few)
            plain = self._wide()._main(f"{label} few rows", self.flops)
            plain.extent = plain.extent * few
            pieces.append(plain)
        return pieces

    def _sums(self, label: str, partial: Buffer | None) -> Piece:
        """The kernel that sums, and finishes unless sums of parts are to be added."""
        p, tile = self.p, self.tile
        range_ = Index("range", self.ranges)
        panel = Index("panel", self.panels)
        self.panel = Size.of(panel) if panel.extent != 1 else 0
        first = Size.of(range_) * self.range if range_.extent != 1 else 0
        sums = Buffer("sums", self.dtype, (self.range * tile.width,), "local")
        self.allocs.append(sums)
        u = self._index("u", self.range)
        lane = Size.of(self.lane)
        own = Size.of(u) * tile.width + lane
        axes = [*p.batch, *p.columns, range_, panel]
        shares = product(a.extent for a in axes)
        outer = Index("p", self.parts * shares)
        part: Dim = floordiv(Size.of(outer), shares) if self.parts > 1 else 0
        zero = For(u, (For(self.lane, (Store(sums, (own,), Const(self.dtype, 0)),), "vector"),))
        body: tuple[Stmt, ...] = (zero, *self._chunks(first, sums, part))
        if partial is None:
            last: Stmt = self._finish(first + Size.of(u), Load(sums, (own,)))
        else:
            last = self._kept(first + Size.of(u), Load(sums, (own,)), partial, part)
        if not (isinstance(self.rows, int) and self.rows % self.range == 0):
            last = If(less(first + Size.of(u), self.rows), (last,))
        near = self._prefetched(first + Size.of(u) + SOON) if partial is None else ()
        body += (For(u, (*near, last)),)
        share = Index("share", shares)
        body = self._decode(body, share, axes)
        place = modulo(Size.of(outer), shares) if self.parts > 1 else Size.of(outer)
        body = Rewriter(index=lambda a: place if a is share else None).body(body)
        values = [] if partial is not None else epilogue(p)
        right = loads([p.right]) if self.right is None or self.alone else (self.right,)
        reads = tuple(dict.fromkeys([*loads([p.left]), *right, *loads(values)]))
        writes = p.rows.writes if partial is None else (partial,)
        allocs = tuple(Alloc(x) for x in self.allocs)
        kernel = Kernel(reads, writes, (*allocs, For(outer, body, "parallel")), label=label)
        return Piece(kernel, outer.extent, self.flops, (partial,) if partial is not None else ())

    def _chunks(self, first: Dim, sums: Buffer, part: Dim) -> tuple[Stmt, ...]:
        """All chunks of the sum (or of a part of it), each added to the sums of all rows from `first` on."""
        p, tile = self.p, self.tile
        packed = self.right  # before all calls
        operands = [p.left, p.right if packed is None else Load(packed, (self._right_place(),))]
        summed = list(p.summed)
        if self.parts > 1:  # a part has a share of the outermost axis
            whole = summed[0]
            share = ceildiv(whole.extent, self.parts)
            own = self._index("s", maximum(0, min_of(share, whole.extent - part * share)))
            operands, summed[0] = self._moved(operands, whole, part * share + Size.of(own)), own
        cut = len(summed) - 1
        inner: Dim = 1
        while cut > 0 and isinstance(e := summed[cut].extent, int) and isinstance(inner, int) and inner * e <= CHUNK:
            inner = inner * e
            cut -= 1
        assert isinstance(inner, int)
        axis = summed[cut]
        step = _even(max(1, CHUNK // inner), axis.extent)
        c = self._index("c", ceildiv(axis.extent, step))
        length: Dim = step
        if not (isinstance(axis.extent, int) and axis.extent % step == 0):
            length = min_of(step, axis.extent - Size.of(c) * step)
        k = self._index("k", length)
        place = Size.of(c) * step + (Size.of(k) if length != 1 else 0)  # no loop runs over an axis of one
        left, right = self._moved(operands, axis, place)
        chunk = (k, *summed[cut + 1 :])
        saved = p.left, p.right, p.summed
        p.left, p.right, p.summed = left, right, chunk
        fill: tuple[Stmt, ...] = ()
        if packed is None and not (self.contiguous() and self._short()):
            self.alone = True
            self.right = Buffer("lanes", self.dtype, (step * inner * tile.width,), "local")
            self.allocs.append(self.right)
            panels = Panels(right, (), chunk, p.lanes.extent, tile.width, lambda at: {p.lanes: at}, True)
            fill = self._filled(panels, self.right, self.panel)
        t = self._index("t", self.range // tile.rows)
        at = first + Size.of(t) * tile.rows
        inside = self._added_tile(at, Size.of(t) * tile.rows, sums, clamp=False)
        body: tuple[Stmt, ...] = inside
        if not (isinstance(self.rows, int) and self.rows % self.range == 0):
            edge: tuple[Stmt, ...] = ()
            if not (isinstance(self.rows, int) and self.rows % tile.rows == 0):
                clamped = self._added_tile(at, Size.of(t) * tile.rows, sums, clamp=True)
                edge = (If(less(at, self.rows), clamped),)
            body = (If(less(at + (tile.rows - 1), self.rows), inside, edge),)
        nest: tuple[Stmt, ...] = (For(c, (*fill, For(t, body))),)
        for a in reversed(summed[:cut]):
            nest = (For(a, nest),)
        p.left, p.right, p.summed = saved
        return nest

    def _right_place(self) -> Dim:
        """Where a vector of the lanes' operand is in the panels that were packed before all calls."""
        return self._right_panels().place(self.panel) + Size.of(self.lane)

    def _right(self) -> tuple[Local, Expr]:
        if self.right is None or self.alone:
            return super()._right()
        self.counter += 1
        return Local(f"w{self.counter}", self.dtype), self.p.right

    def _moved(self, operands: list[Expr], axis: Index, place: Dim) -> list[Expr]:
        rewriter = Rewriter(index=lambda a: place if a is axis else None)
        return [rewriter.expr(e) for e in operands]

    def _added_tile(self, at: Dim, place: Dim, sums: Buffer, clamp: bool) -> tuple[Stmt, ...]:
        """One chunk added to the sums of the rows at …; `clamp`: of rows beyond the last the last is read."""
        tile, lane = self.tile, Size.of(self.lane)
        acc = self._register(tile.rows)
        r = self._index("r", tile.rows)
        own = Size.of(r) * tile.width + lane
        kept = (place + Size.of(r)) * tile.width + lane
        row = at + Size.of(r)
        if clamp:
            row = min_of(row, self.rows - 1)
        take = For(r, (For(self.lane, (Store(acc, (own,), Load(sums, (kept,))),), "vector"),), "unroll")
        name, right = self._right()
        update = Store(acc, (own,), self._fma(self._left(row), name, Load(acc, (own,))))
        ahead: tuple[Stmt, ...] = ()
        later = self._left(at + 2 * tile.rows)
        if len(self.p.row_axes) == 1 and isinstance(later, Load) and later.mask is None:
            ahead = (Prefetch(later.buffer, later.index[0]),)  # of terms in a row each is far from the one before
        step: tuple[Stmt, ...] = (
            *ahead,
            For(self.lane, (*self._masked_right(name, right), For(r, (update,), "unroll")), "vector"),
        )
        for a in reversed(self.p.summed):
            step = (For(a, step),) if a.extent != 1 else step
        put = For(r, (For(self.lane, (Store(sums, (kept,), Load(acc, (own,))),), "vector"),), "unroll")
        return (take, *step, put)

    # ---- sums of parts

    def _kept(self, row: Dim, total: Expr, partial: Buffer, part: Dim) -> Stmt:
        """The sums of one row stored with those of their part."""
        p = self.p
        at = self.panel * self.tile.width + Size.of(self.lane)
        change = {**self._rows_at(row), p.lanes: at}
        place = self._place(part)
        here = Rewriter(index=lambda a: change.get(a) if isinstance(a, Index) else None)
        body: Stmt = Store(partial, (here.size(place),), total)
        if not self._exact():
            body = If(less(at, p.lanes.extent), (body,))
        return For(self.lane, (body,), "vector")

    def _place(self, part: Dim) -> Dim:
        """Where an element of the result is in the sums of a part."""
        place = part
        for a in self.p.rows.outer:
            place = place * a.extent + Size.of(a)
        return place

    def _added(self, label: str, partial: Buffer) -> Piece:
        """The kernel that adds the parts up and finishes."""
        p = self.p
        part = Index("part", self.parts)
        total = Stage((part,), [(p.total, "sum", Load(partial, (self._place(Size.of(part)),)))])
        reads = tuple(dict.fromkeys([partial, *loads(epilogue(p))]))
        rows = RowProgram(p.rows.outer, (total, *p.after), (), reads, p.rows.writes)
        kernel, extent = cpu.kernel(rows, self.target, f"{label} parts")
        return Piece(kernel, extent, 0)


def rows_for(rows: int, tile: Tile, target: Target, dtype: str) -> int:
    """Rows of a tile so that few of its last tile's are idle."""
    lanes = target.lanes(dtypes.named(dtype).bits)
    vectors = max(1, tile.width // lanes)
    most = max(tile.rows, min(12, (target.registers - vectors - 1) // vectors))
    fewest = max(1, min(tile.rows - 2, rows))
    # a tile costs its rows, and what it loads of the lanes' operand
    return min(range(most, fewest - 1, -1), key=lambda r: -(-rows // r) * (r * vectors + vectors + 1))


def _even(step: int, extent: Dim) -> int:
    """A step not above `step` that divides the extent, if there is one that is not much smaller."""
    if isinstance(extent, int):
        if step >= extent:
            return max(1, extent)
        for s in range(step, step // 2, -1):
            if extent % s == 0:
                return s
    return step
