"""Shared libraries from object files, by whichever linker there is; WebAssembly modules need none."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from gnomon.compiler import aot
from gnomon.compiler.aot import wasm
from gnomon.compiler.errors import CompileError
from gnomon.compiler.targets import Target

ELF = ["-shared", "-s", "-z", "noexecstack", "-z", "max-page-size=4096", "-z", "noseparate-code", "--build-id=none"]
"""No symbols but those exported, no padding to large pages, nothing that changes from one run to the next."""


class NoLinkerError(CompileError):
    """There is no linker for a target."""


def shared_library(content: bytes, exported: Sequence[str], target: Target, name: str) -> bytes:
    """A shared library of one object file: .so, .dylib, .dll or .wasm as the target has it.

    name   what the library calls itself
    Raises CompileError if there is no linker for the target here, or if none succeeds, with its words.
    """
    if "wasm" in target.triple:
        return wasm.link(content, exported)
    failures: list[str] = []
    with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
        Path(folder, "library.o").write_bytes(content)
        for command in _commands(target, exported, name, bool(aot.symbols.read(content).undefined & set(aot.NEEDS))):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            result = Path(folder, "library.out")
            if done.returncode == 0 and result.is_file():
                return result.read_bytes()
            failures.append(f"{Path(command[0]).name}: {(done.stderr or done.stdout).strip()[:500]}")
    if failures:
        raise CompileError(f"no linker could make a shared library for {target.triple}: " + "; ".join(failures))
    raise NoLinkerError(
        f"there is no linker here that makes shared libraries for {target.triple}. Install one (pip install ziglang "
        "has one for every target), or take the format 'obj' or 'static', which needs none"
    )


def _commands(target: Target, exported: Sequence[str], name: str, threads: bool = False) -> Iterator[list[str]]:
    """Command lines of the linkers found, the quickest first. They read library.o and write library.out.

    threads   whether the library needs POSIX threads: then it names the C library, if that can be found, so that it
              gets the functions of today and not those kept for programs that ask for no version
    """
    triple, ends = target.triple, ["library.o", "-o", "library.out"]
    if "apple" in triple:
        if sys.platform == "darwin" and (cc := shutil.which("cc")):
            yield [cc, "-dynamiclib", f"-Wl,-install_name,@rpath/{name}", *ends]
    elif "windows" in triple:
        exports = [f"/export:{s}" for s in exported]
        # objects with floats ask for this symbol of the C library's, and nothing reads it
        options = ["/dll", "/noentry", "/nodefaultlib", "/Brepro", f"/alternatename:_fltused={exported[0]}"]
        for tool in _tools("lld-link"):
            yield [*tool, *options, *exports, "/out:library.out", "library.o"]
    else:
        options = [*ELF, "-soname", name, *ends]
        if threads and _is_native(target) and (ld := shutil.which("ld")):
            yield [ld, *options, "-lc"]
        if _is_native(target) and (ld := shutil.which("ld")):
            yield [ld, *options]
        for tool in _tools("ld.lld"):
            yield [*tool, *options]
        if _is_native(target) and (cc := shutil.which("cc")):
            yield [cc, "-nostdlib", "-shared", "-s", "-Wl,--build-id=none", f"-Wl,-soname,{name}", *ends]


def _tools(name: str) -> Iterator[list[str]]:
    """Ways to run one of LLVM's linkers: on the path, or in the wheel of zig."""
    found = shutil.which(name)
    if found:
        yield [found]
    if find_spec("ziglang") is not None:
        yield [sys.executable, "-m", "ziglang", name]


def _is_native(target: Target) -> bool:
    from gnomon.runtime.device import device

    here = device("cpu").target().triple
    return target.triple.partition("-")[0] == here.partition("-")[0] and "linux" in target.triple and "linux" in here


__all__ = ["NoLinkerError", "shared_library"]
