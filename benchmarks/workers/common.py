"""What all workers share: data, initial weights, and the protocol with the runner.

A worker is `python use_LIBRARY.py WORKLOAD VARIANT`, in the library's own interpreter; this file needs NumPy alone.
It loads and warms up, prints one line of JSON, and then answers each line `n` on stdin with the seconds that n
iterations took. Everything else that libraries print goes to stderr.

    {"ready": true, "versions": "jax 0.10.2", "load_seconds": 1.2, "check": [0.1, 0.2]}
    50
    {"seconds": 0.0123}
`check` is a few numbers that every library must agree on, so that all are known to compute the same.

On a card (BENCHMARK_DEVICE is the library's own name of it, else 'cpu'), data are in its memory before the clock
starts, results of functions stay there, and the clock stops when the device has done all that was started.
"""

import gzip
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

MNIST = Path(__file__).resolve().parents[2] / "frontend" / "datasets" / "data" / "mnist"

BATCH = 128
ROWS = 60_000
EPOCHS = 10
ARTICLE = (784, 32, 10)
WIDE = (784, 1024, 1024, 10)
WIDE_BATCH = 256
OPTIONS = 4_000_000
INTEREST, VOLATILITY = 0.02, 0.3


def threads():
    """How many threads every library is asked to use."""
    return int(os.environ.get("BENCHMARK_THREADS", "2"))


def device():
    """The library's own name of the device that it is to use: 'cpu', or of a card 'gpu:0', 'cuda'."""
    return os.environ.get("BENCHMARK_DEVICE", "cpu")


def on_card():
    return device() != "cpu"


# ---- data


def idx(name):
    raw = gzip.decompress((MNIST / name).read_bytes())
    shape = np.frombuffer(raw, ">u4", raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(tuple(shape.tolist()))


def mnist(part="train"):
    """float32[n, 784] in 0..1 and one-hot float32[n, 10]."""
    images, labels = idx(f"{part}-images-idx3-ubyte.gz"), idx(f"{part}-labels-idx1-ubyte.gz")
    return images.reshape(-1, 784).astype(np.float32) / 255, np.eye(10, dtype=np.float32)[labels]


def weights(sizes, seed=0):
    """Glorot-uniform kernels and zero biases, in Keras's order: kernel, bias, kernel, bias ..."""
    rng = np.random.default_rng(seed)
    found = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        limit = np.sqrt(6 / (a + b))
        found += [rng.uniform(-limit, limit, (a, b)).astype(np.float32), np.zeros(b, np.float32)]
    return found


def wide_batch():
    """float32[256, 784] and int32[256] labels."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((WIDE_BATCH, 784)).astype(np.float32)
    return x, rng.integers(0, 10, WIDE_BATCH).astype(np.int32)


def one_row():
    return mnist("t10k")[0][:1]


def options(count=OPTIONS):
    """Spot and strike prices and times to expiry, float32[count] each."""
    rng = np.random.default_rng(2)
    return [rng.uniform(a, b, int(count)).astype(np.float32) for a, b in ((10, 50), (10, 50), (0.2, 2))]


def logits(rows=4096):
    return np.random.default_rng(3).standard_normal((int(rows), 1000)).astype(np.float32)


def matrices(shape, form):
    """Operands of an m x k x n product, stored as the form says: nn a b, tn a^T b, nt a b^T."""
    m, k, n = map(int, shape.split("x"))
    rng = np.random.default_rng(4)
    a = rng.standard_normal((k, m) if form == "tn" else (m, k)).astype(np.float32)
    b = rng.standard_normal((n, k) if form == "nt" else (k, n)).astype(np.float32)
    return a, b


def of_matrices(product):
    """Some numbers of a product of any dtype, as float32."""
    return sample(np.asarray(product).astype(np.float32))


def black_scholes(exp, log, sqrt, erf):
    """The pricing formula over some library's functions: call and put prices of European options.

    Black, Scholes 1973, "The pricing of options and corporate liabilities", equation 13.
    """

    def normal_cdf(z):
        return 0.5 + 0.5 * erf(z * 0.7071067811865476)

    def price(spot, strike, time_left):
        spread = VOLATILITY * sqrt(time_left)
        d1 = (log(spot / strike) + (INTEREST + 0.5 * VOLATILITY * VOLATILITY) * time_left) / spread
        d2 = d1 - spread
        discounted = strike * exp(-INTEREST * time_left)
        call = spot * normal_cdf(d1) - discounted * normal_cdf(d2)
        return call, call - spot + discounted

    return price


def sample(array):
    """A few numbers of a result, to compare libraries by."""
    flat = np.asarray(array).reshape(-1)
    return [float(v) for v in flat[:: max(1, flat.size // 8)][:8]]


def orders(seed=5):
    """One shuffled order of the training rows for each epoch, the same for every library."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(ROWS) for _ in range(EPOCHS)]


# ---- the protocol


class Job:
    """`run(n)` does n iterations and waits until they are done; `check` is compared between libraries."""

    def __init__(self, run, check=None):
        self.run, self.check = run, check


def serve(packages, workloads, once=(), wait=lambda result: None):
    """Be a worker. `workloads` maps names to functions (*parameters) -> Job; `once` names to functions () -> result,
    whose result is printed as soon as it is there. `wait` gets what a run returned, and returns when the device has
    done all that was started."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def say(**message):
        print(json.dumps(message), file=out, flush=True)

    name, *parameters = sys.argv[1].split(":")
    if name in once:
        say(result=once[name](), versions=", ".join(f"{p} {version(p)}" for p in packages))
        os._exit(0)  # what libraries do at exit is not measured
    if name not in workloads:
        say(missing=True)
        return
    start = time.perf_counter()
    job = workloads[name](*parameters)
    wait(job.run(1))
    seconds = time.perf_counter() - start
    versions = ", ".join(f"{p} {version(p)}" for p in packages)
    say(ready=True, versions=versions, load_seconds=seconds, check=job.check)
    for line in sys.stdin:
        n = int(line)
        start = time.perf_counter()
        wait(job.run(n))
        say(seconds=time.perf_counter() - start)
