"""What the machine can do at most: its arithmetic peak and its memory bandwidths.

    python benchmarks/machine.py 2          prints them, with two threads
"""

import ctypes
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

ACCUMULATORS = 12
ROUNDS = 7
LARGE = 64 << 20


@dataclass(frozen=True)
class Machine:
    """flops   float32 operations a second of fused multiply-adds in registers
    copied  bytes a second, read plus written, of copies far larger than the caches
    read    bytes a second of reading alone"""

    flops: float
    copied: float
    read: float
    threads: int

    def __str__(self):
        rates = f"copies {self.copied / 1e9:.1f} GB/s, reads {self.read / 1e9:.1f} GB/s"
        return f"{self.flops / 1e9:.1f} GFLOP/s, {rates} with {self.threads} threads"

    def best(self, other: "Machine") -> "Machine":
        """The better of two measurements: other work on the machine can only make it look slower."""
        found = [max(a, b) for a, b in zip(self.figures, other.figures, strict=True)]
        return Machine(*found, self.threads)

    def peak(self, dtype: str) -> float:
        """Operations a second; numbers of 16 bits are computed in float32."""
        return self.flops

    @property
    def figures(self) -> tuple[float, float, float]:
        return self.flops, self.copied, self.read


def measure(threads: int = 2) -> Machine:
    """The best of several rounds of each."""
    loop, lanes = _compiled()
    peak = _peak(loop("peak", ctypes.c_int64, ctypes.c_void_p), lanes, threads)
    read = _reading(loop("read", ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p), lanes, threads)
    return Machine(peak, _copying(threads), read, threads)


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


@cache
def _compiled() -> tuple[Callable[..., Any], int]:
    """Gives the loops of `_text` as ctypes functions; and how many float32 a vector register of this CPU holds."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features()
    lanes = 16 if features.get("avx512f") else 8 if features.get("avx") else 4
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=2
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(_text(lanes)), machine)
    engine.finalize_object()

    def loop(name: str, *arguments: Any) -> Any:
        call = ctypes.CFUNCTYPE(None, *arguments)(engine.get_function_address(name))
        call.keep_alive = engine
        return call

    return loop, lanes


def _text(lanes: int) -> str:
    """peak(n, sink): n rounds of independent multiply-adds in registers. read(n, p, sink): sums n rounds of loads."""
    v, name = f"<{lanes} x float>", f"@llvm.fma.v{lanes}f32"
    every = range(ACCUMULATORS)
    multiply = [f"  %b{k} = call {v} {name}({v} %a{k}, {v} %x, {v} %x)" for k in every]
    add = [f"  %r = mul i64 %i, {ACCUMULATORS * lanes}", "  %q = getelementptr float, ptr %p, i64 %r"]
    for k in every:
        add.append(f"  %q{k} = getelementptr float, ptr %q, i64 {k * lanes}")
        add.append(f"  %v{k} = load {v}, ptr %q{k}, align 4")
        add.append(f"  %b{k} = fadd {v} %a{k}, %v{k}")

    def function(head: str, body: list[str]) -> list[str]:
        return [
            f"define void @{head} {{",
            "entry:",
            f"  %x = load {v}, ptr %sink, align 4",
            "  br label %loop",
            "loop:",
            "  %i = phi i64 [ 0, %entry ], [ %j, %loop ]",
            *(f"  %a{k} = phi {v} [ %x, %entry ], [ %b{k}, %loop ]" for k in every),
            *body,
            "  %j = add i64 %i, 1",
            "  %more = icmp slt i64 %j, %n",
            "  br i1 %more, label %loop, label %done",
            "done:",
            *(f"  %p{k} = getelementptr float, ptr %sink, i64 {k * lanes}" for k in every),
            *(f"  store {v} %b{k}, ptr %p{k}, align 4" for k in every),
            "  ret void",
            "}",
        ]

    lines = [f"declare {v} {name}({v}, {v}, {v})"]
    lines += function("peak(i64 %n, ptr %sink)", multiply)
    lines += function("read(i64 %n, ptr %p, ptr %sink)", add)
    return "\n".join(lines)


def _sinks(lanes: int, threads: int) -> list[np.ndarray]:
    return [np.zeros(lanes * ACCUMULATORS, np.float32) for _ in range(threads)]


def _peak(loop: Any, lanes: int, threads: int) -> float:
    sinks, count = _sinks(lanes, threads), 3_000_000
    best = min(_at_once(lambda k: loop(count, sinks[k].ctypes.data), threads) for _ in range(ROUNDS))
    return threads * count * ACCUMULATORS * lanes * 2 / best


def _reading(loop: Any, lanes: int, threads: int) -> float:
    sinks = _sinks(lanes, threads)
    arrays = [np.ones(LARGE // 4, np.float32) for _ in range(threads)]
    count = LARGE // (4 * ACCUMULATORS * lanes)
    best = min(
        _at_once(lambda k: loop(count, arrays[k].ctypes.data, sinks[k].ctypes.data), threads) for _ in range(ROUNDS)
    )
    return threads * LARGE / best


def _copying(threads: int) -> float:
    pairs = [(np.ones(LARGE, np.uint8), np.ones(LARGE, np.uint8)) for _ in range(threads)]
    best = min(_at_once(lambda k: np.copyto(*pairs[k]), threads) for _ in range(ROUNDS))
    return threads * 2 * LARGE / best


if __name__ == "__main__":
    print(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 2))
