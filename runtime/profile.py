"""Where the time of a program goes, kernel by kernel, with the layers that each came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from gnomon.compiler.program import Clear, Copy, Launch, Library, Step
from gnomon.compiler.sizes import evaluate
from gnomon.runtime.executable import Executable
from gnomon.runtime.stepwise import Arrays, Observer, empty_launch


@dataclass(frozen=True)
class Row:
    """One step of a program, all its runs in one call together.

    label, kernel   what it computes, and the name of its code ('' if it is not a kernel)
    layers          layers and lines it came from
    count           how often it ran
    nanoseconds     median over the calls; bytes and flops as the compiler counts them
    """

    label: str
    kernel: str
    layers: tuple[str, ...]
    count: int
    nanoseconds: float
    bytes: int
    flops: int


@dataclass(frozen=True)
class Profile:
    """The rows of a profile in the order in which steps first ran. It prints as a table, the slowest first."""

    name: str
    rows: tuple[Row, ...]

    @property
    def nanoseconds(self) -> float:
        """Of all steps together."""
        return sum(r.nanoseconds for r in self.rows)

    def __repr__(self) -> str:
        total = self.nanoseconds or 1.0
        lines = [f"{self.name}: {total / 1e3:.1f} us in {sum(r.count for r in self.rows)} steps"]
        lines.append(f"{'us':>10} {'%':>6} {'runs':>6} {'GB/s':>7} {'GFLOP/s':>8}  step")
        for r in sorted(self.rows, key=lambda r: -r.nanoseconds):
            time = r.nanoseconds or 1.0
            lines.append(
                f"{r.nanoseconds / 1e3:10.1f} {100 * r.nanoseconds / total:6.1f} {r.count:6d} {r.bytes / time:7.1f} "
                f"{r.flops / time:8.1f}  {r.label}" + (f"  [{'; '.join(r.layers)}]" if r.layers else "")
            )
        return "\n".join(lines)


def profile(executable: Executable, arrays: Sequence[np.ndarray], repeat: int = 10) -> Profile:
    """Time each step of `executable` on `arrays`, over `repeat` calls after one that warms up.

    Variables are as they were when it returns. A step's time is what it takes beyond a launch that does nothing. Each
    kernel runs as in a call, shared among threads where that pays, but what a cold cache costs between kernels is
    measured with it only in part: the sum may differ from a call's time. What is kept from call to call was made by the
    call that warms up, and has no rows unless variables change.
    """
    saved = [v.numpy() for v in executable.variables]
    clocks = []
    try:
        for _ in range(repeat + 1):
            clock = _Clock()
            executable.run_stepwise(arrays, clock)
            clocks.append(clock)
    finally:
        for variable, value in zip(executable.variables, saved, strict=True):
            variable.set(value)
    timed = clocks[1:] or clocks
    on_device = getattr(executable, "empty_launch", None)  # where the host waits for a copy, too, as for a launch
    overhead = empty_launch() if on_device is None else on_device()
    rows = []
    steps = {key: step for clock in timed for key, step in clock.steps.items()}  # a branch may go another way each time
    for key, step in steps.items():
        first = next(clock for clock in timed if key in clock.steps)
        sizes, count, moved = first.sizes, first.counts[key], first.nbytes.get(key, 0)
        spent = median(clock.spent.get(key, 0) for clock in timed)
        match step:
            case Launch():
                label, kernel, layers = step.label or step.kernel, step.kernel, step.layers
                size, flops = evaluate(step.bytes, sizes), evaluate(step.flops, sizes)
            case Copy():
                label, kernel, layers, size, flops = "copy", "", (), 2 * moved, 0
            case Clear():
                label, kernel, layers, size, flops = "clear", "", (), moved, 0
            case Library():
                label, kernel, layers, size = step.label or step.name, step.name, step.layers, moved
                flops = evaluate(step.flops, sizes)
            case _:
                raise AssertionError(f"{step} runs no code of its own")
        if on_device is not None or isinstance(step, Launch):
            spent -= overhead * count
        rows.append(Row(label, kernel, layers, count, max(0.0, spent), size * count, flops * count))
    return Profile(executable.program.name, tuple(rows))


class _Clock(Observer):
    """Sums the time of each step, by its identity: equal launches at two places are two rows."""

    def __init__(self) -> None:
        self.steps: dict[int, Step] = {}
        self.spent: dict[int, int] = {}
        self.counts: dict[int, int] = {}
        self.nbytes: dict[int, int] = {}
        self.sizes: dict[str, int] = {}

    def after(self, step: Step, arrays: Arrays, nanoseconds: int) -> None:
        key = id(step)
        if key not in self.steps:
            self.steps[key], self.sizes = step, arrays.sizes
            if isinstance(step, Copy):
                self.nbytes[key] = arrays[step.source].nbytes
            elif isinstance(step, Clear):
                self.nbytes[key] = arrays[step.target].nbytes
            elif isinstance(step, Library):
                self.nbytes[key] = sum(arrays[slot].nbytes for slot in (*step.inputs, *step.outputs))
        self.spent[key] = self.spent.get(key, 0) + nanoseconds
        self.counts[key] = self.counts.get(key, 0) + 1
