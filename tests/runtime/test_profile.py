import numpy as np

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
