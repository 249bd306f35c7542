"""The runner of benchmarks and gnomon's part in it, on the CPU and, through the emulator, as on a card."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

import gnomon
from gnomon import layers
from gnomon.runtime import device as devices
from tests.emulator import compiler, nvrtc
from tests.on_device import offer

FOLDER = Path(__file__).parents[1] / "benchmarks"
emulated = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")


@pytest.fixture
def load(monkeypatch: Any) -> Iterator[Any]:
    """Imports files of benchmarks/ by their bare names, for as long as the test runs."""
    before = set(sys.modules)
    for folder in (FOLDER, FOLDER / "workers"):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(FOLDER)):
            del sys.modules[name]


# ---- the runner


def test_without_a_card_it_says_why_and_ends(load: Any, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # where there is one, it is not to be found
    assert load("run").main(["--device", "gpu", "--peer", "jax=python"]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith("--device gpu: ")
    assert told.err.count("\n") == 1
    monkeypatch.setattr(devices, "gpu_problem", lambda: "there is no NVIDIA driver here")
    monkeypatch.setattr(sys, "argv", ["card.py", "--json"])
    assert load("card").main() == 2
    assert json.loads(capsys.readouterr().out) == {"problem": "there is no NVIDIA driver here"}


def test_a_process_that_fails_is_told_by_its_last_line(load: Any, tmp_path: Any) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho one >&2\necho no module >&2\nexit 3\n")
    broken.chmod(0o755)
    card = load("card")
    with pytest.raises(card.CardError, match="cannot be measured: no module"):
        card.measured(str(broken))


def test_peers_are_told_their_device(load: Any) -> None:
    run = load("run")
    cpu = run.environment("torch", run.Setting(2))
    assert (cpu["BENCHMARK_DEVICE"], cpu["GNOMON_DEVICE"], cpu["CUDA_VISIBLE_DEVICES"]) == ("cpu", "cpu", "")
    assert cpu["OMP_NUM_THREADS"] == "2"
    assert "JAX_PLATFORMS" not in cpu
    own = run.environment("gnomon", run.Setting(8, "gpu"))
    assert (own["BENCHMARK_DEVICE"], own["GNOMON_DEVICE"]) == ("gpu:0", "gpu:0")
    for peer in run.ON_CARD.keys() - {"gnomon"}:
        found = run.environment(peer, run.Setting(8, "gpu"))
        assert found["JAX_PLATFORMS"] == "cuda"
        assert found["NVIDIA_TF32_OVERRIDE"] == "0"
        assert "CUDA_VISIBLE_DEVICES" not in found
        assert peer in run.PEERS
        assert found["BENCHMARK_DEVICE"] == ("GPU" if peer == "keras-tensorflow" else "cuda")


def test_options_say_who_takes_part(load: Any, capsys: Any) -> None:
    run, workloads = load("run"), load("workloads")
    _, peers, setting = run.parsed([])
    assert peers == dict.fromkeys(("gnomon", "numpy"), sys.executable)
    assert setting == run.Setting(2, "cpu")
    _, peers, setting = run.parsed(["--device", "gpu", "--threads", "3", "--peer", "jax=/p", "--peer", "cublas"])
    assert peers == {"gnomon": sys.executable, "jax": "/p", "cublas": sys.executable}
    assert setting == run.Setting(3, "gpu")
    for wrong in (["--peer", "tensor"], ["--device", "gpu", "--peer", "numpy"], ["--peer", "cublas"]):
        with pytest.raises(SystemExit):
            run.parsed(wrong)
    assert "runs on no card" in capsys.readouterr().err
    on_card, on_cpu = ({w.name for w in workloads.chosen([], False, d)} for d in ("gpu", "cpu"))
    assert {"black_scholes:64000000", "matmul:4096x4096x4096:nn:bfloat16", "recurrent_train:gru:64"} <= on_card - on_cpu
    assert {"black_scholes", "logsoftmax_sum", "import_gnomon"} == on_cpu - on_card
    assert {w.name for w in workloads.chosen(["matmul:4096"], True, "gpu")} == {
        "matmul:4096x4096x4096:nn", "matmul:4096x4096x4096:nn:bfloat16",
    }  # fmt: skip


def test_a_worker_answers_with_seconds(load: Any) -> None:
    run, workloads = load("run"), load("workloads")
    figures = run.take_turns(
        workloads.matmul("8x8x8"), {"numpy": sys.executable, "cublas": "python"}, 2, 1e-4, run.Setting(1)
    )
    numpy, cublas = sorted(figures, key=lambda f: not f.rounds)
    assert numpy.versions.startswith("numpy")
    assert len(numpy.rounds) == 2
    assert min(numpy.rounds) > 0
    assert cublas.error  # CuPy is not there, or finds no card
    told = run.table(workloads.matmul("8x8x8"), figures, SimpleNamespace(peak=lambda dtype: 1e9, copied=1e9, read=1e9))
    assert "of floor" in told


# ---- the card


@emulated
def test_a_card_is_measured_through_the_driver(load: Any, monkeypatch: Any) -> None:
    card, workloads = load("card"), load("workloads")
    gpu = offer(monkeypatch)
    found = card.measure(gpu, "Emulated", "driver 1", blocks=1, rounds=2, size=1 << 12, copies=2)
    assert found.flops > 0
    assert found.copied > 0
    assert str(found).startswith("Emulated, driver 1: ")
    better = found.best(card.Card(1e30, 1.0, 3.0, "", ""))
    assert (better.flops, better.copied, better.halves) == (1e30, found.copied, 3.0)
    known = card.Card(2e12, 1e12, 4e12, "", "")
    assert workloads.matmul("1000x1000x1000").floor(known) == pytest.approx(1e-3)
    assert workloads.matmul("1000x1000x1000", dtype="bfloat16").floor(known) == pytest.approx(5e-4)
    assert workloads.black_scholes("b", 10**6, "gpu").floor(known) == pytest.approx(20e-6)
    if nvrtc.library() is not None:
        used = nvrtc.compile(card.PEAK, "sm_90")["peak"]
        assert (used.spilled, used.stack) == (0, 0)
        assert used.registers <= 64


# ---- workers


def with_calls(load: Any, monkeypatch: Any) -> tuple[Any, list[int]]:
    """gnomon's worker as on a card, and a list that grows by the bytes of each copy to it."""
    gpu = offer(monkeypatch)
    monkeypatch.setenv("BENCHMARK_DEVICE", "emulator")
    uploads: list[int] = []
    upload = gpu.driver.upload
    monkeypatch.setattr(gpu.driver, "upload", lambda at, array: (uploads.append(array.nbytes), upload(at, array)))
    return load("use_gnomon"), uploads


@emulated
def test_functions_are_called_with_what_is_on_the_card(load: Any, monkeypatch: Any) -> None:
    worker, uploads = with_calls(load, monkeypatch)
    common = load("common")
    with gnomon.device("emulator"):
        jobs = [worker.black_scholes("50"), worker.matmul("5x16x12", "nt", "bfloat16"), worker.logsoftmax_sum("2")]
        uploads.clear()
        results = [job.run(3) for job in jobs]
        worker.wait(results)
    assert not uploads
    call, put = common.black_scholes(np.exp, np.log, np.sqrt, erf)(*common.options(50))
    np.testing.assert_allclose(np.asarray(results[0][0]), call, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(jobs[0].check, common.sample(call) + common.sample(put), rtol=1e-3, atol=1e-4)
    a, b = common.matrices("5x16x12", "nt")
    assert results[1].dtype_name == "bfloat16"
    np.testing.assert_allclose(jobs[1].check, common.sample(a @ b.T), rtol=2e-2, atol=5e-2)


@emulated
def test_models_are_called_with_what_is_on_the_card(load: Any, monkeypatch: Any, capsys: Any) -> None:
    worker, uploads = with_calls(load, monkeypatch)
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 4), np.float32), rng.integers(0, 3, 6).astype(np.int32)

    def small() -> Any:
        model = gnomon.Sequential([layers.Input((4,)), layers.Dense(3)])
        model.set_weights([np.full((4, 3), 0.1, np.float32), np.arange(3, dtype=np.float32)])
        loss = gnomon.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(gnomon.optimizers.SGD(0.1), loss)
        return model

    model = small()
    wanted = [model.train_on_batch(x, y) for _ in range(3)]
    answer = model.predict(x, verbose=0)
    calls = worker.CallsOnCard()
    with gnomon.device("emulator"):
        model = small()
        step = calls.training(model, x, y)
        uploads.clear()
        found = [float(step()) for _ in range(3)]
        assert max(uploads) <= 48  # row numbers
        ask = calls.inference(model, x)
        uploads.clear()
        np.testing.assert_allclose(np.asarray(ask()), answer, rtol=1e-4)
        assert not uploads
        load("kernels").told("small", model.profile(x, y, repeat=1), load("card").Card(1e9, 1e9, 0.0, "", ""))
    assert "of the peak" in capsys.readouterr().out
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


class OnCard:
    """As much of a CuPy array as the worker looks at."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.data = SimpleNamespace(ptr=array.ctypes.data)


def gemm_ex(
    handle: Any, left: int, right: int, m: int, n: int, k: int, alpha: int, a: int, a_kind: int, lda: int, b: int,
    b_kind: int, ldb: int, beta: int, c: int, c_kind: int, ldc: int, compute: int, algorithm: int,
) -> None:  # fmt: skip
    """cuBLAS's definition: column-major C = op(A) op(B)."""
    import ctypes

    assert (a_kind, b_kind, c_kind, compute) in ((0, 0, 0, 68), (14, 14, 14, 68))

    def matrix(address: int, kind: int, rows: int, columns: int, ld: int) -> np.ndarray:
        bits = ctypes.c_uint16 if kind else ctypes.c_float
        return np.ctypeslib.as_array((bits * (ld * columns)).from_address(address)).reshape(columns, ld).T[:rows]

    def value(bits: np.ndarray) -> np.ndarray:
        return bits if bits.dtype == np.float32 else (bits.astype(np.uint32) << 16).view(np.float32)

    first = matrix(a, a_kind, *((k, m) if left else (m, k)), lda)
    second = matrix(b, b_kind, *((n, k) if right else (k, n)), ldb)
    found = (value(first.T if left else first) @ value(second.T if right else second)).astype(np.float32)
    matrix(c, c_kind, m, n, ldc)[...] = found if not c_kind else found.view(np.uint32) >> 16


@pytest.mark.parametrize("form", ["nn", "tn", "nt"])
def test_cublas_is_asked_for_the_product(load: Any, monkeypatch: Any, form: str) -> None:
    cupy, backends = ModuleType("cupy"), ModuleType("cupy_backends")
    device = SimpleNamespace(get_cublas_handle=lambda: 0)
    vars(cupy).update(
        asarray=OnCard, asnumpy=lambda a: a.array, empty=lambda shape, dtype: OnCard(np.zeros(shape, dtype)),
        cuda=SimpleNamespace(device=device),
    )  # fmt: skip
    names = ["cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, backends)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    backends.cublas = SimpleNamespace(gemmEx=gemm_ex)  # type: ignore[attr-defined]
    worker, common = load("use_cupy"), load("common")
    a, b = common.matrices("6x8x5", form)
    product = (a.T if form == "tn" else a) @ (b.T if form == "nt" else b)
    for dtype, near in (("float32", 1e-5), ("bfloat16", 3e-2)):
        job = worker.matmul("6x8x5", form, dtype)
        np.testing.assert_allclose(job.check, common.sample(product), rtol=near, atol=near * 4)
        np.testing.assert_allclose(worker.from_card(job.run(2), dtype), product, rtol=near, atol=near * 4)
