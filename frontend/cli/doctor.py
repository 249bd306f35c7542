"""What `gnomon doctor` looks at."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Finding:
    """One line: whether it is as it must be for gnomon to work."""

    name: str
    value: str
    ok: bool = True


def examine() -> list[Finding]:
    """All findings, in the order to be printed."""
    return [*_versions(), *_processor(), _cache(), _gpu(), _device(), _compiles()]


def _versions() -> Iterator[Finding]:
    yield Finding("gnomon", _version("gnomon"))
    yield Finding(
        "python", f"{platform.python_version()} on {platform.system()} {platform.machine()} ({sys.executable})"
    )
    for package in ("numpy", "llvmlite"):
        found = _version(package)
        yield Finding(package, found or f"not installed: pip install {package}", bool(found))
    for package, use in (("h5py", "model files"), ("networkx", "GraphML"), ("rich", "summaries"), ("cupy", "GPUs")):
        found = _version(package) or _version(f"{package}-cuda12x") or _version(f"{package}-cuda13x")
        yield Finding(package, found or f"not installed (needed for {use})")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _processor() -> Iterator[Finding]:
    from gnomon.runtime import cpu

    def describe() -> str:
        target = cpu.host_target()
        fma = "fused multiply-add" if target.fma else "no fused multiply-add"
        caches = f"L1 {target.l1 >> 10} KiB, L2 {target.l2 >> 10} KiB"
        return f"{target.triple}, {target.registers} vectors of {target.vector_bytes * 8} bits, {fma}, {caches}"

    yield _asked("processor", describe)
    yield _asked("threads", lambda: f"{cpu.threads()} (GNOMON_THREADS sets another number)")


def _asked(name: str, ask: Callable[[], str]) -> Finding:
    """What `ask` answers; what it raises is the finding."""
    try:
        return Finding(name, ask())
    except Exception as error:
        return Finding(name, f"{type(error).__name__}: {error}", False)


def _cache() -> Finding:
    from gnomon.cli.printing import as_bytes
    from gnomon.runtime import cache

    def describe() -> str:
        info = cache.info()
        if info.problem:
            return f"not in use: {info.problem}"
        return f"{info.path}, {info.entries} entries, {as_bytes(info.bytes)} of {as_bytes(info.limit)}"

    return _asked("cache", describe)


def _gpu() -> Finding:
    """A GPU, or why there is none. Its absence is nothing wrong."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
            break
        except OSError:
            continue
    else:
        return Finding("gpu", "none: there is no NVIDIA driver here; everything runs on the CPU")
    count = ctypes.c_int(0)
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return Finding("gpu", "none: there is an NVIDIA driver, but it finds no device")
    from gnomon.runtime.device import gpu_problem

    text = ctypes.create_string_buffer(100)
    driver.cuDeviceGetName(text, 100, 0)
    problem = gpu_problem()
    used = f"; not used: {problem}" if problem else "; functions and models run on 'gpu:0' unless told otherwise"
    return Finding("gpu", f"{count.value} x {text.value.decode()}{used}")


def _device() -> Finding:
    """Where programs run, and why not on a GPU."""
    from gnomon.placement import current_device
    from gnomon.runtime.device import gpu_problem

    def describe() -> str:
        name = current_device()
        told = [w for w in ("GNOMON_DEVICE",) if os.environ.get(w, "").strip()]
        why = f"{told[0]} says so" if told else gpu_problem() if name == "cpu" else "the first GPU"
        return f"{name} ({why})"

    return _asked("device", describe)


def _compiles() -> Finding:
    """Compile a small function and compare it with NumPy."""

    def attempt() -> str:
        import numpy as np

        import gnomon

        began = time.perf_counter()
        x = gnomon.vector("x")
        result = gnomon.function([x], gnomon.ops.sum(gnomon.ops.exp(x)), name="doctor")
        data = np.arange(5, dtype=x.dtype)
        got, wanted = float(result(data)), float(np.exp(data).sum())
        if abs(got - wanted) > 1e-4 * wanted:
            raise ArithmeticError(f"sum(exp(x)) is {got}, but NumPy says {wanted}")
        how = "from the cache" if gnomon.compile_events()[-1].from_cache else "by LLVM"
        return f"works: a function made {how} in {time.perf_counter() - began:.2f} s"

    return _asked("compiling", attempt)


__all__ = ["Finding", "examine"]
