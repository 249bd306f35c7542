"""PyTensor as a worker, in its default mode."""

import os

os.environ["PYTENSOR_FLAGS"] = os.environ.get("PYTENSOR_FLAGS", "") + ",floatX=float32"

import common
import numpy as np
import pytensor
import pytensor.tensor as pt
from common import Job, sample, serve


def shared(arrays):
    return [pytensor.shared(a, borrow=True) for a in arrays]


def predict(p, x):
    w1, b1, w2, b2 = p
    return pt.special.softmax(pt.maximum(x @ w1 + b1, 0) @ w2 + b2, axis=-1)


def article_step(inputs, x, y, givens):
    p = shared(common.weights(common.ARTICLE))
    out = predict(p, x)
    cost = pt.mean((out - y) ** 2)
    accuracy = pt.mean(pt.eq(pt.argmax(out, axis=-1), pt.argmax(y, axis=-1)), dtype="float32")
    updates = []
    for w, g in zip(p, pytensor.grad(cost, p), strict=True):
        m = pytensor.shared(np.zeros_like(w.get_value()))
        new = np.float32(0.9) * m + np.float32(0.1) * g * g
        updates += [(m, new), (w, w - np.float32(0.001) * g / pt.sqrt(new + np.float32(1e-7)))]
    return pytensor.function(inputs, [cost, accuracy], updates=updates, givens=givens, trust_input=True)


def article_mlp_fit():
    data = shared(common.mnist())
    x, y, rows = pt.fmatrix("x"), pt.fmatrix("y"), pt.lvector("rows")
    step = article_step([rows], x, y, {x: data[0][rows], y: data[1][rows]})
    rng = np.random.default_rng(0)
    starts = range(0, common.ROWS, common.BATCH)

    def run(n=1):
        for _ in range(n):
            order = rng.permutation(common.ROWS)
            total = hits = 0.0
            for s in starts:
                cost, accuracy = step(order[s : s + common.BATCH])
                total, hits = total + cost, hits + accuracy
        return float(total) / len(starts)

    return Job(run, [run()])


def mlp_1024_adam():
    images, labels = common.wide_batch()
    x, y = pt.fmatrix("x"), pt.ivector("y")
    w1, b1, w2, b2, w3, b3 = p = shared(common.weights(common.WIDE))
    z = pt.maximum(pt.maximum(x @ w1 + b1, 0) @ w2 + b2, 0) @ w3 + b3
    cost = -pt.mean(pt.special.log_softmax(z, axis=-1)[pt.arange(y.shape[0]), y])
    t = pytensor.shared(np.float32(0))
    now = t + np.float32(1)
    rate = np.float32(0.001) * pt.sqrt(1 - np.float32(0.999) ** now) / (1 - np.float32(0.9) ** now)
    updates = [(t, now)]
    for w, g in zip(p, pytensor.grad(cost, p), strict=True):
        m, v = (pytensor.shared(np.zeros_like(w.get_value())) for _ in range(2))
        new_m = m + np.float32(0.1) * (g - m)
        new_v = v + np.float32(0.001) * (g * g - v)
        updates += [(m, new_m), (v, new_v), (w, w - rate * new_m / (pt.sqrt(new_v) + np.float32(1e-7)))]
    step = pytensor.function([x, y], cost, updates=updates, trust_input=True)

    def run(n=1):
        for _ in range(n):
            loss = step(images, labels)
        return float(loss)

    return Job(run, [run() for _ in range(3)])


def one_row_inference():
    x, row = pt.fmatrix("x"), common.one_row()
    fn = pytensor.function([x], predict(shared(common.weights(common.ARTICLE)), x), trust_input=True)

    def run(n=1):
        for _ in range(n):
            y = fn(row)
        return y

    return Job(run, sample(run()))


def black_scholes():
    inputs = [pt.fvector(name) for name in ("spot", "strike", "time")]
    fn = pytensor.function(inputs, common.black_scholes(pt.exp, pt.log, pt.sqrt, pt.erf)(*inputs), trust_input=True)
    arrays = common.options()

    def run(n=1):
        for _ in range(n):
            prices = fn(*arrays)
        return prices

    return Job(run, sample(run()[0]) + sample(run()[1]))


def logsoftmax_sum():
    x, array = pt.fmatrix("x"), common.logits()
    y = pt.special.log_softmax(x, axis=-1)
    fn = pytensor.function([x], [y, y.sum(axis=-1)], trust_input=True)

    def run(n=1):
        for _ in range(n):
            found = fn(array)
        return found

    return Job(run, sample(run()[1]))


def matmul(shape, form):
    a, b = pt.fmatrix("a"), pt.fmatrix("b")
    product = (a.T if form == "tn" else a) @ (b.T if form == "nt" else b)
    fn, arrays = pytensor.function([a, b], product, trust_input=True), common.matrices(shape, form)

    def run(n=1):
        for _ in range(n):
            c = fn(*arrays)
        return c

    return Job(run, sample(run()))


def process_start():
    x, y = pt.fmatrix("x"), pt.fmatrix("y")
    cost, _ = article_step([x, y], x, y, {})(np.zeros((128, 784), np.float32), np.zeros((128, 10), np.float32))
    return float(cost)


serve(
    ["pytensor"],
    {
        "article_mlp_fit": article_mlp_fit,
        "mlp_1024_adam": mlp_1024_adam,
        "one_row_inference": one_row_inference,
        "black_scholes": black_scholes,
        "logsoftmax_sum": logsoftmax_sum,
        "matmul": matmul,
    },
    {"process_start": process_start},
)
