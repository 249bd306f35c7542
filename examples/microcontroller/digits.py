"""A convolutional network for a microcontroller: trained here, compiled for a Cortex-M4, linked, and run in QEMU.

    python examples/microcontroller/digits.py
    python examples/microcontroller/digits.py --out build --board stm32f446

Three images are made: with weights of 32 bits, of 8 bits, and with products of whole numbers as well, calibrated on
training data and compared on test data. What they take of flash and RAM is printed, and asserted when they are linked
(sections.ld). Linking needs arm-none-eabi-gcc, running
qemu-system-arm; without them the object files are made all the same. `build/int8/digits.elf` can be flashed, by
`openocd -f board/st_nucleo_f4.cfg -c "program build/int8/digits.elf verify reset exit"`.
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
CODE_LIMIT, RAM_LIMIT = 24 << 10, 64 << 10
FLAGS = "-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16 -Os -std=c99 -Wall -Wextra -ffreestanding".split()
IMAGES = 20


def network() -> gnomon.Model:
    model = gnomon.Sequential(
        [
            gnomon.Input((28, 28, 1), name="image"),
            layers.Conv2D(8, 3, strides=2, activation="relu"),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def images_header(images: np.ndarray, labels: np.ndarray) -> str:
    """Test images as C arrays."""
    rows = ",\n".join("{" + ",".join(map(str, image.ravel())) + "}" for image in images)
    return (
        f"#define IMAGE_COUNT {len(images)}\n"
        f"static const uint8_t labels[IMAGE_COUNT] = {{{','.join(map(str, labels))}}};\n"
        f"static const uint8_t images[IMAGE_COUNT][784] = {{\n{rows}}};\n"
    )


def link(folder: Path, board: str) -> bool:
    """Make digits.elf of digits.o and main.c, if there is a compiler for Arm."""
    if shutil.which("arm-none-eabi-gcc") is None:
        print("  not linked: arm-none-eabi-gcc is not here")
        return False
    limits = [f"-Wl,--defsym=CODE_LIMIT={CODE_LIMIT},--defsym=RAM_LIMIT={RAM_LIMIT},--no-warn-execstack"]
    command = ["arm-none-eabi-gcc", *FLAGS, "-nostdlib", "-I.", str(HERE / "main.c"), "digits.o", f"-L{HERE}",
               "-T", str(HERE / f"{board}.ld"), *limits, "-lgcc", "-o", "digits.elf"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)
    sizes = gnomon.compiler.aot.symbols.read((folder / "digits.elf").read_bytes()).sections
    flash = sum(sizes.get(s, 0) for s in (".vectors", ".text", ".rodata", ".data"))
    ram = sum(sizes.get(s, 0) for s in (".data", ".bss", ".stack"))
    print(f"  linked: {flash:,} bytes of flash with the test images, {ram:,} bytes of RAM with the stack")
    return True


def run(folder: Path) -> str | None:
    """What the program says in QEMU, if that is here."""
    if shutil.which("qemu-system-arm") is None:
        print("  not run: qemu-system-arm is not here")
        return None
    machine = ["-M", "mps2-an386", "-nographic", "-semihosting-config", "enable=on,target=native"]
    command = ["qemu-system-arm", *machine, "-kernel", folder / "digits.elf"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", help="where to write; a temporary folder if left out")
    parser.add_argument("--board", choices=["mps2", "stm32f446"], default="mps2")
    parser.add_argument("--short", action="store_true", help="train less")
    options = parser.parse_args()

    (x, y), (x_test, y_test) = gnomon.datasets.mnist.load_data()
    scaled = lambda images: (images[..., None] / 255).astype("float32")
    gnomon.utils.set_random_seed(1)
    model = network()
    rows = 6000 if options.short else 60_000
    model.fit(scaled(x[:rows]), y[:rows], batch_size=64, epochs=1 if options.short else 3, verbose=0)
    _, accuracy = model.evaluate(scaled(x_test), y_test, verbose=0)
    print(f"Test accuracy {100 * accuracy:.1f} %")

    target = ahead.target_for("cortex-m4")
    compared = [scaled(x_test[:2000])], y_test[:2000]
    made = {"float32": model}
    for name, whole in (("int8", False), ("integers", True)):
        made[name] = ahead.quantized(model, [scaled(x[:1000])], None, target, compared, whole)
        print(f"{name}, on test data: {made[name].report}")
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(options.out or temporary)
        for name, source in made.items():
            folder = out / name
            folder.mkdir(parents=True, exist_ok=True)
            library = ahead.build(source, "digits", target, batch=1)
            written = ahead.write(library, folder / "digits", "obj", ".o")
            weights, workspace = len(library.weights), library.greatest_workspace
            print(f"{name}: code {written.code:,} bytes, weights {weights:,} bytes, workspace {workspace:,} bytes")
            (folder / "images.h").write_text(images_header(x_test[:IMAGES], y_test[:IMAGES]))
            if not link(folder, options.board) or options.board != "mps2":
                continue
            said = run(folder)
            if said is not None:
                found = [int(c) for c in said.split("\n")[0] if c.isdecimal()]
                wanted = model.predict(scaled(x_test[:IMAGES]), verbose=0).argmax(-1)
                print(f"  in QEMU: {int((found == wanted).sum())} of {IMAGES} digits as in Python")


if __name__ == "__main__":
    main()
