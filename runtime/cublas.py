"""Matrix products by cublasLt, called through ctypes: CuPy does not wrap it, and CuPy's cuBLAS refuses to run while a
graph is captured.

    lt = CublasLt(find("cublasLt", 12, SIGNATURES), stream, fill)
    lt.makers()["cublaslt.matmul"](step, inputs, outputs, sizes)()

What a step is, and its parameters, is told in `gnomon.compiler.lowering.cuda_library`. A routine has its descriptors
and its algorithm (the heuristic's first, remembered for equal products) when it is made; calling it only starts the
work, so it may be called while a graph is captured. All memory, the workspace too, is the caller's.

What an executor does with a `Library` step: it asks the driver for the maker of `step.name`, and has a routine made
when it first meets the step with some sizes and addresses, of the operands that are the slots `step.inputs` and
`step.written` (outputs, then the workspace). It calls the routine in the order of the steps, keeps it for as long as
neither sizes nor addresses change, and makes it anew when they do. The making allocates nothing on the device.

Numbers of enumerations and the meaning of attributes: NVIDIA, cublasLt.h, cublas_api.h and library_types.h of CUDA 12
and 13 (they are the same); "cuBLAS Library", chapter 3.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from ctypes import POINTER, byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from functools import partial
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnomon.compiler.errors import DeviceError
from gnomon.compiler.program import Library
from gnomon.compiler.sizes import evaluate

if TYPE_CHECKING:
    from gnomon.runtime.gpu import Maker, Operand

DATA = {"float32": 0, "float16": 2, "bfloat16": 14}  # cudaDataType_t
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
COMPUTE = {"float32": 68, "tf32": 77, "bfloat16": 75}  # cublasComputeType_t: 32F, 32F_FAST_TF32, 32F_FAST_16BF
EPILOGUE = {"none": 1, "relu": 2, "gelu": 32, "relu_mask": 130, "relu_gradient": 136}  # cublasLtEpilogue_t
WITH_BIAS, WITH_SUMS = 4, 16  # to be added to those: the second is BGRAD, of a gradient
TRANSPOSE_A, TRANSPOSE_B, EPILOGUE_KIND, BIAS_POINTER = 3, 4, 7, 8  # cublasLtMatmulDescAttributes_t
MASK_POINTER, MASK_ROW = 11, 12  # of the same: EPILOGUE_AUX_POINTER and _LD
BATCH_COUNT, BATCH_STRIDE = 5, 6  # cublasLtMatrixLayoutAttribute_t
WORKSPACE_BYTES, REDUCTIONS, ALIGNMENTS = 1, 3, (5, 6, 7, 8)  # cublasLtMatmulPreferenceAttributes_t
IN_COMPUTE_TYPE = 2
"""Of cublasLtReductionScheme_t: parts of a sum are added in the workspace, in a fixed order."""
MOST_ALIGNMENT = 256
"""Bytes: what cublasLt takes pointers to be a multiple of if it is not told otherwise."""

INSTEAD = "With GNOMON_LIBRARIES='' kernels of gnomon's own are used instead."

Fill = Callable[[int, int, int], None]
"""(address, byte, size): sets all bytes, in the stream."""


def find(name: str, major: int, functions: Iterable[str]) -> ctypes.CDLL | None:
    """A library of NVIDIA's by name ('cublasLt', 'cudnn'): of its wheel, else the system's. None if there is none that
    has all these functions.

    major   of CUDA, for the versions of several may be installed
    """
    paths: list[str] = []
    spec = util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        paths += sorted(map(str, Path(root).glob(f"*/lib/lib{name}.so.*")))
    # wheels for CUDA 12 have a folder for each library, later ones one for all
    paths.sort(key=lambda p: f"/cu{major}/" not in p if major > 12 else "/cu1" in p)
    version = 9 if name == "cudnn" else major
    for path in (*paths, f"lib{name}.so.{version}", f"lib{name}.so"):
        try:
            library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        if all(hasattr(library, function) for function in functions):
            return library
    return None


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


SIGNATURES: dict[str, list[Any]] = {
    "cublasLtCreate": [POINTER(c_void_p)],
    "cublasLtDestroy": [c_void_p],
    "cublasLtMatmulDescCreate": [POINTER(c_void_p), c_int, c_int],
    "cublasLtMatmulDescDestroy": [c_void_p],
    "cublasLtMatmulDescSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatrixLayoutCreate": [POINTER(c_void_p), c_int, c_uint64, c_uint64, c_int64],
    "cublasLtMatrixLayoutDestroy": [c_void_p],
    "cublasLtMatrixLayoutSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulPreferenceCreate": [POINTER(c_void_p)],
    "cublasLtMatmulPreferenceDestroy": [c_void_p],
    "cublasLtMatmulPreferenceSetAttribute": [c_void_p, c_int, c_void_p, c_size_t],
    "cublasLtMatmulAlgoGetHeuristic": [*[c_void_p] * 7, c_int, POINTER(Heuristic), POINTER(c_int)],
    "cublasLtMatmul": [
        c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_void_p,
        c_void_p, c_void_p, c_void_p, c_size_t, c_void_p,
    ],
}  # fmt: skip
"""The arguments of all functions that are called, which return a cublasStatus_t."""


class Owned:
    """A descriptor of a library's, destroyed when nobody has it any more."""

    def __init__(self, create: Callable[..., None], destroy: Callable[[Any], Any], *arguments: Any):
        self.handle, self._destroy = c_void_p(), destroy
        create(byref(self.handle), *arguments)

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self._destroy(self.handle)


@dataclass
class _Matrix:
    """Where an operand is, in row-major terms: from row to row, from matrix to matrix."""

    address: int
    row: int
    stride: int
    transposed: bool = False

    @property
    def alignment(self) -> int:
        return min(MOST_ALIGNMENT, self.address & -self.address)


@dataclass
class _Product:
    """d = act(alpha * x w + beta * c + bias); `what` it is, in words.

    bias   its address, or that of sums over rows where a gradient is computed; 0 if there are none
    mask   where bits are that tell what is positive, and how many there are for a row
    """

    what: str
    dtype: str
    m: int
    n: int
    k: int
    batch: int
    x: _Matrix
    w: _Matrix
    c: _Matrix
    d: _Matrix
    bias: int
    mask: tuple[int, int]
    alpha: float
    beta: float
    epilogue: str
    compute: str
    workspace: int
    room: int

    @classmethod
    def of(
        cls, step: Library, inputs: Sequence[Operand], outputs: Sequence[Operand], sizes: Mapping[str, int]
    ) -> _Product:
        given = {key: v if isinstance(v, str) else evaluate(v, sizes) for key, v in step.parameters}
        result, *more, workspace = outputs
        width = BYTES[result.dtype]

        def matrix(name: str, operand: Operand) -> _Matrix:
            row, stride, at = (int(given.get(f"{what}_{name}", 0)) for what in ("ld", "stride", "at"))
            return _Matrix(operand.address + at * width, row, stride, given.get(name) == "transposed")

        x, w, *others = inputs
        beta = float(given["beta"])
        d = matrix("d", result)
        c = matrix("c", others.pop(0)) if beta else d
        bias = others.pop(0).address + int(given["at_bias"]) * width if "at_bias" in given else 0
        mask = 0
        if given["epilogue"] == "relu_mask":
            mask = more.pop().address
        elif given["epilogue"] == "relu_gradient":
            mask = others.pop().address
            bias = more.pop().address if more else 0
        m, n, k, batch = (int(given[name]) for name in ("m", "n", "k", "batch"))
        where = f" for {', '.join(step.layers)}" if step.layers else ""
        return cls(
            f"multiply {result.dtype}[{batch}, {m}, {k}] by [{batch}, {k}, {n}]{where}",
            result.dtype, m, n, k, batch, matrix("x", x), matrix("w", w), c, d, bias,
            (mask, int(given.get("ld_mask", 0))), float(given["alpha"]), beta, str(given["epilogue"]),
            str(given["compute"]), workspace.address, workspace.shape[0],
        )  # fmt: skip

    @property
    def key(self) -> tuple:
        """What an algorithm is chosen by."""
        matrices = [(a.row, a.stride, a.transposed, a.alignment) for a in (self.x, self.w, self.c, self.d)]
        return (
            self.dtype, self.m, self.n, self.k, self.batch, *matrices, self.bias and self.bias & -self.bias,
            self.mask[0] and self.mask[0] & -self.mask[0], self.beta != 0, self.epilogue, self.compute, self.room,
        )  # fmt: skip

    def of_zeros(self) -> int:
        """Let a product of no terms be one of a term of zeros, which are put where the workspace was. Their bytes.
        Raises DeviceError if that has not room for them."""
        size = max(self.m, self.n) * BYTES[self.dtype]
        if size > self.room:
            why = f"of no terms, {size:,} bytes of workspace are needed"
            raise DeviceError(f"cublasLt could not {self.what}: {why}. {INSTEAD}")
        self.k, self.room = 1, 0
        self.x, self.w = _Matrix(self.workspace, 1, 0), _Matrix(self.workspace, self.n, 0)
        return size


class CublasLt:
    """cublasLt for one device and one stream. Raises DeviceError where a function fails, with cublasLt's own words."""

    def __init__(self, library: ctypes.CDLL, stream: int, fill: Fill):
        self.stream, self.fill = stream, fill
        self._functions: dict[str, Any] = {}
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, c_int
            self._functions[name] = function
        self._texts = [getattr(library, name) for name in ("cublasLtGetStatusName", "cublasLtGetStatusString")]
        for function in self._texts:
            function.argtypes, function.restype = [c_int], ctypes.c_char_p
        self._known: dict[tuple, Heuristic] = {}
        self.handle = Owned(partial(self._do, "start", "cublasLtCreate"), self._functions["cublasLtDestroy"])

    def makers(self) -> dict[str, Maker]:
        """What makes routines, by the names of steps."""
        return {"cublaslt.matmul": self.matmul}

    def _do(self, what: str, name: str, *arguments: Any) -> None:
        """Call a function. Raises DeviceError unless it returns 0."""
        status = self._functions[name](*arguments)
        if status:
            code, text = (function(status).decode() for function in self._texts)
            raise DeviceError(f"cublasLt could not {what}: {name} returned {code} ({text}). {INSTEAD}")

    # ---- descriptors

    def _made(self, p: _Product, kind: str, *arguments: Any) -> Owned:
        create = partial(self._do, p.what, f"cublasLt{kind}Create")
        return Owned(create, self._functions[f"cublasLt{kind}Destroy"], *arguments)

    def _set(self, p: _Product, kind: str, owned: Owned, attribute: int, value: Any) -> None:
        name = f"cublasLt{kind}SetAttribute"
        self._do(p.what, name, owned.handle, attribute, byref(value), ctypes.sizeof(value))

    def _description(self, p: _Product) -> Owned:
        made = self._made(p, "MatmulDesc", COMPUTE[p.compute], DATA["float32"])
        self._set(p, "MatmulDesc", made, TRANSPOSE_A, c_int32(p.w.transposed))
        self._set(p, "MatmulDesc", made, TRANSPOSE_B, c_int32(p.x.transposed))
        kind = EPILOGUE[p.epilogue]
        if p.bias:
            more = WITH_SUMS if p.epilogue == "relu_gradient" else WITH_BIAS
            kind = more if p.epilogue == "none" else kind | more
            self._set(p, "MatmulDesc", made, BIAS_POINTER, c_uint64(p.bias))
        address, row = p.mask
        if address:
            self._set(p, "MatmulDesc", made, MASK_POINTER, c_uint64(address))
            self._set(p, "MatmulDesc", made, MASK_ROW, c_int64(row))
        self._set(p, "MatmulDesc", made, EPILOGUE_KIND, c_uint32(kind))
        return made

    def _layout(self, p: _Product, matrix: _Matrix, rows: int, columns: int) -> Owned:
        """Of a matrix as cublasLt sees it, columns of `rows` elements."""
        made = self._made(p, "MatrixLayout", DATA[p.dtype], rows, columns, matrix.row)
        if p.batch > 1:
            self._set(p, "MatrixLayout", made, BATCH_COUNT, c_int32(p.batch))
            self._set(p, "MatrixLayout", made, BATCH_STRIDE, c_int64(matrix.stride))
        return made

    # ---- products

    def matmul(
        self, step: Library, inputs: Sequence[Operand], outputs: Sequence[Operand], sizes: Mapping[str, int]
    ) -> Callable[[], None]:
        """The routine of a 'cublaslt.matmul'; what it writes is its output and its workspace."""
        p = _Product.of(step, inputs, outputs, sizes)
        if not p.m and p.bias and p.epilogue == "relu_gradient":
            return lambda: self.fill(p.bias, 0, p.n * BYTES[p.dtype])  # sums of nothing
        if not p.m or not p.n or not p.batch:
            return lambda: None
        zeros = 0 if p.k else p.of_zeros()
        description = self._description(p)
        # what is row-major here is column-major and the other way round there: d' = w' x'
        a = self._layout(p, p.w, *((p.k, p.n) if p.w.transposed else (p.n, p.k)))
        b = self._layout(p, p.x, *((p.m, p.k) if p.x.transposed else (p.k, p.m)))
        c, d = self._layout(p, p.c, p.n, p.m), self._layout(p, p.d, p.n, p.m)
        if p.key not in self._known:
            self._known[p.key] = self._chosen(p, description, a, b, c, d)
        algorithm = self._known[p.key].algorithm
        alpha, beta = c_float(p.alpha), c_float(p.beta)

        def routine() -> None:
            if zeros:
                self.fill(p.workspace, 0, zeros)
            self._do(
                p.what, "cublasLtMatmul", self.handle.handle, description.handle, byref(alpha), p.w.address, a.handle,
                p.x.address, b.handle, byref(beta), p.c.address, c.handle, p.d.address, d.handle, algorithm,
                p.workspace if p.room else None, p.room, self.stream,
            )  # fmt: skip

        return routine

    def _chosen(self, p: _Product, description: Owned, *layouts: Owned) -> Heuristic:
        """The algorithm that cublasLt takes to be the quickest of those that fit. Raises DeviceError."""
        preference = self._made(p, "MatmulPreference")
        self._set(p, "MatmulPreference", preference, WORKSPACE_BYTES, c_uint64(p.room))
        self._set(p, "MatmulPreference", preference, REDUCTIONS, c_uint32(IN_COMPUTE_TYPE))
        for attribute, matrix in zip(ALIGNMENTS, (p.w, p.x, p.c, p.d), strict=True):
            self._set(p, "MatmulPreference", preference, attribute, c_uint32(matrix.alignment))
        found, count = (Heuristic * 1)(), c_int()
        self._do(
            p.what, "cublasLtMatmulAlgoGetHeuristic", self.handle.handle, description.handle,
            *(layout.handle for layout in layouts), preference.handle, 1, found, byref(count),
        )  # fmt: skip
        if not count.value or found[0].state:
            why = f"it has no algorithm with {p.room:,} bytes of workspace"
            raise DeviceError(f"cublasLt could not {p.what}: {why}. {INSTEAD}")
        return found[0]


def call(makers: Mapping[str, Maker], step: Library, operands: Sequence[Operand], sizes: Mapping[str, int]) -> None:
    """Run a step once: `operands` are its inputs, its outputs and its workspace."""
    split = len(step.inputs)
    makers[step.name](step, operands[:split], operands[split:], sizes)()


__all__ = ["CublasLt", "Owned", "call", "find"]
