"""Where temporaries go in one block of memory: those that are never alive together may share a place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnomon.runtime.buffer import ALIGNMENT


def layout(sizes: Sequence[int], lifetimes: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """An offset for each block and the bytes needed for all.

    sizes       bytes of each
    lifetimes   first and last step at which each is alive, both included
    The largest are placed first, each into the tightest gap between the blocks alive at the same time that holds it, or
    behind them. Offsets are multiples of ALIGNMENT.
    Pisarchyk, Lee 2020, "Efficient Memory Management for Deep Neural Net Inference", section 5.2 (greedy by size).
    """
    count = len(sizes)
    rounded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes]
    offsets = [0] * count
    placed = np.zeros((4, count), np.int64)  # first, last, begin, end of those placed so far, by begin
    total = used = 0
    for i in sorted(range(count), key=lambda i: (-rounded[i], lifetimes[i])):
        size, (first, last) = rounded[i], lifetimes[i]
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
