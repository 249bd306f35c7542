"""Products and convolutions for CUDA, every tile and many forms, on the emulator: NumPy's values."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from gnomon.compiler import dtypes, lower
from gnomon.compiler.compile import Request, Stages, compile
from gnomon.compiler.grad import grad
from gnomon.compiler.graph import Node
from gnomon.compiler.interpret import evaluate_graph
from gnomon.compiler.kernel import MultiplyFragments, statements
from gnomon.compiler.lowering import cuda_deep, cuda_tiles
from gnomon.compiler.lowering.cuda_tiles import PLAIN, UNITS, WIDER, Plan
from gnomon.compiler.ops import build
from gnomon.compiler.ops.leaves import Input
from gnomon.compiler.program import Program
from gnomon.compiler.sizes import Dim, evaluate, symbol
from gnomon.compiler.targets import CUDA, Target
from gnomon.ops import conv, depthwise_conv
from gnomon.tensor import Tensor
from tests.emulator import Module, compiler, nvrtc
from tests.emulator.programs import Emulated, kernels, text

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")

b = symbol("b")
POLICY = {"": "float32", "tfloat32": "tf32", "bfloat16": "bfloat16", "float16": "float32"}


def leaf(key: int, shape: Sequence[Dim], dtype: str = "float32") -> Node:
    return Input(key, f"x{key}", dtype, tuple(shape))()


def numbers(leaves: Sequence[Node], sizes: dict[str, int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = [[evaluate(d, sizes) for d in n.shape] for n in leaves]
    arrays = [rng.standard_normal(shape) for shape in shapes]
    return [dtypes.rounded(n.dtype, a.astype(dtypes.named(n.dtype).numpy)) for n, a in zip(leaves, arrays, strict=True)]


class Programs:
    """Programs that are compiled together, by name."""

    def __init__(self) -> None:
        self.made: dict[object, tuple[list[Node], list[Node], Program, Stages]] = {}
        self.module: Module | None = None

    def add(self, name: object, leaves: list[Node], outputs: list[Node], target: Target = CUDA) -> None:
        stages = Stages()
        program = compile(Request(f"p{len(self.made)}", leaves, outputs), target, stages)
        self.made[name] = leaves, outputs, program, stages

    def add_with(self, name: object, leaves: list[Node], outputs: list[Node], plan: Plan) -> None:
        """With a plan of ours for all products."""
        with pytest.MonkeyPatch.context() as patch:
            for module in (cuda_tiles, cuda_deep):
                patch.setattr(module, "planned", lambda *_: plan)
            patch.setattr(lower, "_kernels", lower.Remembered())
            self.add(name, leaves, outputs, replace(CUDA, matrix=POLICY[plan.word]))

    def run(self, name: object, arrays: list[np.ndarray], order: int = 0) -> list[np.ndarray]:
        if self.module is None:
            self.module = Module(text(program for _, _, program, _ in self.made.values()))
        return Emulated(self.made[name][2], self.module)(arrays, order=order)

    def check(self, name: object, sizes: dict[str, int], tolerance: float = 1e-5, order: int = 0) -> None:
        leaves, outputs, *_ = self.made[name]
        arrays = numbers(leaves, sizes)
        got = self.run(name, arrays, order)
        for value, want in zip(got, evaluate_graph(outputs, dict(zip(leaves, arrays, strict=True))), strict=True):
            assert value.shape == want.shape
            within = max(tolerance, 2e-3 if want.dtype == np.float16 else 0)
            np.testing.assert_allclose(value, want, rtol=within, atol=within * np.abs(want).max(initial=0))


# ---- every tile

ALL = [Plan(t) for t in PLAIN] + [Plan(t, w) for t in UNITS for w in ("tfloat32", "bfloat16")]
ALL += [Plan(PLAIN[7], "", 3), Plan(UNITS[3], "tfloat32", 3), Plan(UNITS[8], "bfloat16", 5)]


EVEN, ODD = (36, 44), (35, 43)
EVERY = [(plan, (EVEN, ODD)[number % 2]) for number, plan in enumerate(ALL)]
EVERY += [(Plan(PLAIN[3]), EVEN), (Plan(PLAIN[0]), ODD)]
EVERY += [(Plan(UNITS[3], word), EVEN) for word in ("tfloat32", "bfloat16")]
EVERY = list(dict.fromkeys(EVERY))
"""Sizes that vectors of four fit, or not."""


def products(k: int, n: int, dtype: str) -> tuple[list[Node], list[Node]]:
    """Rows of a symbolic number by columns, both stored either way; one result with an epilogue."""
    x, xt, w, wt, r = (leaf(i, s, dtype) for i, s in enumerate([(b, k), (k, b), (k, n), (n, k), (n,)]))
    first = build.relu(build.add(build.matmul(x, w), r))
    second = build.matmul(build.transpose(xt, (1, 0)), build.transpose(wt, (1, 0)))
    return [x, xt, w, wt, r], [first, second]


@pytest.fixture(scope="module")
def tiles() -> Programs:
    made = Programs()
    for plan, (k, n) in EVERY:
        made.add_with((plan, k), *products(k, n, "float32"), plan)
    for tile in WIDER:
        made.add_with((Plan(tile), 35), *products(35, 42, "float64"), Plan(tile))
    for word in ("bfloat16", "float16"):
        for k in (48, 35):
            made.add((word, k), *products(k, 40, word))
    return made


def called(plan: Plan) -> str:
    return f"{plan.tile.tall}x{plan.tile.broad}{plan.word}{'in parts' * (plan.parts > 1)}"


@pytest.mark.parametrize("plan, sizes", EVERY, ids=lambda x: called(x) if isinstance(x, Plan) else str(x[0]))
def test_every_tile_multiplies(tiles: Programs, plan: Plan, sizes: tuple[int, int]) -> None:
    k, _ = sizes
    leaves, outputs, program, stages = tiles.made[plan, k]
    found = [s for kernel in stages.kernels.values() for s in statements(kernel.body)]
    assert any(isinstance(s, MultiplyFragments) for s in found) == bool(plan.word)
    tolerance = {"": 1e-5, "tfloat32": 2e-3, "bfloat16": 2e-2}[plan.word]
    for rows in (1, 7, 72):
        tiles.check((plan, k), {"b": rows}, tolerance, order=rows)


@pytest.mark.parametrize("tile", WIDER, ids=lambda t: f"{t.tall}x{t.broad}")
def test_tiles_of_doubles(tiles: Programs, tile: cuda_tiles.Tile) -> None:
    for rows in (1, 67):
        tiles.check((Plan(tile), 35), {"b": rows}, 1e-13)


@pytest.mark.parametrize("k", [48, 35])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_what_is_stored_in_16_bits_goes_to_matrix_units(tiles: Programs, dtype: str, k: int) -> None:
    found = [s for kernel in tiles.made[dtype, k][3].kernels.values() for s in statements(kernel.body)]
    assert any(isinstance(s, MultiplyFragments) and s.kind == dtype for s in found)
    for rows in (1, 24, 35):
        tiles.check((dtype, k), {"b": rows}, 1e-2 if dtype == "bfloat16" else 2e-3)


# ---- rounding


def to_tfloat32(x: np.ndarray) -> np.ndarray:
    """The nearest number with 10 bits after the point, ties away from zero (PTX's cvt.rna)."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    scaled = np.ldexp(mantissa, 11)
    return np.ldexp(np.sign(scaled) * np.floor(np.abs(scaled) + 0.5), exponent - 11)


def to_bfloat16(x: np.ndarray) -> np.ndarray:
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.rint(np.ldexp(mantissa, 8)), exponent - 8)


@pytest.mark.parametrize("word, rounded", [("tfloat32", to_tfloat32), ("bfloat16", to_bfloat16)])
def test_policies_round_factors_and_nothing_else(
    tiles: Programs, word: str, rounded: Callable[[np.ndarray], np.ndarray]
) -> None:
    name = Plan(UNITS[3], word), 36
    leaves, *_ = tiles.made[name]
    x, xt, w, wt, r = arrays = numbers(leaves, {"b": 72})
    got = tiles.run(name, arrays)[1]
    exact = xt.astype(float).T @ wt.astype(float).T
    want = rounded(xt).T @ rounded(wt).T
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5)
    assert np.abs(got - exact).max() > 20 * np.abs(got - want).max()


# ---- forms


def gradients(y: Node, leaves: list[Node]) -> tuple[list[Node], list[Node]]:
    """The leaves with a cotangent, and the results: y and its gradients."""
    g = leaf(90, y.shape)
    total = build.reduce("sum", build.multiply(y, g), tuple(range(y.rank)))
    return [*leaves, g], [y, *grad(total, leaves)]


def convolution(shape: Sequence[Dim], kernel: Sequence[int], depthwise: bool = False, **options):
    def make() -> tuple[list[Node], list[Node]]:
        x, w = leaf(1, (b, *shape)), leaf(2, kernel)
        f = depthwise_conv if depthwise else conv
        options_ = {"dilation_rate" if k == "dilation" else k: v for k, v in options.items()}
        return gradients(f(Tensor(x), Tensor(w), **options_).node, [x, w])

    return make


def attention() -> tuple[list[Node], list[Node]]:
    """Scores and their use, by head."""
    q, k, v = (leaf(i, (b, 19, 2, 12)) for i in range(3))
    scores = build.contract(q, k, (0, 1, 2, 3), (0, 4, 2, 3), (0, 2, 1, 4))
    return gradients(build.contract(scores, v, (0, 2, 1, 4), (0, 4, 2, 3), (0, 1, 2, 3)), [q, k, v])


def masked() -> tuple[list[Node], list[Node]]:
    """Producers that melt: what dropout and an activation's gradient do to an operand; a residual behind."""
    x, kept, w, r = leaf(1, (b, 40)), leaf(2, (b, 40)), leaf(3, (40, 24)), leaf(4, (b, 24))
    operand = build.multiply(x, build.cast(build.greater(kept, 0.0), "float32"))
    return [x, kept, w, r], [build.add(build.tanh(build.matmul(operand, w)), r)]


def deep() -> tuple[list[Node], list[Node]]:
    """A small result and a long sum, with an epilogue that updates."""
    x, w, old = leaf(1, (b * 40, 20)), leaf(2, (b * 40, 12)), leaf(3, (20, 12))
    tail = leaf(4, (b,))
    step = build.matmul(build.transpose(x, (1, 0)), w)
    return [x, w, old, tail], [build.subtract(old, build.multiply(step, 0.1)), build.add(tail, 1.0)]


def one_row() -> tuple[list[Node], list[Node]]:
    x, w = leaf(1, (1, 70)), leaf(2, (70, 200))
    y = leaf(3, (70, b))
    return [x, w, y], [build.matmul(x, w), build.matmul(x, y)]


def few_columns() -> tuple[list[Node], list[Node]]:
    x, w = leaf(1, (b * 64, 20)), leaf(2, (20, 3))
    tail = leaf(3, (b,))
    return [x, w, tail], [build.matmul(x, w), build.add(tail, 1.0)]


def long_sums() -> tuple[list[Node], list[Node]]:
    """Few sums and long ones, of products that are no product of matrices too; what is left over by whole parts."""
    x, w, tail = leaf(1, (b * 300, 12)), leaf(2, (b * 300, 12)), leaf(4, (b,))
    half = leaf(3, (b * 301, 2, 4), "float16")
    both = build.reduce("sum", build.multiply(x, w), (0,))
    return [x, w, half, tail], [
        build.multiply(both, 0.1),
        build.reduce("max", x, (0,)),
        build.reduce("sum", build.multiply(half, 0.02), (0, 2)),
        build.reduce("sum", tail, (0,)),
    ]


def mixed() -> tuple[list[Node], list[Node]]:
    """Weights of float32 used in bfloat16."""
    x, w = leaf(1, (b * 8, 24), "bfloat16"), leaf(2, (24, 40))
    tail = leaf(3, (b,))
    return [x, w, tail], [build.matmul(x, build.cast(w, "bfloat16")), build.add(tail, 1.0)]


FORMS = {
    "mixed": mixed,
    "long sums": long_sums,
    "attention": attention,
    "masked": masked,
    "deep": deep,
    "one row": one_row,
    "few columns": few_columns,
    "conv same": convolution((9, 9, 8), (3, 3, 8, 16), padding="same"),
    "conv strides": convolution((9, 8, 8), (3, 3, 8, 16), padding="same", strides=2),
    "conv dilation": convolution((11, 10, 3), (3, 3, 3, 9), dilation=2),
    "conv groups": convolution((8, 7, 8), (3, 3, 2, 16), padding="same"),
    "conv depthwise": convolution((8, 7, 8), (3, 3, 8, 2), True, padding="same"),
    "conv of columns": convolution((30, 4), (5, 4, 8)),
    "conv of open sizes": convolution((symbol("h"), symbol("w"), 4), (3, 3, 4, 8), padding="same"),
}


@pytest.fixture(scope="module")
def forms() -> Programs:
    made = Programs()
    for name, make in FORMS.items():
        made.add(name, *make())
        if name in ("attention", "masked", "conv same", "conv strides"):
            for policy in ("tf32", "bfloat16"):
                made.add((name, policy), *make(), replace(CUDA, matrix=policy))
    return made


@pytest.mark.parametrize("name", FORMS)
def test_forms_of_products(forms: Programs, name: str) -> None:
    for batch, h, w in ((1, 5, 7), (3, 6, 4)):
        forms.check(name, {"b": batch, "h": h, "w": w}, 1e-2 if name == "mixed" else 2e-5, order=batch)


@pytest.mark.parametrize("policy", ["tf32", "bfloat16"])
@pytest.mark.parametrize("name", ["attention", "masked", "conv same", "conv strides"])
def test_forms_by_matrix_units(forms: Programs, name: str, policy: str) -> None:
    for batch in (1, 2):
        forms.check((name, policy), {"b": batch}, 4e-3 if policy == "tf32" else 3e-2)


def test_many_tiles_are_done_in_strips() -> None:
    """Ten rows of tiles and nine columns: a strip of eight, and one of two."""
    made = Programs()
    x, w, y = leaf(1, (300, 8)), leaf(2, (8, 280)), leaf(3, (b, 8))
    plan = Plan(PLAIN[7])
    made.add_with("static", [x, w], [build.matmul(x, w)], plan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_tiles, "TYPICAL", 300)
        made.add_with("symbolic", [y, w], [build.matmul(y, w)], plan)
    made.check("static", {}, order=3)
    for rows in (1, 290):
        made.check("symbolic", {"b": rows})


def test_a_long_sum_is_cut_into_parts(forms: Programs) -> None:
    assert sum(slot.name.startswith("partial") for slot in forms.made["long sums"][2].slots) >= 3
    program = forms.made["deep"][2]
    names = kernels(program)
    assert sum("in_parts" in name for name in names) == 1
    assert any(slot.name == "partial" for slot in program.slots)
    arrays = numbers(forms.made["deep"][0], {"b": 4})
    first, again = (forms.run("deep", arrays, order)[0] for order in (0, 7))
    assert first.tobytes() == again.tobytes()


# ---- what a GPU's assembler makes of it


@pytest.mark.skipif(nvrtc.library() is None, reason="the wheel nvidia-cuda-nvrtc is not installed")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_tiles_leave_room_for_a_second_block_and_spill_nothing(arch: str) -> None:
    made = Programs()
    x, w, r = leaf(1, (b, 1536)), leaf(2, (1536, 1000)), leaf(3, (b, 1000))
    odd = leaf(4, (1535, b)), leaf(5, (1535, 999))
    product = build.add(build.relu(build.matmul(x, w)), r)
    for plan in (Plan(PLAIN[0]), Plan(PLAIN[3]), Plan(UNITS[0], "tfloat32"), Plan(UNITS[0], "bfloat16")):
        made.add_with(plan, [x, w, r], [product], plan)
    made.add_with("odd", list(odd), [build.matmul(build.transpose(odd[0], (1, 0)), odd[1])], Plan(PLAIN[0]))
    made.add("conv", *convolution((30, 30, 32), (3, 3, 32, 64))())
    whole = text(program for _, _, program, _ in made.made.values())
    usage = nvrtc.compile(whole, arch)
    assert not {name: used for name, used in usage.items() if used.spilled or used.stack or used.registers > 128}
    assert all(used.shared <= 48 << 10 for used in usage.values())
