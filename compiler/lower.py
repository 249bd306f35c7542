"""A row program for a target: its kernels and their text. Equal row programs are lowered once in a process."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import RLock

from gnomon.compiler.graph import Node, Op
from gnomon.compiler.kernel import Buffer, Kernel
from gnomon.compiler.lowering import contraction, cpu, cuda, cuda_deep, cuda_library
from gnomon.compiler.lowering.cuda_library import NOTHING, Around, Call
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.lowering.hatch import hatched
from gnomon.compiler.lowering.inlay import border
from gnomon.compiler.lowering.taps import Border
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.program import Source
from gnomon.compiler.render import cuda as cuda_text
from gnomon.compiler.render import cuda_loop, cuda_reach, llvm
from gnomon.compiler.render.cuda_launch import has_rounds
from gnomon.compiler.sizes import Dim, product
from gnomon.compiler.targets import Target

REMEMBERED = 8 << 20
"""Characters of text of the kernels that are kept. All else that is kept with them takes about twice as much."""


@dataclass(frozen=True)
class Code:
    """A kernel with its text, and how it is launched. `geometry` is (grid, block, shared bytes) on a GPU."""

    piece: Piece
    source: Source
    sizes: tuple[str, ...]
    geometry: tuple = ()

    @property
    def kernel(self) -> Kernel:
        return self.piece.kernel

    @property
    def reads(self) -> tuple[Buffer, ...]:
        return self.piece.kernel.reads

    @property
    def scratch(self) -> tuple[Buffer, ...]:
        return self.piece.scratch

    @property
    def early(self) -> bool:
        return self.piece.early


class Remembered:
    """Kernels by what they were made of; the longest unused go when there is too much text of them."""

    def __init__(self) -> None:
        self.characters = 0
        """Of all their texts."""
        self._made: OrderedDict[tuple, tuple[Code | Call, ...]] = OrderedDict()
        self._lock = RLock()

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[tuple[Code | Call, ...]]:
        return iter(self._made.values())

    def once(self, key: tuple, make: Callable[[], tuple[Code | Call, ...]]) -> tuple[Code | Call, ...]:
        with self._lock:
            found = self._made.get(key)
            if found is not None:
                self._made.move_to_end(key)
                return found
        made = make()
        with self._lock:
            if key not in self._made:
                self._made[key] = made
                self.characters += _characters(made)
            while self.characters > REMEMBERED and len(self._made) > 1:
                self.characters -= _characters(self._made.popitem(last=False)[1])
        return made


_kernels = Remembered()


def lower(
    rows: RowProgram,
    is_product: bool,
    target: Target,
    label: str,
    constant: frozenset[str] = frozenset(),
    share: Dim = 0,
    aligned: bool = True,
    around: Around = NOTHING,
    borders: tuple[Border, ...] = (),
) -> tuple[Code | Call, ...]:
    """The kernels that run a row program in order, and calls of libraries where the target has some that do.

    is_product   it has the form of a product of some size
    constant     names of buffers that are the same from call to call: what is packed of them is kept
    share        rows of the first outer axis that neighbouring parallel iterations are to do; 0: in any order
    aligned      all buffers begin at multiples of 16 bytes
    around       what there is around a product that a library may use
    borders      what is known to be zero at its edges
    """
    stages = tuple((s.axes, tuple(s.folds), tuple(s.lets), tuple(s.stores)) for s in rows.stages)
    # expressions are interned, and the key keeps these alive: an equal row program is made of the very same ones
    asked = is_product, target, label, constant, share, aligned, around, borders
    key = (rows.outer, stages, rows.reads, rows.writes, rows.scratch, *asked)
    return _once(key, target, lambda: _scheduled(rows, *asked))


def lower_op(op: Op, out: Buffer, inputs: tuple[Buffer, ...], target: Target) -> tuple[Code | Call, ...]:
    """The kernels that an op has written itself, in order."""
    return _once((op, out, inputs, target), target, lambda: hatched(op, out, inputs, target))


def lower_border(pad: Node, out: Buffer, target: Target) -> tuple[Code, ...]:
    """The kernel that fills the border of what is padded in its place."""
    key = (pad.op, pad.inputs[1], pad.shape, out, target)
    return _once(key, target, lambda: [border(pad, out, target)])  # type: ignore[return-value]  # no piece is a Call


def _once(key: tuple, target: Target, pieces: Callable[[], Sequence[Piece | Call]]) -> tuple[Code | Call, ...]:
    written = lambda: tuple(p if isinstance(p, Call) else rendered(p, target) for p in pieces())
    return _kernels.once(key, written)


def _characters(code: Sequence[Code | Call]) -> int:
    return sum(len(c.source.text) for c in code if isinstance(c, Code))


def _scheduled(
    rows: RowProgram,
    is_product: bool,
    target: Target,
    label: str,
    constant: frozenset[str],
    share: Dim,
    aligned: bool,
    around: Around,
    borders: tuple[Border, ...],
) -> Sequence[Piece | Call]:
    if is_product and target.libraries:
        generated = lambda other: _generated(other, target, label)
        found = cuda_library.pieces(rows, target, label, constant, generated, around)
        if found is not None:
            return found
    pieces = None
    if is_product and target.kind != "cuda":
        pieces = contraction.kernels(rows, target, label, constant, share, borders)
    if pieces is None and share != 0 and rows.outer and target.kind != "cuda":
        kernel, extent, each = cpu.kernel_by_shares(rows, target, label, share)
        pieces = [Piece(kernel, extent, arithmetic(rows), share=each)]
    if pieces is None and target.kind == "cuda" and aligned:
        pieces = cuda_deep.kernels(rows, target, label)
    return [_generated(rows, target, label, aligned)] if pieces is None else pieces


def _generated(rows: RowProgram, target: Target, label: str, aligned: bool = True) -> Piece:
    if target.kind == "cuda":
        kernel, extent = cuda.kernel(rows, target, label, aligned)
    else:
        kernel, extent = cpu.kernel(rows, target, label)
    return Piece(kernel, extent, arithmetic(rows))


def rendered(piece: Piece, target: Target) -> Code:
    """A kernel with its text."""
    kernel = piece.kernel
    on_gpu = target.kind == "cuda"
    text = _on_gpu(kernel) if on_gpu else llvm.render(kernel, "KERNEL", target)
    digest = hashlib.sha256(f"{text}{target.vector_bytes}".encode()).hexdigest()[:16]
    name = f"{''.join(c if c.isalnum() else '_' for c in kernel.label)[:40]}_{digest}"
    reach = (cuda_reach.reach(kernel) or ()) if on_gpu else ()
    source = Source(name, re.sub(r"(?<=[@ ])KERNEL\(", f"{name}(", text), (name,), reach=reach)
    launched = cuda_text.geometry(kernel) if on_gpu else None
    geometry = (launched.grid, launched.block, launched.shared) if launched else ()
    return Code(piece, source, kernel.sizes, geometry)


def _on_gpu(kernel: Kernel) -> str:
    writer = cuda_loop if has_rounds(kernel) else cuda_text
    return writer.render(kernel, "KERNEL")


def arithmetic(rows: RowProgram) -> Dim:
    """About how many additions a row program is worth."""
    outer = product(a.extent for a in rows.outer)
    total: Dim = 0
    for s in rows.stages:
        total = total + product(a.extent for a in s.axes) * cpu.stage_cost(s)
    return outer * total
