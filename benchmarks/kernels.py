"""Kernels that take over 5 % of a network's time: their shares of what the machine can do.

    python benchmarks/kernels.py                       # all networks
    python benchmarks/kernels.py convnet_train resnet50_inference:1
    python benchmarks/kernels.py --device gpu          # on the first NVIDIA card

Equal kernels of several layers are one line. Arithmetic is counted as it is done: of minimal filtering the products
that are left. Bytes are those of the arrays that a kernel reads and writes, once each, wherever they are; what comes
from caches may exceed the bandwidth of memory. On a card a kernel's time is what it takes to launch it and to wait for
it beyond what that takes for one that does nothing: of kernels of few microseconds it says little.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "workers"))

import card
import networks
from keras_api import Calls
from keras_networks import Networks
from machine import measure

import gnomon

LEAST = 0.05


def training(own, build, shape, data, **more):
    model = own.model(build, *shape, **more)
    return model, data, "train"


def inference(own, build, shape, data, **more):
    model = own.model(build, *shape, **more)
    return model, data[:1], "predict"


def chosen(own):
    """Workloads as makers of (model, arrays, mode)."""
    pictures, sentences = networks.pictures, networks.sentences
    words = {"dtype": "int32"}
    return {
        "convnet_train": lambda: training(own, networks.convnet, (28, 28, 1), pictures(128, 28, 28, 1)),
        "convnet_inference": lambda: inference(own, networks.convnet, (28, 28, 1), pictures(128, 28, 28, 1)),
        "resnet50_train:4": lambda: training(own, networks.resnet50, (224, 224, 3), pictures(4, 224, 224, 3)),
        "resnet50_inference:1": lambda: inference(own, networks.resnet50, (224, 224, 3), pictures(1, 224, 224, 3)),
        "resnet50_inference:8": lambda: inference(own, networks.resnet50, (224, 224, 3), pictures(8, 224, 224, 3)),
        "dilated_inference": lambda: inference(own, networks.dilated, (networks.LENGTH, 4), [networks.bases()]),
        "transformer_train": lambda: training(
            own, networks.transformer, (networks.TOKENS, networks.WIDTH), networks.embedded()
        ),
        "recurrent_train:lstm": lambda: training(
            own, networks.recurrent, (networks.WORDS,), sentences(), kind="lstm", **words
        ),
        "recurrent_inference:lstm": lambda: inference(
            own, networks.recurrent, (networks.WORDS,), sentences(), kind="lstm", **words
        ),
        "recurrent_train:gru": lambda: training(
            own, networks.recurrent, (networks.WORDS,), sentences(), kind="gru", **words
        ),
        "recurrent_inference:gru": lambda: inference(
            own, networks.recurrent, (networks.WORDS,), sentences(), kind="gru", **words
        ),
    }


def profiled(model, data, mode):
    """The profile of one step of a model."""
    if mode == "train":
        loss = gnomon.losses.SparseCategoricalCrossentropy(from_logits=True)
        if model.output_shape[-1] == 1:
            loss = gnomon.losses.BinaryCrossentropy(from_logits=True)
        model.compile(gnomon.optimizers.Adam(), loss)
    return model.profile(*data, batch_size=len(data[0]), repeat=10)


def told(name, profile, machine):
    whole = sum(row.nanoseconds for row in profile.rows)
    same = defaultdict(list)
    for row in profile.rows:
        same[row.kernel].append(row)
    print(f"\n{name}: {whole / 1e6:.2f} ms")
    for rows in sorted(same.values(), key=lambda rows: -sum(r.nanoseconds for r in rows)):
        time = sum(r.nanoseconds for r in rows)
        if time < LEAST * whole:
            break
        flops, moved = sum(r.flops for r in rows), sum(r.bytes for r in rows)
        runs = sum(r.count for r in rows)
        layers = ", ".join(dict.fromkeys(layer.split(" (")[0] for r in rows for layer in r.layers if layer[0] != "("))
        print(
            f"  {time / whole:5.1%} {time / 1e6:9.3f} ms {runs:5d} runs   {flops / time / machine.flops * 1e9:4.0%} of"
            f" the peak, {moved / time / machine.read * 1e9:4.0%} of the bandwidth   {rows[0].label}  [{layers[:60]}]"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help="names, or how they begin")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    asked = parser.parse_args()
    wanted, found = asked.workloads, chosen(Networks(gnomon, Calls()))
    try:
        machine = measure(2) if asked.device == "cpu" else card.here()
    except card.CardError as error:
        return f"--device gpu: {error}"
    gnomon.set_device(asked.device)
    print(machine)
    for name, make in found.items():
        if not wanted or any(name.startswith(w) for w in wanted):
            told(name, profiled(*make()), machine)


if __name__ == "__main__":
    sys.exit(main())
