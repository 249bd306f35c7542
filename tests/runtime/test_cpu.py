"""What this machine is, compiling in this process and in others, loading with and without LLVM."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from gnomon.compiler.errors import CompileError, DeviceError
from gnomon.compiler.program import Library, Slot, Source
from gnomon.runtime import cache, codegen, cpu, image, library, workers
from gnomon.runtime.buffer import Buffer
from gnomon.runtime.device import device
from gnomon.runtime.executable import Executable
from gnomon.runtime.stepwise import Observer

X = np.arange(5, dtype=np.float32)
A = np.array(3, np.float32)


def script(text, **environment):
    """Run `text` as a Python script that has the programs written by hand as `programs`."""
    head = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import numpy as np, programs
        from gnomon.runtime import cpu
        from gnomon.runtime.executable import Executable
        X, A = np.arange(5, dtype=np.float32), np.array(3, np.float32)
    """
    return [sys.executable, "-W", "error", "-c", textwrap.dedent(head) + textwrap.dedent(text)], {
        **os.environ, "GNOMON_THREADS": "2", **environment
    }  # fmt: skip


def run(text, **environment):
    command, env = script(text, **environment)
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)


# ---- the machine


def test_target():
    target = device("cpu").target()
    assert target.kind == "cpu"
    assert target.vector_bytes in (16, 32, 64)
    assert target.l1 >= 16 << 10
    assert target.l2 > target.l1
    assert 1 <= target.threads <= len(os.sched_getaffinity(0))
    if sys.platform == "linux":
        assert target.triple.endswith("-linux-gnu")


def test_target_agrees_with_llvm():
    features = codegen.llvm_cpu()[1].split(",")
    target = cpu.host_target()
    assert target.fma == ("+fma" in features) or not target.triple.startswith("x86_64")
    if target.vector_bytes == 64:
        assert {"+avx512f", "+avx512vl", "+avx512bw", "+avx512dq"} <= set(features)


def test_unknown_device():
    with pytest.raises(DeviceError, match="no device 'gqu'. Did you mean 'gpu'"):
        device("gqu")
    with pytest.raises(DeviceError, match="all processors together"):
        device("cpu:1")
    assert device("cpu") is device("cpu")


def test_copy_between_buffers():
    a, b = Buffer((2, 2), "int32"), Buffer((2, 2), "int32")
    a.set([[1, 2], [3, 4]])
    device("cpu").copy(a, b)
    assert b.numpy().tolist() == [[1, 2], [3, 4]]
    assert b.address % 64 == 0


# ---- the cache at work


def test_second_process_loads_without_llvm(fresh_cache):
    text = """
        executable = Executable(programs.chain())
        executable(X)
        print({e.how for e in executable.loaded.events}, "llvmlite" in sys.modules)
    """
    assert run(text).stdout == "{'compiled'} True\n"
    second = run(text)
    assert second.stdout == "{'cache'} False\n", second.stderr


def test_damaged_entries_are_compiled_anew(fresh_cache):
    text = """
        executable = Executable(programs.chain())
        print(*(e.how for e in executable.loaded.events), executable(X)[0][1] > 20)
    """
    run(text)
    files = sorted(fresh_cache.glob("*.gno"), key=lambda f: f.stat().st_size)
    for number, file in enumerate(files):
        data = bytearray(file.read_bytes())
        if number % 2:
            data[len(data) // 2] ^= 0x10
        else:
            del data[-20:]
        file.write_bytes(data)
    assert run(text).stdout == "compiled compiled compiled compiled True\n"
    assert run(text).stdout == "cache cache cache cache True\n"


@pytest.mark.parametrize("setting", [{"GNOMON_CACHE": "0"}, {"GNOMON_CACHE_DIR": "/proc/nowhere"}])
def test_without_a_cache(setting):
    assert run("print(Executable(programs.chain())(X)[0][0])", **setting).stdout == "1.0\n"


def test_processes_that_start_cold_together(fresh_cache):
    started = [script("print(Executable(programs.chain())(X)[0][0])") for _ in range(4)]
    running = [subprocess.Popen(c, env=e, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for c, e in started]
    for process in running:
        out, errors = process.communicate(timeout=100)
        assert out == b"1.0\n", errors
    assert not [f for f in fresh_cache.iterdir() if f.suffix != ".gno"]


def test_programs_share_sources(programs):
    Executable(programs.chain())
    events = Executable(programs.chain()).loaded.events
    assert {e.how for e in events} == {"shared"}


# ---- compiling in other processes


def numbered(programs, i):
    name = f"test_number_{i}"
    return Source(name, programs.EXP.replace("test_exp", name), (name,))


def test_workers_compile_what_this_process_would(programs):
    sources = [numbered(programs, i) for i in range(5)]
    objects = workers.compile_sources(sources, 2, check=True)
    assert objects == [codegen.compile_object(s.text) for s in sources]


def test_refused_source_is_named(programs):
    bad = Source("matmul_12ab", "define void @f( {", ("f",))
    with pytest.raises(CompileError, match=r"'matmul_12ab', which defines f: [\s\S]*expected type"):
        workers.compile_sources([numbered(programs, 0), bad], 2, check=False)


FATAL = """
define void @test_fatal() {
  %m = call i64 @llvm.read_register.i64(metadata !0)
  ret void
}
declare i64 @llvm.read_register.i64(metadata)
!0 = !{!"no such register\\00"}
"""


def test_fatal_error_ends_a_worker_and_not_this_process(programs):
    with pytest.raises(CompileError, match=r"'fatal_1', which defines test_fatal: .*[Ii]nvalid register"):
        workers.compile_sources([Source("fatal_1", FATAL, ("test_fatal",))], 2, check=False)
    assert len(workers.compile_sources([numbered(programs, 1)], 1, check=False)) == 1


def test_worker_that_ended_for_want_of_work_is_replaced(programs):
    workers.compile_sources([numbered(programs, 2)], 1, check=False)
    worker = workers._idle[-1]
    worker.process.send_signal(14)  # SIGALRM, as its own clock does
    assert len(workers.compile_sources([numbered(programs, 2)], 1, check=False)) == 1


def test_interrupted_worker_is_not_used_again(programs, monkeypatch):
    def interrupted(stream):
        raise KeyboardInterrupt

    first, second = numbered(programs, 3), numbered(programs, 4)
    with monkeypatch.context() as patch:
        patch.setattr(codegen, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            workers.compile_sources([first], 1, check=False)
    assert workers.compile_sources([second], 1, check=False) == [codegen.compile_object(second.text)]


def test_small_work_is_done_here_and_large_in_workers(programs, monkeypatch):
    monkeypatch.setattr(cpu, "threads", lambda: 4)
    codegen.machine()
    workers.shut_down()
    large = [Source(f"s{i}", " " * 100_000, ()) for i in range(8)]
    assert cpu._processes([numbered(programs, 0)]) == 0
    assert cpu._processes(large) == 4
    assert cpu._processes(large[:2]) == 2
    assert cpu._processes(large[:1]) == 0
    workers.start(2)
    assert workers.idle() == 2
    assert cpu._processes([Source(f"s{i}", " " * 20_000, ()) for i in range(3)]) == 2


def test_forked_child_has_workers_of_its_own():
    done = run("""
        import os
        from gnomon.runtime import workers
        workers.start(1)
        child = os.fork()
        if child == 0:
            assert workers.idle() == 0
            assert len(workers.compile_sources([programs.SOURCES["test_exp"]], 1, False)) == 1
            workers.shut_down()
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert len(workers.compile_sources([programs.SOURCES["test_exp"]], 1, False)) == 1
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_start_ahead_if_the_cache_is_empty(fresh_cache, programs, monkeypatch):
    monkeypatch.setattr(cpu, "threads", lambda: 2)
    workers.shut_down()
    cpu.prepare()
    assert workers.idle() == 2
    workers.shut_down()
    cache.put(cache.key("x"), "x", b"")
    cpu.prepare()
    assert workers.idle() == 0


def test_script_without_main_guard(fresh_cache):
    done = run("""
        from gnomon.compiler.program import Source
        cpu.START = 0.0
        from gnomon.runtime import workers
        print("once")
        executable = Executable(programs.chain())
        print(executable(X)[0][0], len(workers._idle), "llvmlite" in sys.modules)
    """)
    assert done.stdout == "once\n1.0 2 False\n", done.stderr
    assert done.stderr == ""


# ---- loading


def test_llvm_links_where_we_do_not(programs, monkeypatch):
    monkeypatch.setattr(image, "supported", lambda: False)
    names = ("test_number_90", "test_linked_entry")
    entry = programs.entry_text(names[1], names[:1], programs.launch_text(0, names[0], (1, 0), "%n", "%n"))
    symbols, events = cpu.load_sources([numbered(programs, 90), Source("linked", entry, names[1:])])
    assert set(symbols) == set(names)
    slots = (Slot("x", "float32", (programs.N,), "input"), Slot("y", "float32", (programs.N,), "output"))
    program = programs.program("linked", slots, (), "", (), (0,), (1,))
    program = type(program)(**{**vars(program), "entry": names[1], "sources": (
        numbered(programs, 90), Source("linked", entry, names[1:]),
    )})  # fmt: skip
    np.testing.assert_allclose(Executable(program)(X)[0], np.exp(X), rtol=1e-6)


DATA = """
@table = internal constant [4 x i64] [i64 10, i64 20, i64 30, i64 40], align 32
@counter = internal global i64 5
@zeros = internal global [100 x i64] zeroinitializer, align 64
@names = internal constant [2 x ptr] [ptr @first, ptr @test_data_second]
@test_data_exported = global i64 77

define i64 @test_data_second(i64 %i) {
  ret i64 2000
}
define internal i64 @first(i64 %i) {
  ret i64 1000
}
define i64 @test_data(i64 %i) {
entry:
  %q = getelementptr [4 x i64], ptr @table, i64 0, i64 %i
  %x = load i64, ptr %q
  %c = load i64, ptr @counter
  %c1 = add i64 %c, 1
  store i64 %c1, ptr @counter
  %zq = getelementptr [100 x i64], ptr @zeros, i64 0, i64 %i
  %z = load i64, ptr %zq
  %which = and i64 %i, 1
  %fq = getelementptr [2 x ptr], ptr @names, i64 0, i64 %which
  %f = load ptr, ptr %fq
  %r = call i64 %f(i64 %i)
  %e = load i64, ptr @test_data_exported
  %s0 = add i64 %x, %c
  %s1 = add i64 %s0, %z
  %s2 = add i64 %s1, %r
  %s3 = add i64 %s2, %e
  switch i64 %i, label %other [ i64 0, label %a
                                i64 1, label %b
                                i64 2, label %c_
                                i64 3, label %d ]
a:
  br label %other
b:
  br label %other
c_:
  br label %other
d:
  br label %other
other:
  %o = phi i64 [ 0, %entry ], [ 100000, %a ], [ 700000, %b ], [ 300000, %c_ ], [ 200000, %d ]
  %s4 = add i64 %s3, %o
  ret i64 %s4
}
"""


def test_data_jump_tables_and_function_pointers():
    import ctypes

    names = ("test_data", "test_data_second", "test_data_exported")
    symbols, _ = cpu.load_sources([Source("data", DATA, names)])
    call = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(symbols["test_data"])
    other = [100_000, 700_000, 300_000, 200_000]
    for i in range(4):
        assert call(i) == 10 * (i + 1) + 5 + i + 1000 * (i % 2 + 1) + 77 + other[i]
    assert ctypes.c_int64.from_address(symbols["test_data_exported"]).value == 77


@pytest.mark.skipif(not image.supported(), reason="objects are not ELF here")
def test_what_is_no_object_is_refused():
    with pytest.raises(CompileError, match="'x' is not a 64-bit little-endian ELF file"):
        image.load([("x", b"\x7fELF\x01" + bytes(100))], lambda name: None)


def test_source_that_does_not_define_what_it_says(programs):
    source = Source("odd", programs.EXP.replace("test_exp", "test_odd"), ("test_odd", "test_even"))
    with pytest.raises(CompileError, match="'odd' does not define 'test_even'"):
        cpu.load_sources([source])


def test_assembly(programs):
    text = cpu.assembly(programs.chain())
    assert "test_saxpy:" in text
    assert "# exp" in text


# ---- library routines


def library_program(programs, name="cholesky"):
    slots = (
        Slot("x", "float64", (programs.N, programs.N), "input"),
        Slot("y", "float64", (programs.N, programs.N), "output"),
    )
    words = ["1", "1", *["DTYPE", "2", "%n", "%n"] * 2]
    code = str(library.DTYPES.index("float64"))
    body = [f"  %shapes = alloca [{len(words)} x i64]"]
    for i, word in enumerate(words):
        body += [
            f"  %w{i} = getelementptr i64, ptr %shapes, i64 {i}",
            f"  store i64 {word.replace('DTYPE', code)}, ptr %w{i}",
        ]
    body.append(f'  %status = call i32 @"gnomon.library.{name}"(ptr %slots, ptr %shapes)')
    program = programs.program(
        f"library_{name}", slots, (Library(name, (0,), (1,)),), "\n".join(body), (), (0,), (1,), status="%status"
    )
    entry = program.sources[0]
    text = f'declare i32 @"gnomon.library.{name}"(ptr, ptr)\n' + entry.text
    return type(program)(**{**vars(program), "sources": (Source(entry.name, text, entry.defines),)})


def test_library_step(programs):
    executable = Executable(library_program(programs))
    x = np.array([[4.0, 2.0], [2.0, 3.0]])
    for out in (executable(x), executable(x), executable.run_stepwise((x,), Observer())):
        np.testing.assert_allclose(out[0], np.linalg.cholesky(x))


def test_library_step_that_fails(programs):
    executable = Executable(library_program(programs))
    for _ in range(2):
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite"):
            executable(-np.eye(3))
    np.testing.assert_allclose(executable(np.eye(3))[0], np.eye(3))


def test_unknown_library_routine(programs):
    with pytest.raises(DeviceError, match=r"no library routine 'colesky'. Did you mean 'cholesky'"):
        Executable(library_program(programs, "colesky"))
