"""Compiles CUDA C++ text to cubin with NVRTC, through ctypes: no driver and no GPU needed, only NVIDIA's wheel."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from importlib import util
from pathlib import Path

from gnomon.runtime.cuda import OPTIONS


class NvrtcError(RuntimeError):
    """The text did not compile; the message is the compiler's log."""


@dataclass(frozen=True)
class Usage:
    """What one kernel takes: registers of a thread, bytes of a block's static shared memory; bytes spilled, and bytes
    of a thread's own memory (arrays that did not fit registers, spills)."""

    registers: int
    shared: int
    spilled: int
    stack: int


@cache
def library() -> ctypes.CDLL | None:
    """NVRTC from the wheel `nvidia-cuda-nvrtc`, None if it is not installed."""
    spec = util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(root).glob("*/lib/libnvrtc.so.*")):
            for builtins in path.parent.glob("libnvrtc-builtins.so.*"):
                ctypes.CDLL(str(builtins))  # NVRTC opens it by its bare name and does not look beside itself
            return ctypes.CDLL(str(path))
    return None


def compile(text: str, arch: str) -> dict[str, Usage]:
    """Compile a program as the driver does, for an architecture such as 'sm_90', and say what each kernel takes.

    Raises NvrtcError.
    """
    nvrtc = library()
    assert nvrtc is not None, "ask library() first"
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    asked = (f"--gpu-architecture={arch}", *OPTIONS, "--ptxas-options=-v")
    options = [option.encode() for option in asked]
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None) == 0
    try:
        failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        if failed:
            raise NvrtcError(log.value.decode())
        assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
        assert size.value > 0, "no cubin"
        return _usage(log.value.decode())
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _usage(log: str) -> dict[str, Usage]:
    """The assembler's report, by kernel."""
    found = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        counted = ("smem", "spill stores", "spill loads", "stack")
        words = (r"Used (\d+) reg", *(rf"(\d+) bytes {what}" for what in counted))
        registers, shared, stores, loads, stack = (int(m[1]) if (m := re.search(w, part)) else 0 for w in words)
        found[part[: part.index("'")]] = Usage(registers, shared, stores + loads, stack)
    return found
