"""Counter-based random bits: element n of draw d is a function of (key, d, n) alone.

Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox4x32-10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.compiler.errors import GraphError, ShapeError
from gnomon.compiler.graph import Op, Shape, TensorType
from gnomon.compiler.kernel import Buffer, Const, For, If, IndexValue, Kernel, Let, Load, Local, Stmt, Store
from gnomon.compiler.ops.philox import WORDS, philox_expr, philox_numpy
from gnomon.compiler.ops.writing import call, less, shared, value_of
from gnomon.compiler.sizes import Dim, Index, Size, ceildiv, floordiv, modulo, product

SIDE = 16
"""Neighbouring counters whose first words are neighbours in the result, then their second ones, and so on: a whole
vector of each word is stored at once."""
BLOCK = SIDE * WORDS
COST = 40
"""Additions that an element is worth."""
FEW = 1024
"""Elements up to which each computes its own words, in the kernel that reads them."""


@dataclass(frozen=True)
class RandomBits(Op):
    """32 random bits for each element, the same on every device and for every number of threads.

    state: uint32[4] = key (2 words) and number of the draw (2 words)   result: uint32[shape]
    Element n, by its position in row-major order, is word (n div 16) mod 4 of the counter c = 16 (n div 64) + n mod 16,
    which Philox gets as (c mod 2^32, c div 2^32, draw).
    """

    shape: Shape

    def infer(self, state):
        if state != TensorType("uint32", (4,)):
            raise ShapeError(f"the state of a random stream is uint32[4], got {state}")
        return TensorType("uint32", self.shape)

    def numpy(self, env, state):
        shape = env.shape(self.shape)
        size = int(np.prod(shape, dtype=np.int64))
        c = np.arange(-(-size // BLOCK) * SIDE, dtype=np.uint64)
        low, high = (c & np.uint64(0xFFFFFFFF)).astype(np.uint32), (c >> np.uint64(32)).astype(np.uint32)
        words = philox_numpy((low, high, np.full_like(low, state[2]), np.full_like(low, state[3])), state[:2])
        blocks = np.stack([w.reshape(-1, SIDE) for w in words], 1)  # [block, word, counter]
        return blocks.reshape(-1)[:size].reshape(shape)

    def grad(self, g, out, state):
        return (None,)

    def batch(self, size, inputs, mapped):
        raise GraphError(
            "random numbers of a mapped seed cannot be drawn inside vectorized_map: draw them outside, for all slices"
        )

    def stands_alone(self, out, state):
        n = product(self.shape)
        return not isinstance(n, int) or n > FEW

    def element(self, index, out, state):
        n: Dim = 0
        for i, d in zip(index, self.shape, strict=True):
            n = n * d + i
        c = floordiv(n, BLOCK) * SIDE + modulo(n, SIDE)
        low, high = IndexValue("uint32", modulo(c, 1 << 32)), IndexValue("uint32", floordiv(c, 1 << 32))
        words = philox_expr(low, high, state(2), state(3), state(0), state(1))
        place = value_of(modulo(floordiv(n, SIDE), WORDS))
        chosen = words[-1]
        for k in reversed(range(WORDS - 1)):
            chosen = call("where", call("equal", place, Const("int64", k)), words[k], chosen)
        return chosen

    def kernel(self, target, out, state):
        """All four words of each counter: for a vector of counters at a time, on a GPU for one in each thread."""
        bits = Buffer(out.name, out.dtype, (product(out.shape),))
        (size,) = bits.shape
        draw, key = [Load(state, (k,)) for k in (2, 3)], [Load(state, (k,)) for k in (0, 1)]

        def stores(block: Dim, place: Dim, whole: bool) -> tuple[Stmt, ...]:
            # the block's first counter is a multiple of 16: adding to its low word carries nothing
            low = call("add", IndexValue("uint32", modulo(block * SIDE, 1 << 32)), IndexValue("uint32", place))
            words = philox_expr(low, IndexValue("uint32", floordiv(block * SIDE, 1 << 32)), *draw, *key)
            named = [Local(f"word{k}", "uint32") for k in range(WORDS)]
            body: list[Stmt] = [Let(name, word) for name, word in zip(named, words, strict=True)]
            for k, word in enumerate(named):
                at = block * BLOCK + k * SIDE + place
                store = Store(bits, (at,), word)
                body.append(store if whole else If(less(at, size), (store,)))
            return tuple(body)

        def counter(_: Dim, c: Dim) -> tuple[Stmt, ...]:
            return stores(floordiv(c, SIDE), modulo(c, SIDE), False)

        def vector(_: Dim, block: Dim) -> tuple[Stmt, ...]:
            lane = Index(f"l{SIDE}", SIDE)
            whole, part = (For(lane, stores(block, Size.of(lane), all_of_it), "vector") for all_of_it in (True, False))
            if isinstance(size, int) and size % BLOCK == 0:
                return (whole,)
            return (If(less(block * BLOCK + (BLOCK - 1), size), (whole,), (part,)),)

        blocks = ceildiv(size, BLOCK)
        loop = shared(1, blocks * SIDE, counter) if target.kind == "cuda" else shared(1, blocks, vector)
        return (Kernel((state,), (bits,), (loop,), size * COST, "random_bits"),)
