"""The networks as ONNX graphs, for the runtimes that take them: inference alone, pictures channels first."""

import networks
import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """A graph under construction; what layers pass on is (name, shape without the batch)."""

    def __init__(self):
        self.weights, self.nodes, self.constants = networks.Weights(), [], []

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind, inputs, shape, outputs=1, use=0, **attributes):
        names = [f"n{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[use], shape

    def conv(self, x, filters, kernel, stride=1, padding="same", bias=True):
        name, (channels, height, width) = x
        around = kernel // 2 if padding == "same" else 0
        own = [self.constant(self.weights.kernel(kernel, kernel, channels, filters).transpose(3, 2, 0, 1))]
        own += [self.constant(self.weights.zeros(filters))] if bias else []
        size = lambda n: (n + 2 * around - kernel) // stride + 1
        shape = (filters, size(height), size(width))
        return self.node("Conv", [name, *own], shape, pads=[around] * 4, strides=[stride, stride])

    def conv1d(self, x, filters, kernel, dilation=1):
        name, (channels, length) = x
        own = self.weights.kernel(kernel, channels, filters).transpose(2, 1, 0)
        around = dilation * (kernel // 2)
        inputs = [name, self.constant(own), self.constant(self.weights.zeros(filters))]
        return self.node("Conv", inputs, (filters, length), pads=[around] * 2, dilations=[dilation])

    def norm(self, x):
        name, shape = x
        own = [self.constant(w) for w in self.weights.norm(shape[0])]
        return self.node("BatchNormalization", [name, *own], shape, epsilon=1e-5)

    def dense(self, x, units):
        name, shape = x
        own = [self.constant(self.weights.kernel(shape[-1], units)), self.constant(self.weights.zeros(units))]
        return self.node("Gemm", [name, *own], (units,))

    def embedding(self, x, words, units):
        table = self.constant(0.05 * self.weights.kernel(1, words, units)[0])
        return self.node("Gather", [table, x[0]], (*x[1], units))

    def lstm(self, x, units):
        return self.loop("LSTM", x, units, [0, 3, 1, 2], {})

    def gru(self, x, units):
        return self.loop("GRU", x, units, [0, 1, 2], {"linear_before_reset": 1})

    def loop(self, kind, x, units, order, more):
        """`order` has Keras's gates in the order of ONNX."""
        name, (steps, channels) = x
        gates = len(order)
        kernel, own = self.weights.kernel(channels, gates * units), self.weights.recurrent(units, gates * units)
        arranged = lambda w: np.concatenate([np.split(w, gates, 1)[g] for g in order], 1).T[None]
        name, _ = self.node("Transpose", [name], (), perm=[1, 0, 2])
        inputs = [name, self.constant(arranged(kernel)), self.constant(arranged(own))]
        outputs = 3 if kind == "LSTM" else 2
        last, _ = self.node(kind, inputs, (), outputs=outputs, use=1, hidden_size=units, **more)
        return self.node("Squeeze", [last, self.constant(np.array([0], np.int64))], (units,))

    def relu(self, x):
        return self.node("Relu", [x[0]], x[1])

    def add(self, x, y):
        return self.node("Add", [x[0], y[0]], x[1])

    def pad(self, x, n):
        name, (channels, height, width) = x
        pads = self.constant(np.array([0, 0, n, n, 0, 0, n, n], np.int64))
        return self.node("Pad", [name, pads], (channels, height + 2 * n, width + 2 * n))

    def max_pool(self, x, size, stride):
        name, (channels, *extents) = x
        shape = (channels, *((n - size) // stride + 1 for n in extents))
        return self.node("MaxPool", [name], shape, kernel_shape=[size, size], strides=[stride, stride])

    def average(self, x):
        name, (channels, *_) = x
        name, _ = self.node("GlobalAveragePool", [name], ())
        return self.node("Flatten", [name], (channels,))

    def flatten(self, x):
        name, (channels, height, width) = x
        name, _ = self.node("Transpose", [name], (), perm=[0, 2, 3, 1])
        return self.node("Flatten", [name], (channels * height * width,))


def model(build, shape, dtype=TensorProto.FLOAT, **more):
    """The network as ONNX bytes; its input is 'x', its output 'y'."""
    graph = Graph()
    name, _ = build(graph, ("x", shape), **more)
    graph.nodes.append(helper.make_node("Identity", [name], ["y"]))
    inputs = [helper.make_tensor_value_info("x", dtype, ["batch", *shape])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    made = helper.make_graph(graph.nodes, "network", inputs, outputs, graph.constants)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()


def served(job):
    """Workloads; `job(model, x, order)` runs one, `order` bringing its result into Keras's order of axes."""
    same = lambda y: y
    first = lambda x: np.ascontiguousarray(np.moveaxis(x, -1, 1))

    def convnet_inference():
        x = networks.pictures(128, 28, 28, 1)[0]
        return job(model(networks.convnet, (1, 28, 28)), first(x), same)

    def resnet50_inference(batch):
        x = networks.pictures(int(batch), 224, 224, 3)[0]
        return job(model(networks.resnet50, (3, 224, 224)), first(x), same)

    def dilated_inference():
        x = networks.bases()
        return job(model(networks.dilated, (4, networks.LENGTH)), first(x), lambda y: np.moveaxis(y, 1, -1))

    def recurrent_inference(kind):
        x = networks.sentences()[0]
        return job(model(networks.recurrent, (networks.WORDS,), TensorProto.INT32, kind=kind), x, same)

    found = [convnet_inference, resnet50_inference, dilated_inference, recurrent_inference]
    return {f.__name__: f for f in found}
