"""Ahead of time: programs as a C library that depends on nothing.

A `Library` is made of `Routine`s (programs with the names of their arrays) and what is stored; `modules` writes it as
LLVM text, `objects.compile_object` makes that an object file for any target, `header` describes it to C.
"""

from gnomon.compiler.aot import symbols
from gnomon.compiler.aot.archive import archive
from gnomon.compiler.aot.codes import error_texts
from gnomon.compiler.aot.describe import describe
from gnomon.compiler.aot.functions import modules
from gnomon.compiler.aot.header import header
from gnomon.compiler.aot.layout import arrange, blocks_of
from gnomon.compiler.aot.library import (
    Argument,
    Library,
    Routine,
    Stored,
    arguments_of,
    check_prefix,
    check_steps,
    identifier,
)
from gnomon.compiler.aot.objects import compile_object, stack_bytes
from gnomon.compiler.aot.pool import NEEDS, has_threads
from gnomon.compiler.aot.prepare import preparation, prepared

__all__ = [
    "NEEDS", "Argument", "Library", "Routine", "Stored", "archive", "arguments_of", "arrange", "blocks_of",
    "check_prefix",
    "check_steps", "compile_object", "describe", "error_texts", "has_threads", "header", "identifier", "modules",
    "preparation", "prepared", "stack_bytes", "symbols",
]  # fmt: skip
