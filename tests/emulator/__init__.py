"""Runs CUDA C++ text on the CPU: compiled by the host's C++ compiler, blocks and threads as fibers.

    module = Module(program([render(a, "a"), render(b, "b")]))     # one compilation, kept on disk by its text
    module.launch("a", grid, block, [x, y, np.int64(7)])

What it notices that a GPU may not: reads and writes outside of a buffer (guard pages, canaries), shared memory read
before it is written (poison: NaN), barriers that not all threads of a block meet, results that depend on the order in
which threads run (`order`: 0 forward, 1 backward, else a seed).
What it cannot show: races between barriers that the order does not expose, and speed.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-shared", "-fPIC", "-w", "-fwrapv", "-ffp-contract=off", "-fno-strict-aliasing"]
PAGE = mmap.PAGESIZE
POISON = 0xFF
_SHARED = re.compile(r"(?<!extern )__shared__ (?:__align__\(16\) )?([\w ]+?) (\w+)\[(\d+)\];")
_SHARED_BYTES = re.compile(r"extern __shared__ __align__\(16\) unsigned char (\w+)\[\];")
_MEETING = re.compile("__sync|__shfl|gn_grid_barrier|gn_multiply")
_NAME = re.compile(r"\) (\w+)\(")
RESIDENT = 4
"""Blocks of a cooperative launch."""
_ENTRY = re.compile(r'extern "C" __global__ void __launch_bounds__\([\d, ]+\) (\w+)\(')


class EmulatorError(RuntimeError):
    """The text did not compile, or a launch did what a kernel must not do."""


def compiler() -> str | None:
    """The host's C++ compiler, None if there is none: then tests skip."""
    return shutil.which(os.environ.get("CXX", "g++"))


def _build(text: str, name: str, flags: Sequence[str]) -> Path:
    """The shared library made from `text`, from the cache if it is there."""
    dialect = (HERE / "device.h").read_text()
    key = hashlib.sha256("\0".join([text, dialect, str(compiler()), *FLAGS, *flags]).encode()).hexdigest()[:24]
    folder = Path(tempfile.gettempdir()) / f"gnomon-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            source, made = Path(work) / f"{name}.cpp", Path(work) / "made.so"
            source.write_text(text)
            command = [str(compiler()), *FLAGS, *flags, "-I", str(HERE), str(source), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise EmulatorError(done.stderr[:4000])
            made.replace(library)
    return library


@cache
def _scheduler() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_build((HERE / "scheduler.cpp").read_text(), "scheduler", ["-O2"])), ctypes.RTLD_GLOBAL)
    library.gn_message.restype = ctypes.c_char_p
    return library


def _host(text: str) -> str:
    """What the preprocessor cannot do: shared arrays belong to the running block, and kernels get an entry point."""
    out = []
    for line in text.split("\n"):
        if _ENTRY.search(line):
            number = 0
        found = _SHARED.search(line)
        if found:
            ctype, name, extent = found.groups()
            array = f"{ctype} *const {name} = ({ctype} *)gn_shared_array({number}, {extent} * sizeof({ctype}));"
            line, number = line[: found.start()] + array + line[found.end() :], number + 1
        out.append(_SHARED_BYTES.sub(r"unsigned char *const \1 = (unsigned char *)gn_shared_bytes();", line))
    return "\n".join(out + [f"GN_ENTRY({name})" for name in _ENTRY.findall(text)])


class Module:
    """A CUDA C++ program on the host."""

    def __init__(self, text: str):
        scheduler = _scheduler()
        self.text = text
        self._launch = scheduler.gn_launch
        self._message = scheduler.gn_message
        texts = text.split('extern "C" __global__')[1:]
        self._meeting = {_NAME.search(t)[1] for t in texts if _MEETING.search(t)}  # type: ignore[index]
        host = f'#include "device.h"\n#line 1 "kernels.cu"\n{_host(text)}\n'
        self._library = ctypes.CDLL(str(_build(host, "kernels", ["-O1", "-nostdinc++"])))

    def launch(
        self,
        name: str,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[np.ndarray | np.generic],
        shared: int = 0,
        order: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Run one kernel; `cooperative`: its blocks, at most RESIDENT, all at once. Arrays are passed by address (a
        guarded copy, copied back), NumPy scalars by value.

        Raises EmulatorError where the kernel does what it must not.
        """
        if not all(grid):
            return  # as the runtime does: nothing to launch
        assert 0 < np.prod(block) <= 1024, block
        assert len(grid) == len(block) == 3, (grid, block)
        known: dict[tuple, _Guard] = {}  # what is passed twice is one array
        guards = [
            known.setdefault((a.ctypes.data, a.nbytes), _Guard(a)) if isinstance(a, np.ndarray) else None
            for a in arguments
        ]
        values = [
            np.array(a if g is None else g.address, a.dtype if g is None else np.uint64)
            for a, g in zip(arguments, guards, strict=True)
        ]
        pointers = (ctypes.c_void_p * max(1, len(values)))(*(v.ctypes.data for v in values))
        entry = ctypes.cast(getattr(self._library, f"gn_entry_{name}"), ctypes.c_void_p)
        sizes = [(ctypes.c_uint * 3)(*t) for t in (grid, block)]
        options = ctypes.c_size_t(shared), order, int(name in self._meeting), int(cooperative)
        rc = self._launch(entry, pointers, *sizes, *options)
        if rc:
            raise EmulatorError(f"{name}: {self._message().decode()}")
        for i, (array, guard) in enumerate(zip(arguments, guards, strict=True)):
            if guard is not None and isinstance(array, np.ndarray):
                guard.finish(array, f"{name}: argument {i}")


class _Guard:
    """A copy of an array whose end lies within 15 bytes of a page that must not be touched, as aligned as the array."""

    def __init__(self, array: np.ndarray):
        assert array.flags.c_contiguous, "an argument must be contiguous"
        beyond = array.ctypes.data % 16
        room = (beyond + array.nbytes + 15) // 16 * 16
        self.pages = mmap.mmap(-1, PAGE + (room + PAGE - 1) // PAGE * PAGE + PAGE)
        whole = np.frombuffer(self.pages, np.uint8)
        base, end = whole.ctypes.data, len(whole) - PAGE
        for page in (base, base + end):
            if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0):
                raise OSError("mprotect failed")
        self.inside = whole[PAGE:end]
        self.start = len(self.inside) - room + beyond
        self.stop = self.start + array.nbytes
        self.inside[:] = POISON
        self.before = array.reshape(-1).view(np.uint8).copy()
        self.inside[self.start : self.stop] = self.before
        self.address = base + PAGE + self.start

    def finish(self, array: np.ndarray, what: str) -> None:
        """Copy back, and see that nothing beside the array was written."""
        outside = np.concatenate([self.inside[: self.start], self.inside[self.stop :]])
        if not (outside == POISON).all():
            raise EmulatorError(f"{what}: a write beside the buffer")
        now = self.inside[self.start : self.stop]
        if array.flags.writeable and (now != self.before).any():  # another argument may be in the same memory
            array[...] = now.view(array.dtype).reshape(array.shape)


def run(
    text: str,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Any],
    shared: int = 0,
    order: int = 0,
) -> None:
    """Compile a program (or take it from the cache) and launch one of its kernels."""
    Module(text).launch(name, grid, block, arguments, shared, order)
