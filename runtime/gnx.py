"""The form of `.gnx` files: written, read, checked, and refused where they do not fit.

A file is a head of 64 bytes (magic number, form, bytes of the description, digest of all that follows the head, bytes
of the file), the description as JSON, the library and the weights, each at a multiple of 64 bytes. The digest is the
SHA-256 of those of parts of 8 MiB, so that several threads can check a large file.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import platform
import struct
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gnomon.compiler.errors import FileError, MissingFileError

MAGIC = b"\x89gnx\r\n\x1a\n"
"""Not text, and damaged by whoever takes it for text."""

FORM = 1
"""Of the file: another one is not read."""

HEAD = struct.Struct("<8sII32sQ8x")

ALIGN = 64

PART = 8 << 20
"""Bytes that one digest is of."""


def pack(description: Mapping[str, Any], library: bytes, weights: bytes) -> bytes:
    """The contents of a file. `description` is what `Compiled` reads, without the places of library and weights."""
    places = {"library": [0, len(library)], "weights": [0, len(weights)]}
    told = 0
    while True:  # the places are part of the text whose length they depend on
        text = json.dumps({**description, **places}, sort_keys=True, separators=(",", ":")).encode()
        if len(text) == told:
            break
        told = len(text)
        at = _rounded(HEAD.size + told)
        places = {"library": [at, len(library)], "weights": [_rounded(at + len(library)), len(weights)]}
    body = bytearray(text)
    for content in (library, weights):
        body += bytes(-(HEAD.size + len(body)) % ALIGN)
        body += content
    whole = hashlib.sha256(b"".join(_digests(body, 0, len(body)))).digest()
    return HEAD.pack(MAGIC, FORM, len(text), whole, HEAD.size + len(body)) + body


def _digests(body: Any, begin: int, end: int) -> list[bytes]:
    """The digests of the parts of `body` from `begin` to `end`."""
    with memoryview(body) as view:
        return [hashlib.sha256(view[at : min(at + PART, end)]).digest() for at in range(begin, end, PART)]


def _rounded(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


# ---- reading


def read(path: Any, threads: int) -> tuple[dict[str, Any], Any, str]:
    """The description in a file, the file's contents in memory, and its name. `threads` check it.

    Raises FileError if the file is not one, is cut short or altered, has a form that this version does not read, or was
    made for another system or processor; MissingFileError if it is not there.
    """
    name = os.fsdecode(os.fspath(path))
    try:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        folder = Path(name).parent
        near = sorted(p.name for p in folder.glob("*.gnx"))[:5] if folder.is_dir() else []
        hint = f" In that folder are {', '.join(map(repr, near))}." if near else ""
        raise MissingFileError(f"there is no file {name!r}.{hint}") from None
    except OSError as error:
        raise FileError(f"cannot read {name!r}: {error.strerror or error}") from error
    if size < HEAD.size or content[:8] != MAGIC:
        raise FileError(f"{name!r} is not a compiled model: `gnomon compile MODEL -o FILE.gnx` makes them")
    _, form, length, digest, told = HEAD.unpack_from(content)
    if form != FORM:
        raise FileError(
            f"{name!r} is a compiled model of form {form}, and this gnomon reads form {FORM}: compile the model again"
        )
    if size != told:
        raise FileError(f"{name!r} is {'cut short' if size < told else 'too long'}: {size:,} bytes instead of {told:,}")
    check = _Check(content, digest, threads)
    import numpy  # noqa: F401  # on this thread while the other one reads the file

    if not check.holds():
        raise FileError(f"{name!r} is damaged: its contents are not those that were written")
    description = json.loads(content[HEAD.size : HEAD.size + length])
    _check_machine(name, description["platform"])
    return description, content, name


def digest_of(content: Any) -> str:
    """The digest that a file says it has, in hexadecimal."""
    return bytes(HEAD.unpack_from(content)[3]).hex()


class _Check:
    """Compares a file with its digest on threads of its own."""

    def __init__(self, content: Any, digest: bytes, count: int):
        self.content, self.digest = content, digest
        parts = -(-(len(content) - HEAD.size) // PART)
        count = max(1, min(count, parts))
        each = -(-parts // count) * PART
        self.found: list[list[bytes]] = [[] for _ in range(count)]
        self.threads = [threading.Thread(target=self._run, args=(k, each)) for k in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self, k: int, each: int) -> None:
        with memoryview(self.content) as view, view[HEAD.size :] as body:
            self.found[k] = _digests(body, min(k * each, len(body)), min((k + 1) * each, len(body)))

    def holds(self) -> bool:
        for thread in self.threads:
            thread.join()
        return hashlib.sha256(b"".join(d for found in self.found for d in found)).digest() == self.digest


def _check_machine(name: str, wanted: Mapping[str, Any]) -> None:
    system, machine = here()
    if (wanted["system"], wanted["machine"]) != (system, machine):
        raise FileError(
            f"{name!r} was compiled for {wanted['machine']} on {wanted['system']}, and this is {machine} on {system}: "
            "compile the model for this machine"
        )
    flags = cpu_flags()
    missing = sorted(set(wanted["flags"]) - flags) if flags is not None else []
    if missing:
        raise FileError(
            f"{name!r} was compiled for a processor that can do {', '.join(missing[:8])}, and this one cannot: compile "
            "the model for it (--cpu)"
        )


# ---- this machine


def here() -> tuple[str, str]:
    """The system and processor that this process runs on."""
    machine = platform.machine().lower()
    return sys.platform, {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def cpu_flags() -> frozenset[str] | None:
    """What the processor can do, in Linux's words; None where that is not told."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return None


__all__ = ["ALIGN", "HEAD", "cpu_flags", "digest_of", "here", "pack", "read"]
