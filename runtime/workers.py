"""Processes that compile: several at once, and safe from what LLVM holds to be fatal.

Each is Python itself running `codegen.py` as a script: it imports nothing of the user's, so a script without a
`__main__` guard is as safe as any. Workers stay for the next program and end by themselves when nothing comes for a
while, or with the pipe of the process that started them.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from gnomon.compiler.errors import CompileError
from gnomon.compiler.program import Source
from gnomon.runtime import codegen, cpu

_idle: list[Worker] = []


def available() -> bool:
    """Whether this is a Python that can be started again: not one inside another program, which would start that."""
    name = Path(sys.executable or "").name.lower()
    frozen = getattr(sys, "frozen", False) or Path(codegen.__file__).suffix != ".py"
    return name.startswith(("python", "pypy")) and not frozen


class Worker:
    """One process that compiles one source at a time.

    usable   no answer is outstanding: after an interrupt the next answer would be that to an earlier request
    """

    def __init__(self) -> None:
        self.usable = True
        self.errors: BinaryIO = tempfile.TemporaryFile()  # a file never fills up and blocks, as a pipe would
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", codegen.__file__, *(os.path.abspath(p) for p in sys.path if p)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )

    @property
    def alive(self) -> bool:
        return self.usable and self.process.poll() is None

    def compile(self, source: Source, check: bool) -> bytes | None:
        """The object of `source`, as `ask` has it."""
        return self.ask(source, codegen.CHECK if check else 0)

    def ask(self, source: Source, flags: int) -> bytes | None:
        """What is made of `source` with these flags of `codegen`; None if the process had ended for want of work before
        it came.

        Raises CompileError if LLVM refuses the source or dies of it.
        """
        requests, replies = self.process.stdin, self.process.stdout
        assert requests is not None
        assert replies is not None
        self.usable = False
        try:
            codegen.send(requests, flags, source.text.encode())
            reply = codegen.receive(replies)
        except BrokenPipeError:
            reply = None
        if reply is None:
            code = self.process.wait()
            if code == -getattr(signal, "SIGALRM", 0):
                return None
            raise cpu.compile_error(source, self._last_words() or f"the compiling process ended with code {code}")
        self.usable = True
        status, data = reply
        if status != codegen.DONE:
            raise cpu.compile_error(source, data.decode(errors="replace"))
        return data

    def _last_words(self) -> str:
        """The first line of what LLVM wrote before it died: the rest is a stack dump."""
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return lines[0] if lines else ""

    def end(self) -> None:
        """Close its pipes, which ends it, and wait until it has."""
        if not self.usable:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue
        self.process.wait()


def assemble(sources: Sequence[Source]) -> Iterator[str]:
    """The assembly of each source, one after the other, by one process."""
    worker = _take()
    try:
        for source in sources:
            done = worker.ask(source, codegen.ASSEMBLY)
            if done is None:
                worker.end()
                worker = _take()
                done = worker.ask(source, codegen.ASSEMBLY)
            if done is None:
                raise CompileError(f"The process that was to compile {source.name!r} ended at once.")
            yield done.decode()
    finally:
        if worker.alive:
            _idle.append(worker)
        else:
            worker.end()


def compile_sources(sources: Sequence[Source], processes: int, check: bool) -> list[bytes]:
    """An object for each source, in order. Raises CompileError with the name of the first that fails."""
    results: list[bytes | None] = [None] * len(sources)
    # the longest first, so that none is left to one process at the end
    waiting = sorted(range(len(sources)), key=lambda i: len(sources[i].text))
    failures: list[BaseException] = []

    def run() -> None:
        worker = None
        try:
            worker = _take()
            while waiting and not failures:
                i = waiting.pop()
                done = worker.compile(sources[i], check)
                if done is None:
                    worker.end()
                    worker = _take()
                    done = worker.compile(sources[i], check)
                if done is None:
                    raise CompileError(f"The process that was to compile {sources[i].name!r} ended at once.")
                results[i] = done
                cpu.count_made()
        except BaseException as error:
            failures.append(error)
        finally:
            if worker is not None:
                if worker.alive:
                    _idle.append(worker)
                else:
                    worker.end()

    others = [threading.Thread(target=run, daemon=True) for _ in range(min(processes, len(sources)) - 1)]
    for thread in others:
        thread.start()
    run()
    try:
        for thread in others:
            thread.join()
    except BaseException as error:
        failures.append(error)  # the threads end after what they are compiling
        raise
    if failures:
        raise failures[0]
    return [r for r in results if r is not None]


def start(count: int) -> None:
    """See to it that `count` workers are idle, without waiting for them."""
    while idle() < count:
        _idle.append(Worker())


def idle() -> int:
    """How many workers wait for work."""
    return sum(worker.alive for worker in _idle)


def _take() -> Worker:
    """An idle worker, or a new one."""
    while _idle:
        worker = _idle.pop()
        if worker.alive:
            return worker
        worker.end()
    return Worker()


def shut_down() -> None:
    """End all idle workers."""
    while _idle:
        _idle.pop().end()


atexit.register(shut_down)


def _forget() -> None:
    """In a forked child: leave the workers to the parent, and close their pipes, or they would not end with it."""
    for worker in _idle:
        for stream in (worker.process.stdin, worker.process.stdout, worker.errors):
            if stream is not None:
                stream.close()
        worker.process.returncode = 0  # not this process's child: nothing to wait for
    _idle.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
