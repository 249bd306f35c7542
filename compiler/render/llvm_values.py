"""Expressions in LLVM IR: each becomes an operand, once, in the outermost loop in which it does not change."""

from __future__ import annotations

from gnomon.compiler import dtypes
from gnomon.compiler.errors import CompileError
from gnomon.compiler.kernel import (
    COMBINE,
    IDENTITY,
    Apply,
    Bitcast,
    Buffer,
    Cast,
    Const,
    Expr,
    IndexValue,
    Lanes,
    Load,
    Local,
    children,
)
from gnomon.compiler.ops import avx512
from gnomon.compiler.ops.scalar import scalar
from gnomon.compiler.render.llvm_sizes import Sizes, strides
from gnomon.compiler.render.llvm_writer import Operand, ltype, mangled, mtype, number
from gnomon.compiler.sizes import Dim


class Values(Sizes):
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

    def _forget_lanes(self) -> None:
        """Whether a value has lanes depends on the vector loop around: what is known ends with it."""
        for scope in self.scopes:
            scope.known = {k: v for k, v in scope.known.items() if v.lanes == 1}
            scope.fresh = {k: v for k, v in scope.fresh.items() if v.lanes == 1}

    def _both(self, a: Operand, b: Operand) -> Operand:
        lanes = max(a.lanes, b.lanes)
        left, right = self._spread(a, "bool", lanes), self._spread(b, "bool", lanes)
        level = max(a.level, b.level)
        return Operand(self.emit(level, f"and {ltype('bool', lanes)} {left}, {right}"), lanes, level)

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
        mangling = (f"v{lanes}" if lanes > 1 else "") + mangled(ltype(last))
        code = template.format(*texts, t=t, m=mangling, c=ltype("bool", lanes))
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
        suffix = f"v{lanes}{mangled(mtype(dtype))}"
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
            mangling = (f"v{half}" if half > 1 else "") + mangled(ltype(e.dtype))
            text = self.emit(self.level, template.format(*parts, t=t, m=mangling, c=ltype("bool", half)))
            width = half
        if outside:
            self._forget_lanes()
        return Operand(text, 1, self.level)


_expansions: dict[tuple[Apply, bool], Expr] = {}
REMEMBERED = 1000, 10_000
"""Expansions and strides from which on they are forgotten between two kernels: they hold expressions and sizes."""


def forget_many() -> None:
    """What there is too much of."""
    most = REMEMBERED
    if len(_expansions) > most[0]:
        _expansions.clear()
    if len(strides) > most[1]:
        strides.clear()
