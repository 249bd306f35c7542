"""The order in which groups run: what frees memory runs as soon as it can, and dependencies hold."""

import numpy as np

from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.graph import TensorType
from gnomon.compiler.lowering.fuse import Group
from gnomon.compiler.lowering.schedule import scheduled
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import fresh_input
from gnomon.compiler.sizes import symbol
from gnomon.runtime import arena
from gnomon.runtime.cpu import host_target

N = symbol("batch")


def _node(*shape):
    return build.exp(fresh_input("x", TensorType("float32", shape)))


def _groups(makes, reads):
    """Groups that make the given nodes and read others' by number; all that they depend on runs before."""
    groups = []
    for k, node in enumerate(makes):
        after = 0
        for b in reads.get(k, ()):
            after |= groups[b].through
        groups.append(Group([node], number=k, after=after))
    readers = {node: {groups[r] for r, found in reads.items() if k in found} for k, node in enumerate(makes)}
    return groups, readers


def test_what_needs_no_memory_runs_before_what_does():
    big, small = [_node(N, 64) for _ in range(4)], [_node(4) for _ in range(2)]
    # 0 -> 1 -> 2 -> 3 make large values; 4 and 5 reduce those of 0 and 1 and are asked for last
    groups, readers = _groups([*big, *small], {1: [0], 2: [1], 3: [2], 4: [0], 5: [1]})
    order = [g.number for g in scheduled(groups, readers, {big[3], *small})]
    assert order == [0, 4, 1, 5, 2, 3]


def test_last_readers_run_before_what_makes_more():
    # once 1 has run, 3 makes less than it frees; 2 does not
    made = [_node(N, 64), _node(N, 64), _node(N, 64), _node(N, 8), _node(4)]
    groups, readers = _groups(made, {1: [0], 2: [1], 3: [0], 4: [1, 2, 3]})
    assert [g.number for g in scheduled(groups, readers, {made[4]})] == [0, 1, 3, 2, 4]


def test_oldest_first_where_nothing_is_freed():
    groups, readers = _groups([_node(N, 8) for _ in range(5)], {4: [0, 1, 2, 3]})
    assert [g.number for g in scheduled(groups, readers, ())] == [0, 1, 2, 3, 4]


def test_every_group_runs_after_what_it_needs():
    rng = np.random.default_rng(0)
    for _ in range(20):
        count = 30
        reads = {k: sorted(set(rng.integers(0, k, size=min(k, 3)).tolist())) for k in range(1, count)}
        groups, readers = _groups([_node(N, int(s)) for s in rng.integers(1, 100, size=count)], reads)
        order = scheduled(groups, readers, ())
        seen = 0
        for g in order:
            assert not g.after & ~seen
            seen |= 1 << g.number
        assert len(order) == count


def test_a_deep_backward_pass_frees_activations_as_it_goes():
    depth, width = 12, 64
    x = fresh_input("x", TensorType("float32", (N, width)))
    weights = [fresh_input(f"w{k}", TensorType("float32", (width, width))) for k in range(depth)]
    y = x
    for w in weights:
        y = build.tanh(build.matmul(y, w))
    from gnomon.compiler.grad import grad

    found = grad(build.reduce("sum", y, (0, 1)), weights)
    program = compile(Request("deep", [x, *weights], found), host_target(), Stages())
    rows = 512
    slots = [s for s in program.slots if s.kind == "temporary" and s.alias < 0]
    sizes = [4 * int(np.prod([rows if d == N else d for d in s.shape])) for s in slots]
    whole = arena.layout(sizes, [(s.first, s.last) for s in slots])[1]
    assert whole < (depth + 4) * rows * width * 4  # activations, and no more than two gradients and a pack of weights
