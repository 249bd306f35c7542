"""ONNX Runtime as a worker: inference and products only."""

import common
import onnx_networks
import onnxruntime
from common import Job, sample, serve
from onnx import TensorProto, helper, numpy_helper


def session(nodes, inputs, outputs, constants=()):
    def info(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "benchmark",
        [info(*i) for i in inputs],
        [info(*o) for o in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = common.threads()
    return onnxruntime.InferenceSession(model.SerializeToString(), settings, ["CPUExecutionProvider"])


def job(running, feeds, check=0):
    def run(n=1):
        for _ in range(n):
            found = running.run(None, feeds)
        return found

    return Job(run, sample(run()[check]))


def one_row_inference():
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["z1"]),
        helper.make_node("Relu", ["z1"], ["h"]),
        helper.make_node("Gemm", ["h", "w2", "b2"], ["z2"]),
        helper.make_node("Softmax", ["z2"], ["y"], axis=-1),
    ]
    constants = zip(("w1", "b1", "w2", "b2"), common.weights(common.ARTICLE), strict=True)
    return job(session(nodes, [("x", [None, 784])], [("y", [None, 10])], constants), {"x": common.one_row()})


def logsoftmax_sum():
    nodes = [
        helper.make_node("LogSoftmax", ["x"], ["y"], axis=-1),
        helper.make_node("ReduceSum", ["y", "axes"], ["total"], keepdims=0),
    ]
    axes = common.np.array([1], "int64")
    running = session(nodes, [("x", [4096, 1000])], [("y", [4096, 1000]), ("total", [4096])], [("axes", axes)])
    return job(running, {"x": common.logits()}, check=1)


def matmul(shape, form):
    a, b = common.matrices(shape, form)
    node = helper.make_node("Gemm", ["a", "b"], ["c"], transA=int(form == "tn"), transB=int(form == "nt"))
    running = session([node], [("a", a.shape), ("b", b.shape)], [("c", [None, None])])
    return job(running, {"a": a, "b": b})


def network(model, x, order):
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = common.threads()
    running = onnxruntime.InferenceSession(model, settings, ["CPUExecutionProvider"])

    def run(n=1):
        for _ in range(n):
            (found,) = running.run(None, {"x": x})
        return order(found)

    return Job(run, sample(run()))


own = {"one_row_inference": one_row_inference, "logsoftmax_sum": logsoftmax_sum, "matmul": matmul}
serve(["onnxruntime"], own | onnx_networks.served(network))
