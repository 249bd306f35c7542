"""Networks written once, over whatever library's layers; a library is a class with the methods used here.

Weights come from one generator in the order in which layers ask for them, so that all libraries compute the same.
"""

import numpy as np

SENTENCES, WORDS, VOCABULARY, UNITS = 32, 200, 20_000, 128
TOKENS, WIDTH, HEADS, INNER, SEQUENCES = 128, 256, 4, 1024, 16
LENGTH = 15_000


class Weights:
    """Random weights, the same for every library that asks in the same order."""

    def __init__(self):
        self.rng = np.random.default_rng(7)

    def kernel(self, *shape):
        """Normal, so that what goes through keeps its size; the last axis is the output's."""
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        return (self.rng.standard_normal(shape) * scale).astype(np.float32)

    def recurrent(self, *shape):
        return (self.rng.standard_normal(shape) * np.sqrt(1 / shape[0])).astype(np.float32)

    def zeros(self, *shape):
        return np.zeros(shape, np.float32)

    def norm(self, channels):
        """Scale, shift, moving mean and variance."""
        near = lambda middle: (middle + 0.1 * self.rng.random(channels)).astype(np.float32)
        return [near(0.5), near(0.0), near(0.0), near(1.0)]


# ---- pictures


def convnet(lib, x):
    """Keras's example for MNIST: 28 x 28 x 1 to 10 logits."""
    for filters in (32, 64):
        x = lib.max_pool(lib.relu(lib.conv(x, filters, 3, padding="valid")), 2, 2)
    return lib.dense(lib.flatten(x), 10)


def resnet50(lib, x):
    """He, Zhang, Ren, Sun 2016, "Deep Residual Learning for Image Recognition", table 1."""

    def conv_norm(x, filters, kernel, stride=1):
        return lib.norm(lib.conv(x, filters, kernel, stride=stride, bias=False))

    x = lib.relu(lib.norm(lib.conv(lib.pad(x, 3), 64, 7, stride=2, padding="valid", bias=False)))
    x = lib.max_pool(lib.pad(x, 1), 3, 2)
    for filters, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            stride = 2 if block == 0 and filters != 64 else 1
            kept = conv_norm(x, 4 * filters, 1, stride) if block == 0 else x
            x = lib.relu(conv_norm(x, filters, 1, stride))
            x = lib.relu(conv_norm(x, filters, 3))
            x = lib.relu(lib.add(kept, conv_norm(x, 4 * filters, 1)))
    return lib.dense(lib.average(x), 1000)


def dilated(lib, x):
    """Jaganathan et al. 2019, "Predicting Splicing from Primary Sequence with Deep Learning", SpliceAI-10k's residual
    units: length x 4 to length x 3."""
    x = lib.conv1d(x, 32, 1)
    total = lib.conv1d(x, 32, 1)
    for kernel, dilation in ((11, 1), (11, 4), (21, 10), (41, 25)):
        for _ in range(4):
            y = lib.conv1d(lib.relu(lib.norm(x)), 32, kernel, dilation)
            y = lib.conv1d(lib.relu(lib.norm(y)), 32, kernel, dilation)
            x = lib.add(x, y)
        total = lib.add(total, lib.conv1d(x, 32, 1))
    return lib.conv1d(total, 3, 1)


# ---- sequences


def transformer(lib, x):
    """Two blocks of an encoder: Vaswani et al. 2017, "Attention Is All You Need", section 3.1, normalized before."""
    for _ in range(2):
        y = lib.layer_norm(x)
        q, k, v = (lib.dense(y, WIDTH) for _ in range(3))
        x = lib.add(x, lib.dense(lib.attention(q, k, v, HEADS), WIDTH))
        y = lib.layer_norm(x)
        x = lib.add(x, lib.dense(lib.relu(lib.dense(y, INNER)), WIDTH))
    return lib.dense(lib.average(lib.layer_norm(x)), 10)


def recurrent(lib, x, kind):
    """Sentiment: 200 words to one number."""
    return lib.dense(getattr(lib, kind)(lib.embedding(x, VOCABULARY, UNITS), UNITS), 1)


# ---- data


def pictures(batch, *shape):
    rng = np.random.default_rng(8)
    classes = 10 if shape[-1] == 1 else 1000
    return rng.standard_normal((batch, *shape)).astype(np.float32), rng.integers(0, classes, batch).astype(np.int32)


def bases():
    return np.random.default_rng(9).standard_normal((1, LENGTH, 4)).astype(np.float32)


def embedded():
    rng = np.random.default_rng(10)
    return rng.standard_normal((SEQUENCES, TOKENS, WIDTH)).astype(np.float32), rng.integers(0, 10, SEQUENCES).astype(
        np.int32
    )


def sentences(batch=SENTENCES):
    rng = np.random.default_rng(11)
    x = rng.integers(0, VOCABULARY, (int(batch), WORDS)).astype(np.int32)
    return x, rng.integers(0, 2, (int(batch), 1)).astype(np.float32)
