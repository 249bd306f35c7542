"""Programs for CUDA on the emulator: slots laid out by the runtime's memory plan, steps run in order.

Many programs go into one `Batch`, which is one compilation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gnomon.compiler.compile import Request, Stages, all_steps, compile
from gnomon.compiler.dtypes import decoded, encoded, named
from gnomon.compiler.graph import Node
from gnomon.compiler.ops.leaves import key_of
from gnomon.compiler.program import Branch, Clear, Copy, Launch, Program, Repeat, Step
from gnomon.compiler.sizes import evaluate
from gnomon.compiler.targets import CUDA
from gnomon.functions import Function
from gnomon.runtime import arena

from . import Module


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
    """A loaded program. `variables` are updated in place, in the order of `Program.variables`.

    module   the compiled text of several programs, this one among them; by default of this one alone
    """

    def __init__(self, program: Program, module: Module | None = None):
        assert program.target == "cuda", program.target
        self.program = program
        self.module = Module(text([program])) if module is None else module

    def __call__(
        self, inputs: Sequence[np.ndarray], variables: Sequence[np.ndarray] = (), order: int = 0
    ) -> list[np.ndarray]:
        """Outputs of one call; those of bfloat16 as NumPy holds them."""
        program = self.program
        sizes = {
            name: inputs[k].shape[axis] if axis >= 0 else int(inputs[k])
            for name, (k, axis) in zip(program.sizes, program.bindings, strict=True)
        }
        slots = self._slots(sizes)
        for slot, array in zip(program.inputs, inputs, strict=True):
            assert array.shape == slots[slot].shape, (program.slots[slot], array.shape)
            row = named(program.slots[slot].dtype)
            assert array.dtype in (row.numpy, row.memory), (program.slots[slot], array.dtype)
            slots[slot] = np.ascontiguousarray(encoded(row.name, array)).reshape(array.shape)
        for (slot, _), array in zip(program.variables, variables, strict=True):
            slots[slot] = array
        for slot, data in program.constants:
            slots[slot][...] = np.frombuffer(data, slots[slot].dtype).reshape(slots[slot].shape)
        self._run(program.steps, slots, sizes, order)
        return [decoded(program.slots[s].dtype, slots[s]) for s in program.outputs]

    def _slots(self, sizes: dict[str, int]) -> list[np.ndarray]:
        """An array for each slot; temporaries share one arena by their lifetimes. All is poisoned."""
        slots = self.program.slots
        shapes = [tuple(evaluate(d, sizes) for d in s.shape) for s in slots]
        bytes_ = [int(np.prod(shape)) * named(s.dtype).bytes for s, shape in zip(slots, shapes, strict=True)]
        temporary = [k for k, s in enumerate(slots) if s.kind == "temporary"]
        lifetimes = [(slots[k].first, slots[k].last) for k in temporary]
        offsets, total = arena.layout([bytes_[k] for k in temporary], lifetimes)
        memory = np.full(total, 0x7F, np.uint8)
        place = dict(zip(temporary, offsets, strict=True))
        found = []
        for k, (slot, shape) in enumerate(zip(slots, shapes, strict=True)):
            if slot.row is not None:
                # in its place: another one's memory, each time elsewhere
                found.append(np.empty(shape, named(slot.dtype).memory))
                continue
            raw = memory[place[k] : place[k] + bytes_[k]] if k in place else np.full(bytes_[k], 0x7F, np.uint8)
            found.append(raw.view(named(slot.dtype).memory).reshape(shape))
        return found

    def _at(self, k: int, slots: list[np.ndarray], sizes: dict[str, int]) -> np.ndarray:
        """The array of a slot as it is now."""
        slot = self.program.slots[k]
        if slot.row is None:
            return slots[k]
        number = int(slots[slot.row.counter]) + evaluate(slot.row.shift, sizes)
        rows = None if slot.row.rows is None else evaluate(slot.row.rows, sizes)
        if slot.row.edge >= 0 and (number < 0 or rows is not None and number >= rows):
            return self._at(slot.row.edge, slots, sizes)
        whole = self._at(slot.alias, slots, sizes)
        row = number % slot.row.ring if slot.row.ring else number
        return whole[row : row + 1].reshape(whole.shape[1:])  # of scalars too a view, not a number

    def _run(self, steps: Sequence[Step], slots: list[np.ndarray], sizes: dict[str, int], order: int) -> None:
        at = lambda k: self._at(k, slots, sizes)
        for step in steps:
            match step:
                case Launch():
                    grid = [evaluate(g, sizes) for g in step.grid]
                    numbers = [np.int64(evaluate(s, sizes)) for s in step.sizes]
                    arguments: list[np.ndarray | np.generic] = [*(at(b) for b in step.buffers), *numbers]
                    self.module.launch(step.kernel, grid, step.block, arguments, evaluate(step.shared, sizes), order)
                case Copy():
                    at(step.target)[...] = at(step.source)
                case Clear():
                    at(step.target)[...] = 0
                case Repeat():
                    counts = [] if step.count is None else [evaluate(step.count, sizes)]
                    counts += [] if step.limit < 0 else [max(0, int(at(step.limit)))]
                    done, ended = 0, False
                    while True:
                        at(step.counter)[...] = min(counts) - 1 - done if step.reverse else done
                        if step.round >= 0:
                            at(step.round)[...] = done
                        if ended or (counts and done >= min(counts)):
                            break
                        self._run(step.steps, slots, sizes, order)
                        done, ended = done + 1, step.until >= 0 and bool(at(step.until))
                case Branch():
                    self._run(step.then if at(step.condition) else step.orelse, slots, sizes, order)
                case _:
                    raise NotImplementedError(f"the emulator has no libraries: {step}")


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

    def run(self, name: str, arrays: Sequence[np.ndarray], order: int = 0) -> list[np.ndarray]:
        """The outputs of a program, given its inputs in order."""
        if self.module is None:
            self.module = Module(self.text())
        return Emulated(self.programs[name], self.module)(arrays, order=order)
