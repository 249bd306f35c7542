"""Convolution and pooling against their definitions: at once on arrays, and compiled with open sizes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import function, ops
from gnomon.compiler.errors import ArgumentError, GnomonError, ShapeError
from gnomon.tensor import Tensor, as_dims, new_input


def f(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape) + sum(shape)).standard_normal(shape).astype(np.float32)


# ---- definitions, channels last


def padded(x: np.ndarray, spans: list[int], strides: list[int], padding: str, value: float = 0.0) -> np.ndarray:
    """Windows of `spans` elements; with "same" as many as ceil(length / stride), an odd element behind."""
    if padding == "valid":
        return x
    wide = [(0, 0)] * x.ndim
    for k, (span, stride) in enumerate(zip(spans, strides, strict=True), 1):
        length = x.shape[k]
        missing = max(0, (-(-length // stride) - 1) * stride + span - length)
        wide[k] = (missing // 2, missing - missing // 2)
    return np.pad(x, wide, constant_values=value)


def windows(x: np.ndarray, sizes: list[int], strides: list[int], dilations: list[int]) -> dict[tuple, np.ndarray]:
    """For each tap, what it meets at all places."""
    counts = [
        (length - (size - 1) * dilation - 1) // stride + 1
        for length, size, stride, dilation in zip(x.shape[1:], sizes, strides, dilations, strict=False)
    ]
    found = {}
    for tap in np.ndindex(*sizes):
        place = (
            slice(t * dilation, t * dilation + (count - 1) * stride + 1, stride)
            for t, dilation, count, stride in zip(tap, dilations, counts, strides, strict=True)
        )
        found[tap] = x[(slice(None), *place)]
    return found


def whole(value: Any, rank: int) -> list[int]:
    return list(value) if isinstance(value, tuple) else [value] * rank


def conv(x, w, strides=1, padding="valid", dilation=1):
    x, w = x.astype(np.float64), w.astype(np.float64)
    rank, groups = w.ndim - 2, x.shape[-1] // w.shape[-2]
    strides, dilations = whole(strides, rank), whole(dilation, rank)
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape, dilations, strict=False)]
    x = padded(x, spans, strides, padding)
    parts = []
    for part, kernel in zip(np.split(x, groups, -1), np.split(w, groups, -1), strict=True):
        taken = windows(part, list(w.shape[:rank]), strides, dilations)
        parts.append(sum(taken[tap] @ kernel[tap] for tap in taken))
    return np.concatenate(parts, -1)


def depthwise(x, w, strides=1, padding="valid", dilation=1):
    single = [conv(x[..., k : k + 1], w[..., k : k + 1, :], strides, padding, dilation) for k in range(x.shape[-1])]
    return np.concatenate(single, -1)


def transposed(x, w, strides=1, padding="valid", output_padding=None, dilation=1):
    x, w = x.astype(np.float64), w.astype(np.float64)
    rank = w.ndim - 2
    strides, dilations, extra = whole(strides, rank), whole(dilation, rank), whole(output_padding, rank)
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape, dilations, strict=False)]
    full = [(n - 1) * s + e for n, s, e in zip(x.shape[1:], strides, spans, strict=False)]
    out = np.zeros((x.shape[0], *(2 * (n + s + e) for n, s, e in zip(full, strides, spans, strict=True)), w.shape[-2]))
    for tap in np.ndindex(*w.shape[:rank]):
        place = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilations, x.shape[1:-1], strides, strict=True)
        )
        out[(slice(None), *place)] += x @ w[tap].T
    cut = []
    for n, s, e, more in zip(x.shape[1:], strides, spans, extra, strict=False):
        if padding == "valid":
            begin, size = 0, (n - 1) * s + (max(e, s) if more is None else e + more)
        elif more is None:  # what a convolution that gives n elements with padding "same" takes
            begin, size = max(0, e - s) // 2, n * s
        else:
            begin, size = e - 1 - min(-(-(e + e % 2 - 2 + more) // 2), e - 1), (n - 1) * s + e % 2 + more
        cut.append(slice(begin, begin + size))
    return out[(slice(None), *cut)]


def pooled(x, size, strides, padding, average):
    x = x.astype(np.float64)
    rank = x.ndim - 2
    sizes = whole(size, rank)
    strides = whole(size if strides is None else strides, rank)
    value = np.nan if average else -np.inf
    taken = np.stack(list(windows(padded(x, sizes, strides, padding, value), sizes, strides, [1] * rank).values()))
    return np.nanmean(taken, 0) if average else taken.max(0)


def adaptive(x, size, average):
    x = x.astype(np.float64)
    sizes = whole(size, x.ndim - 2)
    out = np.zeros((x.shape[0], *sizes, x.shape[-1]))
    for place in np.ndindex(*sizes):
        cut = tuple(
            slice(i * length // n, -(-((i + 1) * length) // n))
            for i, n, length in zip(place, sizes, x.shape[1:], strict=False)
        )
        part = x[(slice(None), *cut)].reshape(x.shape[0], -1, x.shape[-1])
        out[(slice(None), *place)] = part.mean(1) if average else part.max(1)
    return out


# ---- the check


def both(
    fn: Callable, expected: np.ndarray, *arrays: np.ndarray, compiled: bool = True, open: bool = True, **options: Any
) -> None:
    """In both data formats, at once and, with channels last, compiled; sizes are open, those of kernels are not."""
    rank = arrays[0].ndim - 2
    for layout in ("channels_last", "channels_first"):
        x = arrays[0] if layout == "channels_last" else np.moveaxis(arrays[0], -1, 1)
        wanted = expected if layout == "channels_last" else np.moveaxis(expected, -1, 1)
        at_once = fn(x, *arrays[1:], data_format=layout, **options)
        assert at_once.shape == wanted.shape
        np.testing.assert_allclose(at_once, wanted, rtol=2e-5, atol=2e-5)
        if not compiled or layout == "channels_first":
            continue
        shape = [None if k == 0 or (open and k <= rank) else d for k, d in enumerate(x.shape)]
        inputs = [Tensor(new_input("x", "float32", as_dims(shape, "x")))]
        inputs += [Tensor(new_input("w", "float32", w.shape)) for w in arrays[1:]]
        fast = function(inputs, fn(*inputs, data_format=layout, **options))
        np.testing.assert_allclose(fast(x, *arrays[1:]), wanted, rtol=2e-5, atol=2e-5)


SPATIAL = {1: (9,), 2: (7, 6), 3: (4, 5, 3)}


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_convolution(rank: int, padding: str, strides: int, dilation: int) -> None:
    x = f(1, *SPATIAL[rank], 4)
    for window in (1, 3) if rank == 2 else (2,):
        sizes = (window, 2, 2)[:rank]
        for w in (f(*sizes, 4, 3), f(*sizes, 2, 6)):
            both(ops.conv, conv(x, w, strides, padding, dilation), x, w, compiled=window == 3, open=w.shape[-2] == 4,
                 strides=strides, padding=padding, dilation_rate=dilation)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_depthwise_and_separable_convolution(padding: str, strides: int, dilation: int) -> None:
    for rank in (1, 2):
        x, w = f(2, *SPATIAL[rank], 3), f(*(3, 2)[:rank], 3, 2)
        options = {"strides": strides, "padding": padding, "dilation_rate": dilation, "compiled": rank == 2}
        y = depthwise(x, w, strides, padding, dilation)
        both(ops.depthwise_conv, y, x, w, **options)
        mix = f(*(1, 1)[:rank], 6, 5)
        both(ops.separable_conv, conv(y, mix), x, w, mix, **options)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2, 3])
def test_transposed_convolution(rank: int, padding: str, strides: int) -> None:
    x = f(1, *SPATIAL[rank], 2)
    for window, dilation, extra in ((1, 1, None), (3, 1, None), (4, 1, None), (2, 2, None), (3, 1, 1), (3, 1, 0)):
        if padding == "valid" and extra is not None and strides == 1:
            continue  # Keras's own back ends disagree there
        w = f(*(window, 2, 3)[:rank], 3, 2)
        both(ops.conv_transpose, transposed(x, w, strides, padding, extra, dilation), x, w, compiled=rank * window == 6,
             strides=strides, padding=padding, output_padding=extra, dilation_rate=dilation)


def test_transposed_convolution_is_the_transpose() -> None:
    """<conv(y, w), x> = <y, conv_transpose(x, w)>, the kernel's axes being named from the other side."""
    for size, strides, padding in product((1, 2, 3, 4), (1, 2, 3), ("valid", "same")):
        w = f(size, size, 3, 2)
        y = f(1, 12, 12, 3)
        x = np.asarray(ops.conv(y, w, strides, padding))
        back = ops.conv_transpose(x + 1, w, strides, padding)
        y = y[:, : back.shape[1], : back.shape[2]]
        if y.shape[1] < 12:  # elements that no window reached
            continue
        np.testing.assert_allclose((x * (x + 1)).sum(), (y * back).sum(), rtol=1e-3)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("size", "strides"), [(2, None), (3, 2), (3, 1), (2, 3), (1, 2)])
def test_pooling(rank: int, padding: str, size: int, strides: int | None) -> None:
    x = f(2, *SPATIAL[rank], 3)
    options: dict[str, Any] = {"pool_size": size, "strides": strides, "padding": padding, "compiled": rank == 2}
    both(ops.max_pool, pooled(x, size, strides, padding, False), x, **options)
    both(ops.average_pool, pooled(x, size, strides, padding, True), x, **options)


def test_pooling_to_a_given_number_of_windows() -> None:
    for rank in (1, 2, 3):
        x = f(2, *SPATIAL[rank], 3)
        for size in (1, 2, 3, (5, 3, 2)[:rank]):
            for open in (True, False):
                options: dict[str, Any] = {"output_size": size, "open": open, "compiled": rank == 2 and size != 3}
                both(ops.adaptive_average_pool, adaptive(x, size, True), x, **options)
                both(ops.adaptive_max_pool, adaptive(x, size, False), x, **options)


def test_pooling_of_integers() -> None:
    x = np.arange(-12, 0, dtype=np.int32).reshape(1, 4, 3, 1)
    top = ops.max_pool(x, 3, 2, "same")
    assert top.dtype == np.int32
    np.testing.assert_array_equal(top.ravel(), [-5, -4, -2, -1])
    assert ops.max_pool(x.astype(np.uint8), 2).dtype == np.uint8
    assert ops.max_pool(x > -5, 2, padding="same").tolist() == [[[[False], [False]], [[True], [True]]]]
    assert ops.average_pool(x, 2).dtype == np.float32
    assert ops.adaptive_max_pool(x, 3).dtype == np.int32


def test_a_strided_branch_and_its_shortcut_have_one_open_size() -> None:
    x = Tensor(new_input("x", "float32", as_dims((None, None, None, 4), "x")))
    for strides in (1, 2, 3):
        y = ops.conv(x, f(3, 3, 4, 5), strides, "same")
        for window in (1, 2, 3, 4):
            assert ops.conv(x, f(window, window, 4, 5), strides, "same").node.type == y.node.type
            assert ops.max_pool(x, window, strides, "same").node.shape[:3] == y.node.shape[:3]


def test_gradients_agree_with_differences() -> None:
    """Through a small network of all of them, open sizes, in both layouts."""
    for layout in ("channels_last", "channels_first"):
        spatial = (None, None)
        shape = (None, *spatial, 2) if layout == "channels_last" else (None, 2, *spatial)
        x = Tensor(new_input("x", "float64", as_dims(shape, "x")))
        kernels = [Tensor(new_input(f"w{k}", "float64", s)) for k, s in enumerate(
            [(3, 3, 2, 4), (2, 2, 4, 1), (3, 3, 3, 4), (3, 2, 1, 3)])]  # fmt: skip
        y = ops.conv(x, kernels[0], 2, "same", layout)
        y = ops.depthwise_conv(ops.tanh(y), kernels[1], 1, "same", layout)
        y = ops.average_pool(y, 3, 1, "same", layout)
        y = ops.conv_transpose(y, kernels[2], 2, "same", None, layout)
        y = ops.conv(y, kernels[3], (1, 2), "valid", layout)  # three groups
        y = ops.max_pool(y, (2, 1), None, "valid", layout)
        cost = ops.sum(ops.sin(y))
        fn = function([x, *kernels], [cost, *gnomon.grad(cost, [x, *kernels])])
        values = [f(1, *((7, 6, 2) if layout == "channels_last" else (2, 7, 6))).astype(np.float64)]
        values += [f(*w.shape).astype(np.float64) for w in kernels]
        slopes = fn(*values)[1:]
        for k, slope in enumerate(slopes):
            direction = np.random.default_rng(k).standard_normal(values[k].shape)
            ends = [
                fn(*(v + sign * 1e-6 * direction if i == k else v for i, v in enumerate(values)))[0] for sign in (1, -1)
            ]
            np.testing.assert_allclose((slope * direction).sum(), (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-6)


MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "rank": (lambda: ops.conv(f(3, 4), f(3, 4)), r"3 to 5 axes.*float32\[3, 4\] and float32\[3, 4\]"),
    "ranks": (lambda: ops.conv(f(2, 5, 5, 3), f(3, 3, 4)), r"kernel of as many, got float32\[2, 5, 5, 3\]"),
    "channels": (lambda: ops.conv(f(2, 5, 3), f(3, 2, 4)), r"multiple of them, got float32\[2, 5, 3\]"),
    "groups": (lambda: ops.conv(f(2, 5, 4), f(3, 2, 5)), "in 2 groups needs a multiple of 2 filters"),
    "windows": (lambda: ops.conv(f(2, 5, 4), f(3, 4, 5), dilation_rate=3),
                r'do not fit into float32\[2, 5, 4\]: they span 7 elements of an axis that has 5. Use padding="same"'),
    "strides": (lambda: ops.conv(f(2, 5, 5, 4), f(3, 3, 4, 5), (1, 2, 3)), r"strides must be .* got \(1, 2, 3\)"),
    "no stride": (lambda: ops.max_pool(f(2, 5, 4), 2, 0), "strides must be an integer of at least 1"),
    "padding": (lambda: ops.conv(f(2, 5, 4), f(3, 4, 5), padding="full"), "padding must be one of 'valid', 'same'"),
    "data format": (lambda: ops.max_pool(f(2, 5, 4), 2, data_format="NHWC"), "data_format must be one of"),
    "depthwise": (lambda: ops.depthwise_conv(f(2, 5, 4), f(3, 3, 1)), "4 channels and .* for 3"),
    "separable": (lambda: ops.separable_conv(f(2, 5, 4), f(3, 4, 2), f(1, 4, 2)), "pointwise kernel for 8 channels"),
    "pointwise": (lambda: ops.separable_conv(f(2, 5, 4), f(3, 4, 2), f(2, 8, 2)), "with windows of 1"),
    "transposed": (lambda: ops.conv_transpose(f(2, 5, 4), f(3, 4, 3)), "4 channels and .* for 3"),
    "open windows": (
        lambda: ops.conv(f(2, 5, 4), Tensor(new_input("w", "float32", as_dims((None, 4, 2), "w")))),
        "spatial sizes are known"),
    "pool rank": (lambda: ops.average_pool(f(2, 5), 2), r"3 to 5 axes.*float32\[2, 5\]"),
    "pool windows": (lambda: ops.max_pool(f(2, 3, 1), 4), r"do not fit into float32\[2, 3, 1\]"),
    "output size": (lambda: ops.adaptive_max_pool(f(2, 5, 4), 0), "output_size must be"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_what_was_given(name: str) -> None:
    mistake, message = MISTAKES[name]
    with pytest.raises(GnomonError, match=message) as raised:
        mistake()
    assert isinstance(raised.value, (ShapeError, ArgumentError))
