"""Kernel -> LLVM IR, as text: a module that defines one function and depends on nothing.

    void NAME(ptr buffers, ptr sizes, int64 begin, int64 end)

runs iterations [begin, end) of the kernel's parallel loop (all of it if there is none). Values are placed in the
outermost loop in which they do not change, so that LLVM is asked for register allocation and scheduling and little
else. Vector loops become operations on `<n x type>`; whether a value is a vector is whether it depends on the lane.
"""

from __future__ import annotations

from functools import partial

from gnomon.compiler import dtypes
from gnomon.compiler.errors import CompileError
from gnomon.compiler.kernel import (
    Alloc,
    Barrier,
    Buffer,
    Cast,
    CopyTransposed,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Local,
    Prefetch,
    Rewriter,
    Stmt,
    Store,
    statements,
)
from gnomon.compiler.render.llvm_values import Values, forget_many
from gnomon.compiler.render.llvm_writer import Operand, Scope, ltype, mangled, mtype
from gnomon.compiler.sizes import Atom, Dim, Index
from gnomon.compiler.targets import Target

NEAR = 2
"""What a prefetch is told: into the second cache. Lines asked into the first are gone again before they are read, for
panels run through it; and asked for to be written (the first operand being 1) they are taken from the other cores."""


def render(kernel: Kernel, name: str, target: Target) -> str:
    """The module that defines `kernel` as the function `name`."""
    forget_many()
    return _Renderer(kernel, name, target).module()


class _Renderer(Values):
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
                    f"call void @llvm.masked.store.v{lanes}{mangled(mtype(dtype))}.p0("
                    f"{vector} {text}, ptr align {align} {base.text}, "
                    f"<{lanes} x i1> {bits})"
                )
            return
        pointers = self._pointers(s.buffer, offset)
        bits = self._spread(mask, "bool", lanes) if mask is not None else self._splat("true", "bool", lanes)
        self.do(
            f"call void @llvm.masked.scatter.v{lanes}{mangled(mtype(dtype))}.v{lanes}p0({vector} {text}, "
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


def _unrolled(index: Index, k: int, a: Atom) -> Dim | None:
    return k if a is index else None


def _renamed(names: set[Local], k: int, e: Expr) -> Expr | None:
    """The name that a value of an unrolled loop has in copy k."""
    return Local(f"{e.name}.{k}", e.dtype) if isinstance(e, Local) and e in names else None


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
