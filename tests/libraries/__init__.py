"""cublasLt and cuDNN where there are none: stand-ins in C that refuse what those refuse, on the emulated device.

    gpu = Gpu("emulator", WithLibraries(), poison=True)
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from gnomon.compiler.program import Library
from gnomon.compiler.targets import CUDA, Target
from gnomon.runtime.cublas import CublasLt
from gnomon.runtime.cudnn import Cudnn
from gnomon.runtime.gpu import Maker, Operand, Routine
from tests.emulator import Module
from tests.emulator.driver import Emulator

HERE = Path(__file__).parent
STREAM = 0x5712EA
"""The stream that the stand-ins insist on."""
TARGET: Target = replace(CUDA, libraries=("cublaslt", "cudnn"))
RELU_TARGET: Target = replace(CUDA, libraries=("cublaslt", "cublaslt.relu", "cudnn"))
"""Where cublasLt's relu may be used too, which makes 0 of NaN."""


def compiler() -> str | None:
    """The host's C compiler, None if there is none: then tests skip."""
    return shutil.which(os.environ.get("CC", "cc"))


@cache
def stand_in(name: str) -> ctypes.CDLL:
    """A stand-in by its file's name, compiled unless that is done."""
    text = (HERE / f"{name}.c").read_text()
    key = hashlib.sha256(f"{compiler()}{text}".encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"gnomon-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made = Path(work) / "made.so"
            flags = ["-std=c11", "-O2", "-shared", "-fPIC", "-ffp-contract=off"]
            subprocess.run([str(compiler()), *flags, "-o", str(made), str(HERE / f"{name}.c"), "-lm"], check=True)
            made.replace(library)
    return ctypes.CDLL(str(library))


def counted(name: str) -> dict[str, int]:
    """Of a stand-in: descriptors there are, algorithms that were asked for, routines that were run."""
    return {what: getattr(stand_in(name), f"test_{what}")() for what in ("living", "chosen", "run")}


class WithLibraries(Emulator):
    """The emulator with both libraries, which work in its memory and are captured with all else."""

    def __init__(self, order: int = 0, module: Module | None = None, limit: int = 1 << 30):
        super().__init__(order, module, limit)
        self.libraries = ("cublaslt", "cudnn")
        self.makers: dict[str, Maker] = {
            **CublasLt(stand_in("cublaslt"), STREAM, self.fill).makers(),
            **Cudnn(stand_in("cudnn"), STREAM, self.fill).makers(),
        }

    def library(self, name: str) -> Any:
        make = self.makers.get(name)
        if make is None:
            return None

        def within(
            step: Library, inputs: Sequence[Operand], written: Sequence[Operand], sizes: Mapping[str, int]
        ) -> Routine:
            for operand in (*inputs, *written):
                self.at(operand.address, 1)  # is in a block of the device's memory
            routine = make(step, inputs, written, sizes)
            return lambda: self._do(routine)

        return within
