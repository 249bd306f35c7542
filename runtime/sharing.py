"""Threads, as a compiled library is given them to share its work: its own, or Python's."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import Any

from gnomon.compiler.errors import ArgumentError

SHARED = 200_000
"""Nanoseconds of work from which Python's threads are worth waking."""


def threads(wanted: int | None) -> int:
    """How many threads to use. Raises ArgumentError for a number that is none."""
    told: Any = os.environ.get("GNOMON_THREADS", "").strip() if wanted is None else wanted
    if told == "":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(told, bool) or not str(told).isdecimal() or int(told) < 1:
        what = "GNOMON_THREADS" if wanted is None else "threads"
        raise ArgumentError(f"{what} is {told!r}; it must be a whole number, at least 1")
    return min(int(told), 1024)


_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_RUN = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)


class _Threads(ctypes.Structure):
    """The structure through which a library shares work."""

    _fields_ = [("run", _RUN), ("pool", ctypes.c_void_p)]


class Pool:
    """Python's threads, as a library is given them. There is one for each number of threads in a process."""

    made: dict[int, Pool] = {}

    def __new__(cls, count: int) -> Pool:
        if count not in cls.made:
            pool = cls.made[count] = super().__new__(cls)
            pool.count, pool.pid, pool.executor = count, 0, None
            pool.callback = _RUN(pool.run)
            pool.table = _Threads(pool.callback, None)
            pool.pointer = ctypes.c_void_p(ctypes.addressof(pool.table))
        return cls.made[count]

    count: int
    pid: int
    executor: Any
    callback: Any
    table: _Threads
    pointer: ctypes.c_void_p

    def run(self, context: int, task: int, job: int, count: int, work: int) -> None:
        """Called by the library: run `task` for [0, count)."""
        call = _TASK(task)
        shares = min(self.count, count)
        if work < SHARED or shares < 2:
            call(job, 0, count)
            return
        if self.pid != os.getpid():  # in a forked child the threads are gone
            from concurrent.futures import ThreadPoolExecutor

            self.pid, self.executor = os.getpid(), ThreadPoolExecutor(self.count - 1, "gnomon")
        edges = [count * k // shares for k in range(shares + 1)]
        others = [self.executor.submit(call, job, a, b) for a, b in zip(edges[1:-1], edges[2:], strict=True)]
        call(job, edges[0], edges[1])
        for other in others:
            other.result()


def own_pool(owner: Any, function: Callable[[str], Any], count: int) -> Any:
    """A pointer to threads that a library starts itself, for as long as `owner` lives; None if the system has no more.

    function   gives the functions of the library
    """
    size = function("pool_bytes")
    size.restype = ctypes.c_size_t
    memory = ctypes.create_string_buffer(size(ctypes.c_size_t(count)))
    table = (ctypes.c_void_p * 2)()
    if function("pool_create")(table, ctypes.c_size_t(count), memory, ctypes.c_size_t(len(memory))):
        return None
    weakref.finalize(owner, _end, function("pool_destroy"), table, memory, os.getpid()).atexit = False
    return ctypes.c_void_p(ctypes.addressof(table))


def _end(destroy: Any, table: Any, memory: Any, pid: int) -> None:
    """End a library's threads. `memory` is theirs; in a forked child they are not there."""
    if pid == os.getpid():
        destroy(table)


__all__ = ["Pool", "own_pool", "threads"]
