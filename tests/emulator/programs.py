"""Programs for CUDA on the emulator: slots laid out by the runtime's memory plan, steps run in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gnomon.compiler.dtypes import named
from gnomon.compiler.program import Branch, Copy, Launch, Program, Repeat, Step
from gnomon.compiler.sizes import evaluate
from gnomon.runtime import arena

from . import Module


class Emulated:
    """A loaded program. `variables` are updated in place, in the order of `Program.variables`."""

    def __init__(self, program: Program):
        assert program.target == "cuda", program.target
        self.program = program
        self.module = Module("\n".join(s.text for s in program.sources))

    def __call__(
        self, inputs: Sequence[np.ndarray], variables: Sequence[np.ndarray] = (), order: int = 0
    ) -> list[np.ndarray]:
        """Outputs of one call."""
        program = self.program
        sizes = {name: inputs[k].shape[axis] for name, (k, axis) in zip(program.sizes, program.bindings, strict=True)}
        slots = self._slots(sizes)
        for slot, array in zip(program.inputs, inputs, strict=True):
            slots[slot] = np.ascontiguousarray(array)
        for (slot, _), array in zip(program.variables, variables, strict=True):
            slots[slot] = array
        for slot, data in program.constants:
            slots[slot][...] = np.frombuffer(data, slots[slot].dtype).reshape(slots[slot].shape)
        self._run(program.steps, slots, sizes, order)
        return [slots[s] for s in program.outputs]

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
            raw = memory[place[k] : place[k] + bytes_[k]] if k in place else np.full(bytes_[k], 0x7F, np.uint8)
            found.append(raw.view(slot.dtype).reshape(shape))
        return found

    def _run(self, steps: Sequence[Step], slots: list[np.ndarray], sizes: dict[str, int], order: int) -> None:
        for step in steps:
            match step:
                case Launch():
                    grid = [evaluate(g, sizes) for g in step.grid]
                    numbers = [np.int64(evaluate(s, sizes)) for s in step.sizes]
                    arguments = [*(slots[b] for b in step.buffers), *numbers]
                    self.module.launch(step.kernel, grid, step.block, arguments, evaluate(step.shared, sizes), order)
                case Copy():
                    slots[step.target][...] = slots[step.source]
                case Repeat():
                    rounds = range(evaluate(step.count, sizes))
                    for k in reversed(rounds) if step.reverse else rounds:
                        slots[step.counter][...] = k
                        self._run(step.steps, slots, sizes, order)
                        if step.until >= 0 and slots[step.until]:
                            break
                case Branch():
                    self._run(step.then if slots[step.condition] else step.orelse, slots, sizes, order)
                case _:
                    raise NotImplementedError(f"the emulator has no libraries: {step}")
