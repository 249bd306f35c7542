"""A network used from C: trained here a little, compiled to one object file, and trained further by a C program.

    python examples/c/digits.py
    python examples/c/digits.py --out build

`classify.c` runs the network on an image, `learn.c` trains it. Both are compiled with the object file and nothing else.
By hand:

    gnomon compile "digits.py:make()" -o digits.o --train
    cc -O2 classify.c digits.o -o classify
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import gnomon
from gnomon import ahead, layers

HERE = Path(__file__).parent


def make() -> gnomon.Model:
    gnomon.utils.set_random_seed(1)
    model = gnomon.Sequential(
        [
            gnomon.Input((784,), name="pixels"),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dropout(0.2, name="dropout"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def run(program: Path, *arguments: str, given: bytes = b"") -> str:
    done = subprocess.run([program, *arguments], input=given, capture_output=True, check=True, cwd=program.parent)
    return done.stdout.decode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="where to write; a temporary folder if left out")
    parser.add_argument("--short", action="store_true", help="train less")
    options = parser.parse_args()

    (images, labels), (test_images, test_labels) = gnomon.datasets.mnist.load_data()
    scaled = lambda a: (a.reshape(-1, 784) / 255).astype("float32")
    model = make()
    model.fit(scaled(images[:2000]), labels[:2000], verbose=0)
    _, before = model.evaluate(scaled(test_images), test_labels, verbose=0)
    print(f"As compiled: test accuracy {100 * before:.1f} %")

    with tempfile.TemporaryDirectory() as temporary:
        out = Path(options.out or temporary).resolve()
        out.mkdir(parents=True, exist_ok=True)
        written = ahead.write(ahead.build(model, "digits", train=True), out / "digits", "obj", ".o")
        print(", ".join(f"{Path(file).name} {size:,} bytes" for file, size in written.files.items()))
        if shutil.which("cc") is None:
            print("There is no C compiler here.")
            return
        for name in ("classify", "learn"):
            flags = ["-O2", "-std=c99", "-Wall", "-Wextra", f"-I{out}"]
            command = ["cc", *flags, str(HERE / f"{name}.c"), "digits.o", "-o", name]
            subprocess.run(command, check=True, cwd=out)
        print(run(out / "classify", given=test_images[0].tobytes()), end="")
        rows = 6400 if options.short else 60_000
        data = scaled(images[:rows]).tobytes() + labels[:rows].astype("int32").tobytes()
        print(run(out / "learn", str(rows), "digits.state", given=data), end="")
        print(run(out / "classify", "digits.state", given=test_images[0].tobytes()), end="")

        # the same training in Python gives the same network, to the last bit
        for at in range(0, rows - 31, 32):
            model.train_on_batch(scaled(images[at : at + 32]), labels[at : at + 32].astype("int32"))
        state = np.fromfile(out / "digits.state", np.uint8)
        same = model.layers[0].kernel.numpy().tobytes() in state.tobytes()
        _, after = model.evaluate(scaled(test_images), test_labels, verbose=0)
        print(f"As Python trains it: test accuracy {100 * after:.1f} %, {'equal' if same else 'other'} weights")


if __name__ == "__main__":
    main()
