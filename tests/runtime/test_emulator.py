"""The emulator itself: what a cooperative launch may do, and what is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.emulator import EmulatorError, Module, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")

TEXT = """
#define gn_grid_barrier(come) gn_barrier_of_all(come, __LINE__)
extern "C" __global__ void __launch_bounds__(32) rounds(int *x, unsigned *come, int count) {
  __shared__ int own[32];
  for (int k = 0; k < count; k++) {
    int i = (blockIdx.x * 32 + threadIdx.x + 33) % (gridDim.x * 32);  // written by another block
    own[threadIdx.x] = x[i] + 1;
    __syncthreads();
    gn_grid_barrier(come);
    x[blockIdx.x * 32 + threadIdx.x] = own[threadIdx.x ^ 1];
    gn_grid_barrier(come);
  }
}
extern "C" __global__ void __launch_bounds__(32) lost(unsigned *come) {
  if (blockIdx.x) gn_grid_barrier(come);
}
"""


@pytest.fixture(scope="module")
def module() -> Module:
    return Module(TEXT)


@pytest.mark.parametrize("order", [0, 1, 5])
def test_blocks_of_a_cooperative_launch_wait_for_each_other(module: Module, order: int) -> None:
    x = np.arange(96, dtype=np.int32)
    wanted = x.copy()
    for _ in range(3):
        wanted = (np.roll(wanted, -33) + 1).reshape(-1, 2)[:, ::-1].reshape(-1)
    given = [x, np.zeros(2, np.int32), np.int32(3)]
    module.launch("rounds", (3, 1, 1), (32, 1, 1), given, order=order, cooperative=True)
    np.testing.assert_array_equal(x, wanted)


def test_blocks_that_are_not_there_at_once_cannot_wait(module: Module) -> None:
    come = np.zeros(2, np.int32)
    with pytest.raises(EmulatorError, match="not asked to be cooperative"):
        module.launch("lost", (2, 1, 1), (32, 1, 1), [come])
    with pytest.raises(EmulatorError, match="deadlock: 32 of 64 threads wait for all blocks"):
        module.launch("lost", (2, 1, 1), (32, 1, 1), [come], cooperative=True)
    with pytest.raises(EmulatorError, match="2000 blocks do not fit at once"):
        module.launch("lost", (2000, 1, 1), (32, 1, 1), [come], cooperative=True)
