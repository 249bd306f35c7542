"""How long training steps take to compile, cold and warm: residual networks of several depths, and ResNet-50.

    python benchmarks/compiling.py            # 50, 100 and 200 convolutions, then ResNet-50
    python benchmarks/compiling.py 50 resnet50

Every measurement is a process of its own: the first of each network with an empty cache, the second with what the first
left in it. `traced` is what calls of layers, gradients, the optimizer and one step take, `program` all from the graph
to code in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time


def residual(depth: int):
    from gnomon import Model, layers

    x = inputs = layers.Input((16, 16, 8))
    for _ in range(depth // 2):
        y = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x)))
        y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(y))
        x = layers.Activation("relu")(layers.Add()([x, y]))
    return Model(inputs, layers.Dense(1000, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def measure(network: str) -> None:
    """Print what one process measures, as JSON."""
    began = time.perf_counter()
    import numpy as np

    import gnomon

    loaded = time.perf_counter()
    model = gnomon.applications.ResNet50(weights=None) if network == "resnet50" else residual(int(network))
    model.compile("adam", "categorical_crossentropy")
    made = time.perf_counter()
    x = np.zeros((1, *model.input_shape[1:]), np.float32)
    model.train_on_batch(x, np.eye(1, 1000, dtype=np.float32))
    done = time.perf_counter()
    (event,) = gnomon.compile_events()
    told = {"import": loaded - began, "model": made - loaded, "program": event.seconds}
    print(json.dumps({**told, "traced": done - made - event.seconds, "kernels": event.compiled + event.cached}))


def run(network: str, cache: str) -> dict[str, float]:
    environment = {**os.environ, "GNOMON_CACHE_DIR": cache}
    command = [sys.executable, __file__, "--measure", network]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=["50", "100", "200", "resnet50"])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.measure:
        measure(chosen.measure)
        return
    print("network    cache    kernels  program s  traced s  model s  import s")
    for network in chosen.networks:
        with tempfile.TemporaryDirectory(prefix="gnomon-compiling-") as cache:
            for state in ("cold", "warm"):
                t = run(network, cache)
                numbers = f"{t['program']:9.2f}  {t['traced']:8.2f}  {t['model']:7.2f}  {t['import']:8.2f}"
                print(f"{network:<10} {state:<8} {t['kernels']:>7}  {numbers}", flush=True)


if __name__ == "__main__":
    main()
