"""Plain JAX under jit as a worker. Variant 'scan' trains a whole epoch in one lax.scan."""

import sys

import common
import jax
import jax.numpy as jnp
import numpy as np
from common import Job, of_matrices, on_card, sample, serve
from jax_networks import SERVED, training


def predict(p, x):
    w1, b1, w2, b2 = p
    return jax.nn.softmax(jax.nn.relu(x @ w1 + b1) @ w2 + b2)


def rmsprop_step(p, m, x, y):
    def loss(p):
        out = predict(p, x)
        return jnp.mean((out - y) ** 2), jnp.mean(out.argmax(-1) == y.argmax(-1))

    (cost, accuracy), g = jax.value_and_grad(loss, has_aux=True)(p)
    m = [0.9 * a + 0.1 * b * b for a, b in zip(m, g, strict=True)]
    p = [a - 0.001 * b / jnp.sqrt(c + 1e-7) for a, b, c in zip(p, g, m, strict=True)]  # epsilon where Keras has it
    return p, m, cost, accuracy


def article_mlp_fit():
    x, y = map(jnp.asarray, common.mnist())
    p = [jnp.asarray(w) for w in common.weights(common.ARTICLE)]
    m = [jnp.zeros_like(w) for w in p]
    rng = np.random.default_rng(0)
    starts = range(0, common.ROWS, common.BATCH)

    @jax.jit
    def step(p, m, rows, totals):
        p, m, cost, accuracy = rmsprop_step(p, m, x[rows], y[rows])
        return p, m, (totals[0] + cost, totals[1] + accuracy)

    @jax.jit
    def epoch(p, m, order):
        def body(state, rows):
            p, m, cost, accuracy = rmsprop_step(*state, x[rows], y[rows])
            return (p, m), (cost, accuracy)

        whole = common.ROWS // common.BATCH * common.BATCH
        state, (costs, accuracies) = jax.lax.scan(body, (p, m), order[:whole].reshape(-1, common.BATCH))
        p, m, cost, accuracy = rmsprop_step(*state, x[order[whole:]], y[order[whole:]])
        return p, m, (costs.sum() + cost, accuracies.sum() + accuracy)

    def run(n=1):
        nonlocal p, m
        for _ in range(n):
            order = rng.permutation(common.ROWS)
            if sys.argv[2] == "scan":
                p, m, totals = epoch(p, m, order)
            else:
                totals = (0.0, 0.0)
                for s in starts:
                    p, m, totals = step(p, m, order[s : s + common.BATCH], totals)
            cost = float(totals[0]) / len(starts)
        return cost

    return Job(run, [run()])


def mlp_1024_adam():
    x, y = common.wide_batch()
    p = [jnp.asarray(w) for w in common.weights(common.WIDE)]

    def loss(p, x, y):
        w1, b1, w2, b2, w3, b3 = p
        z = jax.nn.relu(jax.nn.relu(x @ w1 + b1) @ w2 + b2) @ w3 + b3
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1))

    return training(loss, p, x, y)


def one_row_inference():
    p, x = [jnp.asarray(w) for w in common.weights(common.ARTICLE)], common.one_row()
    compiled = jax.jit(lambda x: predict(p, x))

    def run(n=1):
        for _ in range(n):
            y = np.asarray(compiled(x))
        return y

    return Job(run, sample(run()))


def ended(result):
    """What a call returned, waited for; on a card, calls are started one after the other and waited for at the end."""
    return result if on_card() else jax.block_until_ready(result)


def black_scholes(count=common.OPTIONS):
    price = jax.jit(common.black_scholes(jnp.exp, jnp.log, jnp.sqrt, jax.scipy.special.erf))
    arrays = [jnp.asarray(a) for a in common.options(count)]

    def run(n=1):
        for _ in range(n):
            prices = ended(price(*arrays))
        return prices

    return Job(run, sample(run()[0]) + sample(run()[1]))


def logsoftmax_sum(rows=4096):
    x = jnp.asarray(common.logits(rows))

    @jax.jit
    def compiled(x):
        y = jax.nn.log_softmax(x)
        return y, y.sum(axis=-1)

    def run(n=1):
        for _ in range(n):
            y = ended(compiled(x))
        return y

    return Job(run, sample(run()[1]))


def matmul(shape, form, dtype="float32"):
    a, b = (jnp.asarray(m).astype(dtype) for m in common.matrices(shape, form))
    compiled = jax.jit({"nn": lambda a, b: a @ b, "tn": lambda a, b: a.T @ b, "nt": lambda a, b: a @ b.T}[form])

    def run(n=1):
        for _ in range(n):
            c = ended(compiled(a, b))
        return c

    return Job(run, of_matrices(run()))


def process_start():
    p = [jnp.asarray(w) for w in common.weights(common.ARTICLE)]
    x, y = np.zeros((128, 784), np.float32), np.zeros((128, 10), np.float32)
    *_, cost, _ = jax.jit(rmsprop_step)(p, [jnp.zeros_like(w) for w in p], x, y)
    return float(cost)


serve(
    ["jax", "jaxlib"],
    {
        "article_mlp_fit": article_mlp_fit,
        "mlp_1024_adam": mlp_1024_adam,
        "one_row_inference": one_row_inference,
        "black_scholes": black_scholes,
        "logsoftmax_sum": logsoftmax_sum,
        "matmul": matmul,
        **SERVED,
    },
    {"process_start": process_start},
    jax.block_until_ready,
)
