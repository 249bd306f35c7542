"""Sizes compute as integers do, under every valuation; what is proved of them is true."""

import copy
import pickle

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gnomon.compiler.sizes import (
    FloorDiv,
    Index,
    Max,
    Size,
    Symbol,
    atoms,
    below,
    bounds,
    ceildiv,
    coefficient,
    evaluate,
    floordiv,
    index,
    maximum,
    modulo,
    non_negative,
    parse,
    product,
    substitute,
    symbol,
    symbols,
)

n, m = symbol("n"), symbol("m")
i, j = index("i", n), index("j", 5)
LEAVES = {"n": n, "m": m, "i": i, "j": j}

divisors = st.sampled_from([1, 2, 3, 4, 7, "n", "m", ("*", "n", "m"), ("*", 2, "n"), ("+", "n", 1)])
trees = st.recursive(
    st.integers(-6, 6) | st.sampled_from(list(LEAVES)),
    lambda inner: (
        st.tuples(st.sampled_from("+-*"), inner, inner)
        | st.tuples(st.sampled_from(["//", "%", "ceil"]), inner, divisors)
        | st.tuples(st.just("max"), inner, inner)
    ),
    max_leaves=8,
)
values = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 8), st.integers(0, 4)).map(
    lambda t: {"n": t[0], "m": t[1], "i": t[2] % t[0], "j": t[3]}
)
quickly = settings(max_examples=150, deadline=None, derandomize=True)

AS_SIZE = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": floordiv,
    "%": modulo,
    "ceil": ceildiv,
    "max": maximum,
}
AS_INT = AS_SIZE | {"//": lambda a, b: a // b, "%": lambda a, b: a % b, "ceil": lambda a, b: -(-a // b), "max": max}


def compute(tree, leaves, ops):
    if isinstance(tree, tuple):
        op, a, b = tree
        return ops[op](compute(a, leaves, ops), compute(b, leaves, ops))
    return leaves.get(tree, tree)


def size(tree):
    return compute(tree, LEAVES, AS_SIZE)


@quickly
@given(trees, values)
def test_sizes_compute_as_integers(tree, v):
    assert evaluate(size(tree), v) == compute(tree, v, AS_INT)


@quickly
@given(trees, values)
def test_a_size_reads_as_it_computes(tree, v):
    assert eval(str(size(tree)), {"max": max}, v) == evaluate(size(tree), v)


@quickly
@given(trees, trees, trees)
def test_equal_polynomials_are_equal_and_hash_equally(a, b, c):
    a, b, c = map(size, (a, b, c))
    for left, right in [(a + b, b + a), (a * b, b * a), ((a + b) * c, a * c + b * c), (a - b, -(b - a))]:
        assert left == right
        assert hash(left) == hash(right)
        assert str(left) == str(right)
    assert a - a == 0


@quickly
@given(trees, values)
def test_bounds_hold(tree, v):
    d = size(tree)
    low, high = bounds(d)
    assert evaluate(low, v) <= evaluate(d, v)
    assert high is None or evaluate(d, v) <= evaluate(high, v)
    assert not non_negative(d) or evaluate(d, v) >= 0


@quickly
@given(trees, trees, values)
def test_below_is_never_wrong(tree, limit, v):
    if below(size(tree), size(limit)):
        assert 0 <= evaluate(size(tree), v) < evaluate(size(limit), v)


@quickly
@given(trees, st.sampled_from("nmij"), values)
def test_coefficient_leaves_nothing_of_the_atom(tree, name, v):
    d, x = size(tree), LEAVES[name]
    ((atom,), _) = x.terms[0]
    c = coefficient(d, atom)
    assume(c is not None)
    rest = d - c * x
    assert atom not in set(atoms(c)) | set(atoms(rest))
    assert c * x + rest == d
    assert evaluate(d, v) - evaluate(rest, v) == evaluate(c, v) * v[name]


@quickly
@given(trees, trees, values)
def test_substitution_commutes_with_evaluation(tree, instead, v):
    """m takes any positive value; whatever was simplified stays true, for nothing is known of m but that."""
    new = maximum(size(instead), 1)
    after = substitute(size(tree), lambda atom: new if atom is Symbol("m") else None)
    assert evaluate(after, v) == evaluate(size(tree), v | {"m": evaluate(new, v)})


@quickly
@given(trees)
def test_sizes_survive_pickling_and_copying(tree):
    d = size(tree)
    for again in (pickle.loads(pickle.dumps(d)), copy.deepcopy(d)):
        assert again == d
        assert hash(again) == hash(d)
        assert {id(a) for a in atoms(again)} == {id(a) for a in atoms(d)}


def test_constants_are_plain_integers():
    for d in (n - n, n * 0, (n + 2) - n, floordiv(n, n), modulo(4 * n, 4), n - m + (m - n) + 1):
        assert type(d) is int


def test_atoms_are_interned():
    assert Symbol("n") is Symbol("n")
    assert Index("i", n) is Index("i", symbol("n"))
    assert Index("i", n) is not Index("i", m)
    assert FloorDiv(n, 4) is FloorDiv(symbol("n"), 4)


@pytest.mark.parametrize(
    "found, expected",
    [
        (floordiv(4 * n + 2, 4), n),
        (floordiv(4 * n + 7, 4), n + 1),
        (floordiv(n * m + m, m), n + 1),
        (floordiv(6 * n * m, 2 * n), 3 * m),
        (floordiv(5 * i + j, 5), i),
        (floordiv(j, 5), 0),
        (floordiv(n * j + i, n), j),
        (floordiv(n + m, n + m), 1),
        (modulo(5 * i + j, 5), j),
        (modulo(n * j + i, n), i),
        (modulo(j, 5), j),
        (5 * floordiv(i, 5) + modulo(i, 5), i),
        (floordiv(modulo(n, 4), 4), 0),
        (modulo(modulo(n, 12), 12), modulo(n, 12)),
        (floordiv(3 * modulo(n, 4) + 2, 12), 0),
        (floordiv(3 * modulo(j, 4) + floordiv(j, 4), 3), modulo(j, 4)),
        (ceildiv(4 * n, 4), n),
        (ceildiv(n + 3, 4), floordiv(n + 6, 4)),
        (maximum(n + 1, n), n + 1),
        (maximum(n, 0), n),
        (maximum(n, m), maximum(m, n)),
        (product([2, n, m, n]), 2 * m * n * n),
        (product([]), 1),
    ],
)
def test_simplified(found, expected):
    assert found == expected


@pytest.mark.parametrize(
    "d, text",
    [
        (n, "n"),
        (2 * n * m - n + 3, "2*m*n - n + 3"),
        (-n, "-n"),
        (1 - n, "1 - n"),
        (n - m, "n - m"),
        (floordiv(n, 4), "(n//4)"),
        (floordiv(n + 1, m), "((n + 1)//m)"),
        (floordiv(n, n * m + 1), "(n//(m*n + 1))"),
        (m * floordiv(n, 4), "(n//4)*m"),
        (floordiv(m * n, 4), "((m*n)//4)"),
        (maximum(n - 1, 1), "max(1, n - 1)"),
    ],
)
def test_text(d, text):
    assert str(d) == text


def test_bounds_of_what_may_be_negative():
    assert not non_negative(floordiv(i - 3, 2))
    assert not non_negative(maximum(i - 3, j - 5))
    assert not non_negative(floordiv(i - 3, n))
    assert bounds(floordiv(j - 3, 2)) == (-2, 0)
    assert bounds(maximum(j - 3, -1))[0] == -1


def test_a_row_major_offset_is_below_its_buffer():
    assert below(i * 5 + j, n * 5)
    assert below(index("k", m) + m * (j + 5 * i), n * 5 * m)
    assert not below(i * 5 + j + 1, n * 5)
    assert not below(i - 1, n)


def test_coefficient_is_refused_inside_other_atoms():
    assert coefficient(3 * n + 7, Symbol("n")) == 3
    assert coefficient(m * n + n, Symbol("n")) == m + 1
    assert coefficient(n * n, Symbol("n")) is None
    assert coefficient(floordiv(n, 4), Symbol("n")) is None
    assert coefficient(floordiv(floordiv(n, 4) + m, 3), Symbol("n")) is None
    assert coefficient(12, Symbol("n")) == 0


def test_names():
    d = n * floordiv(m, 4) + maximum(i, symbol("k"))
    assert symbols(d) == {"n", "m", "k"}
    assert any(isinstance(a, Max) for a in atoms(d))
    assert parse("n") == n
    assert parse(3) == 3
    with pytest.raises(KeyError, match="m"):
        evaluate(d, {"n": 1, "i": 0, "k": 2})


def test_a_size_has_no_truth_value():
    with pytest.raises(TypeError, match="the size n - m is symbolic: it has no truth value"):
        bool(n - m)


def test_a_size_equals_no_number():
    assert n != 1
    assert n + 0 is n
    assert isinstance(n * 1, Size)
