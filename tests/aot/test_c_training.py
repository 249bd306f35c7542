"""Training in C: the losses of Python, states that are saved and refused, weights in a file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers
from gnomon.compiler.aot.library import check_sum
from gnomon.compiler.errors import ArgumentError, StateError
from tests.aot.support import compile_c, needs_cc

STEPS, BATCH = 200, 32

LOOP = """
    #include "digits.h"
    #include <stdio.h>
    #include <stdlib.h>
    static float x[STEPS * BATCH][784];
    static int32_t y[STEPS * BATCH];
    static unsigned char state[DIGITS_STATE_BYTES], other[DIGITS_STATE_BYTES], saved[DIGITS_STATE_BYTES];
    static int check(int code) {
        if (code) { puts(digits_error_text(code)); exit(code); }
        return code;
    }
    int main(void) {
        size_t n = digits_workspace_bytes(BATCH);
        void *workspace = malloc(n);
        float loss, accuracy, classes[10];
        if (fread(x, sizeof x, 1, stdin) != 1 || fread(y, sizeof y, 1, stdin) != 1) return 90;
        puts(digits_error_text(digits_run(state, x[0], classes, 1, workspace, n)));
        check(digits_init(state));
        for (int k = 0; k < STEPS; k++) {
            check(digits_reset_metrics(state));
            check(digits_step(state, x[k * BATCH], y + k * BATCH, &accuracy, &loss, BATCH, workspace, n));
            printf("%.9g %.9g\\n", (double)loss, (double)accuracy);
            if (k == STEPS / 2) { /* goes on elsewhere */
                check(digits_save(state, saved, sizeof saved));
                check(digits_load(other, saved, sizeof saved));
                for (size_t i = 0; i < sizeof state; i++) state[i] = other[i];
            }
        }
        check(digits_reset_metrics(state));
        for (int k = 0; k < 4; k++)
            check(digits_evaluate(state, x[k * BATCH], y + k * BATCH, NULL, &loss, BATCH, workspace, n));
        check(digits_run(state, x[0], classes, 1, workspace, n));
        printf("%.9g %.9g\\n", (double)loss, (double)classes[3]);
        saved[sizeof saved - 100] ^= 4;
        puts(digits_error_text(digits_load(state, saved, sizeof saved)));
        puts(digits_error_text(digits_load(state, saved, sizeof saved - 1)));
        puts(digits_error_text(digits_save(state, saved, sizeof saved - 1)));
        return 0;
    }
"""


def classifier() -> gnomon.Model:
    gnomon.utils.set_random_seed(1)
    model = gnomon.Sequential(
        [
            gnomon.Input((784,), name="pixels"),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dropout(0.2, name="dropout"),
            layers.Dense(10, activation="softmax", name="classes"),
        ],
        name="digits",
    )
    model.compile(gnomon.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    (images, labels), _ = gnomon.datasets.mnist.load_data()
    count = STEPS * BATCH
    return (images[:count].reshape(-1, 784) / 255).astype("float32"), labels[:count].astype("int32")


@needs_cc
def test_two_hundred_steps_have_the_losses_of_python(tmp_path, digits):
    model = classifier()
    x, y = digits
    ahead.write(ahead.build(model, "digits", train=True), tmp_path / "digits", "obj", ".o")
    program = compile_c(tmp_path, LOOP, "digits.o", options=[f"-DSTEPS={STEPS}", f"-DBATCH={BATCH}"])
    done = subprocess.run([program], input=x.tobytes() + y.tobytes(), capture_output=True, check=True)
    first, *lines = done.stdout.decode().splitlines()
    assert first == "the state was not made by init or load of this library"
    found = np.array([line.split() for line in lines[: STEPS + 1]], "float32")
    wanted = [model.train_on_batch(x[k : k + BATCH], y[k : k + BATCH]) for k in range(0, STEPS * BATCH, BATCH)]
    np.testing.assert_array_equal(found[:STEPS], np.array(wanted, "float32"))
    assert found[-21:-1, 0].mean() < 0.5 < found[0, 0]
    loss, _ = model.evaluate(x[: 4 * BATCH], y[: 4 * BATCH], batch_size=BATCH, verbose=0)
    np.testing.assert_array_equal(found[STEPS], np.float32([loss, model.predict(x[:1], verbose=0)[0, 3]]))
    damaged = "the data is damaged, cut short, or of another model or version"
    assert lines[STEPS + 1 :] == [damaged, damaged, "the memory given is too small"]


@needs_cc
def test_weights_in_a_file_of_their_own(tmp_path):
    model = classifier()
    library = ahead.build(model, "digits", embed=False, max_batch=4)
    files = ahead.write(library, tmp_path / "digits", "obj", ".o").files
    assert set(map(Path, files)) == {tmp_path / f"digits{ending}" for ending in (".o", ".h", ".weights")}
    assert files[str(tmp_path / "digits.o")] < 20_000
    source = """
        #include "digits.h"
        #include <stdio.h>
        int main(void) {
            static unsigned char weights[DIGITS_WEIGHTS_BYTES], workspace[DIGITS_WORKSPACE_BYTES];
            float x[784] = {0.25f}, classes[10];
            FILE *file = fopen("digits.weights", "rb");
            if (!file || fread(weights, sizeof weights, 1, file) != 1 || fclose(file)) return 1;
            printf("%d ", digits_check_weights(weights, sizeof weights));
            printf("%d ", digits_run(weights, x, classes, 1, workspace, sizeof workspace));
            printf("%.9g ", (double)classes[7]);
            weights[5000] ^= 1;
            printf("%d ", digits_check_weights(weights, sizeof weights));
            weights[9] ^= 1;
            printf("%d", digits_run(weights, x, classes, 1, workspace, sizeof workspace));
            return 0;
        }
    """
    program = compile_c(tmp_path, source, "digits.o")
    printed = subprocess.run([program], capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    x = np.zeros((1, 784), "float32")
    x[0, 0] = 0.25
    assert printed[:2] == ["0", "0"]
    assert np.float32(printed[2]) == model.predict(x, verbose=0)[0, 7]
    assert printed[3:] == ["5", "5"]


def test_the_check_sum_sees_changed_and_exchanged_words():
    data = np.random.default_rng(0).integers(0, 256, 800, np.uint8)
    right = check_sum(data.tobytes())
    for k in range(800):
        for bit in range(8):
            data[k] ^= 1 << bit
            assert check_sum(data.tobytes()) != right
            data[k] ^= 1 << bit
    assert check_sum(data.tobytes()) == right
    words = data.view(np.uint64)
    words[[3, 70]] = words[[70, 3]]
    assert check_sum(data.tobytes()) != right


def test_only_a_compiled_model_is_trained():
    inputs = gnomon.Input((4,))
    with pytest.raises(StateError, match="not compiled"):
        ahead.build(gnomon.Model(inputs, layers.Dense(2)(inputs)), "net", train=True)
    x = gnomon.fvector("x")
    with pytest.raises(ArgumentError, match="is a function: only a model can be trained"):
        ahead.build(gnomon.function([x], x * 2, name="twice"), "net", train=True)
