"""3x3 convolutions by minimal filtering, F(4x4, 3x3): a quarter of the multiplications, for a little accuracy.

Lavin, Gray 2015, "Fast Algorithms for Convolutional Neural Networks", section 4.1: a tile of 4x4 outputs is
A' [(G w G') * (B' d B)] A, where d is the tile's 6x6 inputs and * goes element by element; summed over the channels
this is one product for each of the 36 elements.

The pieces: filters transformed to [36, channels, lanes] (once, if they stay the same), tiles of inputs to
[36, tile, channels], 36 products, and the transform back with whatever consumes the convolution. With few channels one
kernel does all that for some tiles at once, which stay in a cache near its core. Errors are about
ten times those of the plain sum, 1e-5 of the largest result, and an infinity or NaN in the input spreads over its tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Local,
    Stmt,
    Store,
)
from gnomon.compiler.lowering.cpu import less
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.minimal import Filtering, apart, matrices, planes
from gnomon.compiler.lowering.tiles import (
    Piece,
    Product,
    Schedule,
    Tile,
    epilogue,
    finished,
    loads,
    min_of,
    placed,
    read,
    tile_for,
)
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, coefficient, floordiv, maximum, modulo, product

OUT, TAPS = 4, 3
IN = OUT + TAPS - 1

CHANNELS = 16
"""Channels and filters below which the transforms cost more than they save."""
MOVED = 22 * 4
"""About how many multiplications the transforms are worth, for each channel and filter of each output."""
FILTER = {True: 1100, False: 5500}
"""The same for each channel and filter, to read them transformed (True) or to transform them too."""
GAIN = 0.85
"""The share of the plain schedule's cost that it must be below."""
NEAR = 256 << 10
"""Bytes of inputs and products of some tiles that stay near a core."""
MANY = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of pictures from which on it may pay where the batch is symbolic."""


class Tiled(Filtering):
    """What convolutions and their kernels' gradients share: pictures in tiles of 4x4 outputs."""

    def measure(self, batch: Sequence[Index], oh: Index, ow: Index) -> None:
        """Take note of the axes of the pictures and of the outputs' rows and columns."""
        self.pictures, self.oh, self.ow = tuple(batch), oh, ow
        self.batch = product(a.extent for a in batch)
        self.down, self.across = ceildiv(oh.extent, OUT), ceildiv(ow.extent, OUT)
        self.tiles = self.batch * self.down * self.across

    def decoded(self, tile: Dim) -> tuple[Dim, Dim, Dim]:
        """Picture, row and column of a tile."""
        column, rest = modulo(tile, self.across), floordiv(tile, self.across)
        return floordiv(rest, self.down), modulo(rest, self.down), column

    def of_inputs(self, out: Buffer, inputs: Expr, c: Index, scratch: tuple[Buffer, ...], label: str) -> Piece:
        """out[i, j, tile, c] = B' d B; what lies beyond the picture is read as its edge, and consumed by no one.

        inputs   the one that the kernel's first tap meets at an output
        """
        tile = Index("tile", self.tiles)
        store = lambda i, j, e: Store(out, (place_in(i * IN + j, tile, c),), e)
        body = self.transformed_inputs(Size.of(tile), inputs, c, store)
        kernel = Kernel(loads([inputs]), (out,), (For(tile, (body,), "parallel"),), label=f"tiles of {label}")
        return Piece(kernel, tile.extent, 0, scratch)

    def transformed_inputs(
        self, tile: Dim, inputs: Expr, c: Index, store: Callable[[int, int, Expr], Stmt]
    ) -> Stmt:
        """`store` of each element of B' d B, for all channels of a tile."""
        picture, row, column = self.decoded(tile)
        pictures = dict.fromkeys(self.pictures, picture)

        def at(start: Dim, k: int, a: Index) -> Dim:
            last = a.extent + (TAPS - 1) - 1
            return start + k if k < TAPS or a.extent % OUT == 0 else min_of(start + k, last)

        taps = [
            [
                placed(inputs, {**pictures, self.oh: at(row * OUT, i, self.oh), self.ow: at(column * OUT, j, self.ow)})
                for j in range(IN)
            ]
            for i in range(IN)
        ]
        return self._blocks(c, self._transformed(taps, matrices(OUT, TAPS).b, store))


class Winograd(Tiled):
    """The schedule of a 3x3 convolution with stride 1 (or stride and dilation equal)."""

    # ---- whether

    def fits(self) -> bool:
        """Whether the product is such a convolution, with enough channels and of static sizes but for the batch."""
        p = self.p
        if not self.target.winograd or self.dtype != "float32" or p.batch or p.columns or len(p.summed) != 3:
            return False
        left = read(p.left)
        if not 2 <= len(p.row_axes) <= 3 or left is None or read(p.right) is None:
            return False
        kh, kw, c = p.summed
        oh, ow = p.row_axes[-2:]
        place = left.index[0]
        down, along = coefficient(place, oh), coefficient(place, ow)
        extents = [a.extent for a in (oh, ow, c, p.lanes) if isinstance(a.extent, int)]
        if (kh.extent, kw.extent) != (TAPS, TAPS) or len(extents) < 4:
            return False
        if down in (None, 0) or along in (None, 0) or coefficient(place, c) != 1:
            return False
        if coefficient(place, kh) != down or coefficient(place, kw) != along:
            return False
        return min(extents[:2]) >= 2 and min(extents[2:]) >= CHANNELS

    def gain(self, pictures: int) -> float:
        """Its cost as a share of the plain schedule's, with so many pictures."""
        *_, c = self.p.summed
        oh, ow = self.p.row_axes[-2:]
        height, width, channels, filters = (int(a.extent) for a in (oh, ow, c, self.p.lanes))  # type: ignore[arg-type]
        outputs = pictures * height * width
        tiles = pictures * -(-height // OUT) * -(-width // OUT)
        products = 2 * IN * IN * channels * filters * tiles
        moved = MOVED * (channels + filters) * tiles * OUT * OUT
        read = FILTER[self._constant()] * channels * filters
        return (products + moved + read) / (2 * TAPS * TAPS * channels * filters * outputs)

    def least(self) -> int | None:
        """From how many pictures on it pays; None if it does not."""
        batch = product(a.extent for a in self.p.row_axes[:-2])
        if isinstance(batch, int):
            return 0 if self.gain(max(batch, 1)) < GAIN else None
        return next((n for n in MANY if self.gain(n) < GAIN), None)

    # ---- the pieces

    def run(self, label: str, plain: Sequence[Piece], least: int) -> list[Piece]:
        """The kernels. Below `least` pictures those of the plain schedule run instead."""
        p = self.p
        self.measure(p.row_axes[:-2], *p.row_axes[-2:])
        pieces = self._at_once(label) if self._together() else self._one_by_one(label)
        if least <= 1:
            return pieces
        few = maximum(0, 1 - floordiv(self.batch, least))  # 1 if there are few pictures
        for piece in pieces:
            if not piece.early:
                piece.extent = piece.extent * (1 - few)
        for piece in plain:
            if not piece.early:
                piece.extent = piece.extent * few
        return [*pieces, *plain]

    def _one_by_one(self, label: str) -> list[Piece]:
        """All inputs transformed, then all products, then all results."""
        p = self.p
        kh, kw, c = p.summed
        filters = planes(IN * IN, c.extent * p.lanes.extent, "filters", self.dtype)
        inputs = planes(IN * IN, self.tiles * c.extent, "inputs", self.dtype)
        sums = planes(IN * IN, self.tiles * p.lanes.extent, "products", self.dtype)
        return [
            self._filters(filters, label),
            self.of_inputs(inputs, placed(p.left, {kh: 0, kw: 0}), c, (inputs, sums), label),
            *self._products(inputs, filters, sums, label),
            self._outputs(sums, label),
        ]

    def _filters(self, out: Buffer, label: str) -> Piece:
        """filters[i, j, c, f] = G w[.., c, f] G'."""
        kh, kw, c = self.p.summed
        lanes = self.p.lanes
        taps = [[placed(self.p.right, {kh: i, kw: j}) for j in range(TAPS)] for i in range(TAPS)]
        store = lambda i, j, e: Store(out, (place_in(i * IN + j, c, lanes),), e)
        body = self._blocks(lanes, self._transformed(taps, matrices(OUT, TAPS).g, store))
        kernel = Kernel(loads([self.p.right]), (out,), (For(c, (body,), "parallel"),), label=f"filters of {label}")
        return Piece(kernel, c.extent, 0, (out,), early=self._constant())

    def _products(self, inputs: Buffer, filters: Buffer, sums: Buffer, label: str) -> list[Piece]:
        """products[e, tile, f] = sum over c of inputs[e, tile, c] * filters[e, c, f]."""
        *_, c = self.p.summed
        e, t, f = Index("e", IN * IN), Index("t", self.tiles), Index("f", self.p.lanes.extent)
        left = Load(inputs, (place_in(Size.of(e), t, c),))
        right = Load(filters, (place_in(Size.of(e), c, f),))
        total = Local("total", self.dtype)
        fold = Stage((c,), [(total, "sum", Apply(scalar("multiply"), (left, right)))])
        store = Stage((), stores=[(sums, (place_in(Size.of(e), t, f),), total)])
        p = Product.of(RowProgram((e, t, f), (fold, store), (), (inputs, filters), (sums,)))
        assert p is not None
        constant = frozenset([filters.name]) if self._constant() else frozenset[str]()
        return Schedule(p, self.target, constant=constant).run(f"products of {label}")

    def _outputs(self, sums: Buffer, label: str) -> Piece:
        """A' (products of a tile) A, and what becomes of them."""
        p = self.p
        tile = Index("tile", self.tiles)
        found = Buffer("found", self.dtype, (OUT * OUT * self.lanes,), "local")
        body = self._finished(Size.of(tile), lambda i, j: Load(sums, (place_in(i * IN + j, tile, p.lanes),)), found)
        reads = tuple(dict.fromkeys([sums, *loads(epilogue(p))]))
        kernel = Kernel(reads, p.rows.writes, (Alloc(found), For(tile, (body,), "parallel")), label=label)
        return Piece(kernel, tile.extent, 0)

    def _finished(self, tile: Dim, product_at: Callable[[int, int], Expr], found: Buffer) -> Stmt:
        """A' (products of a tile) A for all lanes, and what becomes of them."""
        p = self.p
        lanes = p.lanes
        oh, ow = p.row_axes[-2:]
        picture, row, column = self.decoded(tile)
        taps = [[product_at(i, j) for j in range(IN)] for i in range(IN)]
        block, vector = Index("block", ceildiv(lanes.extent, self.lanes)), Index(f"l{self.lanes}", self.lanes)
        at, within = Size.of(block) * self.lanes + Size.of(vector), Size.of(vector)
        i, j = Index("i", OUT), Index("j", OUT)
        y, x = row * OUT + Size.of(i), column * OUT + Size.of(j)
        keep = lambda i, j, e: Store(found, ((i * OUT + j) * self.lanes + within,), e)
        transform = self._vector(lanes, at, vector, self._transformed(taps, matrices(OUT, TAPS).a, keep))
        total = Load(found, ((Size.of(i) * OUT + Size.of(j)) * self.lanes + within,))
        change = {**dict.fromkeys(p.row_axes[:-2], picture), oh: y, ow: x, lanes: at}
        inner: Stmt = self._vector(lanes, at, vector, finished(p, change, total, "y"))
        if ow.extent % OUT:
            inner = If(less(x, ow.extent), (inner,))
        rest: Stmt = For(j, (inner,))
        if oh.extent % OUT:
            rest = If(less(y, oh.extent), (rest,))
        return For(block, (transform, For(i, (rest,))))

    # ---- all of some tiles at once

    def _together(self) -> bool:
        """Whether inputs and products of some tiles stay in a cache near a core: then all is one kernel."""
        return self._inside(self._tile()) <= NEAR

    def _tile(self) -> Tile:
        return tile_for(self.target, self.dtype, self.p.lanes.extent)

    def _inside(self, tile: Tile) -> int:
        """Bytes of inputs and products of as many tiles as a register tile has rows."""
        *_, c = self.p.summed
        panels = ceildiv(self.p.lanes.extent, tile.width)
        numbers = IN * IN * tile.rows * (c.extent + panels * tile.width)
        assert isinstance(numbers, int)
        return numbers * dtypes.named(self.dtype).bytes

    def _at_once(self, label: str) -> list[Piece]:
        """Tiles of pictures from their inputs to their results: nothing of what is between goes through memory."""
        p, tile = self.p, self._tile()
        kh, kw, c = p.summed
        several = tile.rows * max(1, min(4, NEAR // self._inside(tile)))
        panels = ceildiv(p.lanes.extent, tile.width)
        plane = panels * c.extent * tile.width
        filters = Buffer("filters", self.dtype, (IN * IN * plane,))
        inputs = Buffer("inputs", self.dtype, (IN * IN * several * c.extent,), "local")
        sums = Buffer("products", self.dtype, (IN * IN * several * panels * tile.width,), "local")
        found = Buffer("found", self.dtype, (OUT * OUT * self.lanes,), "local")
        acc = Buffer("acc", self.dtype, (tile.rows * tile.width,), "register")
        chunk, t = Index("chunk", ceildiv(self.tiles, several)), Index("t", several)
        at = Size.of(chunk) * several + Size.of(t)
        # transformed inputs; beyond the last tile that one again
        element = lambda i, j: ((i * IN + j) * several + Size.of(t)) * c.extent + Size.of(c)
        store = lambda i, j, e: Store(inputs, (element(i, j),), e)
        first = self.transformed_inputs(
            min_of(at, self.tiles - 1), placed(p.left, {kh: 0, kw: 0}), c, store
        )
        # products
        e, panel = Index("e", IN * IN), Index("panel", panels)
        some, r, lane = Index("some", several // tile.rows), Index("r", tile.rows), Index(f"l{tile.width}", tile.width)
        row = Size.of(some) * tile.rows + Size.of(r)
        own = Size.of(r) * tile.width + Size.of(lane)
        vector = Size.of(e) * plane + (Size.of(panel) * c.extent + Size.of(c)) * tile.width + Size.of(lane)
        w = Local("w", self.dtype)
        left = Load(inputs, ((Size.of(e) * several + row) * c.extent + Size.of(c),))
        more = Store(acc, (own,), Apply(scalar("fma"), (left, w, Load(acc, (own,)))))
        total = ((Size.of(e) * several + row) * panels + Size.of(panel)) * tile.width + Size.of(lane)
        vectors = lambda *body: For(lane, body, "vector")
        rows = lambda *body: For(r, body, "unroll")
        product_ = (
            rows(vectors(Store(acc, (own,), Const(self.dtype, 0)))),
            For(c, (vectors(Let(w, Load(filters, (vector,))), rows(more)),)),
            rows(vectors(Store(sums, (total,), Load(acc, (own,))))),
        )
        # results
        f = Size.of(p.lanes)
        place = lambda i, j: ((i * IN + j) * several + Size.of(t)) * panels * tile.width + f
        last: Stmt = self._finished(at, lambda i, j: Load(sums, (place(i, j),)), found)
        if not (isinstance(self.tiles, int) and self.tiles % several == 0):
            last = If(less(at, self.tiles), (last,))
        body = (For(t, (first,)), For(e, (For(panel, (For(some, product_),)),)), For(t, (last,)))
        allocs = tuple(Alloc(b) for b in (inputs, sums, found, acc))
        reads = tuple(dict.fromkeys([filters, *loads([p.left]), *loads(epilogue(p))]))
        kernel = Kernel(reads, p.rows.writes, (*allocs, For(chunk, body, "parallel")), label=label)
        flops = 2 * IN * IN * self.tiles * c.extent * p.lanes.extent
        return [self._panels(filters, tile, label), Piece(kernel, chunk.extent, flops)]

    def _panels(self, out: Buffer, tile: Tile, label: str) -> Piece:
        """filters[i, j, panel, c, lane] = G w[.., c, f] G', f being a lane of a panel."""
        kh, kw, c = self.p.summed
        lanes = self.p.lanes
        panel, part = Index("panel", ceildiv(lanes.extent, tile.width)), Index("part", tile.width // self.lanes)
        lane = Index(f"l{self.lanes}", self.lanes)
        within = Size.of(part) * self.lanes + Size.of(lane)
        place = lambda e: ((e * panel.extent + Size.of(panel)) * c.extent + Size.of(c)) * tile.width + within
        taps = [[placed(self.p.right, {kh: i, kw: j}) for j in range(TAPS)] for i in range(TAPS)]
        store = lambda i, j, e: Store(out, (place(i * IN + j),), e)
        transform = self._transformed(taps, matrices(OUT, TAPS).g, store)
        inside = self._vector(lanes, Size.of(panel) * tile.width + within, lane, transform)
        body = For(panel, (For(part, (inside,)),))
        kernel = Kernel(loads([self.p.right]), (out,), (For(c, (body,), "parallel"),), label=f"filters of {label}")
        return Piece(kernel, c.extent, 0, (out,), early=self._constant())


def place_in(plane: Dim, row: Index, column: Index) -> Dim:
    """Where an element is among planes of rows and columns."""
    return plane * apart(row.extent * column.extent) + Size.of(row) * column.extent + Size.of(column)
