"""The recurrent networks in plain JAX: `lax.scan` over the steps, the inputs' products before it, all under one jit."""

import jax
import jax.numpy as jnp
import networks
import numpy as np
from common import Job, on_card, sample


def adam(loss):
    """A jitted step (weights, means, squares, step, *data) -> the same and the loss, with Keras's defaults."""

    def step(p, m, v, t, *data):
        cost, g = jax.value_and_grad(loss)(p, *data)
        t = t + 1
        rate = 0.001 * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        m = [a + 0.1 * (b - a) for a, b in zip(m, g, strict=True)]
        v = [a + 0.001 * (b * b - a) for a, b in zip(v, g, strict=True)]
        p = [a - rate * b / (jnp.sqrt(c) + 1e-7) for a, b, c in zip(p, m, v, strict=True)]
        return p, m, v, t, cost

    return jax.jit(step, donate_argnums=(0, 1, 2))


def training(loss, p, *data):
    step, data = adam(loss), [jnp.asarray(a) for a in data]
    state = [p, [jnp.zeros_like(w) for w in p], [jnp.zeros_like(w) for w in p], jnp.zeros((), jnp.float32)]

    def run(n=1):
        nonlocal state
        for _ in range(n):
            *state, cost = step(*state, *data)
            cost = float(cost)
        return cost

    return Job(run, [run() for _ in range(3)])


class Layers:
    """The methods that networks call. Each layer takes the next of `weights`; without any, it makes its own."""

    def __init__(self, weights=None):
        self.source, self.weights = networks.Weights(), [] if weights is None else list(weights)
        self.rest = None if weights is None else iter(self.weights)

    def own(self, *make):
        if self.rest is not None:
            return [next(self.rest) for _ in make]
        made = [jnp.asarray(m()) for m in make]
        self.weights += made
        return made

    def dense(self, x, units):
        w, b = self.own(lambda: self.source.kernel(x.shape[-1], units), lambda: self.source.zeros(units))
        return x @ w + b

    def embedding(self, x, words, units):
        (table,) = self.own(lambda: 0.05 * self.source.kernel(1, words, units)[0])
        return table[x]

    def lstm(self, x, units):
        w, u, b = self.own(
            lambda: self.source.kernel(x.shape[-1], 4 * units),
            lambda: self.source.recurrent(units, 4 * units),
            lambda: self.source.zeros(4 * units),
        )

        def step(state, of_input):
            h, c = state
            i, f, g, o = jnp.split(of_input + h @ u, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        zero = jnp.zeros((len(x), units))
        return jax.lax.scan(step, (zero, zero), jnp.swapaxes(x, 0, 1) @ w + b)[0][0]

    def gru(self, x, units):
        w, u, b = self.own(
            lambda: self.source.kernel(x.shape[-1], 3 * units),
            lambda: self.source.recurrent(units, 3 * units),
            lambda: self.source.zeros(2, 3 * units),
        )

        def step(h, of_input):
            z, r, g = jnp.split(of_input, 3, -1)
            own_z, own_r, own_g = jnp.split(h @ u + b[1], 3, -1)
            z = jax.nn.sigmoid(z + own_z)
            return z * h + (1 - z) * jnp.tanh(g + jax.nn.sigmoid(r + own_r) * own_g), None

        return jax.lax.scan(step, jnp.zeros((len(x), units)), jnp.swapaxes(x, 0, 1) @ w + b[0])[0]


def recurrent_of(kind, words):
    """(weights, words) -> logits, and the first weights."""
    first = Layers()
    networks.recurrent(first, jnp.asarray(words), kind)
    return lambda p, x: networks.recurrent(Layers(p), x, kind), first.weights


def recurrent_train(kind, batch=networks.SENTENCES):
    x, y = networks.sentences(batch)
    predict, p = recurrent_of(kind, x)

    def loss(p, x, y):
        z = predict(p, x)
        return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))

    return training(loss, p, x, y)


def recurrent_inference(kind):
    x, _ = networks.sentences()
    predict, p = recurrent_of(kind, x)
    compiled = jax.jit(lambda x: predict(p, x))
    x, took = (jnp.asarray(x), lambda y: y) if on_card() else (x, np.asarray)

    def run(n=1):
        for _ in range(n):
            y = took(compiled(x))
        return y

    return Job(run, sample(run()))


SERVED = {"recurrent_train": recurrent_train, "recurrent_inference": recurrent_inference}
