"""What the machine can do at most: its arithmetic peak and its memory bandwidth.

    python benchmarks/machine.py 2          prints both, with two threads
"""

import ctypes
import sys
import threading
import time
from dataclasses import dataclass

import numpy as np

ACCUMULATORS = 12
ROUNDS = 7


@dataclass(frozen=True)
class Machine:
    """flops   float32 operations a second of fused multiply-adds in registers
    bytes   bytes a second, read plus written, of copies far larger than the caches"""

    flops: float
    bytes: float
    threads: int

    def __str__(self):
        return f"{self.flops / 1e9:.1f} GFLOP/s, {self.bytes / 1e9:.1f} GB/s with {self.threads} threads"


def measure(threads: int = 2) -> Machine:
    """The best of several rounds of both."""
    return Machine(_peak(threads), _bandwidth(threads), threads)


def _at_once(work, threads: int) -> float:
    """Seconds until `work(k)` is done in every thread."""
    barrier = threading.Barrier(threads + 1)

    def run(k):
        barrier.wait()
        work(k)

    pool = [threading.Thread(target=run, args=(k,)) for k in range(threads)]
    for t in pool:
        t.start()
    barrier.wait()
    start = time.perf_counter()
    for t in pool:
        t.join()
    return time.perf_counter() - start


def _peak(threads: int) -> float:
    """A loop of independent multiply-adds, one vector register each, generated for this CPU."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    lanes = 16 if features.get("avx512f") else 8 if features.get("avx") else 4
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2
    )
    module = llvm.parse_assembly(_peak_text(lanes))
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    loop = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_void_p)(engine.get_function_address("peak"))
    sinks = [np.zeros(lanes * ACCUMULATORS, np.float32) for _ in range(threads)]
    count = 3_000_000
    best = min(_at_once(lambda k: loop(count, sinks[k].ctypes.data), threads) for _ in range(ROUNDS))
    return threads * count * ACCUMULATORS * lanes * 2 / best


def _peak_text(lanes: int) -> str:
    vector = f"<{lanes} x float>"
    name = f"@llvm.fma.v{lanes}f32"
    phis, adds, stores = [], [], []
    for k in range(ACCUMULATORS):
        phis.append(f"  %a{k} = phi {vector} [ %x, %entry ], [ %b{k}, %loop ]")
        adds.append(f"  %b{k} = call {vector} {name}({vector} %a{k}, {vector} %x, {vector} %x)")
        stores.append(f"  %p{k} = getelementptr float, ptr %p, i64 {k * lanes}")
        stores.append(f"  store {vector} %b{k}, ptr %p{k}, align 4")
    return "\n".join([
        f"declare {vector} {name}({vector}, {vector}, {vector})",
        "define void @peak(i64 %n, ptr %p) {",
        "entry:",
        f"  %x = load {vector}, ptr %p, align 4",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %j, %loop ]",
        *phis,
        *adds,
        "  %j = add i64 %i, 1",
        "  %more = icmp slt i64 %j, %n",
        "  br i1 %more, label %loop, label %done",
        "done:",
        *stores,
        "  ret void",
        "}",
    ])


def _bandwidth(threads: int) -> float:
    size = 64 << 20
    pairs = [(np.ones(size, np.uint8), np.ones(size, np.uint8)) for _ in range(threads)]
    best = min(_at_once(lambda k: np.copyto(*pairs[k]), threads) for _ in range(ROUNDS))
    return threads * 2 * size / best


if __name__ == "__main__":
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2))
