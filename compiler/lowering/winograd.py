"""3x3 convolutions by minimal filtering, F(4x4, 3x3): a quarter of the multiplications, for a little accuracy.

Lavin, Gray 2015, "Fast Algorithms for Convolutional Neural Networks", section 4.1: a tile of 4x4 outputs is
A' [(G w G') * (B' d B)] A, where d is the tile's 6x6 inputs and * goes element by element; summed over the channels
this is one product for each of the 36 elements.

The pieces: filters transformed to [36, channels, lanes] (once, if they stay the same), tiles of inputs to
[36, tile, channels], 36 products, and the transform back with whatever consumes the convolution. Errors are about
ten times those of the plain sum, 1e-5 of the largest result, and an infinity or NaN in the input spreads over its tile.
"""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.compiler.kernel import (
    Alloc,
    Apply,
    Buffer,
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
        picture, row, column = self.decoded(Size.of(tile))
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
        store = lambda i, j, e: Store(out, (place_in(i * IN + j, tile, c),), e)
        body = self._blocks(c, self._transformed(taps, matrices(OUT, TAPS).b, store))
        kernel = Kernel(loads([inputs]), (out,), (For(tile, (body,), "parallel"),), label=f"tiles of {label}")
        return Piece(kernel, tile.extent, 0, scratch)


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
        kh, kw, c = p.summed
        filters = planes(IN * IN, c.extent * p.lanes.extent, "filters", self.dtype)
        inputs = planes(IN * IN, self.tiles * c.extent, "inputs", self.dtype)
        sums = planes(IN * IN, self.tiles * p.lanes.extent, "products", self.dtype)
        pieces = [
            self._filters(filters, label),
            self.of_inputs(inputs, placed(p.left, {kh: 0, kw: 0}), c, (inputs, sums), label),
            *self._products(inputs, filters, sums, label),
            self._outputs(sums, label),
        ]
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
        lanes = p.lanes
        oh, ow = p.row_axes[-2:]
        tile = Index("tile", self.tiles)
        picture, row, column = self.decoded(Size.of(tile))
        found = Buffer("found", self.dtype, (OUT * OUT * self.lanes,), "local")
        place = lambda i, j: place_in(i * IN + j, tile, lanes)
        taps: list[list[Expr]] = [[Load(sums, (place(i, j),)) for j in range(IN)] for i in range(IN)]
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
        body = For(block, (transform, For(i, (rest,))))
        reads = tuple(dict.fromkeys([sums, *loads(epilogue(p))]))
        kernel = Kernel(reads, p.rows.writes, (Alloc(found), For(tile, (body,), "parallel")), label=label)
        return Piece(kernel, tile.extent, 0)


def place_in(plane: Dim, row: Index, column: Index) -> Dim:
    """Where an element is among planes of rows and columns."""
    return plane * apart(row.extent * column.extent) + Size.of(row) * column.extent + Size.of(column)
