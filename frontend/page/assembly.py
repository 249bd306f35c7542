"""The assembly of kernels for the page, made beside all else: LLVM takes as long for it as for compiling them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from gnomon.compiler.program import Source
from gnomon.runtime import cache as disk
from gnomon.runtime import codegen, cpu, workers

FORMAT = "assembly 1"

PROCESSES = 2


class Assemblies:
    """What becomes of sources, by their texts: `begin` has it made, `of` waits until it is."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(PROCESSES, "assembly")
        self.found: dict[str, Future[str]] = {}

    def begin(self, sources: Sequence[Source]) -> None:
        new = {s.text: s for s in sources if s.text not in self.found}
        self.found.update((text, Future()) for text in new)
        longest = sorted(new.values(), key=lambda s: -len(s.text))
        for k in range(PROCESSES):
            self.pool.submit(self._make, longest[k::PROCESSES])

    def of(self, text: str) -> str:
        return self.found[text].result()

    def _make(self, sources: Sequence[Source]) -> None:
        try:
            told = FORMAT, cpu.identity(), cpu.llvm_version(), codegen.OPTIONS
            keys = {s.text: disk.key(s.key, *told) for s in sources}
            left = []
            for s in sources:
                known = disk.get(keys[s.text])
                if known is None:
                    left.append(s)
                else:
                    self.found[s.text].set_result(known.decode())
            for s, text in zip(left, _assembled(left), strict=True):
                disk.put(keys[s.text], f"assembly {s.name}", text.encode())
                self.found[s.text].set_result(text)
        except BaseException as error:
            for s in sources:
                if not self.found[s.text].done():
                    self.found[s.text].set_exception(error)


def _assembled(sources: Sequence[Source]) -> Iterable[str]:
    if sources and workers.available():
        return workers.assemble(sources)
    return (codegen.assembly(s.text) for s in sources)


__all__ = ["Assemblies"]
