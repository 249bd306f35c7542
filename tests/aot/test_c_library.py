"""Libraries for this machine, called from C: the bits of the process, and errors by code."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers, ops
from gnomon.compiler import aot
from gnomon.compiler.aot import functions, objects, targets
from gnomon.compiler.errors import ArgumentError
from tests.aot.support import Built, compile_c, needs_cc


def article() -> gnomon.Model:
    """The article's network."""
    gnomon.utils.set_random_seed(1)
    pixels = gnomon.Input((784,), name="pixels")
    hidden = layers.Dense(32, activation="relu", name="hidden")
    classes = layers.Dense(10, activation="softmax", name="classes")
    return gnomon.Sequential([pixels, hidden, classes], name="article")


@pytest.fixture(scope="module")
def model() -> gnomon.Model:
    return article()


@pytest.fixture(scope="module")
def built(model, tmp_path_factory) -> Built:
    return Built(tmp_path_factory.mktemp("article"), ahead.build(model, "article"))


@needs_cc
@pytest.mark.parametrize("batch", [1, 2, 7, 31, 32, 33, 128])
def test_any_batch_gives_the_bits_of_the_process(built, model, batch):
    x = np.random.default_rng(batch).normal(size=(batch, 784)).astype("float32")
    (found,) = built([x], {"batch": batch})
    np.testing.assert_array_equal(found, model.predict(x, verbose=0))


@needs_cc
def test_no_rows_are_no_error(built):
    (found,) = built([np.empty((0, 784), "float32")], {"batch": 0})
    assert found.shape == (0, 10)


@needs_cc
def test_nothing_is_needed_and_little_exported(built, tmp_path):
    names = subprocess.run(["nm", str(built.program.parent / "article.o")], capture_output=True, text=True, check=True)
    kinds = [line.split()[-2:] for line in names.stdout.splitlines()]
    assert [name for kind, name in kinds if kind == "U"] == []
    exported = {name for kind, name in kinds if kind.isupper()}
    assert exported == {f"article_{name}" for name in ("run", "workspace_bytes", "error_text", "version")}
    assert (built.program.parent / "article.o").stat().st_size < 130_000


@needs_cc
@pytest.mark.parametrize("kind, ending", [("static", ".a"), ("shared", ".so")])
def test_static_and_shared_libraries(model, tmp_path, kind, ending):
    ahead.write(ahead.build(model, "article", batch=3), tmp_path / "libarticle", kind, ending)
    (tmp_path / "libarticle.h").rename(tmp_path / "article.h")
    source = """
        #include "article.h"
        #include <stdio.h>
        int main(void) {
            static float pixels[3][784], classes[3][10];
            static unsigned char workspace[ARTICLE_WORKSPACE_BYTES];
            for (int i = 0; i < 784; i++) pixels[1][i] = 0.5f;
            int code = article_run(pixels[0], classes[0], workspace, sizeof workspace);
            printf("%d %.9g %s", code, (double)classes[1][4], article_version());
            return 0;
        }
    """
    program = compile_c(tmp_path, source, "-L.", "-larticle", "-Wl,-rpath,$ORIGIN")
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    x = np.zeros((3, 784), "float32")
    x[1] = 0.5
    assert printed[0] == "0"
    assert np.float32(printed[1]) == model.predict(x, verbose=0)[1, 4]
    assert printed[2] == gnomon.__version__


@needs_cc
def test_errors_are_codes_with_texts(model, tmp_path):
    ahead.write(ahead.build(model, "article", max_batch=8), tmp_path / "article", "obj", ".o")
    source = """
        #include "article.h"
        #include <stdio.h>
        #include <string.h>
        int main(void) {
            static float x[8 * 784], y[80];
            static unsigned char w[ARTICLE_WORKSPACE_BYTES];
            printf("%s\\n", article_error_text(article_run(x, y, ARTICLE_MAX_BATCH, w, sizeof w)));
            printf("%s\\n", article_error_text(article_run(NULL, y, 1, w, sizeof w)));
            printf("%s\\n", article_error_text(article_run(x, y, 9, w, sizeof w)));
            printf("%s\\n", article_error_text(article_run(x, y, (size_t)-1, w, sizeof w)));
            printf("%s\\n", article_error_text(article_run(x, y, 8, w, article_workspace_bytes(8) - 1)));
            printf("%s\\n", article_error_text(article_run(x, y, 8, NULL, sizeof w)));
            printf("%s\\n", article_error_text(77));
            printf("%d\\n", (int)article_workspace_bytes(9));
            return strcmp(article_error_text(ARTICLE_OK), "all right");
        }
    """
    program = compile_c(tmp_path, source, "article.o")
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    large, small = "a size is larger than this library allows", "the memory given is too small"
    assert printed == ["all right", "a pointer is NULL", large, large, small, small, "not a code of this library", "0"]


@needs_cc
def test_a_function_with_several_arrays_and_sizes(tmp_path):
    a, b, n = gnomon.fmatrix("a"), gnomon.dvector("double"), gnomon.lscalar("n")
    f = gnomon.function([a, b, n], {"sum": ops.sum(a), "each": ops.cast(a, "float64") * b + n}, name="odd")
    run = Built(tmp_path, ahead.build(f, "odd"))
    assert [x.name for x in run.routine.inputs] == ["a", "double_", "n"]
    x, y = np.random.default_rng(0).normal(size=(3, 5)).astype("float32"), np.arange(5.0)
    total, each = run([x, y, np.array(7)], {"a_0": 3, "a_1": 5, "double_0": 5})
    wanted = f(x, y, np.array(7))
    np.testing.assert_array_equal(total, wanted["sum"])
    np.testing.assert_array_equal(each, wanted["each"])


@needs_cc
def test_the_checks_of_a_program_have_codes(tmp_path):
    a, b = gnomon.fvector("a"), gnomon.fvector("b")
    run = Built(tmp_path, ahead.build(gnomon.function([a, b], ops.sum(a * b), name="dot"), "dot"))
    x = np.ones(4, "float32")
    assert run([x, x], {"a_0": 4, "b_0": 4})[0] == 4
    code, text, _ = run.attempt([x, x[:3]], {"a_0": 4, "b_0": 3})
    assert code >= 16
    assert "must be equal" in text


@needs_cc
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler here")
def test_the_header_is_cpp_too(model, tmp_path):
    ahead.write(ahead.build(model, "article", threads=True), tmp_path / "article", "obj", ".o")
    source = '#include "article.h"\nint main() { return article_error_text(0) == nullptr; }\n'
    (tmp_path / "main.cpp").write_text(source)
    command = ["c++", "-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c++11", "main.cpp", "article.o", "-o", "main"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    subprocess.run([str(tmp_path / "main")], check=True)


def test_a_layout_never_lets_live_blocks_overlap():
    from gnomon.compiler.aot.layout import Block, arrange
    from gnomon.compiler.sizes import maximum, symbol

    rng = np.random.default_rng(3)
    n, m = symbol("n"), symbol("m")
    for _ in range(30):
        blocks = []
        for k in range(rng.integers(1, 25)):
            first = int(rng.integers(0, 10))
            amount = [8 * n, 100, m * n, maximum(m, n) * 4, n // 3 * 64, 0][rng.integers(6)]
            blocks.append(Block(k, amount, first, first + int(rng.integers(0, 5))))
        layout = arrange(blocks, {"n": 16, "m": 16})
        assert sorted(b.slot for b in layout.blocks) == list(range(len(blocks)))
        for sizes in ({"n": 1, "m": 1000}, {"n": 16, "m": 16}, {"n": 999, "m": 2}, {"n": 0, "m": 0}):
            offsets, total = layout.place(sizes, 64)
            from gnomon.compiler.sizes import evaluate

            spans = [(at, at + evaluate(b.bytes, sizes), b) for at, b in zip(offsets, layout.blocks, strict=True)]
            for k, (low, high, b) in enumerate(spans):
                assert low % 64 == 0
                assert high <= total
                for other_low, other_high, other in spans[:k]:
                    if not (other.last < b.first or other.first > b.last):
                        assert high <= other_low or other_high <= low or low == high or other_low == other_high


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sizes": {"bach": 3}}, "there is no size 'bach' to be set. Did you mean 'batch'?"),
        ({"batch": 0}, "the size 'batch' must be at least 1, got 0"),
        ({"max_batch": -1}, "the size 'batch' must be at least 1"),
    ],
)
def test_sizes_that_there_are_not(model, options, message):
    with pytest.raises(ArgumentError, match=message.replace("?", r"\?")):
        ahead.build(model, "article", **options)


def test_prefixes_are_names_in_c(model):
    with pytest.raises(ArgumentError, match="'3d' cannot begin a name in C: .* such as 'd'"):
        ahead.build(model, "3d")


def test_the_same_model_gives_the_same_bytes(model):
    made = []
    for _ in range(2):
        library = ahead.build(article(), "article", batch=2)
        texts, exported = aot.modules(library)
        made.append((aot.compile_object(texts, exported, library.target), aot.header(library)))
    assert made[0] == made[1]
    assert b"/work" not in made[0][0]


@needs_cc
def test_a_size_that_is_the_value_of_an_input(tmp_path):
    x, k = gnomon.fvector("x"), gnomon.iscalar("k")
    powers, _ = gnomon.scan(lambda before, x: before * x, outputs_info=ops.ones_like(x), non_sequences=x, n_steps=k)
    f = gnomon.function([x, k], powers[-1], name="power")
    library = ahead.build(f, "power")
    run = Built(tmp_path, library)
    given = np.array([1, 2, -3], "float32")
    for steps in (1, 4):
        sizes = {s: 3 if s == "x_0" else steps for s in library.sizes}
        (found,) = run([given, np.array(steps, "int32")], sizes)
        np.testing.assert_array_equal(found, given**steps)
    code, text, _ = run.attempt([given, np.array(-1, "int32")], sizes)
    assert (code, text) == (2, "a size is larger than this library allows")
    header = (tmp_path / "power.h").read_text()
    assert "int power_run(const float *x, const int32_t *k, float *result, size_t x_0, void *workspace" in header
    assert "size_t power_workspace_bytes(size_t k, size_t x_0);" in header


THREADS = """
    #include "article.h"
    #include <pthread.h>
    #include <stdio.h>
    #include <stdlib.h>
    typedef struct { article_task task; void *job; size_t begin, end; } part;
    static int shared;
    static void *one(void *argument) {
        part *p = argument;
        p->task(p->job, p->begin, p->end);
        return NULL;
    }
    static void run(void *pool, article_task task, void *job, size_t count, size_t work) {
        pthread_t threads[3];
        part parts[3];
        shared += *(int *)pool * (work > 0);
        for (size_t k = 0; k < 3; k++) {
            parts[k] = (part){task, job, count * k / 3, count * (k + 1) / 3};
            if (pthread_create(&threads[k], NULL, one, &parts[k])) exit(2);
        }
        for (int k = 0; k < 3; k++) pthread_join(threads[k], NULL);
    }
    int main(void) {
        static float x[300 * 784], y[300 * 10];
        size_t n = article_workspace_bytes(300);
        void *workspace = malloc(n);
        int one_more = 1;
        article_threads threads = {run, &one_more};
        if (fread(x, sizeof x, 1, stdin) != 1) return 1;
        int code = article_run(x, y, 300, workspace, n, &threads);
        fwrite(y, sizeof y, 1, stdout);
        if (!code) code = article_run(x, y, 300, workspace, n, NULL);
        fwrite(y, sizeof y, 1, stdout);
        return code ? code : shared > 0 ? 0 : 3;
    }
"""


@needs_cc
def test_work_is_shared_among_threads_of_the_caller(model, tmp_path):
    ahead.write(ahead.build(model, "article", threads=True), tmp_path / "article", "obj", ".o")
    program = compile_c(tmp_path, THREADS, "article.o", options=["-pthread"])
    x = np.random.default_rng(0).normal(size=(300, 784)).astype("float32")
    done = subprocess.run([program], input=x.tobytes(), capture_output=True)
    assert done.returncode == 0
    wanted = model.predict(x, batch_size=300, verbose=0)
    for half in (done.stdout[:12000], done.stdout[12000:]):
        np.testing.assert_array_equal(np.frombuffer(half, "float32").reshape(300, 10), wanted)


def large() -> gnomon.Model:
    """A model with 1.3 MB of weights."""
    gnomon.utils.set_random_seed(1)
    x = gnomon.Input((640,), name="x")
    return gnomon.Model(x, layers.Dense(500, name="y")(x), name="large")


@needs_cc
def test_large_weights_are_put_into_the_object(tmp_path):
    model = large()
    run = Built(tmp_path, ahead.build(model, "large"))
    assert len(run.library.weights) > functions.LARGE
    x = np.random.default_rng(0).normal(size=(3, 640)).astype("float32")
    np.testing.assert_array_equal(run([x], {"batch": 3})[0], model.predict(x, verbose=0))


@needs_cc
def test_large_weights_that_are_trained(tmp_path):
    """The state begins as a copy of what is put there."""
    model = large()
    model.compile("sgd", "mse")
    library = ahead.build(model, "large", train=True, batch=1)
    ahead.write(library, tmp_path / "large", "obj", ".o")
    source = """
        #include "large.h"
        #include <stdio.h>
        #include <stdlib.h>
        int main(void) {
            static float x[640], y[500], loss;
            void *state = malloc(LARGE_STATE_BYTES), *workspace = malloc(LARGE_WORKSPACE_BYTES);
            for (int k = 0; k < 640; k++) x[k] = (float)(k % 7);
            if (large_init(state) || large_step(state, x, y, &loss, workspace, LARGE_WORKSPACE_BYTES)) return 1;
            printf("%.9g", (double)loss);
            return 0;
        }
    """
    program = compile_c(tmp_path, source, "large.o")
    found = np.float32(subprocess.run([program], capture_output=True, check=True).stdout)
    x = (np.arange(640) % 7).astype("float32")[None]
    np.testing.assert_allclose(found, model.train_on_batch(x, np.zeros((1, 500), "float32")), rtol=1e-6)


@pytest.mark.parametrize("name", ["aarch64", "cortex-m7", "windows", "macos", "wasm32"])
def test_large_weights_in_every_form_of_object(name):
    library = ahead.build(large(), "large", targets.find(name), batch=1)
    texts, exported = aot.modules(library)
    content = aot.compile_object(texts, exported, library.target, library.weights)
    assert content.count(library.weights) == 1
    assert objects.PLACE not in content
    assert sum(len(text) for text in texts) < 1 << 19
    with pytest.raises(AssertionError, match="must be given"):
        aot.compile_object(texts, exported, library.target)
