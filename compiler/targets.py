"""What a target can do, as data: a schedule is chosen from these numbers and nothing is hard-wired to one machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A CPU or GPU to generate code for.

    kind            'cpu' or 'cuda'
    triple          LLVM target triple ('' for cuda)
    cpu, features   as LLVM names them; for cuda the architecture ('sm_90')
    vector_bytes    width of the vector registers that generated code uses
    registers       how many of them there are
    fma             a fused multiply-add exists (else it would become a library call)
    l1, l2          data cache bytes of one core
    threads         how many threads a launch may be split among
    winograd        3x3 convolutions may trade accuracy for speed
    matrix          what a GPU's matrix units may round the factors of float32 products to: 'float32' (not at all: they
                    are not used), 'tf32' (10 bits after the point) or 'bfloat16' (7 bits)
    libraries       cuda: what programs may call besides kernels of their own ('cublaslt', 'cudnn', and 'cublaslt.relu'
                    if NaN may become 0 there), sorted, for the text of a target is part of what programs are
                    remembered by
    """

    kind: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    fma: bool
    l1: int = 32 << 10
    l2: int = 512 << 10
    threads: int = 1
    winograd: bool = False
    matrix: str = "float32"
    libraries: tuple[str, ...] = ()

    @property
    def avx512(self) -> bool:
        """Whether it has the instructions of AVX-512: on x86-64 what has registers of 64 bytes has them."""
        return self.triple.startswith("x86_64") and self.vector_bytes == 64

    def lanes(self, bits: int) -> int:
        """How many numbers of `bits` bits one vector register holds."""
        return max(1, self.vector_bytes * 8 // max(8, bits))


CUDA = Target("cuda", "", "sm_80", "", 16, 255, True, 48 << 10, 40 << 20, 1)
"""A CUDA target: one lane a thread; 128-bit loads where they are aligned."""
