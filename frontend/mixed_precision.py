"""Computing in 16 bits with weights in 32: Keras's `keras.mixed_precision`.

    gnomon.mixed_precision.set_global_policy("mixed_bfloat16")

Layers made from then on compute in bfloat16 and keep their weights in float32; models that compute in float16 have
their loss scaled by a `LossScaleOptimizer`, which `compile` puts around the optimizer.
"""

from __future__ import annotations

from gnomon.config import dtype_policy, set_dtype_policy
from gnomon.layers.policy import DTypePolicy
from gnomon.optimizers import LossScaleOptimizer

Policy = DTypePolicy
global_policy = dtype_policy
set_global_policy = set_dtype_policy

__all__ = ["DTypePolicy", "LossScaleOptimizer", "Policy", "dtype_policy", "global_policy", "set_dtype_policy",
           "set_global_policy"]  # fmt: skip
