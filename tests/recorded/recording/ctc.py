# mypy: disable-error-code="import-not-found"
# (Keras and JAX are not installed where mypy runs)
"""`ops.ctc_loss` with gradients, and `ops.ctc_decode`."""

from typing import Any

import jax
import numpy as np
from keras import ops

from .store import random_of


def record() -> dict[str, Any]:
    return {"loss": _loss(), "decode": _decode()}


def normal(name: str, *shape: int) -> np.ndarray:
    return 2 * random_of(name).standard_normal(shape).astype("float32")


def _loss() -> list[dict[str, Any]]:
    output = normal("ctc output", 3, 7, 4)
    target = np.array([[1, 2, 2], [3, 1, 0], [2, 3, 1]], "int32")
    found = []
    for target_length, output_length, mask in (
        ([3, 2, 3], [7, 7, 7], 0), ([3, 2, 1], [7, 5, 6], 0), ([1, 1, 2], [3, 7, 7], 0), ([3, 1, 2], [6, 7, 5], 3),
    ):  # fmt: skip
        labels = np.where(target == mask, (mask + 1) % 4, target).astype("int32")

        def total(x: Any, labels=labels, target_length=target_length, output_length=output_length, mask=mask) -> Any:
            return ops.ctc_loss(labels, x, np.array(target_length), np.array(output_length), mask).sum()

        value = ops.ctc_loss(labels, output, np.array(target_length), np.array(output_length), mask)
        found.append({"target": labels, "output": output, "target_length": target_length,
                      "output_length": output_length, "mask_index": mask, "result": np.asarray(value),
                      "gradient": np.asarray(jax.grad(total)(output))})  # fmt: skip
    return found


def _decode() -> list[dict[str, Any]]:
    x = normal("ctc decode", 3, 6, 5)
    found = []
    for options in (
        {}, {"merge_repeated": False}, {"mask_index": 4}, {"mask_index": None},
        {"strategy": "beam_search", "beam_width": 50, "top_paths": 3},
        {"strategy": "beam_search", "beam_width": 4, "top_paths": 2},
        {"strategy": "beam_search", "beam_width": 20, "mask_index": 2},
    ):  # fmt: skip
        lengths = [6, 4, 5]
        labels, scores = ops.ctc_decode(x, np.array(lengths), **options)
        found.append({"inputs": x, "lengths": lengths, "options": options, "labels": np.asarray(labels),
                      "scores": np.asarray(scores)})  # fmt: skip
    return found
