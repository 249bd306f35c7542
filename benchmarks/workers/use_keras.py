"""Keras 3 as a worker; the variant is the backend, 'jax-32' with 32 steps per execution."""

import os
import sys

VARIANT = sys.argv[2]
BACKEND, _, STEPS = VARIANT.partition("-")
os.environ["KERAS_BACKEND"] = BACKEND
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402  the backend is chosen when it is imported
from common import device, on_card, serve, threads  # noqa: E402  as the line above
from keras_api import Calls, Workloads  # noqa: E402  after keras, which it uses
from keras_networks import Networks  # noqa: E402  after keras, which it uses

if BACKEND == "tensorflow":
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads())
    if on_card() and not tensorflow.config.list_physical_devices("GPU"):
        raise SystemExit("TensorFlow finds no GPU")
if BACKEND == "torch":
    import torch

    torch.set_num_threads(threads())
    if on_card():
        torch.backends.cudnn.allow_tf32 = False


def as_function(model):
    """The model compiled by its backend, without Keras's predict around it."""
    if BACKEND == "jax":
        import jax
        import numpy as np

        state = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        compiled = jax.jit(lambda x: model.stateless_call(*state, x)[0])
        return lambda x: np.asarray(compiled(x))
    if BACKEND == "tensorflow":
        compiled = tensorflow.function(model, input_signature=[tensorflow.TensorSpec((None, 784))])
        return lambda x: compiled(x).numpy()

    def call(x):
        with torch.inference_mode():
            return model(torch.from_numpy(x).to(device())).cpu().numpy()

    return call


def wait(result):
    """JAX's and TensorFlow's results have come to the host, so all is done."""
    if on_card() and BACKEND == "torch":
        torch.cuda.synchronize()


calls = Calls(keras.ops.convert_to_tensor) if on_card() else Calls()
found = Workloads(keras, as_function, calls, int(STEPS or 1))
package = {"tensorflow": "tensorflow" if on_card() else "tensorflow_cpu"}.get(BACKEND, BACKEND)
serve(["keras", package], found.served() | Networks(keras, calls).served(), found.once(), wait)
