"""Views print equally for equal graphs, and as recorded in tests/golden (GNOMON_GOLDEN=write records anew)."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import networkx
import pytest

from gnomon.compiler import show
from gnomon.compiler.graph import Node, Op, TensorType, layer_scope
from gnomon.compiler.kernel import Buffer, Const, For, If, Kernel, Load, Store
from gnomon.compiler.program import Branch, Check, Copy, Launch, Library, Program, Repeat, Slot
from gnomon.compiler.sizes import Index, Size, symbol

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@dataclass(frozen=True)
class Leaf(Op):
    name: str
    type: TensorType

    def infer(self):
        return self.type


@dataclass(frozen=True)
class Plus(Op):
    def infer(self, x, w):
        return x


@dataclass(frozen=True)
class Half(Op):
    def infer(self, x):
        return x


@dataclass(frozen=True)
class Times(Op):
    """Applies its body `count` times."""

    body: tuple[Node, ...]
    count: int

    def infer(self, *types):
        return types[0]


ROW = TensorType("float32", (symbol("batch"), 4))


def two_layers() -> Node:
    x = Leaf("x", ROW)()
    with layer_scope("model"), layer_scope("dense"):
        h = Plus()(x, x)
    with layer_scope("scale"):
        return Half()(Plus()(h, x))


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("GNOMON_GOLDEN") == "write":
        path.write_text(text + "\n")
    assert text + "\n" == path.read_text(), f"differs from tests/golden/{name}; GNOMON_GOLDEN=write records it anew"


def test_graph_as_text():
    check_golden("show_graph.txt", show.text(two_layers(), source=False))


def test_text_names_layer_file_and_line():
    first, dense, *_ = show.text(two_layers()).splitlines()
    assert first.partition("; ")[2].startswith("(test_show.py:")
    assert dense.partition("; ")[2].startswith("model/dense (test_show.py:")


def test_equal_graphs_print_equally_whatever_came_before():
    before = show.text(two_layers())
    for i in range(3):
        Leaf(f"other{i}", ROW)()
    assert show.text(two_layers()) == before


def test_graphs_inside_ops_are_indented():
    body = Half()(Leaf("carry", ROW)())
    check_golden("show_nested.txt", show.text(Times((body,), 3)(Leaf("x", ROW)()), source=False))


def test_outputs_may_be_many():
    y = two_layers()
    assert show.text([y, y.inputs[0]], source=False).splitlines()[-1] == "return %3, %2"


def test_graph_as_dot():
    text = show.dot(two_layers())
    line = show.origins(two_layers())[0].line
    assert text.count("{") == text.count("}") == 3
    assert 'label="model/dense";' in text
    assert "n0 -> n1;\n  n0 -> n1;\n  n1 -> n2;" in text
    assert f"test_show.py:{line}" in text


def test_dot_escapes_quotes():
    assert r"name='a\"b'" in show.dot(Leaf('a"b', ROW)())


def test_graph_as_json():
    data = json.loads(show.json(two_layers()))
    assert data["outputs"] == [3]
    dense = data["nodes"][1]
    assert (dense["op"], dense["inputs"], dense["layer"]) == ("Plus", [0, 0], "model/dense")
    assert (dense["dtype"], dense["shape"], dense["type"]) == ("float32", ["batch", "4"], "float32[batch, 4]")
    assert dense["file"] == __file__
    assert dense["line"] > 0


def test_graph_as_networkx(tmp_path):
    graph = show.networkx(two_layers())
    assert networkx.is_directed_acyclic_graph(graph)
    assert graph.edges[0, 1]["positions"] == "0,1"
    assert graph.nodes[3]["output"] is True
    assert graph.nodes[2]["layer"] == "scale"
    networkx.write_graphml(graph, tmp_path / "graph.graphml")
    again = networkx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    assert again.nodes == graph.nodes


def relu_kernel() -> Kernel:
    n = symbol("n")
    x, y = Buffer("x", "float32", (n, 4)), Buffer("y", "float32", (n, 4))
    i, j = Index("i", n), Index("j", 4)
    at = (Size.of(i), Size.of(j))
    positive = If(Const("bool", True), (Store(y, at, Load(x, at)),), (Store(y, at, Const("float32", 0.0)),))
    return Kernel((x,), (y,), (For(i, (For(j, (positive,), "vector"),), "parallel"),), label="relu")


def test_kernel_views():
    assert show.text(relu_kernel()) == relu_kernel().text()
    tree = json.loads(show.json(relu_kernel()))
    assert [n["op"] for n in tree["nodes"]] == ["For", "For", "If", "Store", "Store"]
    assert [n["inputs"] for n in tree["nodes"]] == [[], [0], [1], [2], [2]]
    assert tree["nodes"][1]["label"] == "for j < 4 vector"
    assert 'label="for i < n parallel"' in show.dot(relu_kernel())


def small_program() -> Program:
    n = symbol("n")
    slots = (
        Slot("x", "float32", (n, 4), "input"),
        Slot("w", "float32", (4,), "variable"),
        Slot("t", "float32", (n, 4), "temporary", 0, 1),
        Slot("y", "float32", (4,), "output", alias=1),
        Slot("step", "int64", (), "temporary", 1, 1),
        Slot("stop", "bool", (), "temporary", 1, 1),
    )
    steps = (
        Launch("mul_1", (2, 0, 1), (n,), n, 4 * n, label="mul", layers=("dense (train.py:3)",)),
        Repeat(3, 4, (Branch(5, (Copy(2, 0),), (Library("solve", (2,), (1,)),)),), until=5, reverse=True),
    )
    check = Check(n, n, "as many rows")
    return Program("train", "cpu", (0,), (3,), ((1, 812),), (), ("n",), ((0, 0),), (check,), slots, steps)


def test_program_as_text():
    check_golden("show_program.txt", show.program_text(small_program()))
    assert show.text(small_program()) == show.program_text(small_program())


def test_program_steps_are_a_graph():
    graph = show.networkx(small_program())
    assert list(graph.edges) == [(0, 1)]
    assert graph.nodes[0]["layer"] == "dense (train.py:3)"
    assert graph.nodes[1]["output"] is True


def test_diff_of_equal_texts_is_empty():
    assert show.diff(show.text(two_layers()), show.text(two_layers())) == ""


def test_diff_is_not_disturbed_by_renumbering():
    x = Leaf("x", ROW)()
    doubled, plain = Plus()(Half()(Half()(x)), x), Plus()(Half()(x), x)
    before, after = (show.text(Half()(y), source=False) for y in (doubled, plain))
    changed = [s for s in show.diff(before, after).splitlines() if s[0] in "+-" and s[:3] not in ("+++", "---")]
    assert len(changed) in (1, 3), changed
    assert all("Half" in s or "Plus" in s for s in changed)


@pytest.mark.parametrize("names", [("before", "after"), ("graph", "simplify")])
def test_diff_names_both_sides(names):
    assert show.diff("a\nb", "a\nc", names).splitlines() == [
        f"--- {names[0]}",
        f"+++ {names[1]}",
        "@@ -1,2 +1,2 @@",
        " a",
        "-b",
        "+c",
    ]
