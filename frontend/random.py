"""Random tensors: Keras's `keras.random`, and Theano's random streams.

Numbers are a function of a key and a counter (Philox, Salmon et al. 2011): the same on every device and for every
number of threads. An integer seed gives the same numbers each time; a SeedGenerator's state moves on with each draw:
- called on arrays, numbers are drawn at once;
- while a model is traced, the state's new value becomes an update of the program;
- in a graph for `gnomon.function`, it is the state's default update (Theano's way).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DTypeError, ShapeError
from gnomon.compiler.graph import Node, Shape
from gnomon.compiler.ops import build
from gnomon.compiler.sizes import Size
from gnomon.config import floatx
from gnomon.naming import auto_name
from gnomon.ops.arguments import as_axis, as_dtype, as_shape, floating, numbers
from gnomon.ops.order import order_of
from gnomon.ops.positions import hot
from gnomon.random_state import global_state, make_default_seed, steps
from gnomon.surroundings import is_defining
from gnomon.tensor import Tensor, is_symbolic, node_of, op, operand
from gnomon.variable import Variable, is_tracing

WORD = 0xFFFFFFFF


class SeedGenerator:
    """A stream of seeds whose state is a variable: uint32[2], the seed and the number of draws so far.

    seed   an integer; drawn from the global state (`gnomon.utils.set_random_seed`) if None
    """

    def __init__(self, seed: int | None = None, name: str | None = None):
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, (int, np.integer))):
            raise ArgumentError(f"the seed of a SeedGenerator must be an integer, got {seed!r}")
        self.name = name or auto_name(type(self).__name__)
        self._initial_seed = seed
        start = make_default_seed() if seed is None else int(seed)
        self.state = Variable(
            np.array([start & WORD, 0], np.uint32), dtype="uint32", trainable=False, name="seed_generator_state"
        )
        self._draws = 0  # draws in graphs outside of tracing

    def next(self, ordered: bool = True) -> Any:
        """The state before this draw, uint32[2]; the state moves on. An array, while tracing a Tensor."""
        if is_defining():
            return Tensor(self.next_symbolic())
        if is_tracing():
            now = self.state.value
            self.state.assign(Tensor(_moved_on(now.node, 1)))
            return now
        array = self.state.numpy()
        self.state.set_value(array + np.array([0, 1], np.uint32))
        return array

    def next_symbolic(self) -> Node:
        """The seed of one more draw in the graph being written; functions that use one move the state on by all."""
        if is_tracing() and not is_defining():
            return node_of(self.next())
        now = self.state.node if not self._draws else _moved_on(self.state.node, self._draws)
        self._draws += 1
        self.state.default_update = _moved_on(self.state.node, self._draws)
        return now

    def get_config(self) -> dict[str, Any]:
        return {"seed": self._initial_seed, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SeedGenerator:
        return cls(**config)


def _moved_on(state: Node, draws: int) -> Node:
    step = [0, draws] if state.shape == (2,) else [0, 0, draws, 0]
    return build.add(state, build.constant(np.array(step, np.uint32)))


def global_seed_generator() -> SeedGenerator:
    """The generator used where no seed is given; a new one after `set_random_seed`."""
    if "generator" not in global_state:
        global_state["generator"] = SeedGenerator()
    return global_state["generator"]


def _state(seed: Any, symbolic: bool) -> Any:
    """The state that random bits are made of, uint32[4] (key, number of the draw): an array or a Tensor."""
    if seed is None:
        seed = global_seed_generator()
    if isinstance(seed, SeedGenerator):
        if not (symbolic or is_tracing() or steps()):
            key, count = seed.next()
            return np.array([key, 0, count, 0], np.uint32)
        return Tensor(_in_steps(_words(seed.next_symbolic())))
    if is_symbolic(seed):
        now = node_of(seed)
        if now.rank != 1 or now.shape[0] not in (2, 4) or now.dtype != "uint32":
            raise ArgumentError(f"a seed tensor must be uint32[2], as SeedGenerator.next() gives it, got {now.type}")
        return Tensor(_words(now))
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer, np.ndarray)):
        raise ArgumentError(f"a seed is an integer, None or a SeedGenerator, got {seed!r}")
    if isinstance(seed, np.ndarray):
        key, count = seed.astype(np.uint32)
        return np.array([key, 0, count, 0], np.uint32)
    return np.array([int(seed) & WORD, int(seed) >> 32 & WORD, 0, 0], np.uint32)


def _words(state: Node) -> Node:
    """A state as random bits take it: key, number of the draw."""
    if state.shape[0] == 4:
        return state
    zero = build.full((1,), 0, "uint32")
    return build.concat([build.slice(state, [0], [1]), zero, build.slice(state, [1], [1]), zero], 0)


def _in_steps(state: Node) -> Node:
    """The state for the step of each loop around: its key is drawn with the number of the step as a counter."""
    for counter in steps():
        number = build.reshape(build.cast(counter, "uint32"), (1,))
        marked = build.concat([build.slice(state, [0], [2]), number, build.full((1,), _OF_STEPS, "uint32")], 0)
        state = build.concat([build.random_bits(marked, (2,)), build.slice(state, [2], [2])], 0)
    return state


_OF_STEPS = 0x10095EED  # no draw has this as its stream: they are numbered from 0


def _is_graph(*values: Any) -> bool:
    """Whether a draw with these arguments is part of a graph rather than done at once."""
    return is_tracing() or bool(steps()) or any(_symbolic(v) for v in values)


def _symbolic(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_symbolic, value))
    return isinstance(value, (Size, Node)) or is_symbolic(value)


# ---- bits to numbers; `stream` tells apart the words that one element needs


def _bits(state: Node, shape: Shape, stream: int = 0) -> Node:
    if stream:
        state = build.add(state, build.constant(np.array([0, 0, 0, stream], np.uint32)))
    return build.random_bits(state, shape)


def _unit(state: Node, shape: Shape, dtype: str, stream: int = 0) -> Node:
    """Uniform in [0, 1): multiples of 2**-24 (float16: 2**-11, bfloat16: 2**-8, float64: 2**-53), equally likely."""
    bits = _bits(state, shape, stream)
    if dtype == "float64":
        low = build.cast(build.shr(_bits(state, shape, stream + 128), 11), "float64")
        return build.add(build.multiply(build.cast(bits, "float64"), 2.0**-32), build.multiply(low, 2.0**-53))
    kept = {"float16": 11, "bfloat16": 8}.get(dtype, 24)
    whole = build.cast(build.shr(bits, 32 - kept), "int32")  # by way of int32: its conversion is one instruction
    return build.cast(build.multiply(build.cast(whole, "float32"), 2.0**-kept), dtype)


def _symmetric(state: Node, shape: Shape, dtype: str, stream: int = 0) -> Node:
    """Uniform in (-1, 1), symmetric and never an end: odd multiples of 2**-24 (float64: 2**-53)."""
    if dtype == "float64":
        u = _unit(state, shape, dtype, stream)
        return build.add(build.subtract(build.multiply(u, 2.0), 1.0), 2.0**-53)
    whole = build.shr(build.cast(_bits(state, shape, stream), "int32"), 8)
    odd = build.add(build.multiply(build.cast(whole, "float32"), 2.0), 1.0)
    return build.multiply(odd, 2.0**-24)


def _standard_normal(state: Node, shape: Shape, dtype: str, stream: int = 0) -> Node:
    """By the inverse of the distribution function: sqrt(2) erfinv(u), u uniform in (-1, 1)."""
    wide = _wide(dtype)
    return build.cast(build.multiply(build.erfinv(_symmetric(state, shape, wide, stream)), math.sqrt(2)), dtype)


def _float(dtype: Any) -> str:
    name = as_dtype(dtype, floatx())
    if not dtypes.is_float(name):
        raise DTypeError(f"these random numbers are floats, got dtype {name}; for integers use randint")
    return name


# ---- distributions


@numbers("shape")
def normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    """Numbers of the normal distribution with `mean` and `stddev`."""
    return _normal(_state(seed, _is_graph(shape, mean, stddev)), shape, mean, stddev, _float(dtype))


@op
def _normal(state, shape, mean, stddev, dtype):
    values = _standard_normal(node_of(state), as_shape(shape), dtype)
    return _scaled(values, stddev, mean)


def _scaled(values: Node, scale: Any, shift: Any) -> Node:
    dtype = values.dtype
    scale, shift = (build.cast(operand(v), dtype) for v in (scale, shift))
    return build.add(build.multiply(values, scale), shift)


@numbers("shape")
def truncated_normal(shape, mean=0.0, stddev=1.0, dtype=None, seed=None):
    """Numbers of the normal distribution within two `stddev` of `mean`."""
    return _truncated(_state(seed, _is_graph(shape, mean, stddev)), shape, mean, stddev, _float(dtype))


@op
def _truncated(state, shape, mean, stddev, dtype):
    wide = _wide(dtype)
    u = build.multiply(_symmetric(node_of(state), as_shape(shape), wide), math.erf(math.sqrt(2)))
    values = build.multiply(build.erfinv(u), math.sqrt(2))
    values = build.minimum(build.maximum(values, -2.0), 2.0)  # rounding may not lead outside
    return _scaled(build.cast(values, dtype), stddev, mean)


@numbers("shape")
def uniform(shape, minval=0.0, maxval=1.0, dtype=None, seed=None):
    """Numbers equally likely everywhere in [minval, maxval)."""
    return _uniform(_state(seed, _is_graph(shape, minval, maxval)), shape, minval, maxval, _float(dtype))


@op
def _uniform(state, shape, minval, maxval, dtype):
    values = _unit(node_of(state), as_shape(shape), dtype)
    low, high = (build.cast(operand(v), dtype) for v in (minval, maxval))
    return build.add(build.multiply(values, build.subtract(high, low)), low)


@numbers("shape")
def randint(shape, minval, maxval, dtype="int32", seed=None):
    """Integers from minval to maxval - 1. Of 64 random bits the remainder is taken: its bias is below 2**-32."""
    name = as_dtype(dtype, "int32")
    if not dtypes.is_integer(name):
        raise DTypeError(f"randint gives integers, got dtype {name}; for floats use uniform")
    return _randint(_state(seed, _is_graph(shape, minval, maxval)), shape, minval, maxval, name)


@op
def _randint(state, shape, minval, maxval, dtype):
    state, sizes = node_of(state), as_shape(shape)
    low, high = (build.cast(operand(v), "int64") for v in (minval, maxval))
    width = build.cast(build.subtract(high, low), "uint64")
    upper = build.shl(build.cast(_bits(state, sizes), "uint64"), 32)
    bits = build.bitwise_or(upper, build.cast(_bits(state, sizes, 1), "uint64"))
    return build.cast(build.add(build.cast(build.mod(bits, width), "int64"), low), dtype)


def categorical(logits, num_samples, dtype="int32", seed=None):
    """Class numbers drawn with probabilities softmax(logits): [batch, num_samples] for logits [batch, classes].

    The largest of the logits plus noise of Gumbel's distribution: Maddison, Tarlow, Minka 2014, "A* sampling".
    """
    return _categorical(_state(seed, _is_graph(logits)), logits, num_samples, as_dtype(dtype, "int32"))


@op
def _categorical(state, logits, num_samples, dtype):
    x = floating(node_of(logits))
    if x.rank != 2:
        raise ShapeError(f"categorical needs logits [batch, classes], got {x.type}")
    (count,) = as_shape(num_samples)
    shape = (x.shape[0], count, x.shape[1])
    wide = _wide(x.dtype)
    u = _symmetric(node_of(state), shape, wide)
    u = build.multiply(build.add(u, 1.0), 0.5)  # in (0, 1)
    noise = build.negative(build.log(build.negative(build.log(u))))
    return build.cast(build.argmax(build.add(build.broadcast(build.cast(x, wide), shape, [0, 2]), noise), 2), dtype)


def dropout(inputs, rate, noise_shape=None, seed=None):
    """`inputs` with each element 0 with probability `rate`, else divided by 1 - rate.

    noise_shape   the shape of the decisions, which broadcast: an axis of 1 drops whole slices; None is the input's size
    Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov 2014, "Dropout", with the scaling at training time.
    """
    if not 0 <= rate <= 1:
        raise ArgumentError(f"the rate of dropout must be between 0 and 1, got {rate}")
    return _dropout(_state(seed, _is_graph(inputs)), inputs, float(rate), noise_shape)


@op
def _dropout(state, inputs, rate, noise_shape):
    x = floating(node_of(inputs))
    if rate == 0:
        return x
    if noise_shape is None:
        shape = x.shape
    else:
        given = (None,) * (x.rank - len(noise_shape)) + tuple(noise_shape)
        shape = tuple(d if n is None else as_shape(n)[0] for n, d in zip(given, x.shape, strict=True))
    if rate == 1:
        return build.full_like(x, 0)
    # the bits themselves are compared: no conversion to floats, and the same decision in every dtype
    kept = build.greater_equal(_bits(node_of(state), shape), min(round(rate * 2**32), WORD))
    return build.where(build.broadcast_to(kept, x.shape), build.divide(x, 1 - rate), 0.0)


@numbers("axis")
def shuffle(x, axis=0, seed=None):
    """x with its slices along `axis` in random order: ordered by random bits."""
    graph = _is_graph(x)
    state = _state(seed, graph)
    if not graph:
        x = np.asarray(x)
        bits = _drawn(state, x.shape[axis])
        return np.take(x, np.argsort(bits, kind="stable"), axis)
    return _shuffle(state, x, axis)


@op
def _drawn(state, count):
    return _bits(node_of(state), (count,))


@op
def _shuffle(state, x, axis):
    x = node_of(x)
    axis = as_axis(x, axis)
    order = order_of(_bits(node_of(state), (x.shape[axis],)))
    return build.gather(x, order, axis)


@numbers("n")
def permutation(n, seed=None):
    """0 … n - 1 in random order, int32."""
    graph = _is_graph(n)
    state = _state(seed, graph)
    return _permutation(state, n) if graph else np.argsort(_drawn(state, n), kind="stable").astype(np.int32)


@op
def _permutation(state, n):
    return order_of(_bits(node_of(state), as_shape(n)))


ATTEMPTS = 8
"""Proposals per gamma number. Each is taken with probability 0.95 at least, so that none is in 4 of 10**11 cases."""


@numbers("shape")
def gamma(shape, alpha, dtype=None, seed=None):
    """Numbers of the gamma distribution with shape parameter `alpha` and scale 1. Gradients do not pass.

    Marsaglia, Tsang 2000, "A simple method for generating gamma variables"; below alpha = 1 their section 6. A fixed
    number of proposals is made at once and the first good one taken.
    """
    return _gamma(_state(seed, _is_graph(shape, alpha)), shape, alpha, _float(dtype))


@op
def _gamma(state, shape, alpha, dtype):
    return build.cast(_gamma_values(node_of(state), as_shape(shape), alpha, _wide(dtype), 0), dtype)


def _wide(dtype: str) -> str:
    return dtypes.named(dtype).compute


def _gamma_values(state: Node, shape: Shape, alpha: Any, dtype: str, stream: int) -> Node:
    a = build.broadcast_to(build.cast(operand(alpha), dtype), shape)
    raised = build.less(a, 1.0)
    d = build.subtract(build.where(raised, build.add(a, 1.0), a), 1 / 3)
    c = build.divide(1 / 3, build.sqrt(d))
    tries = (ATTEMPTS, *shape)
    z = _standard_normal(state, tries, dtype, stream)
    u = build.subtract(1.0, _unit(state, tries, dtype, stream + 1))  # in (0, 1]: a logarithm follows
    spread = [k + 1 for k in range(len(shape))]
    big_d, big_c = (build.broadcast(v, tries, spread) for v in (d, c))
    base = build.add(build.multiply(big_c, z), 1.0)
    good = build.greater(base, 0.0)
    v = build.power(build.where(good, base, 1.0), 3.0)
    limit = build.multiply(big_d, build.add(build.subtract(1.0, v), build.log(v)))
    limit = build.add(build.multiply(build.square(z), 0.5), limit)
    good = build.logical_and(good, build.less(build.log(u), limit))
    turn = build.iota(tries, 0, "int32")
    first = build.min(build.where(good, turn, ATTEMPTS - 1), 0)
    chosen = build.equal(turn, build.broadcast(first, tries, spread))
    value = build.multiply(d, build.sum(build.where(chosen, v, 0.0), 0))
    boost = build.power(build.subtract(1.0, _unit(state, shape, dtype, stream + 2)), build.divide(1.0, a))
    return build.stop_gradient(build.where(raised, build.multiply(value, boost), value))


@numbers("shape")
def beta(shape, alpha, beta, dtype=None, seed=None):
    """Numbers of the beta distribution: x / (x + y), x and y of gamma distributions. Gradients do not pass."""
    return _beta(_state(seed, _is_graph(shape, alpha, beta)), shape, alpha, beta, _float(dtype))


@op
def _beta(state, shape, alpha, beta, dtype):
    sizes = as_shape(shape)
    x = _gamma_values(node_of(state), sizes, alpha, _wide(dtype), 0)
    y = _gamma_values(node_of(state), sizes, beta, _wide(dtype), 8)
    return build.cast(build.divide(x, build.add(x, y)), dtype)


@numbers("shape", "counts")
def binomial(shape, counts, probabilities, dtype=None, seed=None):
    """How many of `counts` trials succeed, each with `probabilities`. The work is proportional to the largest count,
    which must be known (a number or an array). Gradients do not pass."""
    if _symbolic(counts):
        raise ArgumentError("binomial needs counts that are known before the function runs: a number or an array")
    state = _state(seed, _is_graph(shape, probabilities))
    return _binomial(state, shape, counts, probabilities, _float(dtype))


@op
def _binomial(state, shape, counts, probabilities, dtype):
    sizes = as_shape(shape)
    most = int(np.max(counts))
    tries = (most, *sizes)
    spread = [k + 1 for k in range(len(sizes))]
    wide = _wide(dtype)
    n = build.broadcast_to(build.constant(np.asarray(counts, np.int32)), sizes)
    p = build.broadcast_to(build.cast(operand(probabilities), wide), sizes)
    hit = build.less(_unit(node_of(state), tries, wide), build.broadcast(p, tries, spread))
    counted = build.less(build.iota(tries, 0, "int32"), build.broadcast(n, tries, spread))
    return build.cast(build.sum(build.cast(build.logical_and(hit, counted), "int32"), 0), dtype)


# ---- Theano's random streams


class RandomStream:
    """Theano's random stream: `srng.uniform((n, 3))` is a symbolic tensor, drawn anew at each call of a function.

    seed   an integer; drawn from the global state if None
    Every draw site has a state of its own, a shared variable uint32[4] (key: seed and number of the site; number of the
    draw) whose default update counts the draws: a function moves on only the sites that it uses.
    """

    def __init__(self, seed: int | None = None):
        self.default_seed = make_default_seed() if seed is None else int(seed)
        self.state_updates: list[tuple[Variable, Tensor]] = []

    def _site(self) -> Tensor:
        state = Variable(
            np.array([self.default_seed & WORD, len(self.state_updates) + 1, 0, 0], np.uint32),
            dtype="uint32",
            trainable=False,
            name=f"random_state_{len(self.state_updates)}",
        )
        state.default_update = _moved_on(state.node, 1)
        self.state_updates.append((state, Tensor(state.default_update)))
        return Tensor(_in_steps(state.node))

    def updates(self) -> list[tuple[Variable, Tensor]]:
        """(state, next state) of every draw site, for `updates=`; functions do it by themselves."""
        return list(self.state_updates)

    def seed(self, seed: int | None = None) -> None:
        """Start all sites anew from `seed`, or from the seed given first."""
        start = self.default_seed if seed is None else int(seed)
        for k, (state, _) in enumerate(self.state_updates):
            state.set_value(np.array([start & WORD, k + 1, 0, 0], np.uint32))

    def uniform(self, size=(), low=0.0, high=1.0, dtype=None) -> Tensor:
        """Equally likely in [low, high)."""
        return uniform(size, low, high, dtype, self._site())

    def normal(self, size=(), avg=0.0, std=1.0, dtype=None) -> Tensor:
        """Of the normal distribution."""
        return normal(size, avg, std, dtype, self._site())

    def truncated_normal(self, size=(), avg=0.0, std=1.0, dtype=None) -> Tensor:
        """Of the normal distribution within two standard deviations."""
        return truncated_normal(size, avg, std, dtype, self._site())

    def integers(self, size=(), low=0, high=2, dtype="int32") -> Tensor:
        """Integers from low to high - 1."""
        return randint(size, low, high, dtype, self._site())

    def binomial(self, size=(), n=1, p=0.5, dtype="int64") -> Tensor:
        """How many of n trials succeed."""
        return binomial(size, n, p, "float64", self._site()).astype(dtype)

    def bernoulli(self, size=(), p=0.5, dtype="int32") -> Tensor:
        """1 with probability p, else 0."""
        return (uniform(size, 0.0, 1.0, None, self._site()) < p).astype(dtype)

    def multinomial(self, pvals: Any, n: int = 1, dtype="int64") -> Tensor:
        """How often each class is drawn in n draws with the probabilities `pvals` [batch, classes]."""
        from gnomon import ops

        chosen = categorical(ops.log(pvals), n, "int32", self._site())
        return _counted(chosen, node_of(pvals).shape[1], dtype)

    def permutation(self, n: Any) -> Tensor:
        """0 … n - 1 in random order."""
        return _permutation(self._site(), n)

    def shuffle(self, x: Any, axis: int = 0) -> Tensor:
        """x with its slices along `axis` in random order."""
        return shuffle(x, axis, self._site()) if is_symbolic(x) else shuffle(Tensor(node_of(x)), axis, self._site())

    def gamma(self, size, alpha, dtype=None) -> Tensor:
        """Of the gamma distribution with scale 1."""
        return gamma(size, alpha, dtype, self._site())

    def beta(self, size, a, b, dtype=None) -> Tensor:
        """Of the beta distribution."""
        return beta(size, a, b, dtype, self._site())


@op
def _counted(chosen, classes, dtype):
    return build.cast(build.sum(hot(node_of(chosen), classes, -1, "int32"), 1), dtype)
