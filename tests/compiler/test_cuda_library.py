"""Which products and convolutions are a library's, what of their epilogues is too, and what is told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.grad import grad
from gnomon.compiler.graph import Node
from gnomon.compiler.ops import build
from gnomon.compiler.ops.contract import Contract
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.program import Launch, Library, Prepare, Program, all_steps
from gnomon.compiler.show import step_lines
from gnomon.compiler.sizes import symbol
from gnomon.compiler.targets import CUDA, Target
from gnomon.compiler.verify import check_program

B = symbol("b")
TARGET = replace(CUDA, libraries=("cublaslt", "cudnn"))
RELU_TARGET = replace(CUDA, libraries=("cublaslt", "cublaslt.relu", "cudnn"))


def leaf(number: int, *shape: object, dtype: str = "float32") -> Node:
    return Input(number, f"x{number}", dtype, shape)()  # type: ignore[arg-type]


def weight(number: int, *shape: int, dtype: str = "float32") -> Node:
    return Parameter(100 + number, f"w{number}", dtype, shape)()


X, W, V = leaf(1, B, 256), weight(1, 256, 512), weight(2, 512)
DEEP_X, DEEP_W = leaf(30, B, 1024), weight(30, 1024, 1024)


def program(
    outputs: Sequence[Node],
    updates: Sequence[tuple[Node, Node]] = (),
    inputs: Sequence[Node] = (X,),
    target: Target = TARGET,
    prepare: bool = False,
) -> Program:
    stages = Stages()
    made = compile(Request("f", inputs, outputs, updates, prepare=prepare), target, stages)
    check_program(made, stages.kernels)
    return made


def steps(made: Program) -> list[Library]:
    return [s for s in all_steps(made.steps) if isinstance(s, Library)]


def launches(made: Program) -> list[Launch]:
    return [s for s in all_steps(made.steps) if isinstance(s, Launch)]


def names(made: Program, slots: Sequence[int]) -> list[str]:
    return [made.slots[s].name for s in slots]


def conv(x: Node, w: Node, stride: int = 1, dilation: int = 1) -> Node:
    """Windows of x [n, h, w, c] times w [r, s, c, k]."""
    patches = build.patches(x, 1, w.shape[:2], (stride, stride), (dilation, dilation))
    return Contract((0, 1, 2, 3, 4, 5), (3, 4, 5, 6), (0, 1, 2, 6))(patches, w)


def padded(x: Node) -> Node:
    return build.pad(x, (0, 1, 1, 0), (0, 1, 1, 0))


# ---- products


def test_a_dense_layer_is_one_step() -> None:
    made = program([build.relu(build.add(build.matmul(X, W), V))], target=RELU_TARGET)
    (step,) = steps(made)
    assert not launches(made)
    assert step.name == "cublaslt.matmul"
    assert names(made, step.inputs) == ["x1", "w1", "w2"]
    assert names(made, step.outputs) == ["output0"]
    assert dict(step.parameters) == {
        "m": B, "n": 512, "k": 256, "batch": 1,
        "x": "plain", "ld_x": 256, "w": "plain", "ld_w": 512, "ld_d": 512, "at_bias": 0,
        "alpha": "1.0", "beta": "0.0", "epilogue": "relu", "compute": "float32",
    }  # fmt: skip
    assert step.flops == 2 * B * 512 * 256
    assert made.slots[step.workspace].kind == "temporary"
    assert made.slots[step.workspace].shape == (4 << 20,)


def test_a_relu_is_ours_unless_nan_may_become_zero() -> None:
    """cublasLt's makes 0 of it."""
    assert not steps(program([build.relu(build.add(build.matmul(X, W), V))]))  # too quick for two steps
    made = program([build.relu(build.add(build.matmul(DEEP_X, DEEP_W), weight(31, 1024)))], inputs=[DEEP_X])
    assert dict(steps(made)[0].parameters)["epilogue"] == "none"
    assert len(launches(made)) == 1


def test_without_libraries_nothing_changes() -> None:
    made = program([build.relu(build.add(build.matmul(X, W), V))], target=CUDA)
    assert not steps(made)
    assert launches(made)
    assert CUDA.libraries == ()


def test_what_the_other_library_does_stays_ours() -> None:
    made = program([build.matmul(X, W)], target=replace(CUDA, libraries=("cudnn",)))
    assert not steps(made)


@pytest.mark.parametrize("act, told", [("gelu", "gelu"), ("erf", "none"), ("tanh", "none")])
def test_gelu_is_taken_in_the_form_that_the_library_computes(act: str, told: str) -> None:
    z = build.add(build.matmul(DEEP_X, DEEP_W), weight(31, 1024))
    if act == "gelu":
        inner = build.multiply(build.add(z, build.multiply(build.multiply(z, build.square(z)), 0.044715)), 0.7978845608)
        y = build.multiply(build.multiply(z, 0.5), build.add(build.tanh(inner), 1.0))
    elif act == "erf":
        y = build.multiply(build.multiply(z, 0.5), build.add(build.apply("erf", build.multiply(z, 0.7071067812)), 1.0))
    else:
        y = build.tanh(z)
    made = program([y], inputs=[DEEP_X])
    (step,) = steps(made)
    assert dict(step.parameters)["epilogue"] == told
    assert len(launches(made)) == (told == "none")  # the rest is a kernel: the sums are deep enough to pay for that


@pytest.mark.parametrize("deep, columns", [(64, 65536), (512, 512)], ids=["shallow", "quick"])
def test_what_does_not_pay_is_not_split(deep: int, columns: int) -> None:
    x, w = leaf(3, B, deep), weight(3, deep, columns)
    assert steps(program([build.relu(build.matmul(x, w))], inputs=[x], target=RELU_TARGET))
    assert not steps(program([build.tanh(build.matmul(x, w))], inputs=[x]))


def test_a_value_that_is_wanted_too_is_read_from_where_it_is_stored() -> None:
    z = build.add(build.matmul(DEEP_X, DEEP_W), weight(31, 1024))
    made = program([z, build.tanh(z)], inputs=[DEEP_X])
    (step,), (launch,) = steps(made), launches(made)
    assert names(made, step.outputs) == ["output0"]
    assert dict(step.parameters)["at_bias"] == 0
    assert sorted(names(made, launch.buffers)) == ["output0", "output1"]


def test_an_update_is_made_in_place() -> None:
    g = leaf(4, B, 512)
    new = build.subtract(W, build.multiply(build.matmul(build.transpose(X, (1, 0)), g), 0.5))
    made = program([], [(W, new)], inputs=[X, g])
    (step,) = steps(made)
    assert not launches(made)
    assert names(made, step.inputs) == ["x1", "x4", "w1"]
    assert step.outputs == step.inputs[2:]
    told = dict(step.parameters)
    assert (told["alpha"], told["beta"], told["x"], told["w"], told["k"]) == ("-0.5", "1.0", "transposed", "plain", B)


def test_a_residual_is_added_by_the_library() -> None:
    other = leaf(5, B, 512)
    y = build.relu(build.add(build.add(build.matmul(X, W), other), V))
    made = program([y], inputs=[X, other], target=RELU_TARGET)
    (step,) = steps(made)
    assert not launches(made)
    assert names(made, step.inputs) == ["x1", "w1", "x5", "w2"]
    assert dict(step.parameters)["beta"] == "1.0"


def test_gradients_read_their_operands_transposed() -> None:
    loss = build.reduce("sum", build.square(build.matmul(DEEP_X, DEEP_W)), (0, 1))
    dx, dw = grad(loss, [DEEP_X, DEEP_W])
    forms = {(dict(s.parameters)["x"], dict(s.parameters)["w"]) for s in steps(program([dx, dw], inputs=[DEEP_X]))}
    assert forms == {("plain", "plain"), ("plain", "transposed"), ("transposed", "plain")}


def test_axes_that_are_one_in_memory_are_one_axis() -> None:
    x = leaf(6, B, 7, 256)
    told = dict(steps(program([build.matmul(x, W)], inputs=[x]))[0].parameters)
    assert (told["m"], told["ld_x"], told["ld_d"]) == (7 * B, 256, 512)


def test_part_of_a_matrix_begins_further_on() -> None:
    part = build.slice(W, (0, 256), (256, 256))
    told = dict(steps(program([build.matmul(X, part)]))[0].parameters)
    assert (told["n"], told["ld_w"], told["at_w"]) == (256, 512, 256)


def test_rows_that_are_picked_by_number_are_gathered_first() -> None:
    data, numbers = leaf(41, 60_000, 1024), leaf(42, B, dtype="int32")
    made = program([build.matmul(build.gather(data, numbers), DEEP_W)], inputs=[data, numbers])
    (launch,), (step,) = launches(made), steps(made)
    assert set(names(made, launch.buffers)) == {"left", "x41", "x42"}
    assert names(made, step.inputs) == ["left", "w30"]
    data = leaf(43, 9, 256)
    assert not steps(program([build.matmul(build.gather(data, numbers), W)], inputs=[data, numbers]))


def test_batches_of_products() -> None:
    """Attention of one head: queries times keys."""
    q, k = leaf(7, B, 96, 64), leaf(8, B, 96, 64)
    made = program([Contract((0, 1, 2), (0, 3, 2), (0, 1, 3))(q, k)], inputs=[q, k])
    told = dict(steps(made)[0].parameters)
    assert (told["batch"], told["w"], told["stride_x"], told["stride_d"]) == (B, "transposed", 96 * 64, 96 * 96)
    heads = [leaf(n, B, 96, 8, 64) for n in (9, 10)]
    two = Contract((0, 1, 4, 2), (0, 3, 4, 2), (0, 4, 1, 3))(*heads)  # batches of two strides are nothing for cublasLt
    assert not steps(program([two], inputs=heads))


@pytest.mark.parametrize("rows, deep, columns", [(8, 4096, 4096), (64, 64, 64), (4096, 8, 4096), (4096, 4096, 1)])
def test_small_and_narrow_products_stay_ours(rows: int, deep: int, columns: int) -> None:
    x, w = leaf(11, rows, deep), weight(11, deep, columns)
    assert not steps(program([build.matmul(x, w)], inputs=[x]))


def test_other_numbers_stay_ours() -> None:
    x, w = leaf(12, B, 256, dtype="float64"), weight(12, 256, 512, dtype="float64")
    assert not steps(program([build.matmul(x, w)], inputs=[x]))


def test_factors_may_be_rounded_if_the_target_says_so() -> None:
    made = program([build.matmul(X, W)], target=replace(TARGET, matrix="tf32"))
    assert dict(steps(made)[0].parameters)["compute"] == "tf32"


def test_new_cards_have_more_workspace() -> None:
    made = program([build.matmul(X, W)], target=replace(TARGET, cpu="sm_90"))
    assert made.slots[steps(made)[0].workspace].shape == (32 << 20,)


# ---- gradients of relu


def relu_step(wanted: bool = False) -> Program:
    h = build.relu(build.add(build.matmul(X, W), V))
    v = weight(40, 512, 128)
    loss = build.reduce("sum", build.square(build.matmul(h, v)), (0, 1))
    dw, dv = grad(loss, [W, V])
    new = [(p, build.subtract(p, build.multiply(g, 0.5))) for p, g in ((W, dw), (V, dv))]
    return program([h] if wanted else [], new, target=RELU_TARGET)


@pytest.mark.parametrize("wanted", [False, True])
def test_what_is_positive_is_kept_as_bits(wanted: bool) -> None:
    """The gradient of the first layer, with the sums for its bias, is one call, which reads a bit for each element."""
    made = relu_step(wanted)
    first = next(s for s in steps(made) if dict(s.parameters)["epilogue"] == "relu_mask")
    back = next(s for s in steps(made) if dict(s.parameters)["epilogue"] == "relu_gradient")
    positive = made.slots[first.outputs[1]]
    assert (positive.dtype, positive.shape) == ("uint8", (B, 64))
    assert dict(first.parameters)["ld_mask"] == dict(back.parameters)["ld_mask"] == 512
    assert back.inputs[2] == first.outputs[1]
    assert [made.slots[s].shape for s in back.outputs] == [(B, 512), (512,)]
    bias = next(launch for launch in launches(made) if back.outputs[1] in launch.buffers)
    assert sorted(names(made, bias.buffers)) == sorted(["w2", made.slots[back.outputs[1]].name])


def test_a_gradient_that_needs_no_sums_has_none() -> None:
    h = build.relu(build.matmul(X, W))
    loss = build.reduce("sum", build.square(build.matmul(h, weight(40, 512, 128))), (0, 1))
    made = program([grad(loss, [W])[0]], target=RELU_TARGET)
    back = next(s for s in steps(made) if dict(s.parameters)["epilogue"] == "relu_gradient")
    assert len(back.outputs) == 1


def test_what_another_kernel_made_has_no_bits() -> None:
    h = build.relu(build.multiply(X, 2.0))
    loss = build.reduce("sum", build.square(build.matmul(h, W)), (0, 1))
    made = program([grad(loss, [X])[0]], target=RELU_TARGET)
    assert {dict(s.parameters)["epilogue"] for s in steps(made)} <= {"none"}


# ---- convolutions


PICTURES, KERNEL = leaf(20, B, 14, 14, 32), weight(20, 3, 3, 32, 32)


def test_a_convolution_packs_its_kernel_first() -> None:
    bias = weight(21, 32)
    made = program([build.relu(build.add(conv(padded(PICTURES), KERNEL), bias))], inputs=[PICTURES])
    (step,) = steps(made)
    assert step.name == "cudnn.forward"
    assert names(made, step.inputs)[1:] == ["filters", "w21"]
    assert names(made, step.outputs) == ["output0"]
    assert made.slots[step.inputs[0]].shape == (B, 16, 16, 32)
    assert made.slots[step.inputs[1]].shape == (32, 3, 3, 32)
    told = dict(step.parameters)
    assert [told[name] for name in "nhwckrspq"] == [B, 16, 16, 32, 32, 3, 3, 14, 14]
    assert (told["epilogue"], told["bias"], told["stride_h"], told["dilation_w"]) == ("relu", "yes", 1, 1)


@pytest.mark.parametrize("stride, dilation", [(2, 1), (1, 2)])
def test_strides_and_dilations(stride: int, dilation: int) -> None:
    made = program([conv(PICTURES, KERNEL, stride, dilation)], inputs=[PICTURES])
    told = dict(steps(made)[0].parameters)
    assert (told["stride_h"], told["stride_w"], told["dilation_h"], told["dilation_w"]) == (
        stride, stride, dilation, dilation,
    )  # fmt: skip


def test_gradients_of_a_convolution() -> None:
    loss = build.reduce("sum", build.square(conv(padded(PICTURES), KERNEL)), (0, 1, 2, 3))
    dx, dw = grad(loss, [PICTURES, KERNEL])
    made = program([dx], [(KERNEL, build.subtract(KERNEL, build.multiply(dw, 0.1)))], inputs=[PICTURES])
    assert sorted(s.name for s in steps(made)) == ["cudnn.backward_filter", "cudnn.forward", "cudnn.forward"]
    (back,) = [s for s in steps(made) if s.name == "cudnn.backward_filter"]
    assert made.slots[back.outputs[0]].shape == (32, 3, 3, 32)


@pytest.mark.parametrize(
    "channels, window, filters", [(3, 3, 32), (16, 2, 64), (16, 3, 20)], ids=["channels", "window", "filters"]
)
def test_other_convolutions_stay_ours(channels: int, window: int, filters: int) -> None:
    x, w = leaf(22, B, 14, 14, channels), weight(22, window, window, channels, filters)
    assert not steps(program([conv(x, w)], inputs=[x]))


def test_a_convolution_of_single_pixels_is_a_product() -> None:
    w = weight(23, 1, 1, 32, 64)
    told = dict(steps(program([conv(PICTURES, w)], inputs=[PICTURES]))[0].parameters)
    assert (told["m"], told["n"], told["k"]) == (196 * B, 64, 32)


def test_a_kernel_that_stays_is_packed_once() -> None:
    made = program([conv(PICTURES, KERNEL)], inputs=[PICTURES], prepare=True)
    prepare, *rest = made.steps
    assert isinstance(prepare, Prepare)
    assert [type(s) for s in prepare.steps] == [Launch]
    assert [type(s) for s in rest] == [Library]
    assert made.slots[steps(made)[0].inputs[1]].kind == "kept"


# ---- what is told


def test_the_dump_lists_the_steps_with_their_layers() -> None:
    made = program([build.relu(build.add(build.matmul(X, W), V))], target=RELU_TARGET)
    (line,) = step_lines(made, made.steps)
    assert line.startswith("library output0 = cublaslt.matmul(x1, w1, w2; m=b, n=512, k=256, batch=1, x=plain, ")
    assert "epilogue=relu, compute=float32)  ; (" in line
    assert "test_cuda_library.py:" in line
