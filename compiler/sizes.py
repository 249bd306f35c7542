"""Size: integer arithmetic with names, exact and canonical, so that equality is decidable.

A size is a polynomial with integer coefficients over *atoms*: named sizes (`Symbol("batch")`), loop indices
(`Index`), floor divisions and maxima of sizes. Dimensions, strides, buffer offsets and every index in a kernel are
sizes. A polynomial that is constant is a plain `int`, hence `Dim = int | Size`.

    n = symbol("n")
    (n + 1) * (n - 1)          -> n*n - 1
    floordiv(4 * n + 2, 4)     -> n
    coefficient(3 * n + 7, n)  -> 3
Atoms are taken to be >= 0 in proofs of ranges; an Index also to be below its extent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Union

from gnomon.compiler.interning import Interned

Dim = Union[int, "Size"]
Monomial = tuple["Atom", ...]


class Atom:
    """A factor that a polynomial does not look into. `name` orders the factors of a product and is what prints."""

    __slots__ = ("name",)
    name: str

    def evaluate(self, values: Mapping[str, int]) -> int:
        """The integer value, given the values of all named sizes (and indices) in it."""
        return values[self.name]

    def substitute(self, change: Callable[[Atom], Dim | None]) -> Dim:
        """This atom with the atoms inside it replaced."""
        return Size.of(self)

    def inner(self) -> Iterable[Atom]:
        """Atoms inside this one."""
        return ()

    def range(self) -> tuple[Dim, Dim | None]:
        """Smallest and largest value (None: not known)."""
        return 0, None

    def __repr__(self) -> str:
        return self.name


class Symbol(Atom, metaclass=Interned):
    """A named size such as `batch`, bound when a compiled function is called."""

    __slots__ = ("__weakref__",)

    def __init__(self, name: str):
        self.name = name


class Index(Atom, metaclass=Interned):
    """A loop's index: 0 <= index < extent."""

    __slots__ = ("extent", "__weakref__")

    def __init__(self, name: str, extent: Dim):
        self.name, self.extent = name, extent

    def range(self) -> tuple[Dim, Dim | None]:
        return 0, self.extent - 1


class FloorDiv(Atom, metaclass=Interned):
    """floor(a / b) where nothing simpler is known; b > 0."""

    __slots__ = ("a", "b", "__weakref__")

    def __init__(self, a: Dim, b: Dim):
        self.a, self.b = a, b
        self.name = f"({a})//{b}" if isinstance(b, int) else f"({a})//({b})"

    def evaluate(self, values):
        return evaluate(self.a, values) // evaluate(self.b, values)

    def substitute(self, change):
        return floordiv(substitute(self.a, change), substitute(self.b, change))

    def inner(self):
        return (*atoms(self.a), *atoms(self.b))

    def range(self):
        low, high = bounds(self.a)
        if isinstance(self.b, int):
            return (low // self.b if isinstance(low, int) else 0), None if high is None else floordiv(high, self.b)
        return 0, high


class Max(Atom, metaclass=Interned):
    """The larger of two sizes."""

    __slots__ = ("a", "b", "__weakref__")

    def __init__(self, a: Dim, b: Dim):
        self.a, self.b = a, b
        self.name = f"max({a}, {b})"

    def evaluate(self, values):
        return max(evaluate(self.a, values), evaluate(self.b, values))

    def substitute(self, change):
        return maximum(substitute(self.a, change), substitute(self.b, change))

    def inner(self):
        return (*atoms(self.a), *atoms(self.b))


class Size:
    """A polynomial that is not constant. Made by arithmetic on `symbol(name)`, never by hand."""

    __slots__ = ("terms", "_hash", "__dict__", "__weakref__")
    terms: tuple[tuple[Monomial, int], ...]

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]):
        self.terms = terms
        self._hash = hash(terms)

    @staticmethod
    def of(atom: Atom) -> Size:
        return Size((((atom,), 1),))

    @staticmethod
    def build(terms: Mapping[Monomial, int]) -> Dim:
        """The canonical form of a sum of monomials; an int if it is constant."""
        kept = [(m, c) for m, c in terms.items() if c]
        if not kept:
            return 0
        if len(kept) == 1 and kept[0][0] == ():
            return kept[0][1]
        kept.sort(key=lambda t: (-len(t[0]), [a.name for a in t[0]]))
        return Size(tuple(kept))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Size) and self.terms == other.terms)

    def __hash__(self) -> int:
        return self._hash

    def __bool__(self) -> bool:
        raise TypeError(f"the size {self} is symbolic: it has no truth value before the function is called")

    def __add__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            if other == 0:
                return self
            other_terms: tuple[tuple[Monomial, int], ...] = (((), other),)
        elif isinstance(other, Size):
            other_terms = other.terms
        else:
            return NotImplemented
        total = dict(self.terms)
        for m, c in other_terms:
            total[m] = total.get(m, 0) + c
        return Size.build(total)

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return Size(tuple((m, -c) for m, c in self.terms))

    def __sub__(self, other: Dim) -> Dim:
        return self + -other if isinstance(other, (int, Size)) else NotImplemented

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other if isinstance(other, (int, Size)) else NotImplemented

    def __mul__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            if other == 1:
                return self
            return Size(tuple((m, c * other) for m, c in self.terms)) if other else 0
        if not isinstance(other, Size):
            return NotImplemented
        total: dict[Monomial, int] = {}
        for m, c in self.terms:
            for n, d in other.terms:
                key = tuple(sorted(m + n, key=lambda a: a.name)) if m and n else m + n
                total[key] = total.get(key, 0) + c * d
        return Size.build(total)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return modulo(self, other)

    def __rmod__(self, other: Dim) -> Dim:
        return modulo(other, self)

    @cached_property
    def _text(self) -> str:
        parts = []
        for m, c in self.terms:
            body = "*".join(a.name for a in m)
            number = str(abs(c)) if not body or abs(c) != 1 else ""
            parts.append((" - " if c < 0 else " + ") + "*".join(p for p in (number, body) if p))
        text = "".join(parts)
        return text[3:] if text.startswith(" + ") else "-" + text[3:]

    def __repr__(self) -> str:
        return self._text


def symbol(name: str) -> Size:
    """The size called `name`, such as 'batch'."""
    return Size.of(Symbol(name))


def index(name: str, extent: Dim) -> Size:
    """A loop index as a size."""
    return Size.of(Index(name, extent))


def atoms(size: Dim) -> Iterator[Atom]:
    """Every atom of `size`, those inside others included, repeats included."""
    if isinstance(size, Size):
        for monomial, _ in size.terms:
            for atom in monomial:
                yield atom
                yield from atom.inner()


def symbols(size: Dim) -> set[str]:
    """Names of the named sizes in `size`."""
    return {a.name for a in atoms(size) if isinstance(a, Symbol)}


def evaluate(size: Dim, values: Mapping[str, int]) -> int:
    """The value of `size` where every name in it has a value. Raises KeyError for a name that has none."""
    if isinstance(size, int):
        return size
    total = 0
    for monomial, c in size.terms:
        for atom in monomial:
            c *= atom.evaluate(values)
        total += c
    return total


def substitute(size: Dim, change: Callable[[Atom], Dim | None]) -> Dim:
    """`size` with each atom replaced by `change(atom)`; None keeps the atom (and looks inside it)."""
    if isinstance(size, int):
        return size
    total: Dim = 0
    for monomial, c in size.terms:
        product: Dim = c
        for atom in monomial:
            new = change(atom)
            product = product * (atom.substitute(change) if new is None else new)
        total = total + product
    return total


def coefficient(size: Dim, atom: Atom) -> Dim | None:
    """c where size = c * atom + rest and neither c nor rest has `atom` in it; None if there is no such c."""
    if isinstance(size, int):
        return 0
    total: dict[Monomial, int] = {}
    for monomial, c in size.terms:
        times = monomial.count(atom)
        if times > 1 or any(atom in a.inner() for a in monomial):
            return None
        if times:
            rest = list(monomial)
            rest.remove(atom)
            total[tuple(rest)] = c
    return Size.build(total)


def bounds(size: Dim) -> tuple[Dim, Dim | None]:
    """A lower and an upper bound of `size` (None: none known) from the ranges of its atoms."""
    if isinstance(size, int):
        return size, size
    low: Dim | None = 0
    high: Dim | None = 0
    for monomial, c in size.terms:
        small: Dim = 1
        large: Dim | None = 1
        for atom in monomial:
            a, b = atom.range()
            small = small * (a if isinstance(a, int) and a >= 0 else 0)
            large = None if large is None or b is None else large * b
        one, other = (small, large) if c > 0 else (large, small)
        low = None if low is None or one is None else low + c * one
        high = None if high is None or other is None else high + c * other
    if low is None or not non_negative(low):
        low = low if isinstance(low, int) else -(10**18)
    return low, high


def non_negative(size: Dim) -> bool:
    """True if `size` is surely >= 0 for all values of its atoms."""
    if isinstance(size, int):
        return size >= 0
    return all(c >= 0 for _, c in size.terms)


def below(size: Dim, limit: Dim) -> bool:
    """True if 0 <= size < limit surely."""
    low, high = bounds(size)
    if not non_negative(low) or high is None:
        return False
    return non_negative(limit - 1 - high)


def floordiv(a: Dim, b: Dim) -> Dim:
    """floor(a / b), b > 0, with all that divides evenly taken out."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1 or a == 0:
        return a
    if isinstance(b, int):
        b_monomial: Monomial = ()
        b_number = b
    elif len(b.terms) == 1 and b.terms[0][1] > 0:
        b_monomial, b_number = b.terms[0]
    else:
        quotient = 1 if a == b else 0 if below(a, b) else None
        return Size.of(FloorDiv(a, b)) if quotient is None else quotient
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, c in a.terms if isinstance(a, Size) else ((((), a)),):
        left = _without(monomial, b_monomial)
        if left is None or (c % b_number and monomial != ()):
            rest[monomial] = c
        elif c % b_number:  # a constant over a number: 7 = 1 * 4 + 3
            whole[()] = whole.get((), 0) + c // b_number
            rest[()] = c % b_number
        else:
            whole[left] = whole.get(left, 0) + c // b_number
    remainder = Size.build(rest)
    outside = Size.build(whole)
    if below(remainder, b):
        return outside
    return outside + Size.of(FloorDiv(remainder, b))


def modulo(a: Dim, b: Dim) -> Dim:
    """a - b * floor(a / b)."""
    return a - b * floordiv(a, b)


def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two sizes, decided now if it can be."""
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    if non_negative(a - b):
        return a
    if non_negative(b - a):
        return b
    first, second = sorted((a, b), key=str)
    return Size.of(Max(first, second))


def ceildiv(a: Dim, b: Dim) -> Dim:
    """ceil(a / b)."""
    return floordiv(a + b - 1, b)


def product(dims: Iterable[Dim]) -> Dim:
    total: Dim = 1
    for d in dims:
        total = total * d
    return total


def _without(monomial: Monomial, divisor: Monomial) -> Monomial | None:
    """The monomial divided by another, None if it does not divide."""
    if not divisor:
        return monomial
    left = list(monomial)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def parse(text: Any) -> Dim:
    """A dimension from what a user wrote: an int, a Size, or a name."""
    if isinstance(text, str):
        return symbol(text)
    return text
