"""What an NVIDIA card can do at most: its arithmetic peaks and its memory bandwidth, measured through gnomon's driver.

    python benchmarks/card.py           prints them, or why the card cannot be used
    python benchmarks/card.py --json    the same for run.py

float32: fused multiply-adds in registers. bfloat16: products of 4096^3 by cuBLAS, as the peak of the matrix units is
reached by no loop that is simple; where CuPy has no cuBLAS, it is not known. Bandwidth: bytes read plus written of
copies within the card's memory, of arrays far larger than its caches.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHAINS = 8
THREADS = 256
ROUNDS = 5

PEAK = f"""
extern "C" __global__ void __launch_bounds__({THREADS}) peak(float *sink, int rounds) {{
    float a[{CHAINS}];
    float x = sink[threadIdx.x];
    #pragma unroll
    for (int k = 0; k < {CHAINS}; ++k) a[k] = x + k;
    for (int i = 0; i < rounds; ++i) {{
        #pragma unroll
        for (int k = 0; k < {CHAINS}; ++k) a[k] = fmaf(a[k], x, x);
    }}
    float sum = 0;
    #pragma unroll
    for (int k = 0; k < {CHAINS}; ++k) sum += a[k];
    if (sum == -1.0f) sink[threadIdx.x] = sum;
}}
"""
"""Independent chains of multiply-adds of numbers that are zero; the condition, which never holds, keeps the work."""


@dataclass(frozen=True)
class Card:
    """flops    float32 operations a second
    copied   bytes a second, read plus written
    halves   bfloat16 operations a second, 0 if not known
    name, driver   as NVIDIA calls them"""

    flops: float
    copied: float
    halves: float
    name: str
    driver: str

    def __str__(self):
        halves = f", {self.halves / 1e12:.0f} bfloat16 TFLOP/s by cuBLAS" if self.halves else ""
        rates = f"{self.flops / 1e12:.1f} float32 TFLOP/s{halves}, copies {self.copied / 1e9:.0f} GB/s"
        return f"{self.name}, {self.driver}: {rates}"

    @property
    def read(self) -> float:
        """Memory gives as many bytes a second as it takes and gives."""
        return self.copied

    def peak(self, dtype: str) -> float:
        return self.halves if dtype == "bfloat16" else self.flops

    def best(self, other: "Card") -> "Card":
        """The better of two measurements: other work on the card can only make it look slower."""
        pairs = zip((self.flops, self.copied, self.halves), (other.flops, other.copied, other.halves), strict=True)
        return Card(*(max(pair) for pair in pairs), self.name, self.driver)


class CardError(Exception):
    """There is no card that can be used; the text says why."""


def measure(gpu, name, driver, blocks=8192, rounds=16384, size=1 << 30, copies=10, halves=0.0):
    """The best of several measurements on a `Gpu`. The arguments say how much work each is: some milliseconds."""
    with gpu.lock:
        flops = peak(gpu.driver, blocks, rounds)
        return Card(flops, copied(gpu.driver, size, copies), halves, name, driver)


def best_seconds(driver, work):
    """Seconds that `work` takes on the device, at best."""
    found = []
    for _ in range(ROUNDS):
        driver.wait()
        start = time.perf_counter()
        work()
        driver.wait()
        found.append(time.perf_counter() - start)
    return min(found)


def peak(driver, blocks, rounds):
    from gnomon.runtime.gpu import Span

    module, sink = driver.load(PEAK, f"benchmarks {PEAK}"), driver.allocate(4 * THREADS)
    driver.fill(sink, 0, 4 * THREADS)
    arguments = [Span(sink, 4 * THREADS), np.int32(rounds)]
    run = lambda: driver.launch(module, "peak", (blocks, 1, 1), (THREADS, 1, 1), 0, arguments)
    run()
    seconds = best_seconds(driver, run)
    driver.free(sink)
    return 2.0 * blocks * THREADS * CHAINS * rounds / seconds


def copied(driver, size, copies):
    source, to = driver.allocate(size), driver.allocate(size)
    driver.fill(source, 0, size)

    def run():
        for _ in range(copies):
            driver.copy(to, source, size)

    run()
    seconds = best_seconds(driver, run)
    driver.free(source)
    driver.free(to)
    return 2.0 * size * copies / seconds


def by_cublas(n=4096, times=10):
    """bfloat16 operations a second of products of n^3; 0 without cuBLAS."""
    sys.path.insert(0, str(Path(__file__).resolve().parent / "workers"))
    try:
        import use_cupy
    except ImportError:
        return 0.0
    a, b = (use_cupy.to_card(np.ones((n, n), np.float32), "bfloat16") for _ in range(2))
    call = use_cupy.product(a, b, "nn", "bfloat16")
    found = []
    for _ in range(ROUNDS + 1):  # the first loads the library
        use_cupy.wait()
        start = time.perf_counter()
        for _ in range(times):
            call()
        use_cupy.wait()
        found.append(time.perf_counter() - start)
    return 2.0 * n**3 * times / min(found)


def here():
    """The first card, measured in this process. Raises CardError."""
    from gnomon.runtime.device import device, gpu_problem

    problem = gpu_problem()
    if problem:
        raise CardError(problem)
    import cupy

    gpu = device("gpu:0")
    version = cupy.cuda.runtime.driverGetVersion()
    told = f"driver {driver_version()}for CUDA {version // 1000}.{version % 1000 // 10}"
    return measure(gpu, gpu.driver.name, told, halves=by_cublas())


def driver_version():
    """The number of NVIDIA's driver as nvidia-smi tells it; nothing where that is not."""
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[0] + " "
    except (OSError, subprocess.CalledProcessError, IndexError):
        return ""


def measured(python=sys.executable):
    """The first card, measured by a process that then lets go of it. Raises CardError."""
    asked = subprocess.run([python, __file__, "--json"], capture_output=True, text=True)
    try:
        told = json.loads(asked.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        last = (asked.stderr.strip().splitlines() or [f"it ended with {asked.returncode}"])[-1]
        raise CardError(f"it cannot be measured: {last}") from None
    if "problem" in told:
        raise CardError(told["problem"])
    return Card(**told)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print a line of JSON")
    as_json = parser.parse_args().json
    try:
        card = here()
    except CardError as error:
        print(json.dumps({"problem": str(error)}) if as_json else f"No card can be used: {error}.")
        return 2
    print(json.dumps(vars(card)) if as_json else card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
