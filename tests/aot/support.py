"""Libraries in the hands of C programs that the tests compile and run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from gnomon.compiler import aot, dtypes
from gnomon.compiler.sizes import evaluate

CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler here")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1"]


def compile_c(folder: Path, source: str, *objects: str, program: str = "program", options: Sequence[str] = ()) -> Path:
    """A C program, with all warnings as errors."""
    assert CC is not None
    Path(folder, f"{program}.c").write_text(source)
    command = [CC, *STRICT, *options, f"{program}.c", *objects, "-o", program]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / program


def driver(library: aot.Library, routine: aot.Routine) -> str:
    """A C program that runs a routine once.

    Its arguments are the sizes, then the bytes of each input and output. Inputs come from standard input one after the
    other, outputs go to standard output; the exit code is what the routine returned. Memory is exactly as large as it
    must be, and what lies behind the workspace is checked.
    """
    p, sizes = library.prefix, [library.size_names[s] for s in library.sizes]
    arrays = [*routine.inputs, *routine.outputs]
    own = [f"size_t {s} = (size_t)strtoull(argv[{k + 1}], NULL, 10);" for k, s in enumerate(sizes)]
    allocate = [
        f"{a.c_type} *{a.name} = malloc((length = (size_t)strtoull(argv[{k + 1 + len(sizes)}], NULL, 10)) + 1);"
        + (f" if (fread({a.name}, 1, length, stdin) != length) return 99;" if a in routine.inputs else "")
        for k, a in enumerate(arrays)
    ]
    put = [
        f"fwrite({a.name}, 1, (size_t)strtoull(argv[{1 + len(sizes) + len(routine.inputs) + k}], NULL, 10), stdout);"
        for k, a in enumerate(routine.outputs)
    ]
    known, asked = ", ".join(sizes), [library.size_names[s] for s in routine.asked]
    own = [line.replace("size_t ", "size_t size_of_", 1) if name not in asked else line
           for name, line in zip(sizes, own, strict=True)]  # fmt: skip
    known = ", ".join(s if s in asked else f"size_of_{s}" for s in sizes)
    threads = ", NULL" if library.threads else ""
    call = ", ".join([*(a.name for a in arrays), *asked])
    lines = [
        f'#include "{p}.h"', "#include <stdio.h>", "#include <stdlib.h>", "#include <string.h>",
        "int main(int argc, char **argv) {", "    size_t length;", "    (void)argc;",
        *(f"    {line}" for line in (*own, *allocate)),
        f"    length = {p}_workspace_bytes({known});",
        "    unsigned char *workspace = malloc(length + 16);",
        "    memset(workspace, 0xFF, length + 16);",
        f"    int code = {p}_{routine.name}({call}, workspace, length{threads});",
        f"    if (code) fputs({p}_error_text(code), stderr);",
        "    for (int k = 0; k < 16; k++) if (workspace[length + k] != 0xFF) return 98;",
        *(f"    {line}" for line in put),
        "    return code;", "}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


class Built:
    """A library on disk with a driver for one of its routines."""

    def __init__(self, folder: Path, library: aot.Library, routine: str = "run", options: Sequence[str] = ()):
        from gnomon import ahead

        folder.mkdir(exist_ok=True)
        self.library = library
        self.routine = next(r for r in library.routines if r.name == routine)
        ahead.write(library, folder / library.prefix, "obj", ".o")
        source = driver(library, self.routine)
        self.program = compile_c(folder, source, f"{library.prefix}.o", program=routine, options=options)

    def __call__(self, arrays: Sequence[np.ndarray], sizes: Mapping[str, int]) -> list[np.ndarray]:
        """The outputs for some inputs; fails if the routine returns an error."""
        code, text, results = self.attempt(arrays, sizes)
        assert code == 0, text
        return results

    def attempt(self, arrays: Sequence[np.ndarray], sizes: Mapping[str, int]) -> tuple[int, str, list[np.ndarray]]:
        """What the routine returned, the text of that error, and the outputs."""
        shapes = [tuple(max(0, evaluate(d, sizes)) for d in a.shape) for a in self.routine.outputs]
        kinds = [dtypes.named(a.dtype).numpy for a in self.routine.outputs]
        lengths = [int(np.prod(s)) * k.itemsize for s, k in zip(shapes, kinds, strict=True)]
        arguments = [sizes[s] for s in self.library.sizes]
        arguments += [*(a.nbytes for a in arrays), *lengths]
        given = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)
        done = subprocess.run([str(self.program), *map(str, arguments)], input=given, capture_output=True)
        results, at = [], 0
        if done.returncode == 0:
            for shape, kind, length in zip(shapes, kinds, lengths, strict=True):
                results.append(np.frombuffer(done.stdout[at : at + length], kind).reshape(shape))
                at += length
        return done.returncode, done.stderr.decode(), results
