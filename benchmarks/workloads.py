"""The workloads: what is done, in which unit, and what the machine needs for it at least."""

from dataclasses import dataclass

from card import Card
from machine import Machine


@dataclass(frozen=True)
class Workload:
    """A row of the figures.

    name        of the function in the workers, with parameters after colons
    unit        what a figure counts, and `per`, how many of them an iteration is
    flops, reads, writes   of one unit, the latter in bytes of memory: its floor is what the machine needs for them
    tolerance   how far results of libraries may differ, relatively (None: nothing to compare)
    once        measured by whole processes and not by rounds
    quick       belongs to `--quick`
    only        'cpu' or 'gpu' if it is for one of them: a card's caches hold what is large for a CPU
    dtype       of the arithmetic
    """

    name: str
    unit: str
    flops: float = 0
    reads: float = 0
    writes: float = 0
    per: int = 1
    tolerance: float | None = 1e-3
    once: bool = False
    quick: bool = False
    only: str = ""
    dtype: str = "float32"

    def floor(self, machine: Machine | Card) -> float:
        """Seconds for the arithmetic or for the memory, the longer. What is read and not written costs less."""
        copied = min(self.reads, self.writes)
        alone = self.reads + self.writes - 2 * copied
        peak = machine.peak(self.dtype)
        arithmetic = self.flops / peak if peak else 0.0  # which is not known of each card
        return max(arithmetic, 2 * copied / machine.copied + alone / machine.read)


def mlp_flops(batch: int, *sizes: int) -> float:
    """Forward, weight gradients, and input gradients of all layers but the first."""
    products = [2.0 * batch * a * b for a, b in zip(sizes, sizes[1:], strict=False)]
    return 3 * sum(products) - products[0]


def matmul(shape: str, form: str = "nn", dtype: str = "float32", only: str = "") -> Workload:
    m, k, n = map(int, shape.split("x"))
    few = (("64x64x64", "nn"), ("512x512x512", "nn"), ("128x784x32", "nn"), ("1x4096x4096", "nn"))
    size, tolerance, more = (4.0, 1e-3, "") if dtype == "float32" else (2.0, 2e-2, f":{dtype}")
    return Workload(
        f"matmul:{shape}:{form}{more}", "ms", 2.0 * m * k * n, size * (m * k + k * n), size * m * n,
        tolerance=tolerance, quick=(shape, form) in few or only == "gpu", only=only, dtype=dtype,
    )  # fmt: skip


def black_scholes(name: str, count: int, only: str) -> Workload:
    return Workload(
        name, "ms", reads=3 * 4.0 * count, writes=2 * 4.0 * count, tolerance=1e-2, quick=True, only=only
    )


def logsoftmax_sum(name: str, rows: int, only: str) -> Workload:
    size = 4.0 * rows * 1000
    return Workload(name, "ms", reads=size, writes=size, quick=True, only=only)


ROW = 4.0 * 784 * 32  # the first layer's weights dominate one row

RESNET = 7.72e9  # multiplications and additions of plain convolutions; minimal filtering goes below that floor
LSTM = 2.0 * 32 * 200 * 4 * 128 * (128 + 128)

WORKLOADS = [
    Workload("article_mlp_fit", "ms/step", mlp_flops(128, 784, 32, 10), per=469, tolerance=0.3, quick=True),
    Workload("mlp_1024_adam", "ms/step", mlp_flops(256, 784, 1024, 1024, 10), tolerance=1e-2, quick=True),
    Workload("one_row_inference", "µs", 2.0 * (784 * 32 + 320), ROW, quick=True),
    Workload("one_row_predict", "µs", 2.0 * (784 * 32 + 320), ROW, quick=True),
    black_scholes("black_scholes", 4_000_000, "cpu"),
    black_scholes("black_scholes:64000000", 64_000_000, "gpu"),
    logsoftmax_sum("logsoftmax_sum", 4096, "cpu"),
    logsoftmax_sum("logsoftmax_sum:131072", 131_072, "gpu"),
    *(matmul(f"{n}x{n}x{n}") for n in (64, 128, 256, 512, 1024, 2048)),
    *(matmul(shape) for shape in ("128x784x32", "1x4096x4096", "32x512x2048")),
    *(matmul(shape, form) for form in ("tn", "nt") for shape in ("256x256x256", "1024x1024x1024", "784x128x32")),
    matmul("4096x4096x4096", only="gpu"),
    matmul("4096x4096x4096", dtype="bfloat16", only="gpu"),
    Workload("convnet_train", "ms", 1.86e9, tolerance=1e-2, quick=True),
    Workload("convnet_inference", "ms", 0.62e9, quick=True),
    Workload("resnet50_inference:1", "ms", RESNET, tolerance=1e-2, quick=True),
    Workload("resnet50_inference:8", "ms", 8 * RESNET, tolerance=1e-2),
    Workload("resnet50_inference:64", "ms", 64 * RESNET, tolerance=1e-2, only="gpu"),
    Workload("resnet50_train:4", "ms", 3 * 4 * RESNET, tolerance=0.1),
    Workload("resnet50_train:64", "ms", 3 * 64 * RESNET, tolerance=0.1, only="gpu"),
    Workload("dilated_inference", "ms", 20.6e9, tolerance=1e-2, quick=True),
    Workload("transformer_train", "ms", 20.9e9, tolerance=1e-2, quick=True),
    Workload("recurrent_train:lstm", "ms", 3 * LSTM, tolerance=1e-2, quick=True),
    Workload("recurrent_inference:lstm", "ms", LSTM, quick=True),
    Workload("recurrent_train:gru", "ms", 3 * LSTM * 3 / 4, tolerance=1e-2),
    Workload("recurrent_inference:gru", "ms", LSTM * 3 / 4),
    Workload("recurrent_train:gru:64", "ms", 2 * 3 * LSTM * 3 / 4, tolerance=1e-2, quick=True, only="gpu"),
    Workload("process_start", "s", tolerance=None, once=True, quick=True),
    Workload("import_gnomon", "s", tolerance=None, once=True, quick=True, only="cpu"),
    Workload("mnist_accuracy", "%", tolerance=None, once=True),
]

SCALE: dict[str, float] = {"s": 1, "ms": 1e3, "ms/step": 1e3, "µs": 1e6, "%": 100}


def chosen(patterns: list[str], quick: bool, device: str = "cpu") -> list[Workload]:
    """Workloads of a device whose names begin with one of the patterns; all if there are none."""
    found = [w for w in WORKLOADS if w.only in ("", device)]
    if patterns:
        return [w for w in found if w.name.startswith(tuple(patterns))]
    return [w for w in found if w.quick or not quick]
