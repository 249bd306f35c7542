"""cuBLAS through CuPy as a worker: products on a card, without any library of networks around them."""

import common
import cupy
import numpy as np
from common import Job, sample, serve
from cupy_backends.cuda.libs import cublas

KINDS = {"float32": 0, "bfloat16": 14}
"""cudaDataType; CuPy's own arrays have no bfloat16 everywhere, so these are of 16 bits."""

COMPUTE_32F, DEFAULT = 68, -1
"""cublasComputeType_t: sums, and factors of float32, are float32. cublasGemmAlgo_t: as cuBLAS likes best."""

PLAIN, TRANSPOSED = 0, 1


def to_card(array, dtype):
    """float32 as it is; of bfloat16 the upper half, rounded to even."""
    if dtype == "float32":
        return cupy.asarray(array)
    bits = np.ascontiguousarray(array).view(np.uint32)
    return cupy.asarray(((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16))


def from_card(array, dtype):
    found = cupy.asnumpy(array)
    return found if dtype == "float32" else (found.astype(np.uint32) << 16).view(np.float32)


def product(a, b, form, dtype):
    """A function that multiplies once more, into the same memory, which it returns."""
    m, k = a.shape[::-1] if form == "tn" else a.shape
    n = b.shape[0] if form == "nt" else b.shape[1]
    c, kind = cupy.empty((m, n), a.dtype), KINDS[dtype]
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    handle = cupy.cuda.device.get_cublas_handle()
    left, right = (TRANSPOSED if form == "nt" else PLAIN), (TRANSPOSED if form == "tn" else PLAIN)

    def call():
        # cuBLAS's matrices are column after column: what it takes for b's transpose times a's is c, row after row
        cublas.gemmEx(
            handle, left, right, n, m, k, one.ctypes.data, b.data.ptr, kind, b.shape[1], a.data.ptr, kind, a.shape[1],
            zero.ctypes.data, c.data.ptr, kind, n, COMPUTE_32F, DEFAULT,
        )  # fmt: skip
        return c

    return call


def matmul(shape, form, dtype="float32"):
    call = product(*(to_card(m, dtype) for m in common.matrices(shape, form)), form, dtype)

    def run(n=1):
        for _ in range(n):
            c = call()
        return c

    return Job(run, sample(from_card(run(), dtype)))


def wait(result=None):
    cupy.cuda.get_current_stream().synchronize()


def packages():
    """CuPy's wheels carry the version of CUDA in their names."""
    from importlib.metadata import distributions

    return sorted({d.name for d in distributions() if d.name.startswith("cupy")})


if __name__ == "__main__":
    serve(packages(), {"matmul": matmul}, wait=wait)
