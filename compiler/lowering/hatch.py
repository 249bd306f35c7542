"""The escape hatch: kernels that an op writes itself, for what no element rule says well."""

from __future__ import annotations

from gnomon.compiler.graph import Op
from gnomon.compiler.kernel import Buffer
from gnomon.compiler.lowering.tiles import Piece
from gnomon.compiler.targets import Target


def hatched(op: Op, out: Buffer, inputs: tuple[Buffer, ...], target: Target) -> list[Piece]:
    """The kernels of an op, in order. Memory that is neither its result nor an input is had from the first that uses
    it until the last."""
    pieces = []
    known = {out.name, *(b.name for b in inputs)}
    for kernel in op.kernel(target, out, *inputs):
        scratch = tuple({b.name: b for b in kernel.buffers if b.name not in known}.values())
        known.update(b.name for b in scratch)
        loop = kernel.parallel
        pieces.append(Piece(kernel, loop.index.extent if loop is not None else 1, kernel.flops, scratch))
    return pieces
