"""Where temporaries go in one block of memory: those that are never alive together may share a place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnomon.runtime.buffer import ALIGNMENT

Lifetime = tuple[int, int]


def layout(sizes: Sequence[int], lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """An offset for each block and the bytes needed for all.

    sizes       bytes of each
    lifetimes   first and last step at which each is alive, both included
    Blocks are placed one after the other, each into the tightest gap between those alive at the same time that holds
    it, or behind them: the largest first; or, if that takes more than is alive at once, those that are alive when most
    is. Offsets are multiples of ALIGNMENT.
    Pisarchyk, Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", sections 5.2 (greedy by size) and
    5.3 (by breadth).
    """
    rounded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
    count = range(len(sizes))
    offsets, total = _placed(rounded, lifetimes, sorted(count, key=lambda i: (-rounded[i], lifetimes[i])))
    crowds = _crowds(rounded, lifetimes)
    if total > max(crowds, default=0):
        by_breadth = sorted(count, key=lambda i: (-crowds[i], -rounded[i], lifetimes[i]))
        others, other = _placed(rounded, lifetimes, by_breadth)
        if other < total:
            return others, other
    return offsets, total


def least(sizes: Sequence[int], lifetimes: Sequence[Lifetime]) -> int:
    """What no layout can be below: the bytes that are alive at once at most."""
    return max(_crowds([-(-size // ALIGNMENT) * ALIGNMENT for size in sizes], lifetimes), default=0)


def _crowds(sizes: Sequence[int], lifetimes: Sequence[Lifetime]) -> list[int]:
    """For each block, the most bytes that are alive together while it is."""
    if not sizes:
        return []
    first, last = np.array(lifetimes, np.int64).T
    times = np.unique(first)  # what is alive only grows where something begins
    begin, end = np.searchsorted(times, first), np.searchsorted(times, last, "right")
    change = np.zeros(len(times) + 1, np.int64)
    np.add.at(change, begin, sizes)
    np.subtract.at(change, end, sizes)
    alive = np.cumsum(change)
    return [int(alive[b:e].max()) for b, e in zip(begin.tolist(), end.tolist(), strict=True)]


def _placed(sizes: Sequence[int], lifetimes: Sequence[Lifetime], order: Sequence[int]) -> tuple[list[int], int]:
    """`layout` of blocks that are placed in this order; sizes are multiples of ALIGNMENT."""
    offsets = [0] * len(sizes)
    placed = np.zeros((4, len(sizes)), np.int64)  # first, last, begin, end of those placed so far, by begin
    total = used = 0
    for i in order:
        size, (first, last) = sizes[i], lifetimes[i]
        if not size:
            continue
        now = placed[:, :used]
        begins, ends = now[2:, (now[0] <= last) & (now[1] >= first)]
        if begins.size:
            reach = np.maximum.accumulate(ends)
            gaps = begins - np.concatenate(([0], reach[:-1]))
            fitting = np.flatnonzero(gaps >= size)
            if fitting.size:
                best = int(fitting[np.argmin(gaps[fitting])])
                offset = int(reach[best - 1]) if best else 0
            else:
                offset = int(reach[-1])
        else:
            offset = 0
        offsets[i] = offset
        total = max(total, offset + size)
        at = int(np.searchsorted(placed[2, :used], offset))
        placed[:, at + 1 : used + 1] = placed[:, at:used].copy()
        placed[:, at] = first, last, offset, offset + size
        used += 1
    return offsets, total
