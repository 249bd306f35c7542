"""The driver on CuPy: what it says of machines that cannot be used, and all that it does, with a module that looks like
CuPy to it."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon.compiler.errors import CompileError, DeviceError, OutOfMemoryError
from gnomon.runtime import cuda
from gnomon.runtime import device as devices
from tests.emulator import compiler, programs
from tests.emulator.cupy_like import Array, CUDARuntimeError, Stream, World, install

emulated = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")


@pytest.fixture
def world(monkeypatch: Any) -> World:
    """A machine with a GPU, as far as anybody can tell."""
    found = World()
    install(monkeypatch, found)
    monkeypatch.setattr(devices, "_made", {})
    monkeypatch.setattr(devices, "_usual", None)
    monkeypatch.setenv("GNOMON_LIBRARIES", "")
    return found


def step(**options: Any) -> tuple[Any, Any]:
    x = gnomon.Input((4,), name="x")
    w = gnomon.Variable(np.ones((4, 3), "float32"), name="w")
    return gnomon.function([x], x @ w, updates={w: w * 0.5}, **options), w


@pytest.mark.parametrize(
    "change, wanted",
    [
        ({"version": "12.3.0"}, "CuPy 12.3.0 is too old: version 13 or newer is needed"),
        ({"driver": 0}, "there is no NVIDIA driver here"),
        ({"driver": 12080}, r"the NVIDIA driver is for CUDA 12.8, and CuPy for CUDA 13.0: .* install gnomon\[cuda12\]"),
        ({"devices": 0}, "the NVIDIA driver finds no device"),
        ({"capability": "61"}, "compute capability 6.1, and at least 7.5 is needed"),
        ({"has_nvrtc": False}, "does not find NVRTC, which compiles kernels .*: pip install nvidia-cuda-nvrtc"),
    ],
)
def test_a_machine_that_cannot_be_used_is_told_why(monkeypatch: Any, change: dict[str, Any], wanted: str) -> None:
    world = World()
    vars(world).update(change)
    install(monkeypatch, world)
    monkeypatch.setattr(devices, "_made", {})
    with pytest.raises(DeviceError, match=f"The device 'gpu:0' cannot be used: .*{wanted}.*Or use the device 'cpu'"):
        gnomon.device("gpu")


def test_an_error_of_cuda_itself_is_told(monkeypatch: Any) -> None:
    world = World()
    install(monkeypatch, world).cuda.runtime.driverGetVersion = lambda: 1 // 0
    assert devices.gpu_problem() == "CUDA says: integer division or modulo by zero"


def test_without_a_driver_cupy_is_not_imported(monkeypatch: Any) -> None:
    install(monkeypatch, World())
    monkeypatch.setattr(cuda, "_has_driver", lambda: False)
    monkeypatch.delitem(sys.modules, "cupy")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    assert devices.gpu_problem() == "there is no NVIDIA driver here (libcuda is missing)"


def test_without_cupy_nothing_of_a_gpu_is_imported() -> None:
    text = (
        "import sys, numpy, gnomon; x = gnomon.vector('x'); gnomon.function([x], x * 2)(numpy.ones(3, 'float32'));"
        "print(sorted(m for m in sys.modules if m in ('cupy', 'gnomon.runtime.cuda', 'gnomon.runtime.gpu')))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gpu_that_can_be_used_is_used(world: World) -> None:
    world.devices = 2
    assert devices.usual() == "gpu:0"
    assert gnomon.devices() == ["gpu:0", "gpu:1", "cpu"]
    assert gnomon.current_device() == "gpu:0"
    with gnomon.device("cpu"):
        assert gnomon.current_device() == "cpu"
    with pytest.raises(DeviceError, match="There is no device 'gpu:2': there are 2"):
        gnomon.device("cuda:2")


@emulated
def test_the_driver_does_what_is_asked(world: World, fresh_cache: Any) -> None:
    f, w = step()
    g, v = step(device="cpu")
    assert f.device.name == "gpu:0"
    assert f.device.target().cpu == "sm_90"
    for k in range(4):
        x = np.random.default_rng(k).random((6, 4), dtype=np.float32)
        np.testing.assert_allclose(f(x), g(x), rtol=1e-6)
        np.testing.assert_allclose(w.numpy(), v.numpy())
    assert [e[0] for e in world.log].count("graph") == 3
    assert ("compile", ("--gpu-architecture=sm_90", "-std=c++17", "--fmad=false")) in world.log
    compiled = [e for e in world.log if e[0] == "compile"]
    devices._made.clear()
    again, _ = step()  # its kernels are kept on the disk
    assert again(x).shape == (6, 3)
    assert [e for e in world.log if e[0] == "compile"] == compiled


@emulated
def test_arrays_of_cupy_go_in_and_come_out(world: World) -> None:
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], x * 2.0)
    a = np.random.default_rng(0).random((6, 4), dtype=np.float32)
    given = Array(world, a)
    np.testing.assert_allclose(f(given), a * 2)
    assert ("wait_event", "event") in world.log
    result = f.on_device(given)
    assert result.__dlpack_device__() == (2, 0)
    np.testing.assert_allclose(result.numpy(), a * 2)
    assert f.device.adopt(Array(world, a, device=1)) is None


@emulated
def test_programs_of_tests_run_on_a_card_if_asked(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(programs, "CARD", "gpu:0")
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], x * 2.0, device="cpu")
    a = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(programs.Emulated(programs.for_cuda(f))([a])[0], a * 2)
    assert any(entry[0] == "launch" for entry in world.log)


class ByDlpack:
    """An array that has DLPack's protocol and no other; the module that looks like CuPy takes it as it is."""

    def __init__(self, array: Array, kind: int):
        self.kind, self.data, self.shape, self.dtype = kind, array.data, array.shape, array.dtype
        self.device, self.array = array.device, array

    def __dlpack__(self, **options: Any) -> None:
        raise AssertionError("who takes it asks in cupy.from_dlpack")

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0


@emulated
def test_arrays_that_only_have_dlpack_are_read_in_place(world: World) -> None:
    x = gnomon.Input((4,), name="x")
    f = gnomon.function([x], x * 2.0)
    a = np.random.default_rng(0).random((6, 4), dtype=np.float32)
    on_card, on_host = (ByDlpack(Array(world, a), kind) for kind in (2, 1))
    found = f.device.adopt(on_card)
    assert found.address == on_card.data.ptr
    np.testing.assert_allclose(f(on_card), a * 2)
    assert f.device.adopt(on_host) is None


@emulated
def test_memory_that_runs_out_leaves_the_process_usable(world: World) -> None:
    f, _ = step()
    x = np.ones((6, 4), np.float32)
    f(x)
    world.limit = world.used + 10_000
    with pytest.raises(OutOfMemoryError, match="needs .* bytes on gpu:0"):
        f(np.ones((10_000, 4), np.float32))
    assert f(x).shape == (6, 3)


@emulated
def test_what_fails_on_the_device_is_an_error_of_ours(world: World, monkeypatch: Any) -> None:
    f, _ = step()

    def fail(self: Any) -> None:
        raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    monkeypatch.setattr(Stream, "synchronize", fail)
    with pytest.raises(DeviceError, match="'function' failed on gpu:0: cudaErrorIllegalAddress"):
        f(np.ones((6, 4), np.float32))


@emulated
def test_much_shared_memory_and_blocks_that_wait_are_asked_for(world: World) -> None:
    driver = cuda.CupyDriver(0)
    text = 'extern "C" __global__ void __launch_bounds__(32) none(long long n) {}'
    module = driver.load(text, "none")
    driver.launch(module, "none", (9, 1, 1), (32, 1, 1), 100_000, [np.int64(1)])
    assert ("attribute", 8, 100_000) in world.log
    driver.begin_capture()
    driver.launch(module, "none", (9, 1, 1), (32, 1, 1), 0, [np.int64(1)], cooperative=True)
    driver.end_capture()
    assert world.log[-1] == ("launch", "none", (4, 1, 1))  # as many as fit: two on each of two multiprocessors
    with pytest.raises(CompileError, match="(?s)NVRTC cannot compile the kernels for sm_90: .*no kernel"):
        driver.load("nothing", "nothing")


def test_the_device_is_current_only_while_it_is_used(world: World) -> None:
    world.devices = 2
    gpu = devices.device("gpu:1")
    assert world.current == 0
    with gpu.lock:
        assert world.current == 1
    assert world.current == 0
