import ctypes
import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from gnomon.compiler.program import Source
from gnomon.runtime import cpu, pool

pytestmark = pytest.mark.skipif(not pool.supported(), reason="launches are serial on this system")

KERNELS = """
declare void @PARALLEL(ptr, ptr, ptr, i64, i64)

define void @test_mark(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {
entry:
  %p = load ptr, ptr %buffers
  %some = icmp slt i64 %begin, %end
  br i1 %some, label %loop, label %out
loop:
  %i = phi i64 [ %begin, %entry ], [ %j, %loop ]
  %q = getelementptr i64, ptr %p, i64 %i
  %old = load i64, ptr %q
  %length = sub i64 %end, %begin
  %x = add i64 %old, 1
  store i64 %x, ptr %q
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %end
  br i1 %more, label %loop, label %out
out:
  ret void
}

; notes where each chunk begins and ends: the first number counts them
define void @test_note(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {
entry:
  %p = load ptr, ptr %buffers
  %k = atomicrmw add ptr %p, i64 1 seq_cst
  %twice = mul i64 %k, 2
  %at = add i64 %twice, 1
  %q = getelementptr i64, ptr %p, i64 %at
  store i64 %begin, ptr %q
  %r = getelementptr i64, ptr %q, i64 1
  store i64 %end, ptr %r
  ret void
}

; each iteration marks a row of 100 by a launch of its own
define void @test_nested(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {
entry:
  %row = alloca ptr
  %p = load ptr, ptr %buffers
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %j, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %out
body:
  %start = mul i64 %i, 100
  %q = getelementptr i64, ptr %p, i64 %start
  store ptr %q, ptr %row
  call void @PARALLEL(ptr @test_mark, ptr %row, ptr null, i64 100, i64 1000000)
  %j = add i64 %i, 1
  br label %loop
out:
  ret void
}
"""


@pytest.fixture(scope="module")
def parallel():
    """launch(kernel, array, extent, work) on a pool of four threads of its own, whatever the machine has."""
    text = pool.text(4) + KERNELS.replace("declare void @PARALLEL(ptr, ptr, ptr, i64, i64)", "")
    text = text.replace("@PARALLEL", f"@{pool.PARALLEL}")
    names = (pool.PARALLEL, pool.STATE, pool.WAKEN, "test_mark", "test_nested", "test_note")
    symbols, _ = cpu.load_sources([Source("pool_for_tests", text, names)])
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    share = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, number, number)(symbols[pool.PARALLEL])
    state = ctypes.CFUNCTYPE(number, number)(symbols[pool.STATE])

    def launch(kernel, array, extent, work):
        share(symbols[kernel], (pointer * 1)(array.ctypes.data), None, extent, work)

    launch.state = state
    return launch


@pytest.mark.parametrize("extent", [0, 1, 2, 3, 15, 16, 17, 1000, 12345])
@pytest.mark.parametrize("work", [0, 20_000, 10_000_000])
def test_every_iteration_runs_once(parallel, extent, work):
    marks = np.zeros(extent + 1, np.int64)
    for _ in range(50):
        parallel("test_mark", marks, extent, work)
    assert (marks[:extent] == 50).all()
    assert marks[extent] == 0


@pytest.mark.parametrize("extent", [2, 3, 4, 7, 16, 28, 1000, 2**40 + 1, 2**62])
def test_chunks_cover_all_and_become_smaller(parallel, extent):
    notes = np.zeros(200, np.int64)
    parallel("test_note", notes, extent, 10_000_000)
    count = notes[0]
    chunks = sorted(notes[1 : 1 + 2 * count].reshape(-1, 2).tolist())
    assert [begin for begin, _ in chunks] == [0, *(end for _, end in chunks[:-1])]
    assert chunks[-1][1] == extent
    assert 1 < count <= 4 * pool.CHUNKS_PER_THREAD
    sizes = [end - begin for begin, end in chunks]
    assert min(sizes) > 0
    assert all(a >= b - 1 for a, b in zip(sizes, sizes[1:], strict=False))
    assert extent < 1000 or sizes[0] > 8 * sizes[-1]


def test_small_launches_are_not_shared(parallel):
    marks = np.zeros(100, np.int64)
    before = parallel.state(2)
    parallel("test_mark", marks, 100, pool.SERIAL - 1)
    parallel("test_mark", marks, 1, 10**9)
    assert parallel.state(2) == before
    parallel("test_mark", marks, 100, 10**7)
    assert parallel.state(2) == before + 1
    assert parallel.state(0) == 3


def test_nested_launches(parallel):
    marks = np.zeros(20_000, np.int64)
    for _ in range(20):
        parallel("test_nested", marks, 200, 10**7)
    assert (marks == 20).all()


def test_launches_of_several_threads(parallel):
    arrays = [np.zeros(1000 + i, np.int64) for i in range(4)]

    def run(marks):
        for _ in range(300):
            parallel("test_mark", marks, marks.size, 200_000)

    threads = [threading.Thread(target=run, args=(a,)) for a in arrays]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all((a == 300).all() for a in arrays)


def script(text, **environment):
    """Run `text` as a Python script."""
    environment = {**os.environ, "GNOMON_THREADS": "3", **environment}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


PREAMBLE = """
import ctypes, os, sys, numpy as np
from gnomon.runtime import cpu, pool
from gnomon.compiler.program import Source
text = '''define void @fill(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {
entry:
  %p = load ptr, ptr %buffers
  br label %loop
loop:
  %i = phi i64 [ %begin, %entry ], [ %j, %body ]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %out
body:
  %q = getelementptr i64, ptr %p, i64 %i
  store i64 %i, ptr %q
  %j = add i64 %i, 1
  br label %loop
out:
  ret void
}'''
symbols, _ = cpu.load_sources([Source("fill", text, ("fill",))])
share = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)(cpu.parallel())
def check():
    marks = np.zeros(100_000, np.int64)
    share(symbols["fill"], (ctypes.c_void_p * 1)(marks.ctypes.data), None, marks.size, 10**7)
    assert (marks == np.arange(marks.size)).all()
"""


def test_fork():
    done = script(
        PREAMBLE
        + """
check()
assert cpu.pool_state(0) == 2
child = os.fork()
if child == 0:
    assert cpu.pool_state(0) == 0
    check()
    check()
    assert cpu.pool_state(0) == 2
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
check()
"""
    )
    assert done.returncode == 0, done.stderr


def test_interpreter_ends_while_workers_spin():
    done = script(PREAMBLE + "check(); print(cpu.pool_state(0))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_one_thread_needs_no_pool():
    done = script("from gnomon.runtime import cpu; print(cpu.parallel(), cpu.pool_state(0))", GNOMON_THREADS="1")
    assert done.stdout == "0 0\n", done.stderr


def test_number_of_threads_must_be_one():
    done = script("from gnomon.runtime import cpu; cpu.host_target()", GNOMON_THREADS="many")
    assert "ArgumentError: GNOMON_THREADS is 'many'; it must be a whole number, at least 1." in done.stderr


def test_several_launches_in_a_row_wake_the_workers(parallel):
    import time

    marks = np.zeros(100, np.int64)
    parallel("test_mark", marks, 100, 10**7)
    time.sleep(0.01)
    before = parallel.state(2)
    count = pool.WAKE // 50_000
    for _ in range(200):  # the test's own pace may be too slow to count as a row
        for _ in range(count + 1):
            parallel("test_mark", marks, 100, 50_000)
        if parallel.state(2) > before:
            break
    assert parallel.state(2) > before


def test_large_program_wakes_workers_beforehand():
    done = script(
        PREAMBLE
        + """
import time
waken = ctypes.CFUNCTYPE(None)(cpu.waken())
waken()
assert cpu.pool_state(0) == 0
check()
for _ in range(100):
    time.sleep(0.005)
    if cpu.pool_state(1) == 2:
        break
assert cpu.pool_state(1) == 2
for _ in range(100):
    waken()
    for _ in range(1000):  # whoever else has the cores
        awake = 2 - cpu.pool_state(1)
        if awake:
            break
    if awake:
        break
    time.sleep(0.005)
assert awake
check()
"""
    )
    assert done.returncode == 0, done.stderr
