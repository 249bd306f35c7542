"""Programs on a GPU, or the emulator of one: graphs, memory, variables between devices, arrays in and out."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import ops
from gnomon.compiler.errors import DataError, DeviceError, OutOfMemoryError
from gnomon.compiler.program import Library, Program, Slot
from gnomon.compiler.sizes import symbol
from gnomon.runtime import gpu_run
from gnomon.runtime.device import device
from gnomon.runtime.gpu import DeviceArray
from tests.emulator.driver import Foreign
from tests.on_device import offer, where  # noqa: F401  # a fixture


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def step(count: Any = None, **options: Any) -> tuple[Any, Any]:
    """A function that moves a variable, and the variable."""
    x = gnomon.Input((4,), name="x")
    w = gnomon.Variable(np.ones((4, 3), "float32"), name="w")
    y = x @ w
    return gnomon.function([x], y, updates={w: w * 0.5 + ops.sum(y)}, **options), w


# ---- graphs


def test_steps_are_launched_then_captured_then_replayed(monkeypatch: Any) -> None:
    driver = offer(monkeypatch).driver
    f, _ = step(device="emulator")
    g, _ = step(device="cpu")
    seen = []
    for k in range(4):
        x = random(6, 4, seed=k)
        np.testing.assert_allclose(f(x), g(x), rtol=1e-5)
        seen.append((driver.launches, driver.replays, f.executable.graphs))
    each = seen[0][0]
    assert seen == [(each, 0, 0), (2 * each, 1, 1), (3 * each, 2, 1), (4 * each, 3, 1)]
    f(random(2, 4))  # another size: another frame, launched first
    assert f.executable.graphs == 1


def test_without_capturing_every_kernel_is_launched(monkeypatch: Any) -> None:
    monkeypatch.setenv("GNOMON_CAPTURE", "0")
    driver = offer(monkeypatch).driver
    f, _ = step(device="emulator")
    for _ in range(3):
        f(random(6, 4))
    assert driver.replays == 0


def test_a_larger_call_takes_new_memory_and_new_graphs(monkeypatch: Any) -> None:
    driver = offer(monkeypatch).driver
    f, _ = step(device="emulator")
    g, _ = step(device="cpu")
    for rows in (3, 3, 300, 300, 3, 3, 300):
        x = random(rows, 4)
        np.testing.assert_allclose(f(x), g(x), rtol=1e-4)
    del f
    gc.collect()
    assert driver.used <= 1 << 12  # the memory of the runtime's own, and of variables that are still there


def test_a_loop_of_a_fixed_number_of_rounds_is_in_the_graph(where: str) -> None:  # noqa: F811
    x = gnomon.Input((5, 3), name="x")
    last, _ = gnomon.scan(lambda a, h: h * 0.5 + a, sequences=ops.transpose(x, (1, 0, 2)), outputs_info=x[:, 0])
    f = gnomon.function([x], last, device=where)
    g = gnomon.function([x], last, device="cpu")
    for k in range(3):
        data = random(2, 5, 3, seed=k)
        np.testing.assert_allclose(f(data), g(data), rtol=1e-5)


def test_loops_and_branches_that_the_host_decides(where: str) -> None:  # noqa: F811
    x = gnomon.vector("x", dtype="float32")
    n = gnomon.iscalar("n")

    def double(a: Any) -> Any:
        return a * 2.0, gnomon.until(ops.max(a) > 20.0)

    doubled, _ = gnomon.scan(double, outputs_info=x, n_steps=n)
    y = gnomon.cond(ops.sum(x) > 3.0, lambda: ops.sum(x) * 10.0, lambda: ops.sum(x))
    f, g = (gnomon.function([x, n], [doubled, y], device=d) for d in (where, "cpu"))
    for data, count in (([1, 2], 9), ([1, 2], 2), ([0.1, 0.2], 9), ([9, 9], 9)):
        for found, wanted in zip(f(np.float32(data), count), g(np.float32(data), count), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_the_card_has_no_routine_for_is_computed_by_the_host(where: str) -> None:  # noqa: F811
    n = symbol("n")
    slots = (Slot("a", "float32", (n, n), "input"), Slot("b", "float32", (n, n), "output"))
    program = Program(
        "inverse", "cuda", (0,), (1,), (), (), ("n",), ((0, 0),), (), slots, (Library("inv", (0,), (1,)),)
    )  # fmt: skip
    run = device(where).executable(program, [])
    for size in (3, 5, 3):
        a = random(size, size) + 5 * np.eye(size, dtype="float32")
        np.testing.assert_allclose(run(a)[0], np.linalg.inv(a), rtol=1e-5)


def test_threads_take_turns(where: str) -> None:  # noqa: F811
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], x * 2.0, device=where)
    data = [random(k + 1, 4, seed=k) for k in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for a, found in zip(data, pool.map(f, data), strict=True):
            np.testing.assert_array_equal(found, a * 2)


# ---- variables


def test_variables_are_where_they_were_used_last(where: str) -> None:  # noqa: F811
    x = random(6, 4)
    (f, w), (g, v) = step(device=where), step(device="cpu")
    there = gnomon.function([], w * 3.0, device=where)
    here = gnomon.function([], w * 3.0, device="cpu")
    for _ in range(3):
        f(x), g(x)
        np.testing.assert_allclose(w.numpy(), v.numpy(), rtol=1e-5)  # the host reads: it is fetched
    f(x), g(x)
    np.testing.assert_allclose(here(), v.numpy() * 3, rtol=1e-5)  # another device's program reads: as well
    w.assign(w.numpy() + 1)  # the host writes: it goes there
    np.testing.assert_allclose(there(), (v.numpy() + 1) * 3, rtol=1e-5)
    changed = gnomon.function([], [], updates={w: w - 1.0}, device="cpu")
    there(), changed()
    np.testing.assert_allclose(there(), v.numpy() * 3, rtol=1e-5)
    w.buffer.clear()
    assert not there().any()
    assert not w.numpy().any()


def test_what_is_made_of_variables_is_made_anew_when_they_change(where: str) -> None:  # noqa: F811
    w = gnomon.Variable(random(30, 80), name="w")
    x = gnomon.Input((30,), name="x")
    f = gnomon.function([x], x @ ops.exp(w), device=where)
    a = random(5, 30, seed=1)
    near = lambda: np.testing.assert_allclose(f(a), a @ np.exp(w.numpy()), rtol=1e-3, atol=1e-3)
    near()
    near()
    w.assign(w.numpy() * 0.5)
    near()


def test_lent_memory_is_looked_at_in_every_call(where: str) -> None:  # noqa: F811
    from gnomon.runtime.buffer import CLOCK

    f, w = step(device=where)
    memory = w.get_value(borrow=True)
    try:
        x = random(2, 4)
        memory[...] = 2
        np.testing.assert_allclose(f(x), x @ np.full((4, 3), 2, "float32"), rtol=1e-5)
        now = memory.copy()  # and has what the program wrote
        assert not np.allclose(now, 2)
        np.testing.assert_allclose(f(x), x @ now, rtol=1e-5)
    finally:
        CLOCK[...] = 1 << 40


# ---- arrays


def test_results_may_stay_on_the_device(where: str) -> None:  # noqa: F811
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], [x * 2.0, ops.sum(x, 1)], device=where)
    a = random(6, 4)
    twice, sums = f.on_device(a)
    assert (twice.shape, twice.dtype, len(twice), twice.ndim, twice.size) == ((6, 4), np.float32, 6, 2, 24)
    f.on_device(a * 0)  # is other memory
    np.testing.assert_allclose(twice.numpy(), a * 2)
    np.testing.assert_allclose(np.asarray(sums), a.sum(1), rtol=1e-6)
    again, _ = f.on_device(twice)  # goes in where it is
    np.testing.assert_allclose(np.asarray(f(again)[0]), a * 8, rtol=1e-6)
    interface = twice.__cuda_array_interface__
    assert interface["data"] == (twice.address, False)
    assert (interface["shape"], interface["typestr"]) == ((6, 4), "<f4")
    with pytest.raises(ValueError, match="only be had by a copy"):
        np.array(twice, copy=False)
    here = gnomon.function([x], x + 1.0, device="cpu")
    np.testing.assert_allclose(here(twice), a * 2 + 1, rtol=1e-6)


def test_some_rows_are_where_all_are(where: str) -> None:  # noqa: F811
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], x * 2.0, device=where)
    a = random(6, 4)
    found = f.on_device(a)
    for rows in (slice(0, 2), slice(2, 5), slice(-1, None), slice(4, 2), slice(None)):
        np.testing.assert_array_equal(np.asarray(found[rows]), a[rows] * 2)
    np.testing.assert_array_equal(f(found[1:3]), a[1:3] * 4)
    for wrong in (slice(None, None, 2), 3):
        with pytest.raises(TypeError, match=r"can be taken as \[first:last\]"):
            found[wrong]
    doubled, _ = gnomon.scan(
        lambda a: (a * 2.0, gnomon.until(ops.max(a) > 20.0)), outputs_info=x, n_steps=9
    )
    all_steps = gnomon.function([x], doubled, device=where)
    once = np.ones((2, 4), "float32")
    assert all_steps.on_device(once).shape == all_steps(once).shape == (6, 2, 4)
    np.testing.assert_array_equal(np.asarray(all_steps.on_device(once)), all_steps(once))


def test_large_results_are_written_where_they_stay(monkeypatch: Any) -> None:
    driver = offer(monkeypatch).driver
    monkeypatch.setattr(gpu_run, "IN_PLACE", 96)
    copies: list[int] = []
    copy = driver.copy
    monkeypatch.setattr(driver, "copy", lambda to, source, size: (copies.append(size), copy(to, source, size)))
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], [x * 2.0, ops.sum(x, 1)], device="emulator")
    results = []
    for k in range(7):
        a = random(6, 4, seed=k)
        twice, sums = f.on_device(a)
        results = [*results[-1:], (a, twice)]  # one is kept: two addresses take turns, and each has its graph
        for array, found in results:
            np.testing.assert_array_equal(np.asarray(found), array * 2)
        np.testing.assert_allclose(np.asarray(sums), a.sum(1), rtol=1e-6)
    assert copies == [24] * 7  # of the small result
    assert driver.replays > 0
    assert f(a)[0].shape == (6, 4)
    assert f.on_device(random(0, 4))[0].shape == (0, 4)


def test_an_array_that_kernels_cannot_read_four_at_a_time_is_copied(monkeypatch: Any) -> None:
    gpu = offer(monkeypatch)
    x = gnomon.Input((64,), name="x")
    f = gnomon.function([x], [x * 2.0, ops.max(x, 1)], device="emulator")
    a = random(6, 64)
    whole = gpu.array(np.concatenate([[7], a.ravel()]).astype(np.float32))
    part = DeviceArray(gpu, whole.address + 4, a.shape, "float32", whole)
    assert gpu.aligned(whole) is whole
    doubled, largest = f(part)
    np.testing.assert_allclose(doubled, a * 2)
    np.testing.assert_allclose(largest, a.max(1))


def test_arrays_of_others_are_read_in_place(monkeypatch: Any) -> None:
    gpu = offer(monkeypatch)
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], x * 2.0, device="emulator")
    a = random(6, 4)
    foreign = Foreign(gpu.driver, a)
    np.testing.assert_allclose(f(foreign), a * 2)
    gpu.driver.upload(foreign.address, a * 3)  # it is not a copy that is read
    np.testing.assert_allclose(f(foreign), a * 6, rtol=1e-6)
    shared = np.from_dlpack(f.on_device(foreign))
    np.testing.assert_allclose(shared, a * 6, rtol=1e-6)


def test_arguments_that_do_not_fit_are_refused_as_on_the_cpu(where: str) -> None:  # noqa: F811
    f, _ = step(device=where)
    with pytest.raises(DataError, match=r"axis 1 must be 4, not 5"):
        f(random(2, 5))
    with pytest.raises(DataError, match=r"needs float32\[batch, 4\], but int32\[2, 4\] was given"):
        f.executable(np.ones((2, 4), np.int32))
    with pytest.raises(DataError, match="takes 1 arrays"):
        f.executable()
    assert f(random(0, 4)).shape == (0, 3)


# ---- memory


def test_a_call_that_does_not_fit_says_so_before_anything_runs(monkeypatch: Any) -> None:
    driver = offer(monkeypatch, limit=100_000).driver
    f, w = step(device="emulator")
    f(random(6, 4))
    before, launches = w.numpy(), driver.launches
    with pytest.raises(OutOfMemoryError, match=r"A call of 'function' needs [\d,]+ bytes on emulator, .*of 100,000"):
        f(random(20_000, 4))
    assert driver.launches == launches
    with pytest.raises(MemoryError, match="checkpoint"):
        device("emulator").array(random(200, 200))
    with pytest.raises(DeviceError):
        f(random(20_000, 4))
    np.testing.assert_array_equal(w.numpy(), before)
    assert f(random(6, 4)).shape == (6, 3)  # and the process goes on


def test_stepwise_runs_tell_of_each_kernel(where: str) -> None:  # noqa: F811
    f, w = step(device=where)
    before, x = w.numpy(), random(6, 4)
    profile = f.profile(x, repeat=2)
    assert profile.rows
    np.testing.assert_array_equal(w.numpy(), before)
    memory = f.memory(batch=7)
    assert memory.variables == 48
    assert memory.arguments == 7 * 16
