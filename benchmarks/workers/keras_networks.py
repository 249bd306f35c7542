"""The networks over Keras's API: the same lines run on Keras and on gnomon."""

import networks
import numpy as np
from common import Job, sample


class Layers:
    """Keras's layers, each given its weights as soon as it is built."""

    def __init__(self, keras):
        self.keras, self.weights = keras, networks.Weights()

    def made(self, layer, x, *weights):
        y = layer(x)
        layer.set_weights(list(weights))
        return y

    def conv(self, x, filters, kernel, stride=1, padding="same", bias=True):
        layer = self.keras.layers.Conv2D(filters, kernel, strides=stride, padding=padding, use_bias=bias)
        own = [self.weights.kernel(kernel, kernel, x.shape[-1], filters)]
        return self.made(layer, x, *own, *([self.weights.zeros(filters)] if bias else []))

    def conv1d(self, x, filters, kernel, dilation=1):
        layer = self.keras.layers.Conv1D(filters, kernel, dilation_rate=dilation, padding="same")
        return self.made(layer, x, self.weights.kernel(kernel, x.shape[-1], filters), self.weights.zeros(filters))

    def norm(self, x):
        return self.made(self.keras.layers.BatchNormalization(epsilon=1e-5), x, *self.weights.norm(x.shape[-1]))

    def layer_norm(self, x):
        channels = x.shape[-1]
        ones = np.ones(channels, np.float32)
        return self.made(self.keras.layers.LayerNormalization(epsilon=1e-5), x, ones, self.weights.zeros(channels))

    def dense(self, x, units):
        layer = self.keras.layers.Dense(units)
        return self.made(layer, x, self.weights.kernel(x.shape[-1], units), self.weights.zeros(units))

    def embedding(self, x, words, units):
        return self.made(self.keras.layers.Embedding(words, units), x, 0.05 * self.weights.kernel(1, words, units)[0])

    def lstm(self, x, units):
        own = self.weights.kernel(x.shape[-1], 4 * units), self.weights.recurrent(units, 4 * units)
        layer = self.keras.layers.LSTM(units, unit_forget_bias=False)
        return self.made(layer, x, *own, self.weights.zeros(4 * units))

    def gru(self, x, units):
        own = self.weights.kernel(x.shape[-1], 3 * units), self.weights.recurrent(units, 3 * units)
        return self.made(self.keras.layers.GRU(units), x, *own, self.weights.zeros(2, 3 * units))

    def attention(self, q, k, v, heads):
        ops = self.keras.ops
        size = q.shape[-1] // heads
        parts = [ops.reshape(t, (-1, t.shape[1], heads, size)) for t in (q, k, v)]
        scores = ops.softmax(ops.einsum("bthd,bshd->bhts", parts[0], parts[1]) / np.sqrt(size))
        return ops.reshape(ops.einsum("bhts,bshd->bthd", scores, parts[2]), (-1, q.shape[1], q.shape[2]))

    def relu(self, x):
        return self.keras.layers.Activation("relu")(x)

    def add(self, x, y):
        return self.keras.layers.Add()([x, y])

    def pad(self, x, n):
        return self.keras.layers.ZeroPadding2D(n)(x)

    def max_pool(self, x, size, stride):
        return self.keras.layers.MaxPooling2D(size, stride)(x)

    def average(self, x):
        rank = len(x.shape) - 2
        return getattr(self.keras.layers, f"GlobalAveragePooling{rank}D")()(x)

    def flatten(self, x):
        return self.keras.layers.Flatten()(x)


class Networks:
    """`keras` is keras or gnomon."""

    def __init__(self, keras, calls):
        self.keras, self.calls = keras, calls

    def served(self):
        return {
            "convnet_train": self.convnet_train,
            "convnet_inference": self.convnet_inference,
            "resnet50_train": self.resnet50_train,
            "resnet50_inference": self.resnet50_inference,
            "dilated_inference": self.dilated_inference,
            "transformer_train": self.transformer_train,
            "recurrent_train": self.recurrent_train,
            "recurrent_inference": self.recurrent_inference,
        }

    def model(self, build, *shape, dtype="float32", **more):
        x = self.keras.Input(shape, dtype=dtype)
        return self.keras.Model(x, build(Layers(self.keras), x, **more))

    def training(self, model, x, y, loss=None, optimizer="Adam", **settings):
        keras = self.keras
        loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=getattr(keras.optimizers, optimizer)(**settings), loss=loss)
        step = self.calls.training(model, x, y)

        def run(n=1):
            for _ in range(n):
                cost = step()
            return float(np.asarray(cost).reshape(-1)[0])

        return Job(run, [run() for _ in range(3)])

    def inference(self, model, x):
        ask = self.calls.inference(model, x)

        def run(n=1):
            for _ in range(n):
                y = ask()
            return y

        return Job(run, sample(run()))

    def convnet_train(self):
        return self.training(self.model(networks.convnet, 28, 28, 1), *networks.pictures(128, 28, 28, 1))

    def convnet_inference(self):
        return self.inference(self.model(networks.convnet, 28, 28, 1), networks.pictures(128, 28, 28, 1)[0])

    def resnet50_train(self, batch):
        x, y = networks.pictures(int(batch), 224, 224, 3)
        model = self.model(networks.resnet50, 224, 224, 3)
        return self.training(model, x, y, optimizer="SGD", learning_rate=1e-3, momentum=0.9)

    def resnet50_inference(self, batch):
        return self.inference(self.model(networks.resnet50, 224, 224, 3), networks.pictures(int(batch), 224, 224, 3)[0])

    def dilated_inference(self):
        return self.inference(self.model(networks.dilated, networks.LENGTH, 4), networks.bases())

    def transformer_train(self):
        return self.training(self.model(networks.transformer, networks.TOKENS, networks.WIDTH), *networks.embedded())

    def recurrent_train(self, kind, batch=networks.SENTENCES):
        model = self.model(networks.recurrent, networks.WORDS, dtype="int32", kind=kind)
        loss = self.keras.losses.BinaryCrossentropy(from_logits=True)
        return self.training(model, *networks.sentences(batch), loss=loss)

    def recurrent_inference(self, kind):
        model = self.model(networks.recurrent, networks.WORDS, dtype="int32", kind=kind)
        return self.inference(model, networks.sentences()[0])
