"""Philox4x32-10: random bits as a function of a counter and a key, as NumPy and as scalar expressions.

Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3; the constants are those of
their library Random123 (philox.h).
"""

from __future__ import annotations

import numpy as np

from gnomon.compiler.kernel import Apply, Cast, Const, Expr
from gnomon.compiler.ops.scalar import scalar

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what each round adds to the key: golden ratio and sqrt(3) - 1
ROUNDS = 10
WORDS = 4
"""Of 32 bits: what one counter gives."""


def philox_numpy(counter, key) -> tuple[np.ndarray, ...]:
    """Four words of random bits per counter.

    counter: 4 x uint32[...]   key: 2 x uint32[] (or arrays like the counter's)   result: 4 x uint32[...]
    """
    words = [np.asarray(c).astype(np.uint64) for c in counter]
    keys = [np.asarray(k).astype(np.uint64) for k in key]
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for r in range(ROUNDS):
        k0, k1 = ((k + np.uint64(r * w & 0xFFFFFFFF)) & low for k, w in zip(keys, WEYL, strict=True))
        p, q = (np.uint64(m) * w for m, w in zip(MULTIPLIERS, words[::2], strict=True))
        words = [(q >> shift) ^ words[1] ^ k0, q & low, (p >> shift) ^ words[3] ^ k1, p & low]
    return tuple(w.astype(np.uint32) for w in np.broadcast_arrays(*words))


def philox_expr(c0: Expr, c1: Expr, c2: Expr, c3: Expr, k0: Expr, k1: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """The same words as expressions; all arguments and results are uint32."""

    def call(name: str, *args: Expr) -> Expr:
        return Apply(scalar(name), args)

    def word(value: int) -> Expr:
        return Const("uint32", value & 0xFFFFFFFF)

    m0, m1 = map(word, MULTIPLIERS)
    for r in range(ROUNDS):
        # the round key as key + r * constant, not by repeated adding: where the key is uniform it leaves the loop
        r0, r1 = (call("add", k, word(r * w)) if r else k for k, w in zip((k0, k1), WEYL, strict=True))
        c0, c1, c2, c3 = (
            call("bitwise_xor", call("bitwise_xor", call("mulhi", m1, c2), c1), r0),
            call("multiply", m1, c2),
            call("bitwise_xor", call("bitwise_xor", call("mulhi", m0, c0), c3), r1),
            call("multiply", m0, c0),
        )
    return c0, c1, c2, c3


def uniform32_numpy(bits) -> np.ndarray:
    """float32 in [0, 1) from the upper 24 of 32 random bits: every multiple of 2^-24 is equally likely."""
    return (np.asarray(bits) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def uniform32_expr(bits: Expr) -> Expr:
    """As `uniform32_numpy`, of a uint32 expression."""
    # through int32: signed conversion is one instruction everywhere, unsigned is not
    top = Cast("int32", Apply(scalar("shr"), (bits, Const("uint32", 8))))
    return Apply(scalar("multiply"), (Cast("float32", top), Const("float32", 2.0**-24)))


def uniform64_numpy(high, low) -> np.ndarray:
    """float64 in [0, 1) from 53 bits: all 32 of `high` and the upper 21 of `low`."""
    top = np.asarray(high).astype(np.float64) * 2.0**-32
    return top + (np.asarray(low) >> np.uint32(11)).astype(np.float64) * 2.0**-53


def uniform64_expr(high: Expr, low: Expr) -> Expr:
    """As `uniform64_numpy`, of two uint32 expressions. Every step is exact."""
    top = Apply(scalar("multiply"), (Cast("float64", high), Const("float64", 2.0**-32)))
    rest = Cast("float64", Cast("int32", Apply(scalar("shr"), (low, Const("uint32", 11)))))
    return Apply(scalar("add"), (top, Apply(scalar("multiply"), (rest, Const("float64", 2.0**-53)))))
