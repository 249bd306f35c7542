"""Size: integer arithmetic with names, exact and canonical, so that equality is decidable.

A size is a polynomial with integer coefficients over *atoms*: named sizes (`Symbol("batch")`), loop indices
(`Index`), floor divisions and maxima of sizes. Dimensions, strides, buffer offsets and every index in a kernel are
sizes. A polynomial that is constant is a plain `int`, hence `Dim = int | Size`.

    n = symbol("n")
    (n + 1) * (n - 1)          -> n*n - 1
    floordiv(4 * n + 2, 4)     -> n
    coefficient(3 * n + 7, n)  -> 3
Named sizes, indices and what gathers read are taken to be >= 0 in proofs, and an index to be below its extent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from math import gcd
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

    @property
    def is_natural(self) -> bool:
        """Surely >= 0."""
        return True

    def __repr__(self) -> str:
        return self.name


class Symbol(Atom, metaclass=Interned):
    """A named size such as `batch`, bound when a compiled function is called."""

    __slots__ = ("__weakref__",)

    def __init__(self, name: str):
        self.name = name

    def range(self) -> tuple[Dim, Dim | None]:
        return Size.of(self), Size.of(self)

    def __reduce__(self):
        return Symbol, (self.name,)


class Index(Atom, metaclass=Interned):
    """A loop's index: 0 <= index < extent."""

    __slots__ = ("extent", "__weakref__")

    def __init__(self, name: str, extent: Dim):
        self.name, self.extent = name, extent

    def range(self) -> tuple[Dim, Dim | None]:
        return 0, self.extent - 1

    def __reduce__(self):
        return Index, (self.name, self.extent)


class Pair(Atom):
    """An atom made of two sizes. What is known of its range is worked out once."""

    __slots__ = ("a", "b", "_range", "_natural", "__weakref__")

    def __init__(self, a: Dim, b: Dim):
        self.a, self.b = a, b
        self._range: tuple[Dim, Dim | None] | None = None
        self._natural: bool | None = None

    def inner(self):
        return (*atoms(self.a), *atoms(self.b))

    def range(self):
        if self._range is None:
            self._range = self._find_range()
        return self._range

    @property
    def is_natural(self):
        if self._natural is None:
            self._natural = self._find_natural()
        return self._natural

    def _find_range(self) -> tuple[Dim, Dim | None]:
        raise NotImplementedError(type(self).__name__)

    def _find_natural(self) -> bool:
        raise NotImplementedError(type(self).__name__)

    def __reduce__(self):
        return type(self), (self.a, self.b)


class FloorDiv(Pair, metaclass=Interned):
    """floor(a / b) where nothing simpler is known; b > 0. Should a size make b 0, nothing is that small and b is 1."""

    __slots__ = ()

    def __init__(self, a: Dim, b: Dim):
        super().__init__(a, b)
        self.name = f"({_factor(a)}//{_factor(b)})"

    def evaluate(self, values):
        return evaluate(self.a, values) // max(1, evaluate(self.b, values))

    def substitute(self, change):
        return floordiv(substitute(self.a, change), substitute(self.b, change))

    def _find_range(self):
        low, high = bounds(self.a)
        if isinstance(self.b, int):
            return floordiv(low, self.b), None if high is None else floordiv(high, self.b)
        lower = 0 if non_negative(low) else low if non_negative(-low) else _VERY_LOW
        upper = None if high is None else high if non_negative(high) else 0 if non_negative(-high) else None
        return lower, upper

    def _find_natural(self):
        return non_negative(self.a)


class Max(Pair, metaclass=Interned):
    """The larger of two sizes."""

    __slots__ = ()

    def __init__(self, a: Dim, b: Dim):
        super().__init__(a, b)
        self.name = f"max({a}, {b})"

    def evaluate(self, values):
        return max(evaluate(self.a, values), evaluate(self.b, values))

    def substitute(self, change):
        return maximum(substitute(self.a, change), substitute(self.b, change))

    def _find_range(self):
        (low, high), (other_low, other_high) = bounds(self.a), bounds(self.b)
        upper = None if high is None or other_high is None else maximum(high, other_high)
        return maximum(low, other_low), upper

    def _find_natural(self):
        return non_negative(self.a) or non_negative(self.b)


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

    def __reduce__(self):
        return Size, (self.terms,)  # not the hash: strings hash differently in every process

    def __eq__(self, other: object) -> bool:
        # names no class: keys of weak tables are compared even when an interpreter that ends has forgotten its globals
        return self is other or (type(other) is type(self) and self.terms == other.terms)

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
        first = next((t for t in self.terms if t[1] > 0), self.terms[0])  # n - m reads better than -m + n
        for m, c in (first, *(t for t in self.terms if t is not first)):
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


def known_factor(size: Dim) -> int:
    """A number that the size is surely a multiple of."""
    return gcd(*(c for _, c in size.terms)) if isinstance(size, Size) else size


_VERY_LOW = -(10**18)


def bounds(size: Dim) -> tuple[Dim, Dim | None]:
    """A lower and an upper bound of `size` from the ranges of its atoms, with no index in them.

    Where no lower bound is known it is -10**18, where no upper one is known None.
    """
    if isinstance(size, int):
        return size, size
    found = _take_remainder(size)
    if found is not None:
        rest, top = found
        low, high = bounds(rest)
        return low, None if high is None else high + top
    lower: Dim | None = 0
    upper: Dim | None = 0
    for monomial, c in size.terms:
        small, large = _range_of_product(monomial)
        if c < 0:
            small, large = large, small
        lower = None if lower is None or small is None else lower + c * small
        upper = None if upper is None or large is None else upper + c * large
    return _VERY_LOW if lower is None else lower, upper


def _range_of_product(monomial: Monomial) -> tuple[Dim | None, Dim | None]:
    """Bounds of a product of atoms."""
    if len(monomial) == 1:
        return monomial[0].range()
    if not all(a.is_natural for a in monomial):
        return None, None
    small: Dim = 1
    large: Dim | None = 1
    for atom in monomial:
        low, high = atom.range()
        small = small * (low if _plainly_natural(low) else 0)
        large = None if large is None or high is None else large * high
    return small, large


def _take_remainder(size: Size) -> tuple[Dim, Dim] | None:
    """`size` = rest + something between 0 and top, where k * (a - b * floor(a / b)) is part of it; else None."""
    for monomial, c in size.terms:
        if len(monomial) == 1 and c < 0 and isinstance(atom := monomial[0], FloorDiv):
            factor = coefficient(size, atom)
            if isinstance(factor, int) and isinstance(atom.b, int) and factor % atom.b == 0:
                times = -factor // atom.b
                return size - times * (atom.a - atom.b * Size.of(atom)), times * (atom.b - 1)
        for atom in monomial:
            if isinstance(atom, FloorDiv) and isinstance(atom.b, Size) and coefficient(size, atom) == -atom.b:
                return size - (atom.a - atom.b * Size.of(atom)), atom.b - 1
    return None


def _plainly_natural(size: Dim) -> bool:
    """Surely >= 0, by the signs alone."""
    if isinstance(size, int):
        return size >= 0
    return all(c >= 0 and all(a.is_natural for a in monomial) for monomial, c in size.terms)


def non_negative(size: Dim) -> bool:
    """True if `size` is surely >= 0 for all values of its atoms."""
    return _plainly_natural(size) or _plainly_natural(bounds(size)[0])


def below(size: Dim, limit: Dim) -> bool:
    """True if 0 <= size < limit surely."""
    low, high = bounds(size)
    return high is not None and _plainly_natural(limit - 1 - high) and (_plainly_natural(low) or _plainly_natural(size))


def floordiv(a: Dim, b: Dim) -> Dim:
    """floor(a / b), b > 0, with all that divides evenly taken out."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if b == 1 or a == 0:
        return a
    if below(a, b):
        return 0
    if isinstance(b, Size) and (len(b.terms) > 1 or b.terms[0][1] < 0):
        return _divide_by_sum(a, b)
    b_monomial, b_number = b.terms[0] if isinstance(b, Size) else ((), b)
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for monomial, c in _terms(a):
        left = _without(monomial, b_monomial)
        if left is None:
            rest[monomial] = c
        else:  # c * m / b = q * m / ... + r * m / b with 0 <= r < b: what stays under the division has no minus
            whole[left], rest[monomial] = divmod(c, b_number)
    outside, remainder = Size.build(whole), Size.build(rest)
    if remainder == 0 or below(remainder, b):
        return outside
    return outside + _floordiv_atom(remainder, b_monomial, b_number)


def _floordiv_atom(a: Dim, b_monomial: Monomial, b_number: int) -> Dim:
    """floor(a / b) as one atom, in lowest terms: (4*n + 1)//6 -> (2*n)//3, ((n//4) + 1)//3 -> (n + 4)//12."""
    variable = [(m, c) for m, c in _terms(a) if m]
    constant = next((c for m, c in _terms(a) if not m), 0)
    if len(variable) == 1 and variable[0][1] == 1 and len(variable[0][0]) == 1:
        inner = variable[0][0][0]
        if isinstance(inner, FloorDiv):  # floor(floor(x / y) / z) = floor(x / (y * z))
            return floordiv(inner.a + constant * inner.b, inner.b * _size((b_monomial, b_number)))
    common = gcd(b_number, *(c for _, c in variable))
    if common > 1:
        smaller = Size.build({m: c // common for m, c in variable} | {(): constant // common})
        return floordiv(smaller, _size((b_monomial, b_number // common)))
    return Size.of(FloorDiv(a, _size((b_monomial, b_number))))


def _divide_by_sum(a: Dim, b: Size) -> Dim:
    """floor(a / b) for a sum b: long division, taken only if its remainder is surely between 0 and b."""
    lead, number = b.terms[0]
    whole: Dim = 0
    remainder = a
    while isinstance(remainder, Size):
        for monomial, c in remainder.terms:
            left = _without(monomial, lead)
            if left is not None and c % number == 0:
                quotient = _size((left, c // number))
                whole, remainder = whole + quotient, remainder - quotient * b
                break
        else:
            break
    return whole if remainder == 0 or below(remainder, b) else Size.of(FloorDiv(a, b))


def _terms(size: Dim) -> tuple[tuple[Monomial, int], ...]:
    return size.terms if isinstance(size, Size) else (((), size),) if size else ()


def _size(term: tuple[Monomial, int]) -> Dim:
    return Size.build(dict([term]))


def _factor(size: Dim) -> str:
    """The text of a size as an operand."""
    match size:
        case int():
            return str(size) if size >= 0 else f"({size})"
        case Size(terms=(((_,), 1),)):
            return str(size)
    return f"({size})"


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
