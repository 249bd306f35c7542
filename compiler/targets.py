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

    def lanes(self, bits: int) -> int:
        """How many numbers of `bits` bits one vector register holds."""
        return max(1, self.vector_bytes * 8 // max(8, bits))


_V2 = "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"
_V3 = f"{_V2} abm avx avx2 bmi1 bmi2 f16c fma movbe"
_V4 = f"{_V3} avx512bw avx512cd avx512dq avx512f avx512vl"

X86_LEVELS = {name: frozenset(flags.split()) for name, flags in
              {"x86-64": "", "x86-64-v2": _V2, "x86-64-v3": _V3, "x86-64-v4": _V4}.items()}  # fmt: skip
"""What the levels of x86-64 ask of a processor, in the words of Linux (x86-64 psABI, section 3.1.1)."""

INSTRUCTIONS = frozenset(
    f"{_V4} avx512_bf16 avx512_bitalg avx512_fp16 avx512_vbmi2 avx512_vnni avx512_vpopcntdq avx512ifma avx512vbmi "
    "avx_vnni gfni sse4a tbm xop fma4 vaes vpclmulqdq adx sha_ni "
    "asimd asimddp asimdfhm asimdhp asimdrdm atomics bf16 fp fphp i8mm lrcpc sve sve2".split()
)
"""What a processor may have that generated code may use, in the words of Linux."""

CUDA = Target("cuda", "", "sm_80", "", 16, 255, True, 48 << 10, 40 << 20, 1)
"""A CUDA target: one lane a thread; 128-bit loads where they are aligned."""
