"""NumPy (its bundled OpenBLAS) as a worker."""

import numpy as np
from common import Job, logits, matrices, one_row, sample, serve, weights


def one_row_inference():
    (w1, b1, w2, b2), x = weights((784, 32, 10)), one_row()

    def run(n=1):
        for _ in range(n):
            z = np.maximum(x @ w1 + b1, 0) @ w2 + b2
            e = np.exp(z - z.max(axis=-1, keepdims=True))
            y = e / e.sum(axis=-1, keepdims=True)
        return y

    return Job(run, sample(run()))


def logsoftmax_sum():
    x = logits()

    def run(n=1):
        for _ in range(n):
            z = x - x.max(axis=-1, keepdims=True)
            y = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
            total = y.sum(axis=-1)
        return total

    return Job(run, sample(run()))


def matmul(shape, form):
    a, b = matrices(shape, form)
    a, b = a.T if form == "tn" else a, b.T if form == "nt" else b

    def run(n=1):
        for _ in range(n):
            c = a @ b
        return c

    return Job(run, sample(run()))


serve(
    ["numpy"],
    {"one_row_inference": one_row_inference, "logsoftmax_sum": logsoftmax_sum, "matmul": matmul},
)
