"""Text of LLVM IR: types, numbers, where instructions are put, and how values change their form."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.kernel import (
    Buffer,
    CopyTransposed,
    Expr,
    Kernel,
    Local,
    Store,
    statements,
)
from gnomon.compiler.sizes import Atom, Index
from gnomon.compiler.targets import Target


def ltype(dtype: str, lanes: int = 1) -> str:
    """The type of a value in registers: float16 and bfloat16 are computed as float."""
    t = dtypes.named(dtypes.named(dtype).compute).llvm
    return t if lanes == 1 else f"<{lanes} x {t}>"


def mtype(dtype: str) -> str:
    """The type of an element in memory: a bool is a byte."""
    return "i8" if dtype == "bool" else dtypes.named(dtype).llvm


def number(dtype: str, value) -> str:
    """A constant as LLVM spells it: floats by the bits of a double, which are exact for float too."""
    row = dtypes.named(dtype)
    if row.kind == "f":
        with np.errstate(over="ignore"):
            exact = float(dtypes.rounded(dtype, row.numpy.type(value)))
        return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
    if row.kind == "b":
        return "true" if value else "false"
    return str(int(value))


@dataclass
class Operand:
    """A value in registers: its text, whether it has lanes, and in which scope it is defined."""

    text: str
    lanes: int
    level: int


@dataclass
class Scope:
    """A loop body (or the function's, or a condition's) while it is written."""

    kind: str
    lines: list[str] = field(default_factory=list)
    label: str = ""
    known: dict = field(default_factory=dict)
    fresh: dict = field(default_factory=dict)  # values that a store may make stale: expression -> operand


class Writer:
    def __init__(self, kernel: Kernel, name: str, target: Target):
        self.kernel, self.name, self.target = kernel, name, target
        self.avx512 = target.avx512
        self.counter = 0
        self.symbols: dict[str, str] = {}
        self.entry: list[str] = []  # allocas
        self.scopes = [Scope("function", label="entry")]
        self.where: dict[Atom, Operand] = {}  # loop indices
        self.locals: dict[Local, Operand] = {}
        self.pointers: dict[Buffer, str] = {}
        self.registers: dict[tuple, str] = {}
        self.lane: Index | None = None
        self.width = 1
        self.masks: list[Operand] = []
        self.written = {s.buffer for s in statements(kernel.body) if isinstance(s, Store)}
        self.written |= {s.target for s in statements(kernel.body) if isinstance(s, CopyTransposed)}
        self.volatile_of: dict[Expr, frozenset[Buffer]] = {}

    # ---- text

    def new(self, prefix: str = "") -> str:
        self.counter += 1
        return f"%{prefix or 'x'}{self.counter}"

    def emit(self, level: int, code: str) -> str:
        """Append an instruction with a result to the scope `level`; its name."""
        name = self.new()
        self.scopes[level].lines.append(f"  {name} = {code}")
        return name

    def do(self, code: str) -> None:
        self.scopes[-1].lines.append(f"  {code}")

    @property
    def level(self) -> int:
        return len(self.scopes) - 1

    @property
    def pinned(self) -> int:
        """The outermost scope that loads may move to: not out of a condition that may be what allows them."""
        for k in range(self.level, 0, -1):
            if self.scopes[k].kind == "if":
                return k
        return 0

    def _known_size(self, key: tuple) -> Operand | None:
        for scope in reversed(self.scopes):
            found = scope.known.get(key)
            if found is not None:
                return found
        return None

    # ---- conversions

    def _splat(self, constant: str, dtype: str, lanes: int) -> str:
        """A constant in every lane."""
        return constant if lanes == 1 else f"splat ({ltype(dtype)} {constant})"

    def _splat_text(self, text: str, t: str, lanes: int, level: int) -> str:
        key = ("splat", text, lanes)
        found = self._known_size(key)
        if found is not None:
            return found.text
        first = self.emit(level, f"insertelement <{lanes} x {t}> poison, {t} {text}, i64 0")
        spread = self.emit(
            level, f"shufflevector <{lanes} x {t}> {first}, <{lanes} x {t}> poison, <{lanes} x i32> zeroinitializer"
        )
        self.scopes[level].known[key] = Operand(spread, lanes, level)
        return spread

    def _spread(self, x: Operand, dtype: str, lanes: int, level: int | None = None) -> str:
        """The text of x with `lanes` lanes."""
        if x.lanes == lanes:
            return x.text
        assert x.lanes == 1, (x, lanes)
        if not x.text.startswith("%"):
            return self._splat(x.text, dtype, lanes)
        return self._splat_text(x.text, ltype(dtype), lanes, x.level)

    def _shuffle(self, text: str, t: str, order: Iterable[int]) -> str:
        order = list(order)
        mask = ", ".join(f"i32 {k}" for k in order)
        return self.emit(self.level, f"shufflevector {t} {text}, {t} poison, <{len(order)} x i32> <{mask}>")

    def _reverse(self, text: str, t: str, lanes: int, level: int) -> str:
        mask = ", ".join(f"i32 {k}" for k in reversed(range(lanes)))
        return self.emit(level, f"shufflevector {t} {text}, {t} poison, <{lanes} x i32> <{mask}>")

    def _from_memory(self, raw: str, dtype: str, lanes: int, level: int) -> str:
        if dtype == "bool":
            t = f"<{lanes} x i8>" if lanes > 1 else "i8"
            return self.emit(level, f"icmp ne {t} {raw}, {'zeroinitializer' if lanes > 1 else '0'}")
        if dtype == "float16":
            t = f"<{lanes} x half>" if lanes > 1 else "half"
            return self.emit(level, f"fpext {t} {raw} to {ltype(dtype, lanes)}")
        if dtype == "bfloat16":
            half, whole = ltype("uint16", lanes), ltype("uint32", lanes)
            bits = self.emit(level, f"zext {half} {raw} to {whole}")
            bits = self.emit(level, f"shl {whole} {bits}, {self._splat('16', 'uint32', lanes)}")
            return self.emit(level, f"bitcast {whole} {bits} to {ltype(dtype, lanes)}")
        return raw

    def _to_memory(self, text: str, dtype: str, lanes: int, level: int) -> str:
        if dtype == "bool":
            return self.emit(level, f"zext {ltype(dtype, lanes)} {text} to {f'<{lanes} x i8>' if lanes > 1 else 'i8'}")
        if dtype == "float16":
            return self.emit(
                level, f"fptrunc {ltype(dtype, lanes)} {text} to {f'<{lanes} x half>' if lanes > 1 else 'half'}"
            )
        if dtype == "bfloat16":
            return self._upper_half(text, lanes, level)
        return text

    def _upper_half(self, text: str, lanes: int, level: int) -> str:
        """float -> the bits of the nearest bfloat16, ties to even; of a NaN those that make it a quiet one.

        In integers: LLVM calls a library for `fptrunc` to bfloat where the processor has no such instruction, and that
        of AVX-512 takes subnormal numbers for 0.
        """
        f, whole, half = (ltype(d, lanes) for d in ("float32", "uint32", "uint16"))
        constant = lambda value: self._splat(str(value), "uint32", lanes)
        bits = self.emit(level, f"bitcast {f} {text} to {whole}")
        upper = self.emit(level, f"lshr {whole} {bits}, {constant(16)}")
        odd = self.emit(level, f"and {whole} {upper}, {constant(1)}")
        more = self.emit(level, f"add {whole} {odd}, {constant(0x7FFF)}")
        near = self.emit(level, f"add {whole} {bits}, {more}")
        near = self.emit(level, f"lshr {whole} {near}, {constant(16)}")
        quiet = self.emit(level, f"or {whole} {upper}, {constant(0x40)}")
        nan = self.emit(level, f"fcmp uno {f} {text}, {text}")
        bits = self.emit(level, f"select {ltype('bool', lanes)} {nan}, {whole} {quiet}, {whole} {near}")
        return self.emit(level, f"trunc {whole} {bits} to {half}")

    def _rounded(self, text: str, dtype: str, lanes: int, level: int) -> str:
        """A value in registers as memory would hold it."""
        return self._from_memory(self._to_memory(text, dtype, lanes, level), dtype, lanes, level)

    def _cast(self, text: str, of: str, to: str, lanes: int, level: int) -> str:
        """NumPy's astype; floats to integers saturate and NaN gives 0."""
        if dtypes.named(to).compute != to and of != to:
            wide = dtypes.named(to).compute
            return self._rounded(self._cast(text, of, wide, lanes, level), to, lanes, level)
        a, b = dtypes.named(dtypes.named(of).compute), dtypes.named(dtypes.named(to).compute)
        if a is b:
            return text
        s, t = ltype(of, lanes), ltype(to, lanes)
        zero = "zeroinitializer" if lanes > 1 else ("0.0" if a.kind == "f" else "0")
        if b.kind == "b":
            return self.emit(level, f"{'fcmp une' if a.kind == 'f' else 'icmp ne'} {s} {text}, {zero}")
        if a.kind == "f" and b.kind == "f":
            return self.emit(level, f"{'fpext' if b.bits > a.bits else 'fptrunc'} {s} {text} to {t}")
        if a.kind == "f":
            m = [(f"v{lanes}" if lanes > 1 else "") + mangled(ltype(d)) for d in (to, of)]
            return self.emit(level, f"call {t} @llvm.fpto{b.kind.replace('i', 's')}i.sat.{m[0]}.{m[1]}({s} {text})")
        if b.kind == "f":
            return self.emit(level, f"{'sitofp' if a.kind == 'i' else 'uitofp'} {s} {text} to {t}")
        if b.bits < a.bits:
            return self.emit(level, f"trunc {s} {text} to {t}")
        if b.bits > a.bits:
            return self.emit(level, f"{'sext' if a.kind == 'i' else 'zext'} {s} {text} to {t}")
        return text


def mangled(t: str) -> str:
    return {"float": "f32", "double": "f64", "half": "f16"}.get(t, t)
