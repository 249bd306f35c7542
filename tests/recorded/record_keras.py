# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs, and `recording` is found beside this file)
"""Record what Keras computes and prints, for tests that compare gnomon with it where Keras is not installed.

Run with an interpreter that has Keras 3.15 and JAX (and no more), never with gnomon's own:

    python tests/recorded/record_keras.py            # all topics
    python tests/recorded/record_keras.py losses fit # some

The files in this folder were written by Keras 3.15.1 with the JAX 0.10.2 back end, NumPy 2.4.6, CPU. Inputs come from
generators seeded by the name of the case, so a second run writes the same files but for the last digits of other CPUs.
"""

import importlib
import os
import sys
import time
from pathlib import Path

TOPICS = ["signatures", "activations", "losses", "layers", "optimizers", "schedules", "metrics", "initializers",
          "regularizers", "configs", "fit", "texts", "errors", "mnist", "saving",
          "normalization", "attention", "ctc", "convolution", "applications", "recurrent", "spatial",
          "augmentation", "mixed"]  # fmt: skip

APART = ["preprocessing"]
"""Topics recorded only when they are named, without others: Keras needs TensorFlow for them, as its back end."""


def main(topics: list[str]) -> None:
    if os.environ.get("PYTHONHASHSEED") != "0":  # texts of sets depend on it
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.argv])
    os.environ["KERAS_BACKEND"] = "tensorflow" if set(topics) & set(APART) else "jax"
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.setdefault("COLUMNS", "80")
    sys.path.insert(0, str(Path(__file__).parent))
    import keras
    from recording import store

    for topic in topics or TOPICS:
        start = time.perf_counter()
        keras.utils.clear_session()  # names such as dense_1 count from the start of each topic
        store.save(topic, importlib.import_module(f"recording.{topic}").record())
        print(f"{topic}: {time.perf_counter() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
