"""Kernels that go through rounds by themselves, as CUDA C++.

Where all blocks run at once and meet at barriers, a kernel takes any number of blocks along x: loops over blocks go on
by as many as there are. What one thread writes and another reads after a barrier must not be taken to stay as it was:
only what the whole kernel does not write is `__restrict__`.
"""

from __future__ import annotations

from gnomon.compiler.kernel import Barrier, Buffer, For, IndexValue, Kernel, Rounds, Stmt, View
from gnomon.compiler.render.cuda import Writer, bare, ctype
from gnomon.compiler.render.cuda_launch import is_cooperative
from gnomon.compiler.sizes import Dim, product


def render(kernel: Kernel, name: str) -> str:
    """The kernel as the text of one CUDA C++ function called `name`. Raises CompileError as `cuda.render` does."""
    return _Writer(kernel, name).text()


class _Writer(Writer):
    def __init__(self, kernel: Kernel, name: str):
        super().__init__(kernel, name)
        self.changing: set[Buffer] = set(kernel.writes)
        self.cooperative = is_cooperative(kernel)

    def _argument(self, b: Buffer) -> str:
        if b in self.changing:
            return f"{ctype(b.dtype)} *{self._named(b, b.name)}"
        return super()._argument(b)

    def _statement(self, s: Stmt) -> None:
        match s:
            case Barrier() if s.everywhere is not None:
                self._converged("a barrier")
                self._line(f"gn_grid_barrier({self.names[s.everywhere]});")
            case View():
                self._view(s)
            case Rounds():
                self._rounds(s)
            case _:
                super()._statement(s)

    def _view(self, s: View) -> None:
        (place,) = self._evaluate(IndexValue("int64", s.number * product(s.whole.shape[1:])))
        of = self.names[s.whole] if place == "0" else f"{self.names[s.whole]} + {place}"
        changing = s.whole in self.changing
        if s.inside is not None and s.edge is not None:
            (inside,) = self._evaluate(s.inside)
            of = f"{inside} ? {of} : {self.names[s.edge]}"
            changing &= s.edge in self.changing
        if changing:
            self.changing.add(s.row)
        const = "" if changing else "const "
        self._line(f"{const}{ctype(s.row.dtype)} *const {self._named(s.row, s.row.name)} = {of};")

    def _rounds(self, s: Rounds) -> None:
        (extent,) = self._evaluate(IndexValue("int64", s.index.extent))
        done = self._named(s.done, s.done.name)
        self._line(f"long long {done} = 0;")
        with self._scope(f"while ({done} < {bare(extent)})"):
            self._line(f"const long long {self._named(s.index, s.index.name)} = {done}++;")
            self._body(s.body)
            if s.until is not None:
                (end,) = self._evaluate(s.until)
                self._line(f"if ({bare(end)}) break;")

    def _spread(self, s: For, place: str, launched: Dim) -> None:
        if not place.startswith("blockIdx") or not self.cooperative:
            super()._spread(s, place, launched)
            return
        with self._loop(s.index, place, "gridDim.x"):
            self._enter(s, place, False, False)
            self._body(s.body)
