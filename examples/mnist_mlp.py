"""The article's model on MNIST: 784-32-10, RMSprop, ten epochs. About 96 % of the test digits right.

    python examples/mnist_mlp.py [--short]
"""

import sys

import numpy as np

import gnomon
from gnomon.layers import Dense
from gnomon.models import Sequential
from gnomon.optimizers import RMSprop


def main(short: bool = False) -> float:
    (x, y), (x_test, y_test) = gnomon.datasets.mnist.load_data()
    x, x_test = (a.reshape(-1, 784).astype("float32") / 255 for a in (x, x_test))
    y, y_test = (np.eye(10, dtype="float32")[a] for a in (y, y_test))
    if short:
        x, y = x[:10000], y[:10000]
    gnomon.utils.set_random_seed(0)
    model = Sequential([gnomon.Input((784,)), Dense(32, activation="relu"), Dense(10, activation="softmax")])
    model.compile(RMSprop(learning_rate=0.001), loss="categorical_crossentropy", metrics=["accuracy"])
    model.summary()
    model.fit(x, y, batch_size=128, epochs=2 if short else 10, validation_data=(x_test, y_test))
    loss, accuracy = model.evaluate(x_test, y_test, batch_size=128, verbose=0)
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main("--short" in sys.argv)
