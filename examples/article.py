"""The four listings of the Keras article as they were printed; only the imports say `gnomon` instead of `keras`.

    python examples/article.py [--short]

They were written for Keras 1 and 2. gnomon takes the names of those days (`input_shape=`, `lr=`, `nb_epoch=`) and warns
with the present ones.
"""

import sys

import numpy as np

from gnomon.datasets import mnist
from gnomon.layers import Dense, Input
from gnomon.models import Model, Sequential
from gnomon.optimizers import RMSprop

# fmt: off

# 1. A model, layer by layer:
model = Sequential()
model.add(Dense(32, activation='relu', input_shape=(784,)))
model.add(Dense(10, activation='softmax'))

sequential = model

# 2. The same network as a function of its input:
inputs = Input(shape=(784,))
x = Dense(32, activation='relu')(inputs)
predictions = Dense(10, activation='softmax')(x)
model = Model(inputs=inputs, outputs=predictions)

functional = model

(images, labels), (test_images, test_labels) = mnist.load_data()
rows = 6_000 if '--short' in sys.argv else 60_000
x, y = images[:rows].reshape(-1, 784) / 255, np.eye(10)[labels[:rows]]
x_test, y_test = test_images.reshape(-1, 784) / 255, np.eye(10)[test_labels]

for model in sequential, functional:
    # 3. What it is to learn, and how:
    model.compile(optimizer=RMSprop(lr=0.001), loss='mse', metrics=['accuracy'])

    # 4. Learning:
    model.fit(x, y, batch_size=128, nb_epoch=10)

    loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
    print(f'{type(model).__name__}: test accuracy {100 * accuracy:.2f} %')
