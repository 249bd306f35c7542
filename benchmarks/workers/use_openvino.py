"""OpenVINO as a worker: inference of the networks."""

import common
import numpy as np
import onnx_networks
import openvino
from common import Job, sample, serve


def job(model, x, order):
    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": common.threads(), "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_PRECISION_HINT"] = "f32"  # where there is bfloat16, it would compute in that
    request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()

    def run(n=1):
        for _ in range(n):
            found = request.infer([x])
        return order(np.asarray(found[0]))

    return Job(run, sample(run()))


serve(["openvino"], onnx_networks.served(job))
