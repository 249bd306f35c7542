"""show, profile and memory of functions and models: every stage, where its nodes come from, in every format."""

from __future__ import annotations

import inspect
import json
import re

import networkx
import numpy as np
import pytest

import gnomon
from gnomon import inspecting, layers, ops
from gnomon.compiler.errors import ArgumentError, DataError, StateError
from gnomon.compiler.passes import PASSES
from gnomon.compiler.program import Launch
from gnomon.compiler.sizes import symbol
from gnomon.functions import function
from gnomon.tensor import Tensor, new_input
from gnomon.variable import Variable

RNG = np.random.default_rng(11)


def here() -> int:
    """The caller's line."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def rows(name: str, width: int) -> Tensor:
    return Tensor(new_input(name, "float32", (symbol("batch"), width)), name)


@pytest.fixture(scope="module")
def step():
    """Logistic regression: a loss and two updates."""
    x, y = rows("x", 20), rows("y", 7)
    w = Variable(RNG.standard_normal((20, 7)).astype("float32"), name="w")
    b = Variable(np.zeros(7, "float32"), name="b")
    loss = ops.mean(-ops.sum(y * ops.log(ops.softmax(x @ w + b)), -1))
    gw, gb = gnomon.grad(loss, [w, b])
    return function([x, y], loss, {w: w - 0.1 * gw, b: b - 0.1 * gb}, name="logistic")


def arrays(n: int):
    return RNG.standard_normal((n, 20)).astype("float32"), np.eye(7, dtype="float32")[RNG.integers(0, 7, n)]


# ---- stages of a function


def test_a_shown_stage_prints_as_it_is(step):
    shown = step.show()
    assert isinstance(shown, str)
    assert repr(shown) == str(shown)


def test_the_graph_tells_outputs_and_updates(step):
    *nodes, last = step.show("graph").splitlines()
    assert all(line.startswith("%") and " : " in line for line in nodes)
    # what is made of numbers alone may be another test's node that still lives: it tells that test's line
    own = [line for line in nodes if re.search(r"Input\(|Parameter\(|Contract|sum|exp|log", line)]
    assert len(own) > 8
    assert all("test_inspecting.py:" in line for line in own)
    assert last.startswith("return %")
    assert "; outputs %" in last
    assert "; w <- %" in last
    assert "; b <- %" in last


@pytest.mark.parametrize("stage", inspecting.STAGES)
def test_every_stage_is_there(step, stage):
    assert step.show(stage).strip()
    assert json.loads(step.show(stage, "json"))


def test_passes_are_stages_by_their_names(step):
    names = [name for name, _ in PASSES]
    assert [n for n in inspecting.STAGES if n in names] == names
    assert step.show(names[-1]).splitlines()[:-1] == step.show("simplified").splitlines()[:-1]
    assert step.show(names[0].replace(" ", "-").upper()) == step.show(names[0])


def test_stages_are_what_they_say(step):
    assert "StopGradient" in step.show("graph")
    assert "StopGradient" not in step.show("simplified")
    assert "sum of " in step.show("rows")
    assert "parallel:" in step.show("kernels")
    assert step.show("kernels").count("\nkernel(") == len(step.program.kernels)
    assert "program logistic for cpu" in step.show("program")
    assert step.show("llvm").count("define ") >= len(step.program.kernels)
    assert ".text" in step.show("assembly")


@pytest.mark.parametrize("stage", ["graph", "simplified", "rows", "kernels", "program"])
def test_what_can_be_drawn(step, stage):
    assert step.show(stage, "dot").startswith("digraph ")
    graph = networkx.parse_graphml(step.show(stage, "graphml"))
    read = json.loads(step.show(stage, "json"))
    assert len(graph) == len(read["nodes"]) > 1
    assert graph.number_of_edges() == len({(i, n["id"]) for n in read["nodes"] for i in n["inputs"]})


def test_text_cannot_be_drawn(step):
    for stage in ("llvm", "assembly"):
        read = json.loads(step.show(stage, "json"))
        assert [s["name"] for s in read["sources"]] == [s.name for s in step.program.sources]
        with pytest.raises(ArgumentError, match=f"'{stage}' is text that cannot be drawn"):
            step.show(stage, "graphml")


def test_the_difference_of_two_stages(step):
    text = step.show("graph", diff="simplified")
    assert text.startswith("--- logistic: graph\n+++ logistic: simplified\n")
    assert any(line.startswith("-%") and "StopGradient" in line for line in text.splitlines())
    with pytest.raises(ArgumentError, match="no format 'json'"):
        step.show("graph", "json", diff="simplified")
    with pytest.raises(ArgumentError, match="no stage 'simplifid'. Did you mean 'simplified'"):
        step.show("graph", diff="simplifid")


def test_unknown_names_are_answered_with_near_ones(step):
    with pytest.raises(
        ArgumentError, match="There is no stage 'kernel'. Did you mean 'kernels'.*The stages are graph, "
    ):
        step.show("kernel")
    with pytest.raises(ArgumentError, match="There is no format 'jsn'. Did you mean 'json'"):
        step.show("graph", "jsn")


# ---- profile and memory


def test_a_profile_names_kernels_and_lines(step):
    before = [v.numpy() for v in step.graph.variables]
    found = step.profile(*arrays(64), repeat=2)
    assert sum(r.count for r in found.rows) == len(found.rows) == sum(isinstance(s, Launch) for s in step.program.steps)
    assert all(r.bytes > 0 and any("test_inspecting.py:" in layer for layer in r.layers) for r in found.rows)
    for old, variable in zip(before, step.graph.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)
    assert step.profile(x=arrays(3)[0], y=arrays(3)[1], repeat=1).name == "logistic"
    with pytest.raises(DataError):
        step.profile(np.zeros((3, 4), "float32"), np.zeros((3, 7), "float32"))


def test_memory_by_what_it_is_for(step):
    small, large = step.memory(batch=1), step.memory(batch=1000)
    assert large.arguments == 1000 * 27 * 4
    assert (large.results, large.variables) == (4, (20 * 7 + 7) * 4)
    assert large.temporaries >= 1000 * 7 * 4 > small.temporaries
    assert large.total == sum(
        getattr(large, k) for k in ("arguments", "results", "variables", "constants", "kept", "temporaries")
    )
    assert "memory of logistic where batch = 1000" in repr(large)
    assert f"{large.total:,} bytes  total" in repr(large)


def test_memory_wants_the_sizes(step):
    with pytest.raises(ArgumentError, match=r"depends on batch: pass batch=\.\.\."):
        step.memory()
    with pytest.raises(ArgumentError, match="has no size 'bach'. Did you mean 'batch'"):
        step.memory(bach=3)
    with pytest.raises(ArgumentError, match="must be an integer >= 0, got -1"):
        step.memory(batch=-1)


def test_debug_modes_do_not_get_in_the_way(monkeypatch):
    monkeypatch.setenv("GNOMON_CHECK", "1")
    x = rows("x", 3)
    f = function([x], ops.exp(x))
    assert f.memory(batch=2).arguments == 24
    assert f.profile(np.zeros((2, 3), "float32"), repeat=1).rows


# ---- models

LINE_OF_HIDDEN = here() + 5


def make_model() -> gnomon.Model:
    inputs = layers.Input((8,), name="features")
    hidden = layers.Dense(6, activation="relu", name="hidden")(inputs)
    both = layers.Concatenate(name="both")([hidden, inputs])
    outputs = [layers.Dense(3, activation="softmax", name="kind")(hidden), layers.Dense(1, name="size")(both)]
    return gnomon.Model(inputs, outputs, name="two")


def data(n: int):
    x = RNG.standard_normal((n, 8)).astype("float32")
    return x, [RNG.integers(0, 3, n), RNG.standard_normal((n, 1)).astype("float32")]


def test_layers_with_names_lines_and_connections():
    model = make_model()
    text = model.show()
    assert (
        f"%1 = Dense[hidden, 54 parameters](%0) : float32[batch, 6]  ; hidden (test_inspecting.py:{LINE_OF_HIDDEN})"
        in text
    )
    graph = networkx.parse_graphml(model.show("layers", "graphml"))
    named = {i: d["label"] for i, d in graph.nodes(data=True)}
    edges = {(named[a].split("[")[1].split(",")[0].rstrip("]"), named[b].split("[")[1].split(",")[0].rstrip("]"))
             for a, b in graph.edges}  # fmt: skip
    assert edges == {
        ("features", "hidden"),
        ("hidden", "both"),
        ("features", "both"),
        ("hidden", "kind"),
        ("both", "size"),
    }


def test_forward_and_training_graphs_keep_the_lines_of_the_layers():
    model = make_model()
    line = f"two/hidden (test_inspecting.py:{LINE_OF_HIDDEN})"
    forward = model.show("graph")
    assert line in forward
    assert "<-" not in forward
    with pytest.raises(StateError, match="no training step before"):
        model.show("differentiated")
    model.compile(optimizer="sgd", loss=["sparse_categorical_crossentropy", "mse"])
    training = model.show("differentiated")
    assert line in training
    assert "hidden/kernel <- %" in training
    assert model.show("graph", diff="differentiated").startswith("--- two: graph\n+++ two: differentiated\n")


def test_showing_makes_the_programs_that_training_uses():
    model = make_model()
    model.compile(optimizer="sgd", loss=["sparse_categorical_crossentropy", "mse"])
    for stage in ("simplified", "rows", "kernels", "program", "llvm"):
        assert model.show(stage)
    count = len(gnomon.compile_events())
    x, (kind, size) = data(10)
    model.fit(x, [kind.astype("int32"), size], verbose=0)
    assert len(gnomon.compile_events()) == count


def test_open_axes_stay_open():
    inputs = layers.Input((None, 5))
    model = gnomon.Model(inputs, layers.Dense(2)(inputs), name="sequences")
    model.compile(loss="mse")
    forward = model.show("graph").splitlines()[0]
    assert forward.startswith("%0 = Input(x) : float32[batch, ")
    assert "[batch, 1, 5]" not in forward
    assert "Contract(" in model.show("differentiated")


def test_later_stages_are_of_the_forward_pass_before_compile():
    model = make_model()
    assert "program two_predict for cpu" in model.show("program")
    model.compile(loss="mse")
    assert "program two_train for cpu" in model.show("program")


def test_unknown_stages_of_models():
    with pytest.raises(
        ArgumentError, match="There is no stage 'layer'. Did you mean 'layers'.*The stages are layers, "
    ):
        make_model().show("layer")


def test_a_model_without_a_graph_lists_its_layers():
    class Own(gnomon.Model):
        def __init__(self):
            super().__init__(name="own")
            self.first = layers.Dense(3, name="first")

        def call(self, x):
            return self.first(x)

    model = Own()
    assert "Dense[first]" in model.show()
    with pytest.raises(StateError, match="what model 'own' takes is not known: call `predict` on a batch first"):
        model.show("graph")
    model.predict(np.zeros((2, 4), "float32"), verbose=0)
    assert "own/first" in model.show("graph")


def test_profile_of_a_training_step_and_of_the_forward_pass():
    model = make_model()
    model.compile(optimizer="adam", loss=["sparse_categorical_crossentropy", "mse"])
    x, y = data(40)
    before = model.get_weights()
    training = model.profile(x, y, batch_size=16, repeat=1)
    assert training.name == "two_train"
    assert any("two/hidden" in layer for r in training.rows for layer in r.layers)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert model.profile(x, repeat=1).name == "two_predict"
