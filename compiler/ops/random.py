"""Counter-based random bits: element n of draw d is a function of (key, d, n) alone.

Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox4x32-10.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gnomon.compiler.errors import GraphError, ShapeError
from gnomon.compiler.graph import Op, Shape, TensorType
from gnomon.compiler.kernel import IndexValue
from gnomon.compiler.sizes import Dim, floordiv, modulo


@dataclass(frozen=True)
class RandomBits(Op):
    """32 random bits for each element, the same on every device and for every number of threads.

    state: uint32[4] = key (2 words) and number of the draw (2 words)   result: uint32[shape]
    The counter is (n modulo 2^32, n over 2^32, draw), n the element's position in row-major order; the first of the
    four words is used.
    """

    shape: Shape

    def infer(self, state):
        if state != TensorType("uint32", (4,)):
            raise ShapeError(f"the state of a random stream is uint32[4], got {state}")
        return TensorType("uint32", self.shape)

    def numpy(self, env, state):
        from gnomon.compiler.ops.philox import philox_numpy

        shape = env.shape(self.shape)
        n = np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64)
        low, high = (n & np.uint64(0xFFFFFFFF)).astype(np.uint32), (n >> np.uint64(32)).astype(np.uint32)
        counter = (low, high, np.full_like(low, state[2]), np.full_like(low, state[3]))
        return philox_numpy(counter, (state[0], state[1]))[0].reshape(shape)

    def grad(self, g, out, state):
        return (None,)

    def batch(self, size, inputs, mapped):
        raise GraphError(
            "random numbers of a mapped seed cannot be drawn inside vectorized_map: draw them outside, for all slices"
        )

    def element(self, index, out, state):
        from gnomon.compiler.ops.philox import philox_expr

        n: Dim = 0
        for i, d in zip(index, self.shape, strict=True):
            n = n * d + i
        low = IndexValue("uint32", modulo(n, 1 << 32))
        high = IndexValue("uint32", floordiv(n, 1 << 32))
        return philox_expr(low, high, state(2), state(3), state(0), state(1))[0]
