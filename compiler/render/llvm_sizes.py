"""Sizes, indices and addresses in LLVM IR: integers, computed in the outermost loop in which they do not change."""

from __future__ import annotations

from abc import ABC, abstractmethod

from gnomon.compiler.errors import CompileError
from gnomon.compiler.kernel import (
    Buffer,
    Expr,
    IndexValue,
    Lanes,
    Load,
    Local,
    Value,
    children,
)
from gnomon.compiler.render.llvm_writer import Operand, Writer, ltype, mtype
from gnomon.compiler.sizes import Atom, Dim, FloorDiv, Index, Max, Size, Symbol, substitute

strides: dict[tuple, tuple[int | None]] = {}
"""Steps of sizes along lanes that are known; see `llvm_values.REMEMBERED`."""


class Sizes(Writer, ABC):
    @abstractmethod
    def value(self, e: Expr) -> Operand:
        """The operand that holds an expression."""

    # ---- sizes

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
        cached = strides.get(key)
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
            strides[key] = (result,)
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



def _single(a: Atom) -> Dim | None:
    """An index that has one value, such as the lane of a vector of one number."""
    return 0 if isinstance(a, Index) and a.extent == 1 else None
