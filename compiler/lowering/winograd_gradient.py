"""Gradients of the kernels of 3x3 convolutions by minimal filtering: the transpose of F(4x4, 3x3).

A tile of 4x4 outputs is A' [(G w G') * (B' d B)] A (see `winograd`), so that its gradient g adds
G' [(B' d B) * (A g A')] G to that of the kernel w. Summed over the tiles this is one product for each of the 36
elements, and only the sums are transformed back. The pieces: tiles of inputs to [36, tile, channels], tiles of
gradients to [36, tile, filters], 36 products, and the transform back with whatever consumes the kernel's gradient (the
optimizer). Errors are like those of the convolution itself.
"""

from __future__ import annotations

from gnomon.compiler.kernel import Alloc, Apply, Buffer, Expr, For, Kernel, Load, Local, Store
from gnomon.compiler.lowering.cpu import less
from gnomon.compiler.lowering.emit import RowProgram, Stage
from gnomon.compiler.lowering.minimal import matrices, planes, transposed
from gnomon.compiler.lowering.tiles import Piece, Product, Schedule, epilogue, finished, loads, masked, placed, read
from gnomon.compiler.lowering.winograd import CHANNELS, IN, MOVED, OUT, TAPS, Tiled, place_in
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, coefficient, known_factor, product

SUMS = 5000
"""About how many multiplications it is worth to write and read the sums of a channel and filter and transform them."""
GAIN = 0.85
"""The share of the plain schedule's cost that it must be below."""
USUAL = 32
"""Pictures of a batch whose size is symbolic, to judge the cost by: whatever is chosen is right for any number."""


class WinogradGradient(Tiled):
    """The schedule of the gradient of a 3x3 kernel with stride 1."""

    # ---- whether

    def pays(self) -> bool:
        """Whether the product is such a gradient, with static sizes but for the batch, and cheaper so."""
        p = self.p
        if not self.target.winograd or self.dtype != "float32" or p.batch or p.columns:
            return False
        if len(p.row_axes) != 3 or not 2 <= len(p.summed) <= 3:
            return False
        left = read(p.left)
        if left is None or read(p.right) is None:
            return False
        kh, kw, c = p.row_axes
        oh, ow = p.summed[-2:]
        place = left.index[0]
        down, along = coefficient(place, kh), coefficient(place, kw)
        extents = [a.extent for a in (oh, ow, c, p.lanes) if isinstance(a.extent, int)]
        if (kh.extent, kw.extent) != (TAPS, TAPS) or len(extents) < 4:
            return False
        if down in (None, 0) or along in (None, 0) or coefficient(place, c) != 1:
            return False
        if coefficient(place, oh) != down or coefficient(place, ow) != along:
            return False
        return min(extents[:2]) >= 2 and min(extents[2:]) >= CHANNELS and self._cost() < GAIN

    def _cost(self) -> float:
        """As a share of the plain schedule's."""
        p = self.p
        axes = (p.row_axes[-1], p.lanes, *p.summed[-2:])
        c, f, oh, ow = (int(a.extent) for a in axes)  # type: ignore[arg-type]  # `pays` has looked
        batch = product(a.extent for a in p.summed[:-2])
        pictures = batch if isinstance(batch, int) else USUAL * known_factor(batch)
        tiles = max(1, pictures) * -(-oh // OUT) * -(-ow // OUT)
        products = 2 * IN * IN * c * f * tiles
        moved = MOVED * (c + f) * tiles * OUT * OUT
        return (products + moved + SUMS * c * f) / (2 * TAPS * TAPS * c * f * oh * ow * max(1, pictures))

    # ---- the pieces

    def run(self, label: str) -> list[Piece]:
        """The kernels."""
        p = self.p
        self.measure(p.summed[:-2], *p.summed[-2:])
        c, f = p.row_axes[-1], p.lanes
        inputs = planes(IN * IN, self.tiles * c.extent, "inputs", self.dtype)
        gradients = planes(IN * IN, self.tiles * f.extent, "gradients", self.dtype)
        sums = planes(IN * IN, c.extent * f.extent, "products", self.dtype)
        flat: dict[Index, Dim] = {p.row_axes[0]: 0, p.row_axes[1]: 0}
        return [
            self.of_inputs(inputs, placed(p.left, flat), c, (inputs, gradients, sums), label),
            self._gradients(gradients, label),
            *self._products(inputs, gradients, sums, label),
            self._results(sums, label),
        ]

    def _gradients(self, out: Buffer, label: str) -> Piece:
        """gradients[i, j, tile, f] = A g A', g being 0 beyond the picture."""
        oh, ow = self.p.summed[-2:]
        f = self.p.lanes
        tile = Index("tile", self.tiles)
        picture, row, column = self.decoded(Size.of(tile))
        pictures = dict.fromkeys(self.p.summed[:-2], picture)

        def tap(i: int, j: int) -> Expr:
            y, x = row * OUT + i, column * OUT + j
            value = placed(self.p.right, {**pictures, oh: y, ow: x})
            for at, a in ((y, oh), (x, ow)):
                if a.extent % OUT:
                    value = masked(value, less(at, a.extent))
            return value

        taps = [[tap(i, j) for j in range(OUT)] for i in range(OUT)]
        store = lambda i, j, e: Store(out, (place_in(i * IN + j, tile, f),), e)
        body = self._blocks(f, self._transformed(taps, transposed(matrices(OUT, TAPS).a), store))
        kernel = Kernel(loads([self.p.right]), (out,), (For(tile, (body,), "parallel"),), label=f"gradients of {label}")
        return Piece(kernel, tile.extent, 0)

    def _products(self, inputs: Buffer, gradients: Buffer, sums: Buffer, label: str) -> list[Piece]:
        """products[e, c, f] = sum over the tiles of inputs[e, tile, c] * gradients[e, tile, f]."""
        e, t = Index("e", IN * IN), Index("t", self.tiles)
        c, f = Index("c", self.p.row_axes[-1].extent), Index("f", self.p.lanes.extent)
        left, right = (Load(b, (place_in(Size.of(e), t, a),)) for b, a in ((inputs, c), (gradients, f)))
        total = Local("total", self.dtype)
        fold = Stage((t,), [(total, "sum", Apply(scalar("multiply"), (left, right)))])
        store = Stage((), stores=[(sums, (place_in(Size.of(e), c, f),), total)])
        p = Product.of(RowProgram((e, c, f), (fold, store), (), (inputs, gradients), (sums,)))
        assert p is not None
        return Schedule(p, self.target).run(f"products of {label}")

    def _results(self, sums: Buffer, label: str) -> Piece:
        """G' (products of a channel and filter) G, and what becomes of them."""
        p = self.p
        kh, kw, channel = p.row_axes
        c, f = Index("c", channel.extent), p.lanes
        found = Buffer("found", self.dtype, (TAPS * TAPS * self.lanes,), "local")
        taps: list[list[Expr]] = [
            [Load(sums, (place_in(i * IN + j, c, f),)) for j in range(IN)] for i in range(IN)
        ]
        block, vector = Index("block", ceildiv(f.extent, self.lanes)), Index(f"l{self.lanes}", self.lanes)
        at, within = Size.of(block) * self.lanes + Size.of(vector), Size.of(vector)
        keep = lambda i, j, e: Store(found, ((i * TAPS + j) * self.lanes + within,), e)
        back = self._transformed(taps, transposed(matrices(OUT, TAPS).g), keep)
        i, j = Index("i", TAPS), Index("j", TAPS)
        total = Load(found, ((Size.of(i) * TAPS + Size.of(j)) * self.lanes + within,))
        change: dict[Index, Dim] = {kh: Size.of(i), kw: Size.of(j), channel: Size.of(c), f: at}
        rest = For(i, (For(j, (self._vector(f, at, vector, finished(p, change, total, "y")),)),))
        body = For(block, (self._vector(f, at, vector, back), rest))
        reads = tuple(dict.fromkeys([sums, *loads(epilogue(p))]))
        kernel = Kernel(reads, p.rows.writes, (Alloc(found), For(c, (body,), "parallel")), label=label)
        return Piece(kernel, c.extent, 0)
