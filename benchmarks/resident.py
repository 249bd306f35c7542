"""Resident memory over many training steps, and over many models that are built, trained and discarded.

    python benchmarks/resident.py steps 10000
    python benchmarks/resident.py rounds 300
    python benchmarks/resident.py shapes 100      # models of other sizes each time: nothing comes from the cache

Prints megabytes in memory and seconds ten times on the way, then how much they have grown since the first tenth.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


def resident() -> float:
    """Megabytes of this process in memory."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def convnet(filters: int = 4, hidden: int = 16):
    import gnomon
    from gnomon import layers

    model = gnomon.Sequential(
        [
            layers.Input((16, 16, 1)),
            layers.Conv2D(filters, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(hidden, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(3),
        ]
    )
    loss = gnomon.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    return model


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.random((rows, 16, 16, 1), np.float32), random.integers(0, 3, rows)


def steps() -> Callable[[int], None]:
    """Training steps on single batches, of another size now and then."""
    model, (x, y) = convnet(), data(64)

    def step(k: int) -> None:
        rows = 16 + k // 100 % 48
        model.train_on_batch(x[:rows], y[:rows])

    return step


def rounds() -> Callable[[int], None]:
    """Models that are built, trained, evaluated, asked and discarded."""
    x, y = data(40)

    def one(k: int) -> None:
        model = convnet()
        model.fit(x, y, batch_size=16, epochs=1, verbose=0, validation_split=0.2)
        model.predict(x, verbose=0)

    return one


def shapes() -> Callable[[int], None]:
    """The same for models of a size of their own each."""
    x, y = data(40)

    def one(k: int) -> None:
        model = convnet(4 + k % 7, 16 + k)
        model.fit(x, y, batch_size=16, epochs=1, verbose=0, validation_split=0.2)
        model.predict(x, verbose=0)

    return one


KINDS = {"steps": (steps, 10_000), "rounds": (rounds, 300), "shapes": (shapes, 100)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int, nargs="?", help="how many (10,000 steps, 300 rounds, 100 shapes)")
    chosen = parser.parse_args()
    make, usual = KINDS[chosen.kind]
    count = chosen.count or usual
    if chosen.kind == "shapes":
        os.environ["GNOMON_CACHE_DIR"] = tempfile.mkdtemp(prefix="gnomon-resident-")
    run = make()
    found, began = [], time.perf_counter()
    for k in range(count):
        run(k)
        if (k + 1) % max(1, count // 10) == 0:
            gc.collect()
            found.append(resident())
            print(f"{k + 1:>7,} {chosen.kind}  {found[-1]:8.1f} MB  {time.perf_counter() - began:8.1f} s", flush=True)
    print(f"grown by {found[-1] - found[0]:.1f} MB since the first tenth")


if __name__ == "__main__":
    main()
