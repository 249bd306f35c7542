"""gnomon as a Theano user writes it: logistic regression on MNIST by stochastic gradients and by Newton's method.

    python examples/theano_style.py [--short]

Symbolic inputs, shared variables, `grad`, `function` with updates and givens, a random stream, and a truncated Newton
optimiser that needs the Hessian only in products with vectors.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import gnomon
from gnomon import ops
from gnomon.datasets import mnist

CLASSES, PIXELS = 10, 784


def load(rows: int) -> tuple[gnomon.Variable, gnomon.Variable, np.ndarray, np.ndarray]:
    """Training images and labels as shared variables, test images and labels as arrays."""
    (x, y), (x_test, y_test) = mnist.load_data()
    flat = [v.reshape(-1, PIXELS).astype(np.float32) / 255 for v in (x[:rows], x_test)]
    return gnomon.shared(flat[0], "images"), gnomon.shared(y[:rows].astype(np.int32), "labels"), flat[1], y_test


class LogisticRegression:
    """p(class | x) = softmax(x w + b), all parameters in one shared vector."""

    def __init__(self) -> None:
        self.theta = gnomon.shared(np.zeros(PIXELS * CLASSES + CLASSES, np.float32), "theta")
        self.w = self.theta[: PIXELS * CLASSES].reshape(PIXELS, CLASSES)
        self.b = self.theta[PIXELS * CLASSES :]

    def logits(self, x):
        return x @ self.w + self.b

    def cost(self, x, y, decay: float = 1e-4):
        """The mean of -log p(y | x), and a little weight decay, which makes the Hessian positive definite."""
        loss = ops.sparse_categorical_crossentropy(y, self.logits(x), from_logits=True)
        return ops.mean(loss) + 0.5 * decay * ops.sum(self.theta**2)


def stochastic_gradients(
    model: LogisticRegression, images, labels, steps: int, batch: int = 100, rate: float = 0.5
) -> list[float]:
    """Minibatches cut out of the shared data inside the compiled function, their pixels dropped at random."""
    x, y, i = gnomon.fmatrix("x"), gnomon.ivector("y"), gnomon.lscalar("i")
    stream = gnomon.RandomStream(seed=1)
    kept = stream.bernoulli((batch, PIXELS), p=0.9, dtype="float32")
    cost = model.cost(x * kept / 0.9, y)
    train = gnomon.function(
        [i],
        cost,
        updates=[(model.theta, model.theta - rate * gnomon.grad(cost, model.theta))],
        givens={x: images[i * batch : (i + 1) * batch], y: labels[i * batch : (i + 1) * batch]},
        name="train",
    )
    batches = images.shape[0] // batch
    costs = [float(train(k % batches)) for k in range(steps)]
    return [float(np.mean(costs[k : k + 50])) for k in range(0, steps, 50)]


def newton(model: LogisticRegression, images, labels, steps: int, inner: int = 15) -> list[float]:
    """Truncated Newton: each step solves H p = -g by conjugate gradients, then goes back until the cost falls enough.

    Nocedal, Wright 2006, "Numerical optimization", algorithm 7.1 (with a fixed number of inner steps).
    """
    theta, cost = model.theta, model.cost(images, labels)
    v = gnomon.fvector("v")
    value = gnomon.function([], cost, name="cost")
    value_and_gradient = gnomon.function([], [cost, gnomon.grad(cost, theta)], name="gradient")
    hessian_times = gnomon.function([v], gnomon.hessian_vector_product(cost, theta, v), name="hessian_product")
    costs = []
    for _ in range(steps):
        now, g = value_and_gradient()
        costs.append(float(now))
        p, r = np.zeros_like(g), -g
        d, rr = r, float(r @ r)
        for _ in range(inner):
            hd = hessian_times(d)
            a = rr / float(d @ hd)
            p, r = p + a * d, r - a * hd
            before, rr = rr, float(r @ r)
            if rr < 1e-3 * float(g @ g):
                break
            d = r + rr / before * d
        start, slope, rate = theta.get_value(), float(g @ p), 1.0
        while rate > 1e-4:
            theta.set_value(start + np.float32(rate) * p)
            if value() <= now + 1e-4 * rate * slope:
                break
            rate *= 0.5
    return [*costs, float(value())]


def main(short: bool = False) -> dict[str, float]:
    """Train both ways; returns costs and test accuracies."""
    images, labels, x_test, y_test = load(2_000 if short else 20_000)
    x = gnomon.fmatrix("x")
    results: dict[str, float] = {}
    runs = {"SGD": (stochastic_gradients, 200 if short else 1500), "Newton-CG": (newton, 3 if short else 6)}
    for name, (optimise, steps) in runs.items():
        model = LogisticRegression()
        began = time.perf_counter()
        costs = optimise(model, images, labels, steps)
        seconds = time.perf_counter() - began
        predict = gnomon.function([x], ops.argmax(model.logits(x), axis=1), name="predict")
        results[f"{name} cost"] = costs[-1]
        results[f"{name} accuracy"] = float((predict(x_test) == y_test).mean())
        print(f"{name}: costs", " ".join(f"{c:.3f}" for c in costs))
        print(f"{name}: {steps} steps in {seconds:.1f} s, test accuracy {100 * results[f'{name} accuracy']:.2f} %")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Logistic regression on MNIST in Theano's style")
    parser.add_argument("--short", action="store_true", help="a few seconds, on 2,000 images")
    main(parser.parse_args().short)
