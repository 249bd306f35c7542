"""Which schedule a product gets on the CPU."""

from __future__ import annotations

from gnomon.compiler.lowering.cpu import flat, merged
from gnomon.compiler.lowering.deep import Deep
from gnomon.compiler.lowering.emit import RowProgram
from gnomon.compiler.lowering.longfilter import LongFilter
from gnomon.compiler.lowering.taps import Border, Edge, edges, worthwhile
from gnomon.compiler.lowering.tiles import Piece, Product, Schedule
from gnomon.compiler.lowering.winograd import Winograd
from gnomon.compiler.lowering.winograd_gradient import WinogradGradient
from gnomon.compiler.sizes import Dim
from gnomon.compiler.targets import Target


def kernels(
    rows: RowProgram,
    target: Target,
    label: str,
    constant: frozenset[str],
    share: Dim = 0,
    borders: tuple[Border, ...] = (),
) -> list[Piece] | None:
    """The kernels of a product, None if its row program is not of this form.

    constant   buffers that stay the same
    share      rows of the first axis that neighbouring parallel iterations are to do, if they can; 0: in any order
    borders    what is known to be zero
    """
    skipped = worthwhile(rows, edges(rows, borders))
    rows = flat(rows)
    product_of = Product.of(rows)
    if product_of is None:
        return None
    if share != 0:
        by_shares = Schedule(product_of, target, constant=constant, share=share)
        if by_shares.can_share():
            return by_shares.run(label)
    long = LongFilter(product_of, target, constant)
    if long.fits():
        return long.run(label)
    gradient = WinogradGradient(product_of, target, constant)
    if gradient.pays():
        return gradient.run(label)
    fast = Winograd(product_of, target, constant)
    least = fast.least() if fast.fits() else None
    if least is not None and least <= 1:
        return fast.run(label, (), 0)
    plain = _plain(merged(rows, frozenset(e.tap for e in skipped)), target, label, constant, skipped)
    return plain if plain is None or least is None else fast.run(label, plain, least)


def _plain(
    rows: RowProgram, target: Target, label: str, constant: frozenset[str], skipped: tuple[Edge, ...]
) -> list[Piece] | None:
    product_of = Product.of(rows)
    assert product_of is not None
    deep = Deep(product_of, target, constant)
    if deep.pays():
        return deep.run(label)
    schedule = Schedule(product_of, target, constant=constant, edges=skipped)
    if schedule.rows == 1 and not schedule.contiguous():
        return None  # a matrix by a vector: reductions along the rows of the matrix
    return schedule.run(label)
