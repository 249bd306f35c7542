"""Convolutions along one axis with long kernels, by minimal filtering in groups of taps, F(4, 4).

A kernel of K taps is K / 4 groups of four. A tile is four outputs, `dilation` apart; group g of its taps reads the
seven inputs that tile number + g reads of the first group, so that inputs are transformed once for all groups, and sums
over groups and channels are taken before the one transform back: seven multiplications where sixteen were.

The pieces: filters transformed to [7, group, channels, lanes] (once, if they stay the same), inputs to
[7, tile, channels], 7 products whose sums go over group and channel, and the transform back with whatever consumes the
convolution. Errors are about ten times those of the plain sum, and an infinity or NaN in the input spreads over a tile.
"""

from __future__ import annotations

from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Load,
    Local,
    Stmt,
    Store,
)
from gnomon.compiler.lowering.cpu import less
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.minimal import Filtering, apart, matrices, planes
from gnomon.compiler.lowering.tiles import Piece, Product, Schedule, epilogue, finished, loads, min_of, placed, read
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, coefficient, floordiv, modulo, product

OUT, TAPS = 4, 4
IN = OUT + TAPS - 1

CHANNELS = 16
"""Channels and filters below which the transforms cost more than they save."""
LONG = 5
"""Taps below which there is too little to save."""
MOVED = 76
"""About how many multiplications the transforms are worth, for each channel and filter of each output."""
FILTER = {True: 210, False: 1000}
"""The same for each channel and filter of a group, to read them transformed (True) or to transform them too."""
GAIN = 0.85
"""The share of the plain schedule's cost that it must be below."""


class LongFilter(Filtering):
    """The schedule of such a convolution with stride 1."""

    # ---- whether

    def fits(self) -> bool:
        """Whether the product is such a convolution, with enough taps and channels, only its batch perhaps symbolic."""
        p = self.p
        if not self.target.winograd or self.dtype != "float32" or p.batch or p.columns or len(p.summed) != 2:
            return False
        left = read(p.left)
        if not 1 <= len(p.row_axes) <= 2 or left is None or read(p.right) is None:
            return False
        (k, c), t = p.summed, p.row_axes[-1]
        extents = [a.extent for a in (k, c, t, p.lanes) if isinstance(a.extent, int)]
        if len(extents) < 4 or extents[0] < LONG or min(extents[1], extents[3]) < CHANNELS:
            return False
        along, tap = coefficient(left.index[0], t), coefficient(left.index[0], k)
        if not isinstance(along, int) or not isinstance(tap, int) or along <= 0 or tap <= 0 or tap % along:
            return False
        if coefficient(left.index[0], c) != 1:
            return False
        self.taps, self.channels, self.length, self.filters = extents
        self.dilation = tap // along
        self.groups = -(-self.taps // TAPS)
        self.count = -(-self.length // (OUT * self.dilation))  # of tiles for each place within OUT * dilation
        return self.gain() < GAIN

    def gain(self) -> float:
        """Its cost as a share of the plain schedule's."""
        pairs = self.channels * self.filters
        tiles = self.count * self.dilation
        products = 2 * IN * self.groups * pairs * tiles
        moved = MOVED * (self.channels + self.filters) * self.length
        read = FILTER[self._constant()] * self.groups * pairs
        return (products + moved + read) / (2 * self.taps * pairs * self.length)

    # ---- the pieces

    def run(self, label: str) -> list[Piece]:
        self.batch = product(a.extent for a in self.p.row_axes[:-1])
        places = self.batch * (self.count + self.groups - 1) * self.dilation
        tiles = self.batch * self.count * self.dilation
        filters = planes(IN, self.groups * self.channels * self.filters, "filters", self.dtype)
        inputs = planes(IN, places * self.channels, "inputs", self.dtype)
        sums = planes(IN, tiles * self.filters, "products", self.dtype)
        return [
            self._filters(filters, label),
            self._inputs(inputs, places, (inputs, sums), label),
            *self._products(inputs, filters, sums, places, tiles, label),
            self._outputs(sums, tiles, label),
        ]

    def _filters(self, out: Buffer, label: str) -> Piece:
        """filters[i, g, c, f] = G w[4 g …, c, f]."""
        k, c = self.p.summed
        lanes = self.p.lanes
        plane = apart(self.groups * self.channels * self.filters)

        def group(g: Dim, taps: int) -> Stmt:
            given: list[Expr] = [placed(self.p.right, {k: g * TAPS + i}) for i in range(taps)]
            given += [Const(self.dtype, 0)] * (TAPS - taps)
            place = lambda i: plane * i + (g * self.channels + Size.of(c)) * self.filters + Size.of(lanes)
            store = lambda i, e: Store(out, (place(i),), e)
            return self._blocks(lanes, self._multiplied(given, matrices(OUT, TAPS).g, store))

        whole = self.taps // TAPS
        g = Index("g", whole)
        body: tuple[Stmt, ...] = (For(g, (group(Size.of(g), TAPS),)),)
        if whole < self.groups:
            body += (group(whole, self.taps - whole * TAPS),)
        kernel = Kernel(loads([self.p.right]), (out,), (For(c, body, "parallel"),), label=f"filters of {label}")
        return Piece(kernel, self.channels, 0, (out,), early=self._constant())

    def _inputs(self, out: Buffer, places: Dim, scratch: tuple[Buffer, ...], label: str) -> Piece:
        """inputs[i, place, c] = B' d; what lies beyond the end is read as the last, and consumed by no one."""
        p = self.p
        (k, c), t = p.summed, p.row_axes[-1]
        v = Index("place", places)
        picture, number, residue = self._decoded(Size.of(v), self.count + self.groups - 1)
        start = number * (OUT * self.dilation) + residue
        last = self.length - 1 + (self.taps - 1) * self.dilation
        at = lambda i: {**dict.fromkeys(p.row_axes[:-1], picture), t: min_of(start + i * self.dilation, last), k: 0}
        plane = apart(places * self.channels)
        store = lambda i, e: Store(out, (plane * i + Size.of(v) * self.channels + Size.of(c),), e)
        given = [placed(p.left, at(i)) for i in range(IN)]
        body = self._blocks(c, self._multiplied(given, matrices(OUT, TAPS).b, store))
        kernel = Kernel(loads([p.left]), (out,), (For(v, (body,), "parallel"),), label=f"tiles of {label}")
        return Piece(kernel, v.extent, 0, scratch)

    def _products(
        self, inputs: Buffer, filters: Buffer, sums: Buffer, places: Dim, tiles: Dim, label: str
    ) -> list[Piece]:
        """products[i, tile, f] = sum over g and c of inputs[i, tile + g, c] * filters[i, g, c, f]."""
        c = self.p.summed[-1]
        i, f = Index("e", IN), Index("f", self.filters)
        rows = [Index("q", self.count)]
        picture: list[Index] = []
        if self.batch != 1:
            picture = [Index("n", self.batch)]
        if self.dilation != 1:
            rows.append(Index("r", self.dilation))
        g = Index("g", self.groups)
        n = Size.of(picture[0]) if picture else 0
        r = Size.of(rows[1]) if self.dilation != 1 else 0
        shift = Size.of(g) if self.groups != 1 else 0
        place = (n * (self.count + self.groups - 1) + Size.of(rows[0]) + shift) * self.dilation + r
        tile = (n * self.count + Size.of(rows[0])) * self.dilation + r
        left = Load(inputs, (Size.of(i) * apart(places * self.channels) + place * self.channels + Size.of(c),))
        plane = apart(self.groups * self.channels * self.filters)
        right = Load(filters, (Size.of(i) * plane + (shift * self.channels + Size.of(c)) * self.filters + Size.of(f),))
        out = Size.of(i) * apart(tiles * self.filters) + tile * self.filters + Size.of(f)
        total = Local("total", self.dtype)
        fold = Stage((g, c), [(total, "sum", Apply(scalar("multiply"), (left, right)))])
        store = Stage((), stores=[(sums, (out,), total)])
        program = RowProgram((i, *picture, *rows, f), (fold, store), (), (inputs, filters), (sums,))
        p = Product.of(program)
        assert p is not None
        constant = frozenset([filters.name]) if self._constant() else frozenset[str]()
        return Schedule(p, self.target, constant=constant).run(f"products of {label}")

    def _outputs(self, sums: Buffer, tiles: Dim, label: str) -> Piece:
        """A' (products of a tile), and what becomes of them."""
        p = self.p
        lanes, t = p.lanes, p.row_axes[-1]
        tile = Index("tile", tiles)
        picture, number, residue = self._decoded(Size.of(tile), self.count)
        found = Buffer("found", self.dtype, (OUT * self.lanes,), "local")
        place = lambda i: apart(tiles * self.filters) * i + Size.of(tile) * self.filters + Size.of(lanes)
        block, vector = Index("block", ceildiv(lanes.extent, self.lanes)), Index(f"l{self.lanes}", self.lanes)
        at, within = Size.of(block) * self.lanes + Size.of(vector), Size.of(vector)
        keep = lambda j, e: Store(found, (self.lanes * j + within,), e)
        given: list[Expr] = [Load(sums, (place(i),)) for i in range(IN)]
        transform = self._vector(lanes, at, vector, self._multiplied(given, matrices(OUT, TAPS).a, keep))
        j = Index("j", OUT)
        y = number * (OUT * self.dilation) + residue + Size.of(j) * self.dilation
        change = {**dict.fromkeys(p.row_axes[:-1], picture), t: y, lanes: at}
        total = Load(found, (Size.of(j) * self.lanes + within,))
        inner: Stmt = self._vector(lanes, at, vector, finished(p, change, total, "y"))
        if self.length % (OUT * self.dilation):
            inner = If(less(y, self.length), (inner,))
        body = For(block, (transform, For(j, (inner,))))
        reads = tuple(dict.fromkeys([sums, *loads(epilogue(p))]))
        kernel = Kernel(reads, p.rows.writes, (Alloc(found), For(tile, (body,), "parallel")), label=label)
        return Piece(kernel, tile.extent, 0)

    def _decoded(self, place: Dim, count: int) -> tuple[Dim, Dim, Dim]:
        """Picture, number and place within OUT * dilation of a tile, of which a picture has `count` * dilation."""
        residue, rest = modulo(place, self.dilation), floordiv(place, self.dilation)
        return floordiv(rest, count), modulo(rest, count), residue
