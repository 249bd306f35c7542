"""A residual network with batch normalization, on colour photos of hands that sign digits.

    python examples/residual.py [--short]

Each block adds what two convolutions make of its input to the input itself, so that depth does no harm (He, Zhang, Ren
and Sun 2016, "Deep residual learning for image recognition", section 4.2; here one block for each size). The photos
are in the package; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import gnomon as keras
from gnomon import layers
from gnomon.datasets import sign_digits


def convolve(x, filters: int, size: int = 3, strides: int = 1):
    """A convolution whose outputs have mean 0 and deviation 1 over the batch, while training."""
    x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def block(x, filters: int, strides: int):
    """relu(x + two convolutions of x); where sizes change, x goes through a convolution of 1 x 1."""
    way = layers.ReLU()(convolve(x, filters, strides=strides))
    way = convolve(way, filters)
    if strides > 1:
        x = convolve(x, filters, size=1, strides=strides)
    return layers.ReLU()(layers.Add()([x, way]))


def make() -> keras.Model:
    photo = keras.Input((32, 32, 3), dtype="uint8", name="photo")
    x = layers.Rescaling(1 / 127.5, offset=-1)(photo)
    x = layers.ReLU()(convolve(x, 16))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        x = block(x, filters, strides)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(photo, layers.Dense(10)(x), name="residual")


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns loss and accuracy on photos that were not learned from."""
    keras.utils.set_random_seed(1)
    (x, y), (x_test, y_test) = sign_digits.load_data()
    if not short:  # hands are left or right
        x, y = np.concatenate([x, x[:, :, ::-1]]), np.concatenate([y, y])
    epochs, batch = 4 if short else 12, 64
    rate = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=epochs * -(-len(x) // batch))

    model = make()
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=1e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    moving = sum(int(np.prod(w.shape)) for w in model.non_trainable_weights)
    print(f"{model.count_params()} numbers, {moving} of them moving means and variances, in {len(model.layers)} layers")
    began = time.perf_counter()
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=2)
    seconds = time.perf_counter() - began

    results = model.evaluate(x_test, y_test, verbose=0, return_dict=True)
    print(f"Trained in {seconds:.1f} s. Test accuracy {100 * results['accuracy']:.2f} %, loss {results['loss']:.4f}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A residual network on photos of signed digits")
    parser.add_argument("--short", action="store_true", help="a few seconds")
    main(parser.parse_args().short)
