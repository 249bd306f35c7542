"""gnomon as a worker."""

import common
import numpy as np
from common import Job, on_card, sample, serve
from keras_api import Calls, Workloads
from keras_networks import Networks

import gnomon
from gnomon import ops
from gnomon.inspecting import function_of
from gnomon.placement import chosen_device


class CallsOnCard(Calls):
    """Steps as `fit` makes them and predictions, of arrays in the card's memory."""

    def training(self, model, x, y):
        rows, count = np.arange(len(x), dtype=np.int64).reshape(1, -1), np.asarray(1, np.int64)
        step, arrays = model._step_program("train", (x, y, None)).function, [rows, count, placed(x), placed(y)]

        def call():
            model.reset_metrics()  # as train_on_batch does: the loss is of this step alone
            return step(*arrays)[0]

        return call

    def inference(self, model, x):
        model.predict_on_batch(x)
        ask, there = function_of(model, "predict"), placed(x)
        return lambda: ask.on_device(there)


def placed(array):
    """The array where functions read it quickest: on a card, in its memory."""
    return chosen_device(None).array(array) if isinstance(array, np.ndarray) else array


def wait(result=None):
    chosen_device(None).wait()


def as_function(model):
    x = gnomon.Input((784,))
    return gnomon.function([x], model(x))


def calling(fn, arrays, check=sample):
    """Calls of a function. On a card, arguments and results are in its memory."""
    arrays, call = [placed(a) for a in arrays], fn.on_device if on_card() else fn

    def run(n=1):
        for _ in range(n):
            found = call(*arrays)
        return found

    return Job(run, check(run()))


def black_scholes(count=common.OPTIONS):
    inputs = [gnomon.Input(batch_shape=(None,), name=name) for name in ("spot", "strike", "time")]
    price = common.black_scholes(ops.exp, ops.log, ops.sqrt, ops.erf)
    fn = gnomon.function(inputs, list(price(*inputs)), name="black_scholes")
    return calling(fn, common.options(count), lambda found: sample(found[0]) + sample(found[1]))


def logsoftmax_sum(rows=4096):
    x = gnomon.Input(batch_shape=(None, 1000), name="x")
    y = ops.log_softmax(x, axis=-1)
    fn = gnomon.function([x], [y, ops.sum(y, axis=-1)], name="logsoftmax_sum")
    return calling(fn, [common.logits(rows)], lambda found: sample(found[1]))


def matmul(shape, form, dtype="float32"):
    a, b = common.matrices(shape, form)
    x, w = (gnomon.Input(batch_shape=m.shape, dtype=dtype, name=name) for name, m in (("a", a), ("b", b)))
    product = ops.matmul(ops.transpose(x) if form == "tn" else x, ops.transpose(w) if form == "nt" else w)
    fn = gnomon.function([x, w], product, name="matmul")
    arrays = [cast(m, "float32", dtype) for m in (a, b)]
    return calling(fn, arrays, lambda found: sample(cast(found, dtype, "float32")))


def cast(array, dtype, to):
    """The same numbers in another dtype."""
    x = gnomon.Input(batch_shape=array.shape, dtype=dtype)
    return array if dtype == to else gnomon.function([x], ops.cast(x, to)).on_device(array)


def served():
    calls = CallsOnCard() if on_card() else Calls()
    found = Workloads(gnomon, as_function, calls)
    own = {"black_scholes": black_scholes, "logsoftmax_sum": logsoftmax_sum, "matmul": matmul}
    return found.served() | own | Networks(gnomon, calls).served(), found.once()


if __name__ == "__main__":
    serve(["gnomon"], *served(), wait)
