"""Graphs as CUDA kernels on the emulator: lowered, rendered, launched in order.

Many graphs go into one `Batch`, which is one compilation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gnomon.compiler.graph import Env, Node, walk
from gnomon.compiler.interpret import bind_sizes
from gnomon.compiler.kernel import Buffer, Kernel
from gnomon.compiler.lowering import cuda, emit, fuse
from gnomon.compiler.ops.leaves import Array, Input
from gnomon.compiler.render.cuda import geometry, program, render

from . import Module


@dataclass
class Lowered:
    """The kernels of a graph in the order they run, and where each node that has memory lives."""

    outputs: list[Node]
    kernels: list[Kernel] = field(default_factory=list)
    memory: dict[Node, Buffer] = field(default_factory=dict)


def lower(outputs: Sequence[Node]) -> Lowered:
    """A graph as CUDA kernels."""
    stored = fuse.choose_stored(outputs)
    inside = set(stored)
    groups = fuse.make_groups(stored)
    group_of = {m: g for g in groups for m in g.members}
    readers = [(m, x) for m in stored for x in fuse.dependencies(m, inside)]
    handed = [x for m, x in readers if x in inside and group_of[x] is not group_of[m]]
    externals = [n for n in walk(outputs) if fuse.is_external(n)]
    result = Lowered(list(outputs))
    for n in [*externals, *outputs, *handed]:
        result.memory.setdefault(n, _buffer(n))
    for group in groups:
        assert not group.special, f"{group} has no kernel for CUDA yet"
        while True:
            try:
                rows = emit.emit(group, result.memory, inside)
                break
            except emit.NeedsMemory as e:
                result.memory[e.node] = _buffer(e.node)
        label = "+".join(repr(m.op) for m in group.members)
        result.kernels.append(cuda.kernel(rows, label=label[:80])[0])
    return result


def _buffer(node: Node) -> Buffer:
    return Buffer(f"n{node.serial}", node.dtype, node.shape)


class Batch:
    """Graphs by name, compiled together when the first of them runs."""

    def __init__(self) -> None:
        self.lowered: dict[str, Lowered] = {}
        self.module: Module | None = None

    def add(self, name: str, outputs: Sequence[Node]) -> None:
        self.lowered[name] = lower(outputs)

    def text(self, names: Iterable[str] | None = None) -> str:
        """The CUDA C++ of the named graphs, of all by default; graph `g` has kernels `g_0`, `g_1`, …"""
        chosen = self.lowered if names is None else names
        return program(render(k, f"{name}_{i}") for name in chosen for i, k in enumerate(self.lowered[name].kernels))

    def run(self, name: str, values: Mapping[Node, np.ndarray], order: int = 0) -> list[np.ndarray]:
        """The outputs of a graph, given the values of its inputs."""
        if self.module is None:
            self.module = Module(self.text())
        low = self.lowered[name]
        sizes = bind_sizes([n.type for n in values], [v.shape for v in values.values()])
        env = Env(sizes)
        arrays: dict[Buffer, np.ndarray] = {}
        for node, buffer in low.memory.items():
            if node in values:
                arrays[buffer] = np.ascontiguousarray(values[node])
            elif isinstance(node.op, Array):
                arrays[buffer] = node.op.numpy(env).copy()
            else:
                assert not isinstance(node.op, Input), f"no value for {node}"
                arrays[buffer] = np.full(env.shape(node.shape), 77, node.dtype)
        for i, kernel in enumerate(low.kernels):
            grid, block, shared = geometry(kernel).launch(sizes)
            buffers = [arrays[b] for b in kernel.buffers]
            numbers = [np.int64(sizes[s]) for s in kernel.sizes]
            self.module.launch(f"{name}_{i}", grid, block, [*buffers, *numbers], shared, order)
        return [arrays[low.memory[n]] for n in low.outputs]
