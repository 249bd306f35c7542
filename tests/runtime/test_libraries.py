"""Products and convolutions by cublasLt and cuDNN, which stand-ins in C are here: numbers as of kernels of our own."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import layers
from gnomon.compiler.compile import Request, compile
from gnomon.compiler.dtypes import decoded, encoded, rounded
from gnomon.compiler.errors import DeviceError
from gnomon.compiler.grad import grad
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.leaves import Input, Parameter, key_of
from gnomon.compiler.program import Library, Program, Repeat, all_steps
from gnomon.compiler.sizes import evaluate, symbol
from gnomon.runtime import cuda
from gnomon.runtime import device as devices
from gnomon.runtime.buffer import Buffer
from gnomon.runtime.cublas import CublasLt, call, find
from gnomon.runtime.cudnn import Cudnn
from gnomon.runtime.gpu import Gpu, Operand
from gnomon.runtime.gpu_run import GpuExecutable
from tests.emulator import Module
from tests.emulator import compiler as emulates
from tests.emulator.programs import text
from tests.libraries import RELU_TARGET, STREAM, TARGET, WithLibraries, compiler, counted, stand_in
from tests.on_device import DEVICES

pytestmark = pytest.mark.skipif(compiler() is None or emulates() is None, reason="no C and C++ compilers")

B, N = symbol("b"), symbol("n")


def conv(x: Node, w: Node, stride: int = 1, dilation: int = 1) -> Node:
    patches = build.patches(x, 1, w.shape[:2], (stride, stride), (dilation, dilation))
    return Contract((0, 1, 2, 3, 4, 5), (3, 4, 5, 6), (0, 1, 2, 6))(patches, w)


def gelu(z: Node) -> Node:
    inner = build.multiply(build.add(z, build.multiply(build.multiply(z, build.square(z)), 0.044715)), 0.7978845608)
    return build.multiply(build.multiply(z, 0.5), build.add(build.tanh(inner), 1.0))


@dataclass
class Case:
    """A graph that libraries compute parts of: how often each is called, and the sizes it is run with."""

    inputs: list[Node]
    outputs: list[Node]
    calls: list[str]
    sizes: Sequence[dict[str, int]] = ({"b": 1}, {"b": 3})


def cases(dtype: str = "float32") -> dict[str, Case]:
    leaf: Any = lambda number, *shape: Input(number, f"x{number}", dtype, shape)()
    product, forward, backward = "cublaslt.matmul", "cudnn.forward", "cudnn.backward_filter"
    x, w, bias = leaf(0, B, 192), leaf(1, 192, 160), leaf(2, 160)
    other, y = leaf(3, B, 160), leaf(4, 160)
    z = build.add(build.matmul(x, w), bias)
    found = {
        "plain": Case([x, w], [build.matmul(x, w)], [product], ({"b": 1}, {"b": 37})),
        "bias": Case([x, w, bias], [z], [product]),
        "relu": Case([x, w, bias], [build.relu(z)], [product]),
        "relu alone": Case([x, w], [build.relu(build.matmul(x, w))], [product]),
        "gelu": Case([x, w, bias], [gelu(z)], [product]),
        "gelu alone": Case([x, w], [gelu(build.matmul(x, w))], [product]),
        "residual": Case([x, w, bias, other], [build.relu(build.subtract(z, other))], [product]),
        "from": Case([x, w, other], [build.subtract(other, build.multiply(build.matmul(x, w), 0.25))], [product]),
    }
    left, right = build.transpose(leaf(5, 256, B), (1, 0)), build.transpose(leaf(6, 160, 256), (1, 0))
    found["transposed"] = Case(
        [left.inputs[0], right.inputs[0]], [build.matmul(left, right)], [product], ({"b": 1}, {"b": 19})
    )
    deep, wide = leaf(7, B, 1100), leaf(8, 1100, 1024)
    hidden = build.matmul(deep, wide)
    found["two steps"] = Case([deep, wide], [hidden, build.tanh(hidden)], [product])
    found["split"] = Case([deep, wide], [build.tanh(build.add(build.matmul(deep, wide), leaf(9, 1024)))], [product])
    found["split"].inputs.append(leaf(9, 1024))
    data, numbers = leaf(15, 9, 1100), Input(16, "x16", "int32", (B,))()
    found["picked"] = Case([data, numbers, wide], [build.matmul(build.gather(data, numbers), wide)], [product])
    part = build.slice(leaf(10, 256, 256), (64, 0), (192, 256))
    found["part"] = Case([x, leaf(10, 256, 256)], [build.matmul(x, part)], [product])
    q, k = leaf(11, B, 65, 66), leaf(12, B, 67, 66)
    found["batch"] = Case([q, k], [Contract((0, 1, 2), (0, 3, 2), (0, 1, 3))(q, k)], [product], ({"b": 1}, {"b": 2}))
    open_ = leaf(13, B, N), leaf(14, N, 160)
    terms = build.add(Contract((0, 1), (1, 2), (0, 2))(*open_), y)
    found["terms"] = Case(
        [*open_, y], [build.relu(terms)], [product], ({"b": 3, "n": 0}, {"b": 3, "n": 5}, {"b": 0, "n": 4})
    )
    loss = build.reduce("sum", build.square(build.relu(build.matmul(x, w))), (0, 1))
    found["gradients"] = Case([x, w], grad(loss, [x, w]), [product] * 2, ({"b": 1}, {"b": 5}))  # type: ignore[arg-type]

    pictures, kernel, of_filters = leaf(20, B, 11, 10, 32), leaf(21, 3, 3, 32, 40), leaf(22, 40)
    around = build.pad(pictures, (0, 1, 1, 0), (0, 1, 1, 0))
    made = conv(around, kernel)
    found |= {
        "convolution": Case([pictures, kernel], [made], [forward], ({"b": 1}, {"b": 2}, {"b": 0})),
        "with bias": Case([pictures, kernel, of_filters], [build.add(made, of_filters)], [forward]),
        "with relu": Case([pictures, kernel, of_filters], [build.relu(build.add(made, of_filters))], [forward]),
        "strided": Case([pictures, kernel], [conv(around, kernel, stride=2)], [forward]),
        "dilated": Case([pictures, kernel], [conv(pictures, kernel, dilation=2)], [forward]),
    }
    loss = build.reduce("sum", build.square(made), (0, 1, 2, 3))
    found["its gradients"] = Case(
        [pictures, kernel], grad(loss, [pictures, kernel]), [forward, forward, backward], ({"b": 2}, {"b": 0})  # type: ignore[arg-type]
    )
    return found


NAMES = list(cases())


@cache
def compiled() -> tuple[dict[str, Case], dict[str, Program], Module]:
    """All cases, compiled as one module."""
    found = cases()
    programs = {n: compile(Request(n.replace(" ", "_"), c.inputs, c.outputs), RELU_TARGET) for n, c in found.items()}
    return found, programs, Module(text(programs.values()))


def arrays(case: Case, sizes: dict[str, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    shape = lambda node: [d if isinstance(d, int) else sizes[str(d)] for d in node.shape]
    return [
        (rng.standard_normal(shape(node)) / 4).astype(np.float32)
        if node.dtype != "int32"
        else rng.integers(0, 9, shape(node), np.int32)
        for node in case.inputs
    ]


def executable(program: Program, module: Module | None = None) -> GpuExecutable:
    return GpuExecutable(Gpu("emulator", WithLibraries(module=module), poison=True), program, [])


@pytest.mark.parametrize("name", NAMES)
def test_numbers(name: str) -> None:
    """The first call runs step by step, the second is captured, the third replayed."""
    found, programs, module = compiled()
    case, program = found[name], programs[name]
    calls = [s.name for s in all_steps(program.steps) if isinstance(s, Library)]
    assert sorted(calls) == sorted(case.calls)
    run = executable(program, module)
    for sizes in case.sizes:
        given = arrays(case, sizes)
        want = evaluate_graph(case.outputs, dict(zip(case.inputs, given, strict=True)))
        for _ in range(3):
            for got, expected in zip(run(*given), want, strict=True):
                scale = np.abs(expected).max(initial=1)
                np.testing.assert_allclose(got, expected, rtol=1e-5, atol=3e-6 * scale)


@pytest.mark.parametrize("rows", [1, 5, 0])
def test_a_training_step_keeps_what_is_positive_as_bits(rows: int) -> None:
    """Of a layer of 200 units: bits come in rows of 256."""
    x, y = Input(0, "x", "float32", (B, 192))(), Input(1, "y", "float32", (B, 160))()
    shapes = [(192, 200), (200,), (200, 160), (160,)]
    w, c, v, d = parameters = [Parameter(200 + k, f"p{k}", "float32", s)() for k, s in enumerate(shapes)]
    hidden = build.relu(build.add(build.matmul(x, w), c))
    loss = build.reduce("sum", build.square(build.subtract(build.add(build.matmul(hidden, v), d), y)), (0, 1))
    news = [build.subtract(p, build.multiply(g, 0.01)) for p, g in zip(parameters, grad(loss, parameters), strict=True)]  # type: ignore[arg-type]
    program = compile(Request("step", [x, y], [loss], list(zip(parameters, news, strict=True))), RELU_TARGET)
    acts = [dict(s.parameters)["epilogue"] for s in all_steps(program.steps) if isinstance(s, Library)]
    assert acts.count("relu_mask") == 1
    assert acts.count("relu_gradient") == 1
    rng = np.random.default_rng(1)
    values = {n: (rng.standard_normal(s) / 4).astype(np.float32) for n, s in zip(parameters, shapes, strict=True)}
    values |= {n: rng.standard_normal((rows, s)).astype(np.float32) for n, s in ((x, 192), (y, 160))}
    buffers = [Buffer(evaluated(program.slots[s].shape), "float32") for s, _ in program.variables]
    run = GpuExecutable(Gpu("emulator", WithLibraries(), poison=True), program, buffers)
    keys = {key_of(p): p for p in parameters}
    of = [keys[key] for _, key in program.variables]
    want = evaluate_graph([loss, *news], values)
    for _ in range(3):
        for buffer, p in zip(buffers, of, strict=True):
            buffer.set(values[p])
        (got,) = run(values[x], values[y])
        np.testing.assert_allclose(got, want[0], rtol=1e-4)
        for buffer, p in zip(buffers, of, strict=True):
            np.testing.assert_allclose(buffer.numpy(), want[1 + parameters.index(p)], rtol=1e-4, atol=1e-5)


def evaluated(shape: Sequence[Any]) -> tuple[int, ...]:
    return tuple(evaluate(d, {}) for d in shape)


@pytest.mark.parametrize("library, name", [("cublaslt", "relu"), ("cudnn", "its gradients")])
def test_descriptors_are_destroyed_when_nobody_has_them(library: str, name: str) -> None:
    found, programs, module = compiled()
    gc.collect()
    before = counted(library)["living"]
    run = executable(programs[name], module)
    run(*arrays(found[name], {"b": 2}))
    assert counted(library)["living"] > before
    del run
    gc.collect()
    assert counted(library)["living"] == before


@pytest.mark.parametrize(
    "name, matrix",
    [("relu", "float32"), ("with relu", "tf32"), ("two steps", "bfloat16"), ("its gradients", "float32")],
)
def test_numbers_of_16_bits(name: str, matrix: str) -> None:
    """Stored so, and computed in 32: an element is off by no more than its own rounding."""
    case = cases("bfloat16")[name]
    program = compile(Request("f", case.inputs, case.outputs), replace(RELU_TARGET, matrix=matrix))
    assert sorted(s.name for s in all_steps(program.steps) if isinstance(s, Library)) == sorted(case.calls)
    given = [rounded("bfloat16", a) for a in arrays(case, {"b": 2})]
    want = evaluate_graph(case.outputs, dict(zip(case.inputs, given, strict=True)))
    found = executable(program)(*(encoded("bfloat16", a) for a in given))
    for got, expected in zip(found, want, strict=True):
        scale = np.abs(expected).max(initial=1)
        np.testing.assert_allclose(decoded("bfloat16", got), expected, rtol=2**-7, atol=2**-7 * scale)


def test_what_is_not_a_number_stays_so() -> None:
    """Of each way in which a library computes an activation by default."""
    x, w, pictures, kernel, bias = (
        Input(k, f"x{k}", "float32", s)()
        for k, s in enumerate([(B, 1024), (1024, 1024), (B, 9, 9, 32), (3, 3, 32, 32), (32,)])
    )
    product, windows = build.matmul(x, w), build.add(conv(pictures, kernel), bias)
    outputs = [build.relu(product), gelu(product), build.relu(windows)]
    given = [np.ones([3 if d is B else d for d in n.shape], np.float32) for n in (x, w, pictures, kernel, bias)]
    given[0][1, 5], given[2][1, 4, 4, 7] = np.nan, np.nan
    program = compile(Request("f", [x, w, pictures, kernel, bias], outputs), TARGET)
    assert len([s for s in all_steps(program.steps) if isinstance(s, Library)]) >= 2
    for got in executable(program)(*given):
        assert np.isnan(got[1]).any()
        assert not np.isnan(got[0]).any()


def test_algorithms_are_asked_for_once() -> None:
    found, programs, module = compiled()
    run = executable(programs["plain"], module)
    case = found["plain"]
    before = counted("cublaslt")
    for rows in (4, 5, 4, 5, 4):
        run(*arrays(case, {"b": rows}))
    after = counted("cublaslt")
    assert after["run"] - before["run"] == 5
    assert after["chosen"] - before["chosen"] == 2


@pytest.mark.parametrize("matrix, bits", [("float32", 24), ("tf32", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("name", ["plain", "convolution"])
def test_factors_are_rounded_as_the_target_says(name: str, matrix: str, bits: int) -> None:
    case = cases()[name]
    program = compile(Request("f", case.inputs, case.outputs), replace(TARGET, matrix=matrix))
    given = arrays(case, {"b": 2})
    (got,) = executable(program)(*given)

    def less_exact(x: np.ndarray) -> np.ndarray:
        mantissa, exponent = np.frexp(x)
        return np.ldexp(np.rint(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)

    (want,) = evaluate_graph(case.outputs, {n: less_exact(a) for n, a in zip(case.inputs, given, strict=True)})
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    (exact,) = evaluate_graph(case.outputs, dict(zip(case.inputs, given, strict=True)))
    assert (np.abs(got - exact).max() > 1e-4) == (matrix != "float32")


def test_pointers_may_be_aligned_less() -> None:
    """The middle of an array that somebody else holds begins wherever it likes."""
    lt = CublasLt(stand_in("cublaslt"), STREAM, no_fill)
    program = compiled()[1]["plain"]
    (step,) = program.steps
    assert isinstance(step, Library)
    memory = np.zeros(1 << 20, np.float32)
    at = lambda offset: memory.ctypes.data + (-memory.ctypes.data % 256) + 4 * offset
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 192)).astype(np.float32), rng.standard_normal((192, 160)).astype(np.float32)
    skip = (-memory.ctypes.data % 256) // 4
    memory[skip + 3 : skip + 3 + x.size], memory[skip + 1025 : skip + 1025 + w.size] = x.ravel(), w.ravel()
    operands = [
        Operand(at(3), x.shape, "float32"), Operand(at(1025), w.shape, "float32"),
        Operand(at(60_002), (3, 160), "float32"), Operand(at(65_536), (1 << 18,), "uint8"),
    ]  # fmt: skip
    call(lt.makers(), step, operands, {"b": 3})
    got = memory[skip + 60_002 : skip + 60_002 + 480].reshape(3, 160)
    np.testing.assert_allclose(got, x @ w, rtol=1e-5, atol=1e-4)


def no_fill(address: int, byte: int, size: int) -> None:
    raise AssertionError("nothing is to be filled")


def step_of(name: str) -> Library:
    return next(s for s in all_steps(compiled()[1][name].steps) if isinstance(s, Library))


def operands_of(step: Library, program: Program, sizes: dict[str, int]) -> list[Any]:
    shapes = [(program.slots[s].dtype, tuple(evaluate(d, sizes) for d in program.slots[s].shape))
              for s in (*step.inputs, *step.written)]  # fmt: skip
    return [Operand(4096 * (k + 1), shape, dtype) for k, (dtype, shape) in enumerate(shapes)]


def changed(step: Library, **parameters: Any) -> Library:
    return replace(step, parameters=tuple((k, parameters.get(k, v)) for k, v in step.parameters))


def test_what_cublaslt_refuses_is_told_in_its_words() -> None:
    lt = CublasLt(stand_in("cublaslt"), STREAM, no_fill)
    step = replace(changed(step_of("plain"), ld_w=7), layers=("dense_1 (model.py:3)",))
    with pytest.raises(DeviceError) as error:
        call(lt.makers(), step, operands_of(step, compiled()[1]["plain"], {"b": 2}), {"b": 2})
    assert str(error.value) == (
        "cublasLt could not multiply float32[1, 2, 192] by [1, 192, 160] for dense_1 (model.py:3): "
        "cublasLtMatmulAlgoGetHeuristic returned CUBLAS_STATUS_INVALID_VALUE (an unsupported value or parameter was "
        "passed to the function). With GNOMON_LIBRARIES='' kernels of gnomon's own are used instead."
    )


def test_what_cudnn_refuses_is_told_in_its_words() -> None:
    dnn = Cudnn(stand_in("cudnn"), STREAM, no_fill)
    step = changed(step_of("convolution"), stride_h=0)
    with pytest.raises(DeviceError) as error:
        call(dnn.makers(), step, operands_of(step, compiled()[1]["convolution"], {"b": 2}), {"b": 2})
    assert "cuDNN could not convolve float32[2, 13, 12, 32], 40 kernels of 3 x 3" in str(error.value)
    assert "cudnnSetConvolution2dDescriptor returned CUDNN_STATUS_BAD_PARAM (!(ph >= 0 &&" in str(error.value)


def test_too_little_workspace_is_told() -> None:
    dnn = Cudnn(stand_in("cudnn"), STREAM, no_fill)
    step, program = step_of("convolution"), compiled()[1]["convolution"]
    *operands, workspace = operands_of(step, program, {"b": 2})
    with pytest.raises(DeviceError, match="it has no algorithm with 16 bytes of workspace"):
        call(dnn.makers(), step, [*operands, replace(workspace, shape=(16,))], {"b": 2})


def test_a_library_that_is_not_there_is_none() -> None:
    assert find("surely_no_library", 12, []) is None


@pytest.mark.parametrize(
    "wanted, there",
    [
        (None, ("cublaslt", "cudnn")),
        ("", ()),
        ("cudnn, cublaslt.relu", ("cudnn",)),
        ("cublaslt, blas", ("cublaslt",)),
        ("cublaslt.relu,cublaslt", ("cublaslt", "cublaslt.relu")),
    ],
)
def test_a_device_has_the_libraries_that_are_wanted(
    wanted: str | None, there: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"cublasLt": "cublaslt", "cudnn": "cudnn"}
    monkeypatch.setattr(cuda, "find", lambda name, major, functions: stand_in(found[name]) if major == 12 else None)
    monkeypatch.delenv("GNOMON_LIBRARIES", raising=False)
    if wanted is not None:
        monkeypatch.setenv("GNOMON_LIBRARIES", wanted)
    driver = object.__new__(cuda.CupyDriver)  # what needs a card is left out
    driver._runtime = SimpleNamespace(runtimeGetVersion=lambda: 12090)
    driver._made, driver.stream = {}, SimpleNamespace(ptr=STREAM)
    assert driver.libraries == there
    for name in ("cublaslt.matmul", "cudnn.forward", "cudnn.backward_filter"):
        made = driver.library(name)
        assert (made is not None) == (name.partition(".")[0] in there)
        assert driver.library(name) == made
    assert driver.library("svd") is None


# ---- models


@pytest.fixture(params=DEVICES)
def where(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """A device with libraries: the emulator with stand-ins, and the card with what is there."""
    if request.param == "emulator":
        gpu = Gpu("emulator", WithLibraries(), poison=True)
        monkeypatch.setitem(devices.KINDS, "emulator", lambda index: gpu)
        monkeypatch.setitem(devices._made, "emulator", gpu)
    return request.param


def test_a_model_learns_as_on_the_cpu(where: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.random((7, 8, 8, 8), dtype=np.float32), rng.integers(0, 3, 7)
    found = {}
    for name in ("cpu", where):
        with gnomon.device(name):
            gnomon.utils.set_random_seed(3)
            model = gnomon.Sequential(
                [
                    layers.Input((8, 8, 8)),
                    layers.Conv2D(32, 3, padding="same", activation="relu"),
                    layers.Flatten(),
                    layers.Dense(128, activation="relu"),
                    layers.Dense(3, activation="softmax"),
                ]
            )
            model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
            before = [counted(library)["run"] for library in ("cublaslt", "cudnn")]
            losses = model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"]
            after = [counted(library)["run"] for library in ("cublaslt", "cudnn")]
            found[name] = losses, model.get_weights()[0]
            if name == "emulator":
                assert all(now > then for now, then in zip(after, before, strict=True))
    for got, want in zip(found[where], found["cpu"], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("units, calls", [(64, 0), (1536, 3)])
def test_a_recurrence_calls_libraries_only_if_its_steps_are_long(units: int, calls: int) -> None:
    """A loop of brief steps is one kernel, and would not be with a library's call in it."""
    x = gnomon.Input((None, 8))
    y = layers.SimpleRNN(units, return_sequences=True, kernel_initializer="ones", recurrent_initializer="identity")(x)
    graph = gnomon.function([x], y).graph
    program = compile(Request("recurrence", graph.inputs, graph.outputs), TARGET)
    assert any(isinstance(s, Repeat) for s in all_steps(program.steps)) == bool(calls)
    buffers = [Buffer(evaluated(program.slots[s].shape), "float32") for s, _ in program.variables]
    values = {key_of(v.node): v.numpy() for v in graph.variables}
    for buffer, (_, key) in zip(buffers, program.variables, strict=True):
        buffer.set(values[key])
    given = np.random.default_rng(2).standard_normal((2, 3, 8)).astype(np.float32)
    run = GpuExecutable(Gpu("emulator", WithLibraries(), poison=True), program, buffers)
    state, want = np.zeros((2, 1)), []
    for t in range(3):
        state = np.tanh(given[:, t].sum(1, keepdims=True) + state)
        want.append(np.repeat(state, units, 1))
    before = counted("cublaslt")["run"]
    for _ in range(2):
        (got,) = run(given)
        np.testing.assert_allclose(got, np.stack(want, 1), rtol=1e-5, atol=1e-6)
    assert counted("cublaslt")["run"] - before == 2 * calls
