"""Libraries that share the work of a call: among threads of the caller's, or of their own pool."""

from __future__ import annotations

import platform
import shutil
import subprocess

import numpy as np
import pytest

import gnomon
from gnomon import ahead, layers
from gnomon.compiler import aot
from gnomon.compiler.aot import symbols, targets
from gnomon.compiler.aot.pool import NEEDS
from gnomon.compiler.errors import ArgumentError
from tests.aot.support import compile_c, needs_cc

ROWS = 4096

PROGRAM = """
    #include "net.h"
    #include <pthread.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    static float x[ROWS * 64], alone[ROWS * 16], shared[4][ROWS * 16];
    static net_threads threads;
    static int codes[4];
    static void *call(void *number) {
        int k = *(int *)number;
        size_t bytes = net_workspace_bytes(ROWS);
        void *workspace = malloc(bytes);
        for (int round = 0; round < 20 && !codes[k]; round++)
            codes[k] = net_run(x, shared[k], ROWS, workspace, bytes, &threads);
        free(workspace);
        return NULL;
    }
    int main(int argc, char **argv) {
        size_t count = (size_t)atoi(argv[argc - 1]), bytes = net_pool_bytes(count);
        unsigned char *memory = malloc(bytes + 16);
        memset(memory, 0xFF, bytes + 16);
        if (fread(x, sizeof x, 1, stdin) != 1) return 1;
        puts(net_error_text(net_pool_create(NULL, count, memory, bytes)));
        puts(net_error_text(net_pool_create(&threads, count, NULL, bytes)));
        puts(net_error_text(net_pool_create(&threads, count, memory, bytes - 1)));
        puts(net_error_text(net_pool_create(&threads, 1025, memory, bytes)));
        printf("%d\\n", (int)net_pool_bytes(1025));
        size_t needed = net_workspace_bytes(ROWS);
        void *workspace = malloc(needed);
        if (net_run(x, alone, ROWS, workspace, needed, NULL)) return 2;
        for (int again = 0; again < 3; again++) {
            if (net_pool_create(&threads, count, memory + 1, bytes)) return 3;
            pthread_t callers[4];
            int numbers[4] = {0, 1, 2, 3};
            for (int k = 0; k < 4; k++) if (pthread_create(&callers[k], NULL, call, &numbers[k])) return 4;
            for (int k = 0; k < 4; k++) if (pthread_join(callers[k], NULL) || codes[k]) return 5;
            for (int k = 0; k < 4; k++) if (memcmp(alone, shared[k], sizeof alone)) return 6;
            if (net_run(x, shared[0], 1, workspace, needed, &threads)) return 7;
            if (net_run(x, shared[1], 1, workspace, needed, NULL) || memcmp(shared[1], shared[0], 64)) return 7;
            if (net_pool_destroy(&threads)) return 8;
        }
        puts(net_error_text(net_pool_destroy(&threads)));
        for (int k = 1; k < 16; k++) if (memory[bytes + k] != 0xFF) return 9;
        fwrite(alone, sizeof alone, 1, stdout);
        return 0;
    }
"""


def network() -> gnomon.Model:
    gnomon.utils.set_random_seed(1)
    x = gnomon.Input((64,), name="x")
    return gnomon.Model(x, layers.Dense(16)(layers.Dense(200, activation="tanh")(x)), name="net")


@needs_cc
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_a_pool_of_its_own(count, tmp_path):
    """Several calls with the same pool at once, pools made again in the same memory, and all errors."""
    model = network()
    ahead.write(ahead.build(model, "net", threads="pthreads"), tmp_path / "net", "obj", ".o")
    found = symbols.read((tmp_path / "net.o").read_bytes())
    assert found.undefined - {"memcpy", "memset"} == set(NEEDS)
    program = compile_c(tmp_path, PROGRAM, "net.o", options=[f"-DROWS={ROWS}", "-pthread"])
    x = np.random.default_rng(0).normal(size=(ROWS, 64)).astype("float32")
    done = subprocess.run([program, str(count)], input=x.tobytes(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.returncode
    pointer, little, large = "a pointer is NULL", "the memory given is too small", "a size is larger than this library"
    *lines, printed = done.stdout.split(b"\n", 6)
    assert [line.decode() for line in lines] == [pointer, pointer, little, f"{large} allows", "0", pointer]
    wanted = model.predict(x, batch_size=ROWS, verbose=0)
    np.testing.assert_array_equal(np.frombuffer(printed, "float32").reshape(ROWS, 16), wanted)


@pytest.mark.skipif(shutil.which("ld") is None, reason="there is no linker here")
def test_a_shared_library_names_where_its_threads_are_from(tmp_path):
    """Else it would get the conditions of twenty years ago, which are still there for programs that name no version."""
    ahead.write(ahead.build(network(), "net", threads="pthreads"), tmp_path / "net", "shared", ".so")
    content = (tmp_path / "net.so").read_bytes()
    assert content.count(b"pthread_cond_wait\0") == 1
    assert (b"libc.so" in content) == (platform.libc_ver()[0] == "glibc")
    ahead.write(ahead.build(network(), "net", threads=True), tmp_path / "net", "shared", ".so")
    assert b"libc.so" not in (tmp_path / "net.so").read_bytes()


@pytest.mark.parametrize("name", ["aarch64", "riscv64", "android", "macos"])
def test_systems_with_posix_threads(name):
    library = ahead.build(network(), "net", targets.find(name), threads="pthreads")
    found = symbols.read(aot.compile_object(*aot.modules(library), library.target))
    assert found.undefined - {"memcpy", "memset", "bzero"} == set(NEEDS)
    assert {"net_pool_bytes", "net_pool_create", "net_pool_destroy"} <= found.defined
    assert "link with -pthread" in aot.header(library)


@pytest.mark.parametrize("name", ["windows", "wasm32", "cortex-m4"])
def test_systems_without(name):
    with pytest.raises(ArgumentError, match="has no POSIX threads that a library could start: with 'callback' it uses"):
        ahead.build(network(), "net", targets.find(name), batch=1, threads="pthreads")


def test_other_kinds_of_threads():
    with pytest.raises(ArgumentError, match="threads are 'callback' or 'pthreads', not 'green'"):
        ahead.build(network(), "net", threads="green")
    assert ahead.build(network(), "net", threads=True).pool is False
