"""Kernel -> LLVM IR, as text: a module that defines one function and depends on nothing.

    void NAME(ptr buffers, ptr sizes, int64 begin, int64 end)

runs iterations [begin, end) of the kernel's parallel loop (all of it if there is none). Values are placed in the
outermost loop in which they do not change, so that LLVM is asked for register allocation and scheduling and little
else. Vector loops become operations on `<n x type>`; whether a value is a vector is whether it depends on the lane.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import CompileError
from gnomon.compiler.kernel import (
    COMBINE,
    IDENTITY,
    Alloc,
    Apply,
    Barrier,
    Bitcast,
    Buffer,
    Cast,
    Const,
    CopyTransposed,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Lanes,
    Let,
    Load,
    Local,
    Prefetch,
    Rewriter,
    Stmt,
    Store,
    Value,
    children,
    statements,
)
from gnomon.compiler.ops import avx512
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.sizes import Atom, Dim, FloorDiv, Index, Max, Size, Symbol, substitute
from gnomon.compiler.targets import Target

NEAR = 2
"""What a prefetch is told: into the second cache. Lines asked into the first are gone again before they are read, for
panels run through it; and asked for to be written (the first operand being 1) they are taken from the other cores."""


def render(kernel: Kernel, name: str, target: Target) -> str:
    """The module that defines `kernel` as the function `name`."""
    _forget_many()
    return _Renderer(kernel, name, target).module()


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


class _Renderer:
    def __init__(self, kernel: Kernel, name: str, target: Target):
        self.kernel, self.name, self.target = kernel, name, target
        self.avx512 = target.avx512
        self.counter = 0
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

    def module(self) -> str:
        k = self.kernel
        sizes = k.sizes
        self.symbols = {s: f"%size.{i}" for i, s in enumerate(sizes)}
        for i, b in enumerate(k.buffers):
            self.pointers[b] = f"%b{i}"
        self.body(k.body)
        scope = self.scopes[0]
        assert len(self.scopes) == 1
        buffers = ", ".join(
            f"ptr noalias {'' if b in self.written else 'readonly '}%b{i}" for i, b in enumerate(k.buffers)
        )
        arguments = ", ".join(x for x in (buffers, ", ".join(f"i64 {v}" for v in self.symbols.values())) if x)
        lines = [f'target triple = "{self.target.triple}"'] if self.target.triple else []
        comma = ", " if arguments else ""
        lines.append(f"define internal void @body({arguments}{comma}i64 %begin, i64 %end) #0 {{")
        lines += ["entry:", *self.entry, *scope.lines, "  ret void", "}"]
        lines.append(f"define void @{self.name}(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) #1 {{")
        passed = []
        for i in range(len(k.buffers)):
            lines.append(f"  %p{i} = getelementptr ptr, ptr %buffers, i64 {i}")
            lines.append(f"  %v{i} = load ptr, ptr %p{i}, align 8")
            passed.append(f"ptr %v{i}")
        for i in range(len(sizes)):
            lines.append(f"  %q{i} = getelementptr i64, ptr %sizes, i64 {i}")
            lines.append(f"  %s{i} = load i64, ptr %q{i}, align 8")
            passed.append(f"i64 %s{i}")
        passed += ["i64 %begin", "i64 %end"]
        lines += [f"  call void @body({', '.join(passed)})", "  ret void", "}"]
        lines.append("attributes #0 = { nounwind noinline }")
        lines.append("attributes #1 = { nounwind }")
        return "\n".join(lines) + "\n"

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

    # ---- statements

    def body(self, body: tuple[Stmt, ...]) -> None:
        for s in body:
            match s:
                case Store():
                    self.store(s)
                case Let():
                    self.locals[s.local] = self.value(s.value)
                case For(kind="unroll"):
                    self.unroll(s)
                case For(kind="vector"):
                    self.vector(s)
                case For():
                    self.loop(s)
                case If():
                    self.condition(s)
                case Alloc():
                    self.alloc(s.buffer)
                case CopyTransposed():
                    self.copy_transposed(s)
                case Prefetch():
                    place = self.address(s.buffer, s.index)
                    self.do(f"call void @llvm.prefetch.p0(ptr {place.text}, i32 0, i32 {NEAR}, i32 1)")
                case Barrier():
                    pass

    def alloc(self, b: Buffer) -> None:
        if b.space == "register" or b in self.pointers:
            return
        count = 1
        for d in b.shape:
            if not isinstance(d, int):
                raise CompileError(f"kernel {self.name}: the local buffer {b!r} has no static size")
            count *= d
        pointer = self.new("local")
        self.entry.append(f"  {pointer} = alloca [{max(1, count)} x {mtype(b.dtype)}], align 64")
        self.pointers[b] = pointer

    def unroll(self, s: For) -> None:
        extent = s.index.extent
        assert isinstance(extent, int)
        renamed = {x.local for x in statements(s.body) if isinstance(x, Let)}
        for k in range(extent):
            change = partial(_renamed, renamed, k)
            rewriter = Rewriter(change, partial(_unrolled, s.index, k))
            body = rewriter.body(s.body)
            self.body(tuple(_rename_lets(body, k) if renamed else body))

    def vector(self, s: For) -> None:
        assert self.lane is None, "vector loops do not nest"
        assert isinstance(s.index.extent, int)
        self.lane, self.width = s.index, s.index.extent
        if self.width == 1:
            self.where[s.index] = Operand("0", 1, 0)
        self._forget_lanes()
        self.body(s.body)
        self._forget_lanes()
        self.lane, self.width = None, 1

    def _forget_lanes(self) -> None:
        """Whether a value has lanes depends on the vector loop around: what is known ends with it."""
        for scope in self.scopes:
            scope.known = {k: v for k, v in scope.known.items() if v.lanes == 1}
            scope.fresh = {k: v for k, v in scope.fresh.items() if v.lanes == 1}

    def loop(self, s: For) -> None:
        index, extent = s.index, s.index.extent
        parallel = s.kind == "parallel"
        first, last = ("%begin", "%end") if parallel else ("0", self.size(extent).text)
        if not parallel and isinstance(extent, int) and extent == 1:
            self.where[index] = Operand("0", 1, self.level)
            self.body(s.body)
            del self.where[index]
            return
        n = self.counter = self.counter + 1
        i, head, done = f"%i{n}", f"loop{n}", f"done{n}"
        self.scopes.append(Scope("loop", label=head))
        self.where[index] = Operand(i, 1, self.level)
        self.body(s.body)
        inner = self.scopes.pop()
        del self.where[index]
        outer = self.scopes[-1]
        certain = not parallel and isinstance(extent, int) and extent > 0
        if certain:
            outer.lines.append(f"  br label %{head}")
        else:
            outer.lines.append(f"  %go{n} = icmp slt i64 {first}, {last}")
            outer.lines.append(f"  br i1 %go{n}, label %{head}, label %{done}")
        outer.lines.append(f"{head}:")
        outer.lines.append(f"  {i} = phi i64 [ {first}, %{outer.label} ], [ {i}.next, %{inner.label} ]")
        outer.lines += inner.lines
        outer.lines.append(f"  {i}.next = add nuw nsw i64 {i}, 1")
        outer.lines.append(f"  {i}.more = icmp slt i64 {i}.next, {last}")
        outer.lines.append(f"  br i1 {i}.more, label %{head}, label %{done}")
        outer.lines.append(f"{done}:")
        outer.label = done
        outer.fresh = {}

    def condition(self, s: If) -> None:
        c = self.value(s.condition)
        if c.lanes > 1:
            self.masked(c, s.then)
            if s.orelse:
                t = ltype("bool", c.lanes)
                text = self.emit(self.level, f"xor {t} {c.text}, {self._splat('true', 'bool', c.lanes)}")
                self.masked(Operand(text, c.lanes, self.level), s.orelse)
            return
        if c.text in ("true", "false"):
            self.body(s.then if c.text == "true" else s.orelse)
            return
        n = self.counter = self.counter + 1
        branches = []
        for name, body in (("then", s.then), ("else", s.orelse)):
            self.scopes.append(Scope("if", label=f"{name}{n}"))
            self.body(body)
            branches.append(self.scopes.pop())
        outer = self.scopes[-1]
        other = f"else{n}" if s.orelse else f"join{n}"
        outer.lines.append(f"  br i1 {c.text}, label %then{n}, label %{other}")
        for name, scope in zip(("then", "else"), branches, strict=True):
            if name == "else" and not s.orelse:
                continue
            outer.lines += [f"{name}{n}:", *scope.lines, f"  br label %join{n}"]
        outer.lines.append(f"join{n}:")
        outer.label = f"join{n}"
        outer.fresh = {}

    def masked(self, mask: Operand, body: tuple[Stmt, ...]) -> None:
        """Statements of which only some lanes take part; what is loaded under the mask is not known outside it."""
        known = [dict(scope.known) for scope in self.scopes]
        self.masks.append(mask if not self.masks else self._both(self.masks[-1], mask))
        self.scopes[-1].fresh = {}
        self.body(body)
        self.masks.pop()
        self.scopes[-1].fresh = {}
        for scope, before in zip(self.scopes, known, strict=True):
            scope.known = before

    def _both(self, a: Operand, b: Operand) -> Operand:
        lanes = max(a.lanes, b.lanes)
        left, right = self._spread(a, "bool", lanes), self._spread(b, "bool", lanes)
        level = max(a.level, b.level)
        return Operand(self.emit(level, f"and {ltype('bool', lanes)} {left}, {right}"), lanes, level)

    def store(self, s: Store) -> None:
        dtype = s.buffer.dtype
        whole = s.value
        if s.buffer.space != "register" and isinstance(whole, Cast) and dtypes.named(dtype).compute == whole.x.dtype:
            whole = whole.x  # a store rounds
        value = self.value(whole)
        offset = s.buffer.offset(s.index)
        self._stale(s.buffer)
        if s.buffer.space == "register":
            slot, lanes = self._register(s.buffer, offset, self.width if self._on_lane(offset) else 1)
            if self.masks and lanes > 1:
                t, bits = ltype(dtype, lanes), self._spread(self.masks[-1], "bool", lanes)
                old = self.emit(self.level, f"load {t}, ptr {slot}")
                new = self._spread(value, dtype, lanes)
                value = Operand(
                    self.emit(self.level, f"select <{lanes} x i1> {bits}, {t} {new}, {t} {old}"), lanes, self.level
                )
            self.do(f"store {ltype(dtype, lanes)} {self._spread(value, dtype, lanes)}, ptr {slot}")
            return
        stride = self._stride(offset)
        if stride == 0 and self.lane is not None and self.width > 1 and value.lanes > 1:
            raise CompileError(f"kernel {self.name}: all lanes store to the same element of {s.buffer!r}")
        if stride == 0:
            text = self._to_memory(value.text, dtype, 1, self.level)
            pointer = self.address(s.buffer, offset)
            self.do(f"store {mtype(dtype)} {text}, ptr {pointer.text}, align {dtypes.named(dtype).bytes}")
            return
        lanes = self.width
        text = self._spread(value, dtype, lanes)
        mask = self.masks[-1] if self.masks else None
        align = dtypes.named(dtype).bytes
        if stride == -1:
            text = self._reverse(text, ltype(dtype, lanes), lanes, self.level)
            if mask is not None:
                mask = Operand(
                    self._reverse(self._spread(mask, "bool", lanes), ltype("bool", lanes), lanes, self.level),
                    lanes,
                    self.level,
                )
        text = self._to_memory(text, dtype, lanes, self.level)
        vector = f"<{lanes} x {mtype(dtype)}>" if lanes > 1 else mtype(dtype)
        if stride in (1, -1):
            base = self.address(s.buffer, self._first_in_memory(offset, stride))
            if mask is None:
                self.do(f"store {vector} {text}, ptr {base.text}, align {align}")
            elif lanes == 1:
                raise CompileError(f"kernel {self.name}: a mask on a single lane")
            else:
                bits = self._spread(mask, "bool", lanes)
                self.do(
                    f"call void @llvm.masked.store.v{lanes}{_mangled(mtype(dtype))}.p0("
                    f"{vector} {text}, ptr align {align} {base.text}, "
                    f"<{lanes} x i1> {bits})"
                )
            return
        pointers = self._pointers(s.buffer, offset)
        bits = self._spread(mask, "bool", lanes) if mask is not None else self._splat("true", "bool", lanes)
        self.do(
            f"call void @llvm.masked.scatter.v{lanes}{_mangled(mtype(dtype))}.v{lanes}p0({vector} {text}, "
            f"<{lanes} x ptr> align {align} {pointers}, <{lanes} x i1> {bits})"
        )

    def copy_transposed(self, s: CopyTransposed) -> None:
        """A square block: rows loaded, interleaved log2(size) times with the row half the block away, stored."""
        n, dtype = s.size, s.source.dtype
        vector, align = f"<{n} x {mtype(dtype)}>", dtypes.named(dtype).bytes
        rows = []
        for i in range(n):
            place = self.address(s.source, s.s + s.source_stride * i)
            rows.append(self.emit(self.level, f"load {vector}, ptr {place.text}, align {align}"))
        low = ", ".join(f"i32 {k // 2 + (n if k % 2 else 0)}" for k in range(n))
        high = ", ".join(f"i32 {n // 2 + k // 2 + (n if k % 2 else 0)}" for k in range(n))
        for _ in range(n.bit_length() - 1):
            mixed = []
            for a, b in zip(rows[: n // 2], rows[n // 2 :], strict=True):
                for order in (low, high):
                    mixed.append(
                        self.emit(self.level, f"shufflevector {vector} {a}, {vector} {b}, <{n} x i32> <{order}>")
                    )
            rows = mixed
        self._stale(s.target)
        for j in range(n):
            place = self.address(s.target, s.t + s.target_stride * j)
            self.do(f"store {vector} {rows[j]}, ptr {place.text}, align {align}")

    def _stale(self, b: Buffer) -> None:
        """A store to b: forget what was loaded from it."""
        for scope in self.scopes:
            scope.fresh = {e: v for e, v in scope.fresh.items() if b not in self.volatile(e)}

    # ---- expressions

    def volatile(self, e: Expr) -> frozenset[Buffer]:
        """Buffers that this kernel writes and `e` loads from."""
        found = self.volatile_of.get(e)
        if found is None:
            stack = [e]
            while stack:
                x = stack[-1]
                if x in self.volatile_of:
                    stack.pop()
                    continue
                inner = children(x)
                waiting = [c for c in inner if c not in self.volatile_of]
                if waiting:
                    stack.extend(waiting)
                    continue
                own = frozenset((x.buffer,)) if isinstance(x, Load) and x.buffer in self.written else frozenset()
                self.volatile_of[x] = own.union(*(self.volatile_of[c] for c in inner))
                stack.pop()
            found = self.volatile_of[e]
        return found

    def value(self, e: Expr) -> Operand:
        """The operand that holds `e`, its instructions placed as far out as they may be."""
        found = self._known(e)
        if found is not None:
            return found
        stack = [e]
        while stack:
            x = stack[-1]
            if self._known(x) is not None:
                stack.pop()
                continue
            waiting = [c for c in self._inner(x) if self._known(c) is None]
            if waiting:
                stack.extend(waiting)
                continue
            self._remember(x, self._make(x))
            stack.pop()
        result = self._known(e)
        assert result is not None
        return result

    def _inner(self, e: Expr) -> tuple[Expr, ...]:
        if self._comparison(e) is not None or (isinstance(e, Lanes) and self.lane is None):
            return ()
        if isinstance(e, Apply):
            return (self._expanded(e),) if self._expands(e) else e.args
        return children(e)

    def _known(self, e: Expr) -> Operand | None:
        if isinstance(e, Local):
            return self.locals[e]
        if isinstance(e, Const):
            return Operand(number(e.dtype, e.value), 1, 0)
        if self.volatile(e):
            return self.scopes[-1].fresh.get(e)
        for scope in reversed(self.scopes):
            found = scope.known.get(e)
            if found is not None:
                return found
        return None

    def _remember(self, e: Expr, value: Operand) -> None:
        if self.volatile(e):
            self.scopes[-1].fresh[e] = value
        else:
            self.scopes[max(value.level, self.pinned if self._loads(e) else 0)].known[e] = value

    def _loads(self, e: Expr) -> bool:
        return isinstance(e, Load)

    def _expands(self, e: Apply) -> bool:
        row = e.fn
        if row.name == "fma" and not self.target.fma and dtypes.is_float(e.args[-1].dtype):
            return True
        return self._template(e) is None

    def _expanded(self, e: Apply) -> Expr:
        cached = _expansions.get((e, self.avx512))
        if cached is None:
            own = e.args[-1].dtype
            wide = dtypes.named(own).compute
            expand = avx512.EXPANSIONS.get(e.fn.name, {}).get(wide) if self.avx512 else None
            expand = expand or e.fn.expand
            if expand is None:
                raise CompileError(f"{e.fn.name} has no spelling for {e.args[-1].dtype} on this target")
            # what comes of it has the type of registers: it is rounded where it is stored, and not before
            cached = expand(*(Cast(wide, a) if a.dtype == own != wide else a for a in e.args))
            _expansions[e, self.avx512] = cached
        return cached

    def _template(self, e: Apply) -> str | None:
        kind = dtypes.named(e.args[-1].dtype).kind
        return e.fn.llvm.get(e.args[-1].dtype) or e.fn.llvm.get(kind)

    def _make(self, e: Expr) -> Operand:
        match e:
            case IndexValue():
                return self._index_value(e)
            case Load():
                return self._load(e)
            case Apply():
                if self._expands(e):
                    return self.value(self._expanded(e))
                return self._apply(e)
            case Cast():
                x = self.value(e.x)
                level = self._placed(e, x.level)
                return Operand(self._cast(x.text, e.x.dtype, e.dtype, x.lanes, level), x.lanes, level)
            case Bitcast():
                x = self.value(e.x)
                level = self._placed(e, x.level)
                a, b = ltype(e.x.dtype, x.lanes), ltype(e.dtype, x.lanes)
                return x if a == b else Operand(self.emit(level, f"bitcast {a} {x.text} to {b}"), x.lanes, level)
            case Lanes():
                return self._lanes(e)
        raise CompileError(f"kernel {self.name}: {type(e).__name__} reached the renderer: {e!r}")

    def _placed(self, e: Expr, level: int) -> int:
        return self.level if self.volatile(e) else level

    def _index_value(self, e: IndexValue) -> Operand:
        v = self.size(e.size)
        row = dtypes.named(e.dtype)
        if v.text.lstrip("-").isdigit():
            return Operand(number(e.dtype, int(v.text)), 1, 0)
        if e.dtype == "int64":
            return v
        lanes = v.lanes
        return Operand(self._cast(v.text, "int64", row.name, lanes, v.level), lanes, v.level)

    def _apply(self, e: Apply) -> Operand:
        fixed = self._static_compare(e)
        if fixed is not None:
            return fixed
        args = [self.value(a) for a in e.args]
        lanes = max(a.lanes for a in args)
        level = self._placed(e, max(a.level for a in args))
        last = e.args[-1].dtype
        texts = [self._spread(a, x.dtype, lanes, level) for a, x in zip(args, e.args, strict=True)]
        template = self._template(e)
        assert template is not None
        if e.fn.bits:
            return Operand(self._by_registers(e, template, texts, lanes, level), lanes, level)
        t = ltype(last, lanes)
        mangled = (f"v{lanes}" if lanes > 1 else "") + _mangled(ltype(last))
        code = template.format(*texts, t=t, m=mangled, c=ltype("bool", lanes))
        return Operand(self.emit(level, code), lanes, level)

    def _by_registers(self, e: Apply, template: str, texts: list[str], lanes: int, level: int) -> str:
        """An instruction on registers of one width, on any number of lanes."""
        types = [ltype(a.dtype) for a in e.args]
        width = e.fn.bits // dtypes.named(e.args[-1].dtype).bits
        count = -(-lanes // width)
        if lanes == 1:
            registers = [[self._splat_text(x, t, width, level)] for t, x in zip(types, texts, strict=True)]
        elif lanes == width:
            registers = [[x] for x in texts]
        else:
            registers = [self._pieces(x, t, lanes, width, level) for t, x in zip(types, texts, strict=True)]
        found = [self.emit(level, template.format(*(own[k] for own in registers))) for k in range(count)]
        t = ltype(e.dtype)
        if lanes == 1:
            return self.emit(level, f"extractelement <{width} x {t}> {found[0]}, i32 0")
        while len(found) > 1:  # two by two, the last with nothing if their number is odd
            found += ["poison"] * (len(found) % 2)
            pairs = zip(found[::2], found[1::2], strict=True)
            found = [self._shuffled(f"<{width} x {t}>", a, b, range(2 * width), level) for a, b in pairs]
            width *= 2
        whole = f"<{width} x {t}>"
        return found[0] if width == lanes else self._shuffled(whole, found[0], "poison", range(lanes), level)

    def _pieces(self, text: str, t: str, lanes: int, width: int, level: int) -> list[str]:
        """A vector cut into vectors of `width` lanes, the last filled up with anything."""
        return [
            self._shuffled(f"<{lanes} x {t}>", text, "poison", range(first, first + width), level, lanes)
            for first in range(0, lanes, width)
        ]

    def _shuffled(self, t: str, a: str, b: str, places: range, level: int, end: int | None = None) -> str:
        """The lanes of two vectors at some places, those from `end` on being anything."""
        lanes = ", ".join("i32 poison" if end is not None and k >= end else f"i32 {k}" for k in places)
        return self.emit(level, f"shufflevector {t} {a}, {t} {b}, <{len(places)} x i32> <{lanes}>")

    def _first_in_memory(self, offset: Dim, stride: int) -> Dim:
        """Where a vector begins whose neighbours are `stride` (1 or -1) apart: backwards, at the last lane."""
        first = self._without_lane(offset, stride)
        return first if stride == 1 else first - (self.width - 1)

    def _static_compare(self, e: Apply) -> Operand | None:
        """A comparison of the lane with something fixed for the loop: a constant mask, or one narrow compare."""
        difference = self._comparison(e)
        if difference is None:
            return None
        if isinstance(difference, int):
            return Operand("true" if difference > 0 else "false", 1, 0)
        rest = self._without_lane(difference, -1)
        if isinstance(rest, int):
            bits = ", ".join(f"i1 {'true' if k < rest else 'false'}" for k in range(self.width))
            return Operand(f"<{bits}>", self.width, 0)
        n = self.size(rest)
        low = self.emit(n.level, f"call i64 @llvm.smin.i64(i64 {n.text}, i64 {self.width})")
        high = self.emit(n.level, f"call i64 @llvm.smax.i64(i64 {low}, i64 0)")
        narrow = self.emit(n.level, f"trunc i64 {high} to i32")
        limit = self._splat_text(narrow, "i32", self.width, n.level)
        lanes = ", ".join(f"i32 {k}" for k in range(self.width))
        text = self.emit(n.level, f"icmp slt <{self.width} x i32> <{lanes}>, {limit}")
        return Operand(text, self.width, n.level)

    def _comparison(self, e: Expr) -> Dim | None:
        """b - a if `e` is a < b on sizes and its truth is known, or changes with the lane by one."""
        if (
            not isinstance(e, Apply)
            or e.fn.name != "less"
            or not all(isinstance(a, IndexValue | Const) and dtypes.is_integer(a.dtype) for a in e.args)
        ):
            return None
        a, b = (
            x.size if isinstance(x, IndexValue) else int(x.value) for x in e.args if isinstance(x, IndexValue | Const)
        )
        difference = b - a
        if isinstance(difference, int) or (self.lane is not None and self.width > 1 and self._stride(difference) == -1):
            return difference
        return None

    def _load(self, e: Load) -> Operand:
        b, dtype = e.buffer, e.dtype
        offset = b.offset(e.index)
        if b.space == "register":
            slot, lanes = self._register(b, offset, self.width if self._on_lane(offset) else 1)
            return Operand(self.emit(self.level, f"load {ltype(dtype, lanes)}, ptr {slot}"), lanes, self.level)
        own = self.value(e.mask) if e.mask is not None else None
        stride = self._stride(offset)
        align = dtypes.named(dtype).bytes
        floor = self.level if b in self.written else self.pinned
        if stride == 0 and (own is None or own.lanes == 1):
            pointer = self.address(b, offset)
            level = max(pointer.level, floor, own.level if own else 0)
            place = pointer.text
            if own is not None and own.text != "true":
                if own.text == "false":
                    return Operand(number(dtype, 0), 1, 0)
                place = self.emit(level, f"select i1 {own.text}, ptr {place}, ptr {self.pointers[b]}")
            raw = self.emit(level, f"load {mtype(dtype)}, ptr {place}, align {align}")
            return Operand(self._from_memory(raw, dtype, 1, level), 1, level)
        lanes = self.width
        mask = own
        if self.masks:
            mask = self.masks[-1] if own is None else self._both(self.masks[-1], own)
        vector = f"<{lanes} x {mtype(dtype)}>"
        suffix = f"v{lanes}{_mangled(mtype(dtype))}"
        if stride in (1, -1):
            base = self.address(b, self._first_in_memory(offset, stride))
            level = max(base.level, floor, mask.level if mask else 0)
            if mask is None:
                raw = self.emit(level, f"load {vector}, ptr {base.text}, align {align}")
            else:
                bits = self._spread(mask, "bool", lanes, level)
                if stride == -1:
                    bits = self._reverse(bits, ltype("bool", lanes), lanes, level)
                raw = self.emit(
                    level,
                    f"call {vector} @llvm.masked.load.{suffix}.p0(ptr align {align} {base.text}, "
                    f"<{lanes} x i1> {bits}, {vector} zeroinitializer)",
                )
            if stride == -1:
                raw = self._reverse(raw, vector, lanes, level)
            return Operand(self._from_memory(raw, dtype, lanes, level), lanes, level)
        pointers = self._pointers(b, offset)
        level = max(self._size_level(offset), floor, mask.level if mask else 0)
        bits = self._spread(mask, "bool", lanes, level) if mask is not None else self._splat("true", "bool", lanes)
        raw = self.emit(
            level,
            f"call {vector} @llvm.masked.gather.{suffix}.v{lanes}p0(<{lanes} x ptr> align {align} {pointers}, "
            f"<{lanes} x i1> {bits}, {vector} zeroinitializer)",
        )
        return Operand(self._from_memory(raw, dtype, lanes, level), lanes, level)

    def _lanes(self, e: Lanes) -> Operand:
        """A reduction over lanes. Outside a vector loop its operand reads whole register vectors."""
        outside = self.lane is None
        if outside:
            self.lane, self.width = e.index, int(e.index.extent)  # type: ignore[arg-type]  # static, checked by For
            self._forget_lanes()
        x = self.value(e.x)
        width = self.width
        if outside:
            self.lane, self.width = None, 1
        row = dtypes.named(e.dtype)
        if width == 1:
            return Operand(x.text, 1, self.level)
        vector = ltype(e.dtype, width)
        text = self._spread(x, e.dtype, width)
        if self.masks:
            identity = self._splat(number(e.dtype, IDENTITY[e.kind](row)), e.dtype, width)
            bits = self._spread(self.masks[-1], "bool", width)
            text = self.emit(self.level, f"select <{width} x i1> {bits}, {vector} {text}, {vector} {identity}")
        fn = scalar(COMBINE[e.kind])
        template = fn.llvm.get(e.dtype) or fn.llvm[row.kind]
        while width > 1:  # halves upon halves: log2(width) steps, and a fixed order
            half = width // 2
            if width % 2:
                raise CompileError(f"kernel {self.name}: a reduction over {width} lanes")
            parts = [
                self._shuffle(text, ltype(e.dtype, width), range(start, start + half))
                if half > 1
                else self.emit(self.level, f"extractelement {ltype(e.dtype, width)} {text}, i64 {start}")
                for start in (0, half)
            ]
            t = ltype(e.dtype, half)
            mangled = (f"v{half}" if half > 1 else "") + _mangled(ltype(e.dtype))
            text = self.emit(self.level, template.format(*parts, t=t, m=mangled, c=ltype("bool", half)))
            width = half
        if outside:
            self._forget_lanes()
        return Operand(text, 1, self.level)

    # ---- registers

    def _register(self, b: Buffer, offset: Dim, lanes: int) -> tuple[str, int]:
        """The stack slot (a register after promotion) of one element or one vector of a register buffer."""
        start = self._without_lane(offset, 1) if lanes > 1 else substitute(offset, _single)
        if not isinstance(start, int):
            raise CompileError(f"kernel {self.name}: {b!r} is indexed by {offset}, which is not static")
        key = (b, start, lanes)
        slot = self.registers.get(key)
        if slot is None:
            slot = self.registers[key] = self.new("r")
            self.entry.append(f"  {slot} = alloca {ltype(b.dtype, lanes)}, align 64")
        return slot, lanes

    # ---- sizes and addresses

    def size(self, d: Dim) -> Operand:
        """The int64 value of a size."""
        if isinstance(d, int):
            return Operand(str(d), 1, 0)
        found = self._known_size(("size", d))
        if found is not None:
            return found
        parts = [(self._monomial(m, c), m) for m, c in d.terms if m]
        constant = sum(c for m, c in d.terms if not m)
        parts.sort(key=lambda p: (p[0].lanes, p[0].level))
        total: Operand | None = None
        for operand, _ in parts:
            total = operand if total is None else self._arith("add", total, operand)
        assert total is not None
        if constant:
            total = self._arith("add", total, Operand(str(constant), 1, 0))
        self.scopes[total.level].known[("size", d)] = total
        return total

    def _known_size(self, key: tuple) -> Operand | None:
        for scope in reversed(self.scopes):
            found = scope.known.get(key)
            if found is not None:
                return found
        return None

    def _monomial(self, monomial: tuple[Atom, ...], c: int) -> Operand:
        factors = sorted((self.atom(a) for a in monomial), key=lambda o: (o.lanes, o.level))
        total = factors[0] if c == 1 else self._arith("mul", factors[0], Operand(str(c), 1, 0))
        for f in factors[1:]:
            total = self._arith("mul", total, f)
        return total

    def _arith(self, instruction: str, a: Operand, b: Operand) -> Operand:
        lanes, level = max(a.lanes, b.lanes), max(a.level, b.level)
        key = (instruction, a.text, b.text)
        found = self._known_size(key)
        if found is not None:
            return found
        flags = " nsw" if instruction in ("add", "mul", "sub") and lanes == 1 else ""
        left, right = self._spread(a, "int64", lanes, level), self._spread(b, "int64", lanes, level)
        result = Operand(
            self.emit(level, f"{instruction}{flags} {ltype('int64', lanes)} {left}, {right}"), lanes, level
        )
        self.scopes[level].known[key] = result
        return result

    def atom(self, a: Atom) -> Operand:
        match a:
            case Symbol():
                return Operand(self.symbols[a.name], 1, 0)
            case Index():
                if _single(a) == 0:
                    return Operand("0", 1, 0)
                if a is self.lane and self.width > 1:
                    lanes = ", ".join(f"i64 {k}" for k in range(self.width))
                    return Operand(f"<{lanes}>", self.width, 0)
                try:
                    return self.where[a]
                except KeyError:
                    raise CompileError(f"kernel {self.name}: the index {a.name} is used outside its loop") from None
            case FloorDiv():
                return self._floordiv(a)
            case Max():
                one, other = self.size(a.a), self.size(a.b)
                count, level = max(one.lanes, other.lanes), max(one.level, other.level)
                t = ltype("int64", count)
                m = f"v{count}i64" if count > 1 else "i64"
                left, right = self._spread(one, "int64", count, level), self._spread(other, "int64", count, level)
                return Operand(self.emit(level, f"call {t} @llvm.smax.{m}({t} {left}, {t} {right})"), count, level)
            case Value():
                x = self.value(a.x)
                if a.x.dtype == "int64":
                    return x
                return Operand(self._cast(x.text, a.x.dtype, "int64", x.lanes, x.level), x.lanes, x.level)
        raise CompileError(f"kernel {self.name}: cannot evaluate {a!r}")

    def _at_least_one(self, d: Dim) -> Operand:
        """A divisor. A size may be 0 where the loop that divides by it does not run, and a division outside it must not
        trap."""
        y = self.size(d)
        if isinstance(d, int):
            return y
        t, m = ltype("int64", y.lanes), f"v{y.lanes}i64" if y.lanes > 1 else "i64"
        one = self._splat("1", "int64", y.lanes)
        return Operand(self.emit(y.level, f"call {t} @llvm.smax.{m}({t} {y.text}, {t} {one})"), y.lanes, y.level)

    def _floordiv(self, a: FloorDiv) -> Operand:
        from gnomon.compiler.sizes import bounds, non_negative

        x, y = self.size(a.a), self._at_least_one(a.b)
        if non_negative(bounds(a.a)[0]):
            if isinstance(a.b, int) and a.b & (a.b - 1) == 0:
                return self._arith("lshr", x, Operand(str(a.b.bit_length() - 1), 1, 0))
            return self._arith("udiv", x, y)
        if isinstance(a.b, int) and a.b & (a.b - 1) == 0:
            return self._arith("ashr", x, Operand(str(a.b.bit_length() - 1), 1, 0))  # an arithmetic shift floors
        # floor((x)/y) for y > 0:  x >= 0 ? x / y : -((-x + y - 1) / y)
        lanes, level = max(x.lanes, y.lanes), max(x.level, y.level)
        t = ltype("int64", lanes)
        p, q = self._spread(x, "int64", lanes, level), self._spread(y, "int64", lanes, level)
        one = self._splat("1", "int64", lanes)
        zero = "zeroinitializer" if lanes > 1 else "0"
        quotient = self.emit(level, f"sdiv {t} {p}, {q}")
        back = self.emit(level, f"mul {t} {quotient}, {q}")
        rest = self.emit(level, f"sub {t} {p}, {back}")
        below = self.emit(level, f"icmp slt {t} {rest}, {zero}")
        less = self.emit(level, f"sub {t} {quotient}, {one}")
        text = self.emit(level, f"select {ltype('bool', lanes)} {below}, {t} {less}, {t} {quotient}")
        return Operand(text, lanes, level)

    def _size_level(self, d: Dim) -> int:
        return self.size(d).level

    def _on_lane(self, d: Dim) -> bool:
        return self.lane is not None and self.width > 1 and self._stride(d) != 0

    def _stride(self, d: Dim) -> int | None:
        """How far apart the elements of neighbouring lanes are: 0 the same one, None not known."""
        if self.lane is None or self.width == 1 or isinstance(d, int):
            return 0
        key = ("stride", d, self.lane)
        cached = _strides.get(key)
        if cached is not None:
            return cached[0]
        total = 0
        result: int | None = None
        for monomial, c in d.terms:
            if self.lane in monomial:
                if len(monomial) != 1:
                    break
                total += c
            elif any(self._varies(a) for a in monomial):
                break
        else:
            result = total
        if not any(isinstance(a, Value) for m, _ in d.terms for a in m):
            _strides[key] = (result,)
        return result

    def _varies(self, a: Atom) -> bool:
        """Whether an atom changes with the lane."""
        match a:
            case Index():
                return a is self.lane
            case Symbol():
                return False
            case FloorDiv() | Max():
                return any(self._varies(x) for s in (a.a, a.b) if isinstance(s, Size) for m, _ in s.terms for x in m)
            case Value():
                return self._lane_dependent(a.x)
        return False

    def _lane_dependent(self, e: Expr) -> bool:
        key = (e, self.lane)
        found = self.scopes[0].known.get(("lane", key))
        if found is not None:
            return found.lanes > 1
        match e:
            case Local():
                answer = self.locals[e].lanes > 1
            case IndexValue():
                answer = self._stride(e.size) != 0
            case Load():
                answer = any(self._stride(i) != 0 for i in e.index) or (
                    e.mask is not None and self._lane_dependent(e.mask)
                )
            case Lanes():
                answer = False
            case _:
                answer = any(self._lane_dependent(c) for c in children(e))
        self.scopes[0].known[("lane", key)] = Operand("", 2 if answer else 1, 0)
        return answer

    def _without_lane(self, d: Dim, stride: int) -> Dim:
        if self.lane is None or self.width == 1:
            return d
        return d - stride * Size.of(self.lane)

    def address(self, b: Buffer, offset: Dim) -> Operand:
        """A pointer to an element, the parts that change outermost added first."""
        if isinstance(offset, int):
            return (
                self._step(b, Operand(self.pointers[b], 1, 0), Operand(str(offset), 1, 0))
                if offset
                else Operand(self.pointers[b], 1, 0)
            )
        by_level: dict[int, Dim] = {}
        constant = 0
        for m, c in offset.terms:
            if not m:
                constant = c
                continue
            level = self._monomial(m, c).level
            by_level[level] = by_level.get(level, 0) + Size(((m, c),))
        pointer = Operand(self.pointers[b], 1, 0)
        for level in sorted(by_level):
            pointer = self._step(b, pointer, self.size(by_level[level]))
        return self._step(b, pointer, Operand(str(constant), 1, 0)) if constant else pointer

    def _step(self, b: Buffer, pointer: Operand, by: Operand) -> Operand:
        key = ("gep", b, pointer.text, by.text)
        found = self._known_size(key)
        if found is None:
            level = max(pointer.level, by.level)
            text = self.emit(level, f"getelementptr {mtype(b.dtype)}, ptr {pointer.text}, i64 {by.text}")
            found = self.scopes[level].known[key] = Operand(text, 1, level)
        return found

    def _pointers(self, b: Buffer, offset: Dim) -> str:
        index = self.size(offset)
        text = self._spread(index, "int64", self.width, index.level)
        return self.emit(
            index.level, f"getelementptr {mtype(b.dtype)}, ptr {self.pointers[b]}, <{self.width} x i64> {text}"
        )

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
            m = [(f"v{lanes}" if lanes > 1 else "") + _mangled(ltype(d)) for d in (to, of)]
            return self.emit(level, f"call {t} @llvm.fpto{b.kind.replace('i', 's')}i.sat.{m[0]}.{m[1]}({s} {text})")
        if b.kind == "f":
            return self.emit(level, f"{'sitofp' if a.kind == 'i' else 'uitofp'} {s} {text} to {t}")
        if b.bits < a.bits:
            return self.emit(level, f"trunc {s} {text} to {t}")
        if b.bits > a.bits:
            return self.emit(level, f"{'sext' if a.kind == 'i' else 'zext'} {s} {text} to {t}")
        return text


def _single(a: Atom) -> Dim | None:
    """An index that has one value, such as the lane of a vector of one number."""
    return 0 if isinstance(a, Index) and a.extent == 1 else None


def _unrolled(index: Index, k: int, a: Atom) -> Dim | None:
    return k if a is index else None


def _renamed(names: set[Local], k: int, e: Expr) -> Expr | None:
    """The name that a value of an unrolled loop has in copy k."""
    return Local(f"{e.name}.{k}", e.dtype) if isinstance(e, Local) and e in names else None


_expansions: dict[tuple[Apply, bool], Expr] = {}
_strides: dict[tuple, tuple[int | None]] = {}
REMEMBERED = 1000, 10_000
"""Expansions and strides from which on they are forgotten between two kernels: they hold expressions and sizes."""


def _forget_many() -> None:
    expansions, strides = REMEMBERED
    if len(_expansions) > expansions:
        _expansions.clear()
    if len(_strides) > strides:
        _strides.clear()


def _rename_lets(body: tuple[Stmt, ...], k: int):
    """Let statements of one unrolled copy, with names of their own."""
    from dataclasses import replace

    for s in body:
        match s:
            case Let():
                yield Let(Local(f"{s.local.name}.{k}", s.local.dtype), s.value)
            case For():
                yield replace(s, body=tuple(_rename_lets(s.body, k)))
            case If():
                yield If(s.condition, tuple(_rename_lets(s.then, k)), tuple(_rename_lets(s.orelse, k)))
            case _:
                yield s


def _mangled(t: str) -> str:
    return {"float": "f32", "double": "f64", "half": "f16"}.get(t, t)
