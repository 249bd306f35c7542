import gc
import sys
import threading
import weakref

import numpy as np
import pytest

from gnomon.compiler.errors import ArgumentError, CompileError, DataError, DeviceError
from gnomon.compiler.program import Launch, Slot, Source
from gnomon.runtime import gate
from gnomon.runtime.buffer import Buffer, address_of
from gnomon.runtime.executable import Executable, accept
from gnomon.runtime.stepwise import Observer

random = np.random.default_rng(0)


def vector(n):
    return random.standard_normal(n).astype(np.float32)


A = np.array(3, np.float32)


@pytest.fixture(scope="module")
def saxpy(programs):
    return Executable(programs.saxpy())


@pytest.fixture(scope="module")
def chain(programs):
    return Executable(programs.chain())


@pytest.mark.parametrize("n", [1, 0, 7, 1000])
def test_one_program_serves_every_size(saxpy, n):
    x = vector(n)
    (out,) = saxpy(x, A)
    np.testing.assert_array_equal(out, x * 3 + x)


@pytest.mark.parametrize("n", [1, 5, 300])
def test_temporaries_and_constants(chain, n):
    x = vector(n)
    (out,) = chain(x)
    np.testing.assert_allclose(out, np.exp(3 * x), rtol=1e-6)


def test_parallel_loop(programs):
    executable = Executable(programs.saxpy(100 * programs.N))
    x = vector(100_003)
    np.testing.assert_array_equal(executable(x, A)[0], x * 3 + x)


def test_outputs_are_fresh(saxpy):
    first = saxpy(np.ones(3, np.float32), A)[0]
    second = saxpy(np.zeros(3, np.float32), A)[0]
    assert first.tolist() == [4, 4, 4]
    assert second.tolist() == [0, 0, 0]


def test_variables_are_updated_and_outputs_that_alias_them_copied(programs):
    total = Buffer((4,), "float32")
    total.set([1, 1, 1, 1])
    executable = Executable(programs.accumulate(), [total])
    x = np.arange(4, dtype=np.float32)
    (first,) = executable(x, A)
    executable(x, A)
    np.testing.assert_array_equal(first, 1 + 9 * x)
    np.testing.assert_array_equal(total.numpy(), 1 + 18 * x)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[::2],
        lambda x: x[::-1][:50],
        lambda x: np.frombuffer(b"1" + x.tobytes(), np.uint8)[1:].view(np.float32)[:50],
    ],
    ids=["strided", "reversed", "misaligned"],
)
def test_inputs_of_any_layout(saxpy, view):
    x = view(vector(100))
    np.testing.assert_array_equal(saxpy(x, A)[0], x * 3 + x)


def test_scalar_input_of_any_layout(saxpy):
    misaligned = np.frombuffer(b"1" + A.tobytes(), np.uint8)[1:].view(np.float32)[0:1].reshape(())
    assert saxpy(np.ones(2, np.float32), misaligned)[0].tolist() == [4, 4]


def test_memory_is_reported_and_grows_with_sizes(chain, programs):
    assert chain.memory({"n": 16}) == 128
    assert chain.memory({"n": 1600}) == 2 * 6400


def test_arena_that_grew_serves_earlier_sizes(programs):
    executable = Executable(programs.chain())
    small, large = vector(3), vector(3000)
    for x in (small, large, small):
        np.testing.assert_allclose(executable(x)[0], np.exp(3 * x), rtol=1e-5)


def test_arena_that_was_outgrown_is_given_back(programs):
    executable = Executable(programs.chain())
    for n in (10, 1000):
        executable(vector(n))
    old = weakref.ref(executable._arena)
    executable(vector(2000))
    gc.collect()
    assert old() is None


def test_smaller_sizes_use_the_layout_of_larger_ones(programs):
    executable = Executable(programs.chain())
    for n in (1000, 10, 999, 2000, 1500):
        x = vector(n)
        np.testing.assert_allclose(executable(x)[0], np.exp(3 * x), rtol=1e-5)
    assert len(executable._layouts) == 2
    assert executable.memory({"n": 10}) == 128


def test_threads_may_share_an_executable(programs):
    executable = Executable(programs.chain())
    wrong = []

    def run(seed):
        x = np.random.default_rng(seed).standard_normal(500 + seed).astype(np.float32)
        for _ in range(200):
            if not np.allclose(executable(x)[0], np.exp(3 * x), rtol=1e-5):
                wrong.append(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


# ---- mistakes


def test_wrong_number_of_arrays(saxpy):
    with pytest.raises(DataError, match=r"'saxpy' takes 2 arrays \(x, a\), but 1 were given"):
        saxpy(vector(3))


def test_wrong_dtype(saxpy):
    with pytest.raises(DataError, match=r"Input 'x' of 'saxpy' needs float32\[n\], but float64\[3\] was given"):
        saxpy(np.zeros(3), A)


def test_not_an_array(saxpy):
    with pytest.raises(DataError, match=r"Input 'x' of 'saxpy' needs float32\[n\], but a list was given"):
        saxpy([1.0, 2.0], A)


def test_foreign_byte_order(saxpy):
    with pytest.raises(DataError, match=r"needs float32\[n\], but >f4\[3\] was given"):
        saxpy(np.zeros(3, ">f4"), A)


def test_wrong_rank(saxpy):
    with pytest.raises(DataError, match=r"Input 'x'.*float32\[n\].*shape \(3, 1\).*1 dimensions are needed, not 2"):
        saxpy(np.zeros((3, 1), np.float32), A)


@pytest.fixture(scope="module")
def matched(programs):
    return Executable(programs.matched())


def test_static_dimension(matched):
    with pytest.raises(DataError, match=r"Input 'y'.*\[n \+ 1, 3\].*shape \(4, 2\).*axis 1 must be 3, not 2"):
        matched(vector(3), np.zeros((4, 2), np.float32), vector(6))


def test_symbolic_dimension(matched):
    with pytest.raises(DataError, match=r"axis 0 must be 4 \(n \+ 1, with n = 3 from axis 0 of 'x'\), not 3"):
        matched(vector(3), np.zeros((3, 3), np.float32), vector(6))


def test_check(matched):
    with pytest.raises(DataError, match=r"z must be twice as long as x \(2\*n is 6, m is 5\)"):
        matched(vector(3), np.zeros((4, 3), np.float32), vector(5))


def test_wrong_buffers(programs):
    with pytest.raises(ArgumentError, match="1 variables, but 0 buffers"):
        Executable(programs.accumulate(), [])
    with pytest.raises(ArgumentError, match=r"'total' needs float32\[4\], but its buffer is float32\[5\]"):
        Executable(programs.accumulate(), [Buffer((5,), "float32")])


def test_status_of_the_program_is_an_error(programs):
    slots = (Slot("x", "float32", (programs.N,), "input"),)
    executable = Executable(programs.program("failing", slots, (), "", (), (0,), (), status=5))
    with pytest.raises(DeviceError, match="'failing' ended with status 5"):
        executable(vector(2))


def test_broken_text_names_the_source(programs):
    slots = (Slot("x", "float32", (programs.N,), "input"),)
    broken = programs.program("broken", slots, (), "  %a = fadd float %n, 1.0", (), (0,), ())
    with pytest.raises(CompileError, match=r"cannot compile 'test_broken_entry'[\s\S]*'%n' defined with type 'i64'"):
        Executable(broken)


def test_undefined_symbol_is_named(programs):
    slots = (Slot("x", "float32", (programs.N,), "input"),)
    body = programs.launch_text(0, "nobody_has_this", (0,), "%n", "%n")
    missing = programs.program("missing", slots, (), body, (), (0,), ())
    entry = missing.sources[-1]
    text = "declare void @nobody_has_this(ptr, ptr, i64, i64)\n" + entry.text
    missing = type(missing)(**{**vars(missing), "sources": (Source(entry.name, text, entry.defines),)})
    with pytest.raises(CompileError, match="'nobody_has_this', which 'test_missing_entry' needs"):
        Executable(missing)


def test_accept():
    slot = Slot("x", "float32", (3,), "input")
    exact = np.zeros(3, np.float32)
    assert accept(exact, slot) is exact
    assert accept([1, 2, 3], slot).dtype == np.float32
    assert accept(np.zeros(3), slot).dtype == np.float32
    with pytest.raises(DataError, match=r"'i' needs int32\[3\], but float32\[3\] was given"):
        accept(exact, Slot("i", "int32", (3,), "input"))


# ---- step by step


class Recorder(Observer):
    def __init__(self):
        self.seen = []

    def after(self, step, arrays, nanoseconds):
        assert nanoseconds > 0
        self.seen.append((step.label if isinstance(step, Launch) else type(step).__name__, arrays))


def test_stepwise_gives_the_same(chain, saxpy):
    x = vector(40)
    for executable, arrays in ((chain, (x,)), (saxpy, (x, A))):
        recorder = Recorder()
        np.testing.assert_array_equal(executable.run_stepwise(arrays, recorder)[0], executable(*arrays)[0])
    assert [name for name, _ in recorder.seen] == ["Copy", "saxpy"]


def test_stepwise_shows_the_slots(chain):
    x = vector(4)
    recorder = Recorder()
    chain.run_stepwise((x,), recorder)
    arrays = recorder.seen[-1][1]
    np.testing.assert_array_equal(arrays[0], x)
    np.testing.assert_allclose(arrays[1], 3 * x, rtol=1e-6)
    assert np.isnan(arrays[4]).all()  # never written


def test_stepwise_loops_and_branches(programs):
    total = Buffer((4,), "float32")
    recorder = Recorder()
    x = np.arange(4, dtype=np.float32)
    (out,) = Executable(programs.accumulate(), [total]).run_stepwise((x, A), recorder)
    np.testing.assert_array_equal(out, 9 * x)
    assert len(recorder.seen) == 3
    assert recorder.seen[0][1][4] == 3  # the counter's memory, as another round would find it


# ---- the quick way in


@pytest.mark.skipif(not gate.supported(), reason="this Python's or NumPy's objects are not laid out as the gate knows")
class TestGate:
    def test_it_knows_what_it_has_seen(self, programs):
        executable = Executable(programs.chain())
        x = vector(6)
        assert executable._quick(x) is None
        first = executable(x)
        np.testing.assert_array_equal(executable._quick(x)[0], first[0])
        for other in (
            vector(7), x.astype(np.float64), x[::2], x.reshape(2, 3), x.astype(">f4"), list(x), x.view(np.recarray),
            None, 3,
        ):  # fmt: skip
            assert executable._quick(other) is None
        assert executable._quick() is None
        assert executable._quick(x, x) is None

    def test_it_leaks_no_reference(self, programs):
        executable = Executable(programs.saxpy())
        x = vector(6)
        executable(x, A)
        counted = (x, A, None, x.dtype, np.ndarray)
        before = [sys.getrefcount(o) for o in counted]
        for _ in range(1000):
            executable(x, A)
            executable._quick(x)
        after = [sys.getrefcount(o) for o in counted]
        assert max(abs(a - b) for a, b in zip(before, after, strict=True)) < 50

    def test_many_shapes(self, programs):
        executable = Executable(programs.saxpy())
        for _ in range(2):
            for n in range(gate.PLANS + 10):
                x = vector(n)
                np.testing.assert_array_equal(executable(x, A)[0], x * 3 + x)

    def test_aliases_of_inputs_and_outputs(self, programs):
        n = programs.N
        slots = (
            Slot("x", "float32", (n,), "input"),
            Slot("out", "float32", (n,), "output"),
            Slot("same", "float32", (n,), "temporary", 0, 0, alias=1),
            Slot("given", "float32", (n,), "temporary", 0, 0, alias=0),
        )
        body = programs.launch_text(0, "test_double", (2, 3), "%n", "%n")
        step = Launch("test_double", (2, 3), (n,), n, n)
        executable = Executable(programs.program("aliases", slots, (step,), body, ("test_double",), (0,), (1,)))
        x = vector(6)
        for _ in range(3):
            np.testing.assert_array_equal(executable(x)[0], x + x)
        np.testing.assert_array_equal(executable._quick(x)[0], x + x)
        np.testing.assert_array_equal(executable.run_stepwise((x,), Observer())[0], x + x)
        assert executable.memory({"n": 100}) == 0

    def test_failing_program(self, programs):
        slots = (Slot("x", "float32", (programs.N,), "input"),)
        executable = Executable(programs.program("gate_fails", slots, (), "", (), (0,), (), status=-3))
        for _ in range(3):
            with pytest.raises(DeviceError, match="ended with status -3"):
                executable(vector(2))
        assert executable._quick(vector(2)) == -3

    def test_large_outputs_are_aligned_and_their_memory_kept(self, programs):
        executable = Executable(programs.saxpy())
        x = vector(gate.LARGE)
        executable(x, A)
        out = executable(x, A)[0]
        np.testing.assert_array_equal(out, x * 3 + x)
        assert out.flags.writeable
        assert out.flags.c_contiguous
        place = address_of(out)
        assert place % 64 == 0
        part = out[3:5]
        del out
        other = executable(x, A)[0]
        assert address_of(other) != place  # a view still holds it
        np.testing.assert_array_equal(part, (x * 3 + x)[3:5])
        del part, other
        assert place in {address_of(o) for o in (executable(x, A)[0], executable(x, A)[0])}

    def test_large_outputs_that_never_fit_what_is_kept(self, programs):
        executable = Executable(programs.saxpy())
        for n in range(gate.LARGE, 12 * gate.LARGE, gate.LARGE):
            x = np.ones(n, np.float32)
            for _ in range(2):
                assert (executable(x, A)[0] == 4).all()
