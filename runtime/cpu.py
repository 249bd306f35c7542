"""The CPU: what this machine is, and how a program becomes code in this process."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from gnomon.compiler.errors import ArgumentError, CompileError
from gnomon.compiler.program import Program, Source
from gnomon.compiler.targets import Target
from gnomon.runtime import cache as disk
from gnomon.runtime import codegen, image, library, pool
from gnomon.runtime.buffer import Buffer
from gnomon.runtime.device import Executable, Loaded, LoadEvent, TextMissing

# ---- the machine


@cache
def host_target() -> Target:
    """This machine, found out without LLVM.

    `cpu` and `features` are empty: code is generated for the host's own, which only code generation need know
    (`codegen.llvm_cpu`), and a text that names no cpu is the same on every machine with equal vectors.
    With GNOMON_WINOGRAD=0 no convolution trades accuracy for speed.
    Raises ArgumentError if GNOMON_THREADS is not a positive number.
    """
    machine = platform.machine().lower()
    vector, registers, fma = 16, 16, False
    if machine in ("x86_64", "amd64"):
        has = _cpu_features()
        # AVX-512 as Skylake has it: without VL and DQ the masked and mixed-width forms are missing
        if all(has.get(f, False) for f in ("AVX512F", "AVX512_SKX")):
            vector, registers = 64, 32
        elif has.get("AVX2", False):
            vector = 32
        fma = bool(has.get("FMA3", False))
    elif machine in ("aarch64", "arm64"):
        registers, fma = 32, True
    l1, l2 = _caches()
    fast = os.environ.get("GNOMON_WINOGRAD", "1").strip() != "0"
    return Target("cpu", _triple(machine), "", "", vector, registers, fma, l1, l2, threads(), fast)


def _cpu_features() -> dict[str, bool]:
    """NumPy's table of what the CPU can do: it asked already."""
    from importlib import import_module

    return getattr(import_module("numpy._core._multiarray_umath"), "__cpu_features__", {})


def _triple(machine: str) -> str:
    if sys.platform == "darwin":
        return f"{'arm64' if machine in ('aarch64', 'arm64') else machine}-apple-darwin"
    if sys.platform == "win32":
        return f"{'x86_64' if machine == 'amd64' else machine}-pc-windows-msvc"
    return f"{machine}-unknown-linux-gnu"


def _caches() -> tuple[int, int]:
    """Bytes of the first and second level data cache of one core."""
    found = {1: 32 << 10, 2: 512 << 10}
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level = int((entry / "level").read_text())
            size = (entry / "size").read_text().strip()
            if level in found and (entry / "type").read_text().strip() != "Instruction":
                found[level] = int(size.rstrip("KM")) << (20 if size.endswith("M") else 10)
        except (OSError, ValueError):
            continue
    return found[1], found[2]


def threads() -> int:
    """How many threads a launch may be split among: GNOMON_THREADS, or the cores that this process may use."""
    wanted = os.environ.get("GNOMON_THREADS", "").strip()
    if wanted:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise ArgumentError(f"GNOMON_THREADS is {wanted!r}; it must be a whole number, at least 1.")
        return min(int(wanted), 1024)
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    cores = set()
    for number in allowed:  # two hardware threads of one core share its arithmetic
        try:
            cores.add(Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list").read_text())
        except OSError:
            cores.add(str(number))
    return max(1, min(len(cores), _quota()))


def _quota() -> int:
    """How many cores the container may use at once; many if it has no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        return 1024


CPUINFO = frozenset(
    "vendor_id|cpu family|model|model name|stepping|flags|Features|CPU implementer|CPU architecture|CPU variant|"
    "CPU part|isa|uarch".split("|")
)
"""Lines of /proc/cpuinfo that tell what a processor is, on x86, ARM and RISC-V."""


@cache
def identity() -> str:
    """All that decides which code LLVM generates for this machine, without asking LLVM."""
    parts = [platform.machine(), sys.platform]
    try:
        with open("/proc/cpuinfo") as file:
            first = file.read(1 << 14).partition("\n\n")[0]
        parts += [line for line in first.splitlines() if line.partition(":")[0].strip() in CPUINFO]
    except OSError:
        parts += [platform.processor(), *sorted(k for k, v in _cpu_features().items() if v)]
    return "\n".join(parts)


@cache
def llvm_version() -> str:
    """llvmlite's version, read from its files rather than by importing it.

    Raises CompileError if it is not installed.
    """
    from importlib.util import find_spec

    spec = find_spec("llvmlite")
    if spec is None or spec.origin is None:
        raise CompileError("llvmlite is not installed, and it compiles everything here: pip install llvmlite")
    try:
        return Path(spec.origin).with_name("_version.py").read_text()
    except OSError:
        from importlib.metadata import version

        return version("llvmlite")


# ---- compiling

MILLISECONDS_PER_KILOBYTE = 1.0
"""About how long code generation takes per kilobyte of text."""

IMPORT, START = 75.0, 90.0
"""Milliseconds to import llvmlite into this process, and until a worker process has started and done so."""


def prepare() -> None:
    """Start the processes that compile, if a program is on its way that will surely have to be compiled: there is no
    cache, or nothing in it. They start while the caller is still making the program."""
    if threads() > 1 and disk.is_empty():
        from gnomon.runtime import workers

        if workers.available():
            workers.start(min(2, threads()))


def checking() -> bool:
    """Whether GNOMON_CHECK asks for every module to be verified."""
    return os.environ.get("GNOMON_CHECK", "").strip() not in ("", "0")


def compile_sources(sources: Sequence[Source]) -> list[bytes]:
    """An object file for each source. Raises CompileError naming the source that LLVM does not take."""
    processes = _processes(sources)
    _made[:] = 0, len(sources)
    try:
        if processes:
            from gnomon.runtime import workers  # subprocess is slow to import, and only compiling needs it

            if workers.available():
                return workers.compile_sources(sources, processes, checking())
        objects = []
        for source in sources:
            try:
                objects.append(codegen.compile_object(source.text, checking()))
            except RuntimeError as error:
                raise compile_error(source, str(error)) from None
            count_made()
        return objects
    finally:
        _made[:] = 0, 0


_made = [0, 0]


def count_made() -> None:
    """One more of the sources that are being compiled is done."""
    _made[0] += 1


def made() -> tuple[int, int]:
    """How many of how many sources are compiled; (0, 0) while none are being compiled."""
    return _made[0], _made[1]


def _processes(sources: Sequence[Source]) -> int:
    """How many worker processes compile `sources` soonest; 0 if this one does."""
    workers = sys.modules.get("gnomon.runtime.workers")
    idle = workers.idle() if workers else 0
    cost = sum(len(s.text) for s in sources) / 1024 * MILLISECONDS_PER_KILOBYTE
    alone = cost + (0.0 if "llvmlite.binding" in sys.modules else IMPORT)
    most = min(threads(), len(sources))
    times = {n: cost / n + (0.0 if n <= idle else START) for n in range(1, most + 1)}
    best = min(times, key=lambda n: (times[n], n), default=0)
    return best if best and times[best] < alone else 0


def compile_error(source: Source, words: str) -> CompileError:
    """What to raise when LLVM refuses a source."""
    return CompileError(
        f"LLVM cannot compile {source.name!r}, which defines {', '.join(source.defines)}: {words.strip()}\n"
        "This is a mistake of gnomon's, not of your model; GNOMON_SHOW=llvm prints the text."
    )


def assembly(program: Program) -> str:
    """The machine code of all of a program's sources as assembly text."""
    return "\n".join(f"# {s.name}\n{codegen.assembly(s.text)}" for s in program.sources)


# ---- loading

_lock = threading.RLock()


def _new_lock() -> None:
    """In a forked child: the thread that held the lock is gone."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)

_symbols: dict[str, dict[str, int]] = {}
"""What each source that is in memory defines, by the digest of its text."""


def load(program: Program) -> Loaded:
    """Machine code for `program`. Sources that an earlier program brought are shared, others read or compiled.

    A source may call what the sources before it define, functions of C's mathematical library, and library routines.
    Raises CompileError.
    """
    # our own with the program's: what has to be compiled is compiled at once
    symbols, events = load_sources([*program.sources, *_own_sources()])
    if program.entry not in symbols:
        raise CompileError(f"No source of program {program.name!r} defines its entry {program.entry!r}.")
    return Loaded(symbols[program.entry], symbols, events[: len(program.sources)])


def load_sources(sources: Sequence[Source]) -> tuple[dict[str, int], tuple[LoadEvent, ...]]:
    """The addresses of all that `sources` define, and how each came into memory.

    Raises TextMissing if one that has no text is neither in memory nor in the cache.
    """
    with _lock:
        digests = [s.key for s in sources]
        events: dict[str, LoadEvent] = {}
        objects: dict[str, bytes] = {}
        keys: dict[str, str] = {}
        for source, digest in zip(sources, digests, strict=True):
            if digest in _symbols:
                events[digest] = LoadEvent(source.name, "shared")
            elif digest not in objects and digest not in keys:
                began = time.perf_counter()
                keys[digest] = disk.key(digest, identity(), llvm_version(), codegen.OPTIONS)
                content = disk.get(keys[digest])
                if content is not None:
                    objects[digest] = content
                    events[digest] = LoadEvent(source.name, "cache", time.perf_counter() - began)
        missing = {d: s for s, d in zip(sources, digests, strict=True) if d in keys and d not in objects}
        if missing:
            lost = next((s.name for s in missing.values() if not s.text), None)
            if lost is not None:
                raise TextMissing(f"The machine code of {lost!r} is not in the cache any more.")
            began = time.perf_counter()
            compiled = compile_sources(list(missing.values()))
            seconds = time.perf_counter() - began
            total = sum(len(s.text) for s in missing.values())
            for (digest, source), content in zip(missing.items(), compiled, strict=True):
                objects[digest] = content
                disk.put(keys[digest], source.name, content)
                events[digest] = LoadEvent(source.name, "compiled", seconds * len(source.text) / total)
        symbols: dict[str, int] = {}
        for digest in digests:
            symbols.update(_symbols.get(digest, {}))
        fresh = {d: (d, s, objects[d]) for s, d in zip(sources, digests, strict=True) if d in objects}
        if fresh:
            _link(list(fresh.values()), symbols)
            for digest in fresh:
                symbols.update(_symbols[digest])
        return symbols, tuple(events[d] for d in digests)


def _link(fresh: list[tuple[str, Source, bytes]], known: dict[str, int]) -> None:
    """Put objects into memory; `known` are the functions of the program's other sources."""

    def resolve(name: str) -> int | None:
        if name.startswith(library.PREFIX):
            return library.address(name.removeprefix(library.PREFIX))
        return known.get(name) or image.process_symbol(name)

    if image.supported():
        defined = image.load([(source.name, content) for _, source, content in fresh], resolve)
    else:
        defined = codegen.link([(source.text, source.defines, content) for _, source, content in fresh], resolve)
    for digest, source, _ in fresh:
        try:
            _symbols[digest] = {name: defined[name] for name in source.defines}
        except KeyError as error:
            raise CompileError(f"The source {source.name!r} does not define {error}, though it says so.") from None


# ---- threads


@cache
def _own_sources() -> list[Source]:
    """The runtime's own code: the pool and the gate, where they work."""
    from gnomon.runtime import gate  # which needs this module

    return [s for s in (_pool_source() if _threaded() else None, gate.source() if gate.supported() else None) if s]


def _pool_source() -> Source:
    count = host_target().threads
    return Source(f"pool_{count}", pool.text(count), (pool.PARALLEL, pool.WAKEN, pool.RESET, pool.STATE))


def _threaded() -> bool:
    return host_target().threads > 1 and pool.supported()


@cache
def _pool() -> dict[str, int]:
    """The addresses of the pool's functions."""
    symbols, _ = load_sources([_pool_source()])
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=ctypes.CFUNCTYPE(None)(symbols[pool.RESET]))
    return symbols


def parallel() -> int:
    """The address of the function that shares a launch among threads; 0, run serially, where there is only one."""
    return _pool()[pool.PARALLEL] if _threaded() else 0


def waken() -> int:
    """The address of the function that wakes the threads when much work is about to come; 0 if there are none."""
    return _pool()[pool.WAKEN] if _threaded() else 0


def pool_state(which: int) -> int:
    """Workers started (0) or asleep (1), jobs shared among threads so far (2)."""
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(_pool()[pool.STATE])(which) if parallel() else 0


class CPU:
    """The device 'cpu'. Calls return when they are done, so there is never anything to wait for."""

    name = "cpu"
    apart = False

    def target(self) -> Target:
        return host_target()

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        return Buffer(shape, dtype)

    def copy(self, source: Buffer, target: Buffer) -> None:
        target.set(source.numpy())

    def load(self, program: Program) -> Loaded:
        return load(program)

    def array(self, value: Any) -> Any:
        return value

    def room(self) -> int:
        return sys.maxsize

    def adopt(self, value: Any) -> None:
        return None

    def executable(self, program: Program, variables: Sequence[Buffer]) -> Executable:
        from gnomon.runtime.executable import Executable as CPUExecutable

        return CPUExecutable(program, variables)

    def prepare(self) -> None:
        prepare()

    def wait(self) -> None:
        return
