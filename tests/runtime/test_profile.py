from dataclasses import replace

import numpy as np

import gnomon
from gnomon import ops
from gnomon.compiler.program import Clear, Launch, Prepare
from gnomon.runtime.buffer import Buffer
from gnomon.runtime.executable import Executable
from gnomon.runtime.profile import profile

A = np.array(3, np.float32)


def test_rows(programs):
    result = profile(Executable(programs.saxpy()), (np.ones(5000, np.float32), A), repeat=3)
    copy, saxpy = result.rows
    assert (copy.label, copy.count, copy.bytes, copy.flops) == ("copy", 1, 40_000, 0)
    assert (saxpy.label, saxpy.kernel, saxpy.layers) == ("saxpy", "test_saxpy", ("layer one (model.py:3)",))
    assert (saxpy.count, saxpy.bytes, saxpy.flops) == (1, 60_000, 10_000)
    assert 0 < saxpy.nanoseconds < 1e9


def test_loops_are_counted_and_variables_kept(programs):
    total = Buffer((4,), "float32")
    result = profile(Executable(programs.accumulate(), [total]), (np.ones(4, np.float32), A), repeat=2)
    assert [(r.label, r.count, r.flops) for r in result.rows] == [("saxpy", 3, 24)]
    assert total.numpy().tolist() == [0, 0, 0, 0]


def test_it_prints_as_a_table(programs):
    text = repr(profile(Executable(programs.chain()), (np.ones(3000, np.float32),), repeat=1))
    lines = text.splitlines()
    assert lines[0].startswith("chain: ")
    assert lines[0].endswith("us in 3 steps")
    assert {line.split()[-1] for line in lines[2:]} == {"double", "saxpy", "exp"}


def test_what_is_set_to_zero_has_a_row(programs):
    program = programs.saxpy()
    cleared = replace(program, steps=(*program.steps, Clear(program.outputs[0])))
    result = profile(Executable(cleared), (np.ones(5000, np.float32), A), repeat=2)
    assert [(r.label, r.kernel, r.bytes, r.flops) for r in result.rows][2] == ("clear", "", 20_000, 0)


def test_what_is_kept_between_calls_has_rows_only_where_it_is_made():
    x = gnomon.Input((30,), name="x")
    w = gnomon.Variable(np.ones((30, 80), "float32"), name="w")
    predict = gnomon.function([x], x @ w, name="predict")
    (kept,) = (s for s in predict.program.steps if isinstance(s, Prepare))
    made = {s.kernel for s in kept.steps if isinstance(s, Launch)}
    assert made
    assert not made & {r.kernel for r in predict.profile(np.ones((9, 30)), repeat=2).rows}


def test_both_sides_of_a_branch_have_rows():
    """Which side runs may be another one in each call."""
    x, w = gnomon.fvector("x"), gnomon.Variable(np.zeros((), "float32"), name="w")
    f = gnomon.function([x], gnomon.ifelse(w > 1.5, ops.exp(x), ops.sin(x)), updates={w: w + 1})
    assert {r.label for r in f.profile(np.ones(5000), repeat=4).rows} >= {"exp", "sin"}
