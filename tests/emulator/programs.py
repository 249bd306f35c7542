"""Programs for CUDA on the emulator, run by the runtime as on a card.

Many programs go into one `Batch`, which is one compilation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gnomon.compiler.compile import Request, Stages, all_steps, compile
from gnomon.compiler.dtypes import named
from gnomon.compiler.graph import Node
from gnomon.compiler.ops.leaves import key_of
from gnomon.compiler.program import Launch, Program, Slot
from gnomon.compiler.sizes import evaluate
from gnomon.compiler.targets import CUDA
from gnomon.functions import Function
from gnomon.runtime.buffer import Buffer
from gnomon.runtime.device import device as runtime_device
from gnomon.runtime.gpu import Gpu
from gnomon.runtime.gpu_run import GpuExecutable

from . import Module
from .driver import Emulator

CARD: str | None = None
"""The name of a card on which programs run instead: `pytest --device gpu`."""


def text(programs: Iterable[Program]) -> str:
    """The CUDA C++ of programs as one: the prelude and each kernel once."""
    return "\n".join({s.name: s.text for p in programs for s in p.sources}.values())


def kernels(program: Program) -> list[str]:
    """Names of the kernels that a program launches, in order."""
    return [s.kernel for s in all_steps(program.steps) if isinstance(s, Launch)]


def for_cuda(function: Function, stages: Stages | None = None) -> Program:
    """What `gnomon.function` was asked for, compiled for CUDA."""
    graph = function.graph
    updates = [(v.node, node) for v, node in graph.updates.items()]
    return compile(Request(graph.name, graph.inputs, graph.outputs, updates, graph.repeat), CUDA, stages)


def state_of(function: Function, program: Program) -> list[np.ndarray]:
    """Copies of the variables of a function, in the order that the program takes them."""
    values = {key_of(v.node): v.numpy() for v in function.graph.variables}
    return [np.array(values[key]) for _, key in program.variables]


class Emulated:
    """A loaded program on the product's own `Gpu`, with the emulator as its driver. `variables` are updated in place,
    in the order of `Program.variables`.

    module   the compiled text of several programs, this one among them; by default of this one alone
    device   the name of a card to run it on instead
    """

    def __init__(self, program: Program, module: Module | None = None, device: str | None = None):
        self.program, device = program, device or CARD
        self.driver = Emulator(module=module)
        self.gpu = Gpu("emulator", self.driver, poison=True) if device is None else runtime_device(device)
        self.buffers = [_buffer(program.slots[slot]) for slot, _ in program.variables]
        self.executable = GpuExecutable(self.gpu, program, self.buffers)

    def __call__(
        self, inputs: Sequence[np.ndarray], variables: Sequence[np.ndarray] = (), order: int = 0
    ) -> list[np.ndarray]:
        """Outputs of one call; those of bfloat16 as NumPy holds them."""
        self.driver.order = order
        for buffer, array in zip(self.buffers, variables, strict=True):
            buffer.set(array)
        outputs = self.executable(*inputs)
        for buffer, array in zip(self.buffers, variables, strict=True):
            array[...] = buffer.numpy()
        rows = [named(self.program.slots[s].dtype) for s in self.program.outputs]
        return [o.astype(r.numpy, copy=False) for o, r in zip(outputs, rows, strict=True)]


def _buffer(slot: Slot) -> Buffer:
    return Buffer(tuple(evaluate(d, {}) for d in slot.shape), slot.dtype)


class Batch:
    """Graphs by name as programs for CUDA, compiled together by the host's compiler when the first of them runs."""

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        self.stages: dict[str, Stages] = {}
        self.module: Module | None = None

    def add(self, name: str, inputs: Sequence[Node], outputs: Sequence[Node]) -> None:
        """Lower a graph and render its kernels."""
        assert self.module is None, "all graphs are compiled together: add them before one runs"
        self.stages[name] = Stages()
        self.programs[name] = compile(Request(name, inputs, outputs), CUDA, self.stages[name])

    def text(self, names: Iterable[str] | None = None) -> str:
        """The CUDA C++ of the named programs, of all by default."""
        return text(self.programs[name] for name in (self.programs if names is None else names))

    def run(
        self, name: str, arrays: Sequence[np.ndarray], order: int = 0, device: str | None = None
    ) -> list[np.ndarray]:
        """The outputs of a program, given its inputs in order; `device`: on a card, where it is compiled alone."""
        if device is not None:
            return Emulated(self.programs[name], None, device)(arrays)
        if self.module is None:
            self.module = Module(self.text())
        return Emulated(self.programs[name], self.module)(arrays, order=order)
