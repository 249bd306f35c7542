"""Nodes are interned, graphs may be deep, origins follow what replaces a node."""

import dataclasses
import gc
import importlib
import inspect
import pkgutil
import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest

from gnomon.compiler import graph, ops
from gnomon.compiler.dtypes import TABLE
from gnomon.compiler.errors import DTypeError
from gnomon.compiler.graph import (
    Item,
    Node,
    Op,
    Origin,
    TensorType,
    TupleType,
    inherit,
    layer_scope,
    origins,
    replace,
    users,
    walk,
)
from gnomon.compiler.interning import Interned
from gnomon.compiler.ops.leaves import Literal
from gnomon.compiler.sizes import symbol

DEEP = 100_000


@dataclass(frozen=True)
class Leaf(Op):
    name: str

    def infer(self):
        return TensorType("float32", (symbol("batch"), 4))


@dataclass(frozen=True)
class Step(Op):
    by: int = 1

    def infer(self, x):
        return x


@dataclass(frozen=True)
class Plus(Op):
    def infer(self, x, w):
        return x


@dataclass(frozen=True)
class Halves(Op):
    def infer(self, x):
        return TupleType((x, x))


@pytest.fixture
def x() -> Node:
    return Leaf("x")()


def chain(x: Node, length: int) -> Node:
    for _ in range(length):
        x = Step()(x)
    return x


def line() -> int:
    return sys._getframe(1).f_lineno


# ---- types


def test_types_print_as_they_read():
    assert repr(TensorType("float32", (symbol("batch"), 784))) == "float32[batch, 784]"
    assert repr(TupleType((TensorType("bool", ()), TensorType("int64", (3,))))) == "(bool[], int64[3])"


def test_a_type_has_a_known_dtype():
    with pytest.raises(DTypeError, match="Unknown dtype 'float23'. Did you mean 'float32'"):
        TensorType("float23", ())


# ---- interning


def test_equal_is_identical(x):
    assert Plus()(x, Step()(x)) is Plus()(Leaf("x")(), Step()(x))
    assert Plus()(x, x) is not Step()(x)
    assert Step(1)(x) is not Step(2)(x)
    assert Leaf("x")() is not Leaf("w")()


def test_operand_order_is_kept(x):
    y = Step()(x)
    assert Plus()(x, y) is not Plus()(y, x)


def test_ops_of_one_shape_and_two_classes_differ(x):
    assert Halves()(x) is not Step()(x)
    assert Item(0)(Halves()(x)) is not Item(1)(Halves()(x))


def test_numbers_are_told_apart_by_their_bits():
    """Python finds 0.0 == -0.0, 1 == 1.0 == True and nan != nan."""
    assert Literal.of("float32", 0.0)() is not Literal.of("float32", -0.0)()
    assert Literal.of("float64", float("nan"))() is Literal.of("float64", float("nan"))()
    ones = [Literal.of(dtype, 1)() for dtype in TABLE]
    assert len(set(ones)) == len(TABLE)
    assert Literal.of("float32", 0.1)() is Literal.of("float32", np.float32(0.1))()


@pytest.mark.parametrize("dtype", TABLE)
def test_a_number_keeps_its_value(dtype):
    for value in (0, 1) if dtype == "bool" else (0, 1, 100):
        found = Literal.of(dtype, value)().op.value
        assert found == value
        assert found.dtype == TABLE[dtype].numpy


def op_classes() -> list[type[Op]]:
    """Every op that gnomon has."""
    for module in pkgutil.iter_modules(ops.__path__):
        importlib.import_module(f"gnomon.compiler.ops.{module.name}")
    classes = [Op]
    for c in classes:
        classes += c.__subclasses__()
    return [c for c in classes[1:] if c.__module__.startswith("gnomon.")]


def test_no_op_holds_a_float():
    """Floats in a field would make 0.0 and -0.0 one node: a number is a Literal's bits."""
    broken = [
        f"{inspect.getsourcefile(c)}: {c.__name__}.{f.name}: {f.type}"
        for c in op_classes()
        for f in dataclasses.fields(c)
        if any(word in str(f.type) for word in ("float", "complex", "ndarray", "Any"))
    ]
    assert not broken, "\n".join(broken)


def test_every_op_is_frozen():
    assert all(c.__dataclass_params__.frozen for c in op_classes())


def test_nodes_nobody_holds_are_freed(x):
    while gc.collect():  # what tests before left: freed nodes free those that their entries in the table held
        pass
    before = len(Node._living)
    y = chain(x, 100)
    assert len(Node._living) == before + 100
    del y
    gc.collect()
    assert len(Node._living) == before


def test_threads_that_build_the_same_graph_get_the_same_nodes(x):
    """Sixteen threads, one graph: each must get the one living node."""
    found: list[list[Node]] = []
    barrier = threading.Barrier(16)

    def build():
        barrier.wait()
        found.append([Plus()(x, Step(k)(x)) for k in range(300)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=build) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    finally:
        sys.setswitchinterval(interval)
    assert len({id(n) for nodes in found for n in nodes}) == 300


def test_a_failed_construction_leaves_nothing():
    class Picky(metaclass=Interned):
        __slots__ = ("__weakref__",)

        def __init__(self, n):
            if n < 0:
                raise ValueError(n)

    with pytest.raises(ValueError, match="-1"):
        Picky(-1)
    assert len(Picky._living) == 0
    assert Picky(1) is not Picky(2)


# ---- walking


def test_walk_gives_inputs_before_users_and_each_node_once(x):
    y = Step()(x)
    z = Plus()(y, x)
    assert walk([z, y]) == [x, y, z]
    assert walk([]) == []
    assert [n.serial for n in walk([z])] == sorted(n.serial for n in walk([z]))


def test_walk_stops_where_told(x):
    y = Step()(x)
    assert walk([Plus()(y, Step(2)(y))], stop=lambda n: n is y)[0] is y


def test_walk_is_linear_in_shared_graphs(x):
    """Each node is used twice: 2**60 paths, 61 nodes."""
    y = x
    for _ in range(60):
        y = Plus()(y, y)
    assert len(walk([y])) == 61


def test_users_counts_each_reading(x):
    y = Step()(x)
    z = Plus()(y, y)
    assert users(walk([z])) == {x: [y], y: [z, z], z: []}


def test_deep_graphs_need_no_recursion(x):
    y = chain(x, DEEP)
    assert len(walk([y])) == DEEP + 1
    (z,) = replace([y], {x: Leaf("w")()})
    assert len(walk([z])) == DEEP + 1
    assert len(users(walk([y]))) == DEEP + 1
    assert repr(y).endswith(": float32[batch, 4]")
    del y, z
    gc.collect()  # freeing a deep chain must not overflow the C stack either


# ---- replacing


def test_replace_changes_every_reading(x):
    w = Leaf("w")()
    y = Plus()(Step()(x), x)
    assert replace([y, x], {x: w}) == [Plus()(Step()(w), w), w]


def test_replace_of_nothing_is_the_same_graph(x):
    y = Plus()(Step()(x), x)
    assert replace([y], {})[0] is y
    assert replace([y], {Leaf("w")(): x})[0] is y


def test_replace_does_not_look_into_what_it_puts_in(x):
    """x -> step(x) once, not for ever."""
    assert replace([Step(5)(x)], {x: Step()(x)})[0] is Step(5)(Step()(x))


def test_replace_keeps_origins(x):
    with layer_scope("dense"):
        y = Step(7)(x)
    (z,) = replace([y], {x: Leaf("w7")()})
    assert z is not y
    assert origins(z) == origins(y)
    assert origins(z)[0].layer == "dense"


# ---- where a node came from


def test_a_node_knows_its_layer_and_the_users_line():
    with layer_scope("model"), layer_scope("dense_1"):
        y, here = Step(11)(Leaf("origin")()), line()
    assert origins(y) == (Origin("model/dense_1", __file__, here),)
    assert repr(origins(y)[0]) == f"model/dense_1 ({__file__}:{here})"


def test_layer_scopes_end_with_an_exception(x):
    with pytest.raises(KeyError), layer_scope("broken"):
        raise KeyError
    assert origins(Step(12)(x))[0].layer == ""


def test_an_interned_node_remembers_who_asked_again(x):
    made = []
    for name in ("first", "second", "second", "third", "fourth", "fifth"):
        with layer_scope(name):
            made.append(Step(13)(x))
    assert len(set(made)) == 1
    assert [o.layer for o in origins(made[0])] == ["first", "second", "third", "fourth"]


def test_what_a_rewrite_makes_inherits(x):
    with layer_scope("a"):
        a = Step(14)(x)
    with layer_scope("b"):
        b = Step(15)(x)
    with inherit(a, b):
        c = Plus()(a, b)
    assert [o.layer for o in origins(c)] == ["a", "b"]
    assert origins(Step(16)(c))[0].layer == ""


def test_origins_do_not_keep_nodes_alive(x):
    y = Step(17)(x)
    assert y in graph._origins
    count = len(graph._origins)
    del y
    gc.collect()
    assert len(graph._origins) == count - 1
