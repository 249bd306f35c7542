"""gnomon as a worker."""

import common
from common import Job, sample, serve
from keras_api import Workloads
from keras_networks import Networks

import gnomon
from gnomon import ops


def as_function(model):
    x = gnomon.Input((784,))
    return gnomon.function([x], model(x))


def calling(fn, arrays, check=None):
    def run(n=1):
        for _ in range(n):
            found = fn(*arrays)
        return found

    return Job(run, check(run()) if check else sample(run()))


def black_scholes():
    inputs = [gnomon.Input(batch_shape=(None,), name=name) for name in ("spot", "strike", "time")]
    price = common.black_scholes(ops.exp, ops.log, ops.sqrt, ops.erf)
    fn = gnomon.function(inputs, list(price(*inputs)), name="black_scholes")
    return calling(fn, common.options(), lambda found: sample(found[0]) + sample(found[1]))


def logsoftmax_sum():
    x = gnomon.Input(batch_shape=(None, 1000), name="x")
    y = ops.log_softmax(x, axis=-1)
    fn = gnomon.function([x], [y, ops.sum(y, axis=-1)], name="logsoftmax_sum")
    return calling(fn, [common.logits()], lambda found: sample(found[1]))


def matmul(shape, form):
    a, b = common.matrices(shape, form)
    x, w = gnomon.Input(batch_shape=a.shape, name="a"), gnomon.Input(batch_shape=b.shape, name="b")
    product = ops.matmul(ops.transpose(x) if form == "tn" else x, ops.transpose(w) if form == "nt" else w)
    return calling(gnomon.function([x, w], product, name="matmul"), [a, b])


found = Workloads(gnomon, as_function)
own = {"black_scholes": black_scholes, "logsoftmax_sum": logsoftmax_sum, "matmul": matmul}
serve(["gnomon"], found.served() | own | Networks(gnomon).served(), found.once())
