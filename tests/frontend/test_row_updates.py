"""Updates that touch only the rows of a table that a batch has read: SGD, Adagrad and LazyAdam on an Embedding."""

from __future__ import annotations

import subprocess
from typing import Any

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers, ops, optimizers
from gnomon.compiler.program import Launch, all_steps
from gnomon.compiler.sizes import evaluate, symbols
from gnomon.functions import Function, function
from gnomon.models.steps import Step
from gnomon.optimizers import rows
from gnomon.tensor import Tensor
from gnomon.variable import Variable, collecting_updates, rows_alone, updates_where
from tests.aot.support import compile_c, needs_cc
from tests.emulator import compiler
from tests.emulator.programs import Emulated, for_cuda, state_of

VOCABULARY, WIDTH = 50, 5
ALL, NONE = 1, 10**9  # of tables, from which number of rows on


def batches(count: int = 4, most: int = VOCABULARY) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids that repeat in a row and between rows, padding, batches of one and of other lengths."""
    rng = np.random.default_rng(3)
    found = []
    for k in range(count):
        ids = rng.integers(1, most, ((7, 1, 4, 2)[k % 4], (6, 3, 1, 5)[k % 4])).astype("int32")
        ids[:, -1] = ids[:, 0]
        ids[-1, 1:] = 0
        found.append((ids, rng.normal(size=(len(ids), 1)).astype("float32")))
    return found


def model(optimizer: Any, towers: int = 1, vocabulary: int = VOCABULARY, **embedding: Any) -> Any:
    gnomon.utils.set_random_seed(1)
    inputs = [layers.Input((None,), dtype="int32") for _ in range(towers)]
    table = layers.Embedding(vocabulary, WIDTH, mask_zero=True, **embedding)
    pooled = [layers.GlobalAveragePooling1D()(table(x)) for x in inputs]
    merged = pooled[0] if towers == 1 else layers.Concatenate()(pooled)
    made = gnomon.Model(inputs, layers.Dense(1)(layers.Dense(3, "tanh")(merged)))
    made.compile(optimizer, "mse")
    return made


def program_of(made: Any, towers: int = 1) -> Step:
    """The training step of a model for sequences of six ids."""
    ids, y = batches()[0]
    return made._step_program("train", ([ids] * towers if towers > 1 else ids, y, None))


def train(made: Any, towers: int = 1) -> list[np.ndarray]:
    """All variables after some steps."""
    for ids, y in batches():
        made.train_on_batch([ids] * towers if towers > 1 else ids, y)
    return [*made.get_weights(), *(v.numpy() for v in made.optimizer.variables)]


def launches(fn: Function) -> list[Launch]:
    return [s for s in all_steps(fn.program.steps) if isinstance(s, Launch)]


def goes_by_rows(made: Any, towers: int = 1) -> bool:
    """Whether rows are written, in place."""
    names = [s.label for s in launches(program_of(made, towers).function)]
    assert "write_rows_copy" not in names
    return "write_rows" in names


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.3),
    "adagrad": lambda: optimizers.Adagrad(0.3),
    "adagrad, schedule": lambda: optimizers.Adagrad(optimizers.schedules.ExponentialDecay(0.5, 2, 0.5)),
    "sgd, clipped norm": lambda: optimizers.SGD(0.3, clipnorm=0.01),
    "sgd, clipped together": lambda: optimizers.SGD(0.3, global_clipnorm=0.05),
    "sgd, clipped values": lambda: optimizers.SGD(0.3, clipvalue=0.002),
    "sgd, scaled": lambda: optimizers.SGD(0.3, loss_scale_factor=128.0),
    "sgd, scaled by itself": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.3), dynamic_growth_steps=2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_what_the_whole_table_gives(name, monkeypatch):
    results = {}
    for many in (ALL, NONE):
        monkeypatch.setattr(rows, "MANY", many)
        made = model(OPTIMIZERS[name]())
        results[many] = train(made)
        assert goes_by_rows(made) == (many == ALL)
    for a, b in zip(results[ALL], results[NONE], strict=True):
        if "norm" in name or "together" in name:  # squares are summed in another order
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_array_equal(a, b)


def test_a_table_that_two_towers_read(monkeypatch):
    results = {}
    for many in (ALL, NONE):
        monkeypatch.setattr(rows, "MANY", many)
        made = model(optimizers.Adagrad(0.3), towers=2)
        results[many] = train(made, 2)
        assert goes_by_rows(made, 2) == (many == ALL)
    for a, b in zip(results[ALL], results[NONE], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


class Halving(optimizers.SGD):
    """A rule of one's own."""

    def update_step(self, gradient, variable, learning_rate):
        variable.assign(variable * 0.5 - gradient)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.Adam(),
        lambda: optimizers.RMSprop(),
        lambda: optimizers.SGD(momentum=0.9),
        lambda: optimizers.SGD(weight_decay=0.01),
        lambda: optimizers.SGD(use_ema=True),
        lambda: optimizers.SGD(gradient_accumulation_steps=2),
        lambda: optimizers.Adagrad(initial_accumulator_value=0.0, epsilon=0.0),
        lambda: Halving(),
    ],
)
def test_a_rule_that_moves_other_rows_goes_through_the_table(optimizer, monkeypatch):
    monkeypatch.setattr(rows, "MANY", ALL)
    assert not goes_by_rows(model(optimizer()))


def test_a_gradient_of_other_things_too_goes_through_the_table(monkeypatch):
    monkeypatch.setattr(rows, "MANY", ALL)
    assert not goes_by_rows(model(optimizers.SGD(), embeddings_regularizer="l2"))
    assert not goes_by_rows(model(optimizers.LazyAdam(), embeddings_regularizer="l2"))


def test_short_tables_are_gone_through():
    assert not goes_by_rows(model(optimizers.SGD(), vocabulary=rows.MANY - 1))
    assert goes_by_rows(model(optimizers.SGD(), vocabulary=rows.MANY))


# ---- LazyAdam


def lazy_adam(w, gradients, rate=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Its definition: Adam for the rows that have a gradient, by the number of the step."""
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, (ids, g) in enumerate(gradients, 1):
        total = np.zeros_like(w)
        np.add.at(total, ids, g)
        for k in np.unique(ids):
            m[k] += (1 - beta_1) * (total[k] - m[k])
            v[k] += (1 - beta_2) * (total[k] ** 2 - v[k])
            w[k] -= rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m[k] / (np.sqrt(v[k]) + epsilon)
    return w, m, v


def stepping(optimizer: Any, table: Variable) -> Function:
    """A step on the sum of the rows read, each multiplied by the row of an array."""
    ids = gnomon.Input((None,), dtype="int32", name="ids")
    factors = gnomon.Input((None, WIDTH), name="factors")
    (gradient,) = gnomon.grad(ops.sum(ops.take(table, ids, axis=0) * factors), [table])
    optimizer.build([table])
    with collecting_updates() as updates:
        optimizer.apply([gradient], [table])
    return function([ids, factors], [], updates=updates)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_lazy_adam_is_its_definition(amsgrad):
    rng = np.random.default_rng(0)
    table = Variable(rng.normal(size=(9, WIDTH)).astype("float32"), name="table")
    before = table.numpy().astype("float64")
    fn = stepping(optimizers.LazyAdam(0.1, amsgrad=amsgrad), table)
    steps = [(rng.integers(0, 9, (2, n)), rng.normal(size=(2, n, WIDTH)).astype("float32")) for n in (3, 1, 4, 2, 2)]
    for ids, g in steps:
        fn(ids.astype("int32"), g)
    want, _, _ = lazy_adam(before.copy(), [(ids.ravel(), g.reshape(-1, WIDTH)) for ids, g in steps])
    if not amsgrad:
        np.testing.assert_allclose(table.numpy(), want, rtol=2e-5, atol=1e-5)
    touched = np.isin(np.arange(9), np.concatenate([ids.ravel() for ids, _ in steps]))
    np.testing.assert_array_equal(np.any(table.numpy() != before.astype("float32"), axis=1), touched)


def test_lazy_adam_is_adam_elsewhere():
    """Of a table that is touched as a whole at every step, and of other weights."""
    results = []
    for kind in (optimizers.Adam, optimizers.LazyAdam):
        made = model(kind(0.05), vocabulary=4)
        for k in range(3):
            made.train_on_batch(np.array([[1, 2, 3, 0], [0, 3, 1, 2]], "int32"), np.full((2, 1), k, "float32"))
        results.append([*made.get_weights(), *(v.numpy() for v in made.optimizer.variables)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_lazy_adam_is_saved_with_its_state(tmp_path):
    made = model(optimizers.LazyAdam(0.05))
    train(made)
    made.save(tmp_path / "lazy.keras")
    again = gnomon.models.load_model(tmp_path / "lazy.keras")
    assert type(again.optimizer) is optimizers.LazyAdam
    assert type(optimizers.get("lazyadam")) is optimizers.LazyAdam
    for a, b in zip(train(again), train(made), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- what it costs


def touched(vocabulary: int, optimizer: Any) -> int:
    """Bytes that the launches of a training step touch: four sequences of three ids."""
    fn = program_of(model(optimizer, vocabulary=vocabulary, embeddings_initializer="zeros")).function
    assert not [s for s in fn.program.slots if s.kind == "temporary" and s.shape == (vocabulary, WIDTH)]
    sizes = {name: {"batch": 4, "steps": 1}.get(name, 3) for s in launches(fn) for name in symbols(s.bytes)}
    return sum(evaluate(s.bytes, sizes) for s in launches(fn))


@pytest.mark.parametrize("kind", [optimizers.SGD, optimizers.Adagrad, optimizers.LazyAdam])
@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_costs_what_its_rows_cost(kind, scaled):
    make = lambda: optimizers.LossScaleOptimizer(kind()) if scaled else kind()
    assert touched(20_000, make()) == touched(1_000_000, make()) < 20_000


# ---- the parts


def test_rows_of_a_condition_are_written_or_none():
    table = Variable(np.arange(12, dtype="float32").reshape(6, 2))
    go, at = gnomon.Input((), dtype="bool"), gnomon.Input((), dtype="int32")
    with collecting_updates() as updates, updates_where(go[0]), rows_alone({table: at.node}):
        assert table.value.shape == (None, 2)
        table.assign_add(100.0)
    fn = function([go, at], [], updates=updates)
    assert [s.label for s in launches(fn)].count("write_rows") == 1
    fn(np.array([False, False]), np.array([1, 4], "int32"))
    np.testing.assert_array_equal(table.numpy(), np.arange(12).reshape(6, 2))
    fn(np.array([True, False]), np.array([-1, 4], "int32"))
    np.testing.assert_array_equal(table.numpy().ravel(), [0, 1, 2, 3, 4, 5, 6, 7, 108, 109, 10, 11])


def test_an_old_value_that_is_asked_for_is_kept():
    table = Variable(np.zeros((6, 2), "float32"))
    at = gnomon.Input((), dtype="int32")
    with collecting_updates() as updates, rows_alone({table: at.node}):
        table.assign_add(1.0)
    fn = function([at], [Tensor(table.node), Tensor(table.node) * 2], updates=updates)
    for k in range(2):
        old, double = fn(np.array([1, 3], "int32"))
        np.testing.assert_array_equal(old[:, 0], [0, k, 0, k, 0, 0])
        np.testing.assert_array_equal(double, 2 * old)
    np.testing.assert_array_equal(table.numpy()[:, 0], [0, 2, 0, 2, 0, 0])


def test_a_step_of_ones_own_on_the_rows_that_were_read():
    """As in Theano: the gradient of the rows, and these written back."""
    table = Variable(np.ones((1000, 2), "float32"))
    at = gnomon.Input((), dtype="int32")
    read = ops.take(table, at, axis=0)
    (gradient,) = gnomon.grad(ops.sum(ops.square(read)), [read])
    fn = function([at], read, updates={table: ops.scatter_update(table, at[:, None], read - 0.25 * gradient)})
    assert "write_rows_copy" not in [s.label for s in launches(fn)]
    np.testing.assert_array_equal(fn(np.array([3, 999, -1], "int32")), np.ones((3, 2)))
    np.testing.assert_array_equal(fn(np.array([0, 3, 999], "int32"))[:, 0], [1, 0.5, 0.5])
    assert table.numpy().sum() == 2 * (997 + 0.5 + 0.25 + 0.25)


@pytest.mark.skipif(compiler() is None, reason="no C++ compiler to emulate CUDA with")
def test_on_a_gpu(monkeypatch):
    monkeypatch.setattr(rows, "MANY", ALL)
    rng = np.random.default_rng(0)
    ids, y = rng.integers(0, VOCABULARY, (10, 4)).astype("int32"), rng.normal(size=(10, 1)).astype("float32")
    ids[:, 2] = ids[:, 1]
    step = model(optimizers.LazyAdam(0.1))._step_program("train", (ids, y, None))
    program = for_cuda(step.function)
    emulated, state = Emulated(program), state_of(step.function, program)
    for order in (np.arange(8).reshape(2, 4), np.array([[9]])):
        logs = emulated([order, ids, y], state)
        wanted = step.run(order, [ids, y])
        np.testing.assert_allclose([float(v) for v in logs], list(wanted.values()), rtol=1e-5)
        for got, want in zip(state, state_of(step.function, program), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-6)


LOOP = """
    #include "rows.h"
    #include <stdio.h>
    #include <stdlib.h>
    int main(void) {
        static int32_t x[24];
        static float y[4];
        static unsigned char state[ROWS_STATE_BYTES];
        size_t n = rows_workspace_bytes(4);
        void *workspace = malloc(n);
        float loss;
        if (fread(x, sizeof x, 1, stdin) != 1 || fread(y, sizeof y, 1, stdin) != 1 || rows_init(state)) return 1;
        for (size_t k = 0; k < 6; k++) {
            if (rows_reset_metrics(state) || rows_step(state, x, y, &loss, k % 4 + 1, workspace, n)) return 2;
            printf("%.9g\\n", (double)loss);
        }
        return 0;
    }
"""


@needs_cc
def test_in_c(monkeypatch, tmp_path):
    monkeypatch.setattr(rows, "MANY", ALL)
    gnomon.utils.set_random_seed(2)
    made = gnomon.Sequential([gnomon.Input((6,), dtype="int32"), layers.Embedding(VOCABULARY, WIDTH)])
    made.add(layers.Flatten())
    made.add(layers.Dense(1))
    made.compile(optimizers.LazyAdam(0.1), "mse")
    ids, y = batches()[0]
    ids, y = ids[:4], y[:4]
    ahead.write(ahead.build(made, "rows", train=True), tmp_path / "rows", "obj", ".o")
    program = compile_c(tmp_path, LOOP, "rows.o")
    done = subprocess.run([program], input=ids.tobytes() + y.tobytes(), capture_output=True, check=True)
    wanted = [made.train_on_batch(ids[: k % 4 + 1], y[: k % 4 + 1]) for k in range(6)]
    np.testing.assert_array_equal(np.float32(done.stdout.split()), np.float32(wanted).ravel())
