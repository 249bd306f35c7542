"""One function as LLVM IR, while it is written: instructions, early ends, values of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gnomon.compiler.sizes import Atom, Dim, FloorDiv, Max, Symbol


class Function:
    """One function while it is written. Sizes are 64 bits wide everywhere."""

    def __init__(self, head: str, word: str, symbols: Mapping[str, str] | None = None):
        self.head, self.word = head, word
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.known: dict[Dim | Atom, str] = {}
        self.symbols = dict(symbols or {})
        self.counter = 0

    def do(self, code: str) -> None:
        self.lines.append(f"  {code}")

    def emit(self, code: str) -> str:
        self.counter += 1
        self.do(f"%v{self.counter} = {code}")
        return f"%v{self.counter}"

    def alloca(self, kind: str, align: int) -> str:
        self.counter += 1
        self.allocas.append(f"  %v{self.counter} = alloca {kind}, align {align}")
        return f"%v{self.counter}"

    def fail_if(self, condition: str, code: int | str, result: str = "i32") -> None:
        self.counter += 1
        n = self.counter
        self.do(f"br i1 {condition}, label %fail{n}, label %go{n}")
        self.lines += [f"fail{n}:", f"  ret {result} {code}", f"go{n}:"]

    def fail_if_any(self, conditions: Sequence[str], code: int | str) -> None:
        if conditions:
            any_of = conditions[0]
            for c in conditions[1:]:
                any_of = self.emit(f"or i1 {any_of}, {c}")
            self.fail_if(any_of, code)

    def at(self, base: str, offset: str | int, kind: str = "i8") -> str:
        """A pointer so many elements behind another."""
        if offset in (0, "0"):
            return base
        index = f"i64 {offset}"
        return self.emit(f"getelementptr {kind}, ptr {base}, {index}")

    def aligned(self, base: str, align: int) -> str:
        """The first multiple of `align` at or above a pointer."""
        address = self.emit(f"ptrtoint ptr {base} to {self.word}")
        below = self.emit(f"sub {self.word} 0, {address}")
        skip = self.emit(f"and {self.word} {below}, {align - 1}")
        return self.emit(f"getelementptr i8, ptr {base}, {self.word} {skip}")

    def text(self) -> str:
        return "\n".join([f"{self.head} #0 {{", "entry:", *self.allocas, *self.lines, "}"])

    # ---- sizes

    def size(self, d: Dim) -> str:
        """The text of a size's value."""
        if isinstance(d, int):
            return str(d)
        if d not in self.known:
            total = ""
            for monomial, c in d.terms:
                part = str(c)
                for atom in monomial:
                    value = self.atom(atom)
                    part = value if part == "1" else self.emit(f"mul i64 {part}, {value}")
                total = part if not total else self.emit(f"add i64 {total}, {part}")
            self.known[d] = total
        return self.known[d]

    def atom(self, atom: Atom) -> str:
        if isinstance(atom, Symbol):
            return self.symbols[atom.name]
        if atom not in self.known:
            assert isinstance(atom, FloorDiv | Max), f"{atom!r} in a shape"
            a, b = self.size(atom.a), self.size(atom.b)
            self.known[atom] = self.maximum(a, b) if isinstance(atom, Max) else self.floordiv(a, b, atom.b)
        return self.known[atom]

    def maximum(self, a: str, b: str) -> str:
        return self.emit(f"call i64 @llvm.smax.i64(i64 {a}, i64 {b})")

    def floordiv(self, a: str, b: str, divisor: Dim) -> str:
        if not isinstance(divisor, int):
            b = self.maximum(b, "1")
        quotient = self.emit(f"sdiv i64 {a}, {b}")
        rest = self.emit(f"srem i64 {a}, {b}")
        below = self.emit(f"icmp slt i64 {rest}, 0")
        less = self.emit(f"sub i64 {quotient}, 1")
        return self.emit(f"select i1 {below}, i64 {less}, i64 {quotient}")

    def rounded(self, d: Dim, align: int) -> str:
        """A size, rounded up to a multiple of `align`."""
        if isinstance(d, int):
            return str(-(-d // align) * align)
        more = self.emit(f"add i64 {self.size(d)}, {align - 1}")
        return self.emit(f"and i64 {more}, {-align}")
