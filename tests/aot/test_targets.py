"""Other machines: what is emitted for each, and results where an emulator or engine is at hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import gnomon
from gnomon import ahead, ops
from gnomon.compiler import aot
from gnomon.compiler.aot import symbols, targets
from gnomon.compiler.errors import ArgumentError
from gnomon.runtime import gnx
from tests.aot.support import driver
from tests.aot.test_c_library import article

SOFT = re.compile(r"__aeabi_\w+$|__clz[sd]i2$")
"""Arithmetic that a processor without it has from the compiler's own library, which every C compiler links."""


def functions() -> gnomon.Function:
    """A little of everything that a target may not be able to do by itself."""
    x, d, i = gnomon.fvector("x"), gnomon.dvector("d"), gnomon.ivector("i")
    h = gnomon.Input((8,), dtype="float16", name="half")
    outputs = {
        name: getattr(ops, name)(v)
        for name in ("exp", "log", "sin", "tanh", "floor", "ceil", "round", "sqrt", "sigmoid", "erf")
        for v in (x,)
    }
    outputs |= {
        "floors": ops.floor(d), "rounds": ops.round(d), "exps": ops.exp(d), "roots": ops.sqrt(ops.abs(d)),
        "larger": ops.maximum(x, ops.flip(x)), "largest": ops.max(d), "whole": ops.cast(x, "int32"),
        "long": ops.cast(d, "int64"), "quotient": ops.floor_divide(i, 3), "rest": ops.mod(i, 7),
        "halves": h * 1.5, "sum": ops.sum(h, axis=-1), "sorted": ops.sort(x), "power": ops.power(ops.abs(x), 1.5),
        "even": ops.equal(ops.mod(i, 2), 0), "product": ops.matmul(h, ops.transpose(h)),
    }  # fmt: skip
    return gnomon.function([x, d, i, h], outputs, name="many")


@pytest.fixture(scope="module")
def many() -> gnomon.Function:
    return functions()


NUMBERS = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.49999997, 8388609.0, -3.3, 1e9, np.nan, np.inf, -np.inf, 1e-42, 7.0]
HALVES = np.array([[0, 6e-8, -1e-5, 0.1, 1, 2049, 65504, -7], [np.nan, np.inf, -np.inf, 1e-4, 3.14, -0.0, 100, 5]])


def arrays() -> tuple[list[np.ndarray], dict[str, int]]:
    x = np.array(NUMBERS, "float32")
    given = [x, np.array(NUMBERS, "float64"), np.arange(-8, 9, dtype="int32"), HALVES.astype("float16")]
    return given, {"x_0": 16, "d_0": 16, "i_0": 17, "batch": 2}


def compiled(source, name: str, **options) -> tuple[aot.Library, bytes]:
    library = ahead.build(source, "many", targets.find(name), **options)
    texts, exported = aot.modules(library)
    return library, aot.compile_object(texts, exported, library.target)


@pytest.mark.parametrize(
    "name", ["x86-64", "aarch64", "riscv64-v", "wasm32", "cortex-m0", "cortex-m4", "windows", "macos"]
)
def test_what_an_object_needs_is_little(many, name):
    library, content = compiled(many, name, sizes=arrays()[1] if name.startswith("cortex") else None)
    found = symbols.read(content)
    exported = {f"many_{n}" for n in ("run", "workspace_bytes", "error_text", "version")}
    assert {s for s in found.defined if not s.startswith(("__real@", "__xmm@", "__ymm@", "@"))} == exported
    needed = found.undefined - {"memcpy", "memset", "memmove", "_fltused"}
    if name.startswith("cortex"):
        needed = {s for s in needed if not SOFT.match(s)} - {"sqrt", "sqrtf"}
    assert not needed
    assert sum(found.sections.values()) > 5_000


KINDS = {
    "x86-64-v2": (b"\x7fELF\x02\x01", 62), "x86-64-v4": (b"\x7fELF\x02\x01", 62), "aarch64": (b"\x7fELF\x02\x01", 183),
    "android": (b"\x7fELF\x02\x01", 183), "riscv64": (b"\x7fELF\x02\x01", 243), "riscv64-v": (b"\x7fELF\x02\x01", 243),
    "cortex-m0plus": (b"\x7fELF\x01\x01", 40), "cortex-m3": (b"\x7fELF\x01\x01", 40),
    "cortex-m7": (b"\x7fELF\x01\x01", 40), "cortex-m33": (b"\x7fELF\x01\x01", 40),
    "cortex-m55": (b"\x7fELF\x01\x01", 40), "wasm32": (b"\0asm\x01", None), "windows": (b"\x64\x86", None),
    "windows-arm64": (b"\x64\xaa", None), "macos": (b"\xcf\xfa\xed\xfe\x0c\0\0\x01", None),
    "macos-x86-64": (b"\xcf\xfa\xed\xfe\x07\0\0\x01", None), "ios": (b"\xcf\xfa\xed\xfe\x0c\0\0\x01", None),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_each_target_has_its_form(name):
    _, content = compiled(article(), name, batch=1)
    magic, machine = KINDS[name]
    assert content.startswith(magic)
    if machine is not None:
        assert int.from_bytes(content[18:20], "little") == machine
    found = symbols.read(content)
    assert "many_run" in found.defined
    assert not {s for s in found.undefined if s != "_fltused" and not SOFT.match(s)}


def test_every_name_is_a_target():
    for name, (triple, _) in targets.NAMED.items():
        target = targets.find(name)
        assert target.triple.replace("-none-unknown-", "-none-") == triple
        assert target == targets.find(triple, target.cpu) or name == "riscv64-v"
        assert aot.objects.machine(target) is not None


@pytest.mark.parametrize(
    "name, cpu, vector, fma",
    [
        ("x86_64-linux-gnu", "haswell", 32, True), ("x86_64-pc-windows-msvc", "znver5", 64, True),
        ("x86_64-linux-gnu", "nehalem", 16, False), ("x86_64-linux-gnu", "", 16, False),
        ("aarch64-linux-gnu", "cortex-a72", 16, True), ("riscv64-linux-gnu", "spacemit-x60", 16, True),
        ("riscv64-linux-gnu", "sifive-u74", 4, True), ("wasm32-wasi", "", 16, False), ("wasm32-wasi", "mvp", 4, False),
        ("thumbv7em-none-eabihf", "cortex-m7", 4, True), ("thumbv6m-none-eabi", "", 4, False),
    ],
)  # fmt: skip
def test_vectors_and_fusion_follow_the_cpu(name, cpu, vector, fma):
    target = targets.find(name, cpu)
    assert (target.vector_bytes, target.fma) == (vector, fma)
    _, content = compiled(article(), name, batch=1) if not cpu else (None, b"")
    assert b"fmaf" not in content


def test_triples_are_filled_in():
    assert targets.find("aarch64-linux-gnu") == targets.find("aarch64-unknown-linux-gnu") == targets.find("aarch64")
    assert targets.find("x86_64-windows-msvc").triple == "x86_64-pc-windows-msvc"
    assert targets.find("arm64-macosx12").triple == "arm64-apple-macosx12"
    assert targets.find("thumbv7em-none-eabihf") == targets.find("cortex-m4")


@pytest.mark.parametrize(
    "name, cpu, message",
    [
        ("cortex-m5", "", "there is no target 'cortex-m5'. Did you mean 'cortex-m"),
        ("x86-64-v5", "", "Did you mean 'x86-64-v4'"),
        ("mips-linux-gnu", "", "Processors of triples are aarch64, arm64,"),
        ("x86_64", "", "Write x86_64 with a system behind it, such as x86_64-unknown-linux-gnu"),
        ("x86_64-amiga", "", "names no system that is known: linux, windows"),
        ("aarch64", "cortex-a27", "there is no cpu 'cortex-a27' for aarch64-unknown-linux-gnu. Did you mean 'cortex-a"),
        ("cortex-m4", "cortex-m0", "for thumbv7em-none-unknown-eabihf. Did you mean 'cortex-m7'"),
        ("wasm32", "fast", "there is no cpu 'fast' for wasm32-unknown-unknown. Known: generic, mvp."),
        (None, "skylaka", "there is no cpu 'skylaka' for"),
    ],
)
def test_unknown_targets_and_cpus(name, cpu, message):
    with pytest.raises(ArgumentError) as caught:
        ahead.target_for(name, cpu)
    assert message in str(caught.value)


def test_open_sizes_without_an_operating_system(many):
    with pytest.raises(ArgumentError) as caught:
        compiled(article(), "cortex-m4")
    assert "these sizes are open: 'batch' (an axis of 'pixels'). Fix them: --batch 1" in str(caught.value)
    with pytest.raises(ArgumentError) as caught:
        compiled(many, "cortex-m4", batch=1)
    assert "'x_0' (an axis of 'x') and 'd_0' (an axis of 'd') and 'i_0' (an axis of 'i')" in str(caught.value)
    compiled(article(), "cortex-m4", max_batch=2)


# ---- results

EMULATED = {
    "aarch64": ("aarch64-linux-gnu-gcc", ["qemu-aarch64"]),
    "riscv64": ("riscv64-linux-gnu-gcc", ["qemu-riscv64"]),
    "riscv64-v": ("riscv64-linux-gnu-gcc", ["qemu-riscv64", "-cpu", "rv64,v=true,vext_spec=v1.0"]),
    "x86-64": ("cc", []),
    "x86-64-v2": ("cc", []),
    "x86-64-v3": ("cc", []),
    "x86-64-v4": ("cc", []),
}


def emulated(name: str, folder: Path, library: aot.Library, content: bytes) -> list[str]:
    """The command that runs a driver of a library on a target; skips where its compiler or emulator is missing."""
    compiler, run = EMULATED[name]
    for tool in (compiler, *run[:1]):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here")
    if name.startswith("x86") and not targets.X86_LEVELS[name] <= (gnx.cpu_flags() or set()):
        pytest.skip(f"this machine is no {name}")
    (folder / "many.o").write_bytes(content)
    (folder / "many.h").write_text(aot.header(library))
    (folder / "driver.c").write_text(driver(library, library.routines[0]))
    command = [compiler, "-static", "-O1", "-Werror", "driver.c", "many.o", "-o", "driver"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [*run, str(folder / "driver")]


def results(library: aot.Library, printed: bytes, sizes: dict[str, int]) -> list[np.ndarray]:
    from gnomon.compiler.sizes import evaluate

    found, at = [], 0
    for a in library.routines[0].outputs:
        shape = tuple(evaluate(d, sizes) for d in a.shape)
        count = int(np.prod(shape))
        found.append(np.frombuffer(printed, a.dtype, count, at).reshape(shape))
        at += found[-1].nbytes
    assert at == len(printed)
    return found


def compare(library: aot.Library, found: list[np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Integers exactly; floats as far as products that fuse or not may differ."""
    for a, value in zip(library.routines[0].outputs, found, strict=True):
        tolerance = {"f2": 2e-3, "f4": 2e-6, "f8": 1e-14}.get(value.dtype.str[1:], 0)
        np.testing.assert_allclose(value, wanted[a.label], rtol=tolerance, atol=tolerance, err_msg=a.label)
        if value.dtype.kind == "f":
            signs = [np.signbit(v) & ~np.isnan(v) for v in (value, wanted[a.label])]
            np.testing.assert_array_equal(*signs, err_msg=a.label)


@pytest.mark.parametrize("name", EMULATED)
def test_results_on_other_processors(many, name, tmp_path):
    library, content = compiled(many, name)
    command = emulated(name, tmp_path, library, content)
    given, sizes = arrays()
    wanted = many(*given)
    lengths = [wanted[a.label].nbytes for a in library.routines[0].outputs]
    arguments = [str(sizes[s]) for s in library.routines[0].program.sizes]
    arguments += [str(n) for n in (*(a.nbytes for a in given), *lengths)]
    done = subprocess.run([*command, *arguments], input=b"".join(a.tobytes() for a in given), capture_output=True)
    assert done.returncode == 0, done.stderr
    compare(library, results(library, done.stdout, sizes), wanted)


NODE = """
const fs = require("fs");
const [file, prefix, sizes, lengths, results, ending] = JSON.parse(fs.readFileSync(0, "utf8"));
WebAssembly.instantiate(fs.readFileSync(file)).then(({ instance }) => {
  const e = instance.exports;
  let at = e.__heap_base.value;
  const take = (bytes) => { const place = at; at += (bytes + 63) & ~63; return place; };
  const given = lengths.map(([name, bytes]) => [name, take(bytes), bytes]);
  const filled = results.map((bytes) => [take(bytes), bytes]);
  const needed = e[prefix + "_workspace_bytes"](...sizes);
  const workspace = take(needed);
  const more = Math.ceil((at - e.memory.buffer.byteLength) / 65536);
  if (more > 0) e.memory.grow(more);
  const memory = new Uint8Array(e.memory.buffer);
  for (const [name, place] of given) memory.set(fs.readFileSync(name), place);
  const places = [...given.map((g) => g[1]), ...filled.map((f) => f[0])];
  const code = e[prefix + "_run"](...places, ...sizes, workspace, needed, ...ending);
  if (code) throw new Error("code " + code);
  for (const [place, bytes] of filled) fs.writeSync(1, Buffer.from(e.memory.buffer, place, bytes));
});
"""


def in_node(folder: Path, library: aot.Library, given: list[np.ndarray], sizes: dict[str, int]) -> list[np.ndarray]:
    """What a library computes as a WebAssembly module; skips where there is no Node.js."""


    from gnomon.compiler.sizes import evaluate

    if shutil.which("node") is None:
        pytest.skip("node is not here")
    ahead.write(library, folder / "module", "shared", ".wasm")
    lengths = []
    for k, a in enumerate(given):
        (folder / f"in{k}").write_bytes(np.ascontiguousarray(a).tobytes())
        lengths.append([str(folder / f"in{k}"), a.nbytes])
    shapes = [[evaluate(d, sizes) for d in a.shape] for a in library.routines[0].outputs]
    amounts = [
        int(np.prod(s)) * np.dtype(a.dtype).itemsize for s, a in zip(shapes, library.routines[0].outputs, strict=True)
    ]
    told = [str(folder / "module.wasm"), library.prefix, [sizes[s] for s in library.sizes], lengths, amounts,
            [0] * library.threads]  # fmt: skip
    (folder / "run.js").write_text(NODE)
    done = subprocess.run(["node", "run.js"], input=json.dumps(told).encode(), cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return results(library, done.stdout, sizes)


@pytest.mark.parametrize("cpu", ["generic", "mvp"])
def test_webassembly(many, cpu, tmp_path):
    library = ahead.build(many, "many", targets.find("wasm32", cpu))
    given, sizes = arrays()
    compare(library, in_node(tmp_path, library, given, sizes), many(*given))


@pytest.mark.parametrize("threads", [False, True])
def test_a_model_as_webassembly(threads, tmp_path):
    model = article()
    library = ahead.build(model, "article", targets.find("wasm32"), threads=threads)
    x = np.random.default_rng(0).normal(size=(3, 784)).astype("float32")
    (found,) = in_node(tmp_path, library, [x], {"batch": 3})
    np.testing.assert_allclose(found, model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
    module = symbols.read((tmp_path / "module.wasm").read_bytes())
    assert not module.undefined
    assert {"article_run", "article_workspace_bytes", "memory", "__heap_base"} <= module.defined


def test_webassembly_without_node_is_a_module_all_the_same(tmp_path):
    library = ahead.build(article(), "article", targets.find("wasm32"))
    files = ahead.write(library, tmp_path / "a", "shared", ".wasm").files
    content = (tmp_path / "a.wasm").read_bytes()
    assert content[:8] == b"\0asm\1\0\0\0"
    assert files[str(tmp_path / "a.wasm")] == len(content) < 110_000
