"""Convolutions by cuDNN, called through ctypes: CuPy does not wrap it any more.

    dnn = Cudnn(find("cudnn", 12, SIGNATURES), stream, fill)
    dnn.makers()["cudnn.forward"](step, inputs, outputs, sizes)()

What the steps are, and their parameters, is told in `gnomon.compiler.lowering.cuda_convolution`. A routine has its
descriptors and its algorithm (the heuristic's first that is deterministic and fits the workspace, remembered for equal
convolutions) when it is made; calling it only starts the work, so it may be called while a graph is captured.

These functions are cuDNN's older interface, which version 9 still has. Numbers of enumerations and the meaning of
arguments: NVIDIA, cudnn_graph.h, cudnn_ops.h and cudnn_cnn.h of cuDNN 9.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, byref, c_double, c_float, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from gnomon.compiler.errors import DeviceError
from gnomon.compiler.program import Library
from gnomon.compiler.sizes import evaluate
from gnomon.runtime.cublas import BYTES, INSTEAD, Fill, Owned

if TYPE_CHECKING:
    from gnomon.runtime.gpu import Maker, Operand

DATA = {"float32": 0, "float16": 2, "bfloat16": 9}  # cudnnDataType_t
NHWC = 1  # cudnnTensorFormat_t; of kernels it is [K, R, S, C]
CROSS_CORRELATION = 1  # cudnnConvolutionMode_t: kernels are not turned around
DEFAULT_MATH, TENSOR_MATH, CONVERTING_MATH, FMA_MATH = 0, 1, 2, 3  # cudnnMathType_t; the default may be TF32
DETERMINISTIC = 1  # cudnnDeterminism_t
ACTIVATION = {"relu": 1, "none": 5}  # cudnnActivationMode_t: RELU, IDENTITY
PROPAGATE_NAN = 1  # cudnnNanPropagation_t
PRECOMPUTED = 1
"""CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM: the one algorithm that takes a bias without an activation."""
ANSWERS = 8
"""Algorithms that are asked for: there are no more of a kind."""


class Performance(ctypes.Structure):
    """cudnnConvolutionFwdAlgoPerf_t, and that of gradients of kernels, which is alike."""

    _fields_ = [
        ("algorithm", c_int),
        ("status", c_int),
        ("time", c_float),
        ("memory", c_size_t),
        ("determinism", c_int),
        ("math", c_int),
        ("reserved", c_int * 3),
    ]


_P = c_void_p
_CHOOSE = [_P, _P, _P, _P, _P, c_int, POINTER(c_int), POINTER(Performance)]
SIGNATURES: dict[str, list[Any]] = {
    "cudnnCreate": [POINTER(_P)],
    "cudnnDestroy": [_P],
    "cudnnSetStream": [_P, _P],
    **{f"cudnnCreate{kind}Descriptor": [POINTER(_P)] for kind in ("Tensor", "Filter", "Convolution", "Activation")},
    **{f"cudnnDestroy{kind}Descriptor": [_P] for kind in ("Tensor", "Filter", "Convolution", "Activation")},
    "cudnnSetTensor4dDescriptor": [_P, c_int, c_int, c_int, c_int, c_int, c_int],  # format, type, n, c, h, w
    "cudnnSetFilter4dDescriptor": [_P, c_int, c_int, c_int, c_int, c_int, c_int],  # type, format, k, c, h, w
    "cudnnSetConvolution2dDescriptor": [_P, *[c_int] * 8],  # padding, strides, dilations, mode, compute type
    "cudnnSetConvolutionMathType": [_P, c_int],
    "cudnnSetActivationDescriptor": [_P, c_int, c_int, c_double],
    "cudnnGetConvolutionForwardAlgorithm_v7": _CHOOSE,
    "cudnnGetConvolutionBackwardFilterAlgorithm_v7": _CHOOSE,
    # handle, alpha, x, w, convolution, algorithm, workspace, beta, y
    "cudnnConvolutionForward": [_P, _P, _P, _P, _P, _P, _P, c_int, _P, c_size_t, _P, _P, _P],
    # handle, alpha, x, w, convolution, algorithm, workspace, alpha2, z, bias, activation, y
    "cudnnConvolutionBiasActivationForward": [
        _P, _P, _P, _P, _P, _P, _P, c_int, _P, c_size_t, _P, _P, _P, _P, _P, _P, _P, _P,
    ],
    # handle, alpha, x, gradient, convolution, algorithm, workspace, beta, kernel
    "cudnnConvolutionBackwardFilter": [_P, _P, _P, _P, _P, _P, _P, c_int, _P, c_size_t, _P, _P, _P],
}  # fmt: skip
"""The arguments of all functions that are called, which return a cudnnStatus_t."""


@dataclass
class _Convolution:
    """Parameters and descriptors of a convolution; `what` it is, in words."""

    what: str
    given: dict[str, Any]
    dtype: str
    x: Owned
    y: Owned
    w: Owned
    how: Owned

    @property
    def exact(self) -> bool:
        """Whether numbers are multiplied as they are. Tensor cores are what those of 16 bits are for."""
        return self.dtype == "float32" and self.given["compute"] == "float32"


class Cudnn:
    """cuDNN for one device and one stream. Raises DeviceError where a function fails, with cuDNN's own words."""

    def __init__(self, library: ctypes.CDLL, stream: int, fill: Fill):
        self.fill = fill
        self._functions: dict[str, Any] = {}
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
            self._functions[name] = function
        self._text = library.cudnnGetErrorString
        self._text.argtypes, self._text.restype = [c_int], ctypes.c_char_p
        self._last = getattr(library, "cudnnGetLastErrorString", None)  # from version 9 on
        if self._last is not None:
            self._last.argtypes, self._last.restype = [ctypes.c_char_p, c_size_t], None
        self._known: dict[tuple, Performance] = {}
        self.handle = Owned(partial(self._do, "start", "cudnnCreate"), self._functions["cudnnDestroy"])
        self._do("start", "cudnnSetStream", self.handle.handle, stream)

    def makers(self) -> dict[str, Maker]:
        """What makes routines, by the names of steps."""
        return {"cudnn.forward": self.forward, "cudnn.backward_filter": self.backward_filter}

    def _do(self, what: str, name: str, *arguments: Any) -> None:
        """Call a function. Raises DeviceError unless it returns 0."""
        status = self._functions[name](*arguments)
        if status:
            code = self._text(status).decode()
            raise DeviceError(f"cuDNN could not {what}: {name} returned {code}{self._more()}. {INSTEAD}")

    def _more(self) -> str:
        """What cuDNN has to say of the last error besides its name."""
        if self._last is None:
            return ""
        text = ctypes.create_string_buffer(1024)
        self._last(text, len(text))
        return f" ({text.value.decode(errors='replace')})" if text.value else ""

    def _described(self, what: str, kind: str, set_: str, *arguments: int | float) -> Owned:
        create = partial(self._do, what, f"cudnnCreate{kind}Descriptor")
        made = Owned(create, self._functions[f"cudnnDestroy{kind}Descriptor"])
        self._do(what, set_, made.handle, *arguments)
        return made

    # ---- convolutions

    def forward(
        self, step: Library, inputs: Sequence[Operand], outputs: Sequence[Operand], sizes: Mapping[str, int]
    ) -> Callable[[], None]:
        """The routine of a 'cudnn.forward'; what it writes is its output and its workspace."""
        x, w, *biases = inputs
        y, workspace = outputs
        c = self._convolution(step, y.dtype, sizes)
        if c is None:
            return lambda: None
        room = workspace.shape[0]
        operands = c.x.handle, c.w.handle, c.how.handle, c.y.handle
        act = str(c.given["epilogue"])
        only = PRECOMPUTED if biases and act == "none" else None
        algorithm = self._chosen("cudnnGetConvolutionForwardAlgorithm_v7", operands, c, room, only).algorithm
        alpha, zero = c_float(float(c.given["alpha"])), c_float(0)
        name, rest = "cudnnConvolutionForward", [byref(zero), c.y.handle, y.address]
        descriptors: list[Any] = [c]
        if biases:
            form = (NHWC, DATA[y.dtype], 1, int(c.given["k"]), 1, 1)
            of_bias = self._described(c.what, "Tensor", "cudnnSetTensor4dDescriptor", *form)
            form_of_act = (ACTIVATION[act], PROPAGATE_NAN, 0.0)
            of_act = self._described(c.what, "Activation", "cudnnSetActivationDescriptor", *form_of_act)
            name = "cudnnConvolutionBiasActivationForward"
            rest += [of_bias.handle, biases[0].address, of_act.handle, c.y.handle, y.address]
            descriptors += [of_bias, of_act]
        begin = [self.handle.handle, byref(alpha), c.x.handle, x.address, c.w.handle, w.address, c.how.handle]
        return self._routine(c, name, [*begin, algorithm, workspace.address, room, *rest], descriptors)

    def backward_filter(
        self, step: Library, inputs: Sequence[Operand], outputs: Sequence[Operand], sizes: Mapping[str, int]
    ) -> Callable[[], None]:
        """The routine of a 'cudnn.backward_filter'; what it writes is its output and its workspace."""
        x, g = inputs
        w, workspace = outputs
        c = self._convolution(step, w.dtype, sizes)
        if c is None:
            size = prod(w.shape) * BYTES[w.dtype]
            return lambda: self.fill(w.address, 0, size)
        room = workspace.shape[0]
        operands = c.x.handle, c.y.handle, c.how.handle, c.w.handle
        algorithm = self._chosen("cudnnGetConvolutionBackwardFilterAlgorithm_v7", operands, c, room).algorithm
        alpha, zero = c_float(float(c.given["alpha"])), c_float(0)
        arguments = [
            self.handle.handle, byref(alpha), c.x.handle, x.address, c.y.handle, g.address, c.how.handle, algorithm,
            workspace.address, room, byref(zero), c.w.handle, w.address,
        ]  # fmt: skip
        return self._routine(c, "cudnnConvolutionBackwardFilter", arguments, [c])

    def _routine(self, c: _Convolution, name: str, arguments: list[Any], owned: list[Any]) -> Callable[[], None]:
        """`owned` are the descriptors that the arguments are of: they live as long as the routine."""

        def routine(owned: list[Any] = owned) -> None:
            self._do(c.what, name, *arguments)

        return routine

    def _convolution(self, step: Library, dtype: str, sizes: Mapping[str, int]) -> _Convolution | None:
        """The descriptors of a step; None if it has no pictures or no places: a descriptor of nothing is refused."""
        given = {key: v if isinstance(v, str) else evaluate(v, sizes) for key, v in step.parameters}
        n, h, w, c, k, r, s, p, q = (int(given[name]) for name in "nhwckrspq")
        if not n or not p or not q:
            return None
        where = f" for {', '.join(step.layers)}" if step.layers else ""
        verb = "convolve" if step.name == "cudnn.forward" else "find the gradient of a convolution's kernel of"
        what = f"{verb} {dtype}[{n}, {h}, {w}, {c}], {k} kernels of {r} x {s}{where}"
        steps = [int(given[name]) for name in ("stride_h", "stride_w", "dilation_h", "dilation_w")]
        number = DATA[dtype]
        made = _Convolution(
            what,
            given,
            dtype,
            self._described(what, "Tensor", "cudnnSetTensor4dDescriptor", NHWC, number, n, c, h, w),
            self._described(what, "Tensor", "cudnnSetTensor4dDescriptor", NHWC, number, n, k, p, q),
            self._described(what, "Filter", "cudnnSetFilter4dDescriptor", number, NHWC, k, c, r, s),
            self._described(
                what, "Convolution", "cudnnSetConvolution2dDescriptor", 0, 0, *steps, CROSS_CORRELATION, DATA["float32"]
            ),
        )
        allowed = FMA_MATH if made.exact else CONVERTING_MATH if given["compute"] == "bfloat16" else TENSOR_MATH
        self._do(what, "cudnnSetConvolutionMathType", made.how.handle, allowed)
        return made

    def _chosen(
        self, function: str, operands: Sequence[Any], c: _Convolution, room: int, only: int | None = None
    ) -> Performance:
        """The first algorithm of those that cuDNN expects to be quick that is deterministic, no less exact than wanted,
        and has room enough; `only`: none but this one will do. Raises DeviceError."""
        key = (function, c.dtype, *c.given.values(), room)
        if key not in self._known:
            found, count = (Performance * ANSWERS)(), c_int()
            self._do(c.what, function, self.handle.handle, *operands, ANSWERS, byref(count), found)
            exact = (DEFAULT_MATH, FMA_MATH)
            for one in found[: count.value]:
                fits = one.status == 0 and one.determinism == DETERMINISTIC and one.memory <= room
                if fits and only in (None, one.algorithm) and (not c.exact or one.math in exact):
                    self._known[key] = one
                    break
            else:
                why = f"it has no algorithm with {room:,} bytes of workspace"
                raise DeviceError(f"cuDNN could not {c.what}: {why}. {INSTEAD}")
        chosen = self._known[key]
        if not c.exact:
            self._do(c.what, "cudnnSetConvolutionMathType", c.how.handle, chosen.math)
        return chosen


__all__ = ["Cudnn"]
