"""Static libraries: an archive with one object file and an index of its symbols, byte for byte the same each time.

References: "System V Application Binary Interface", chapter 7 (archive files), as linkers of Linux, Windows and
WebAssembly read it; <mach-o/ranlib.h> for the form that Apple's linker reads.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

MAGIC = b"!<arch>\n"


def archive(name: str, content: bytes, symbols: Sequence[str], apple: bool = False) -> bytes:
    """An archive with the object `content` as its member `name`; `symbols` are what the object defines."""
    if apple:
        return _apple(name, content, symbols)
    member = (name if len(name) < 16 else name[:13] + ".o")[:15] + "/"
    names = b"".join(s.encode() + b"\0" for s in symbols)
    index_size = 4 + 4 * len(symbols) + len(names)
    at = len(MAGIC) + 60 + index_size + index_size % 2
    index = struct.pack(f">I{len(symbols)}I", len(symbols), *[at] * len(symbols)) + names
    return MAGIC + _member("/", index) + _member(member, content)


def _apple(name: str, content: bytes, symbols: Sequence[str]) -> bytes:
    """The same with names and index as BSD had them; symbols have an underscore before them."""
    names = b""
    entries = []
    for s in symbols:
        entries.append(len(names))
        names += b"_" + s.encode() + b"\0"
    names += bytes(-len(names) % 8)
    index_size = 4 + 8 * len(entries) + 4 + len(names)
    at = len(MAGIC) + 60 + _padded("__.SYMDEF") + index_size
    index = struct.pack("<I", 8 * len(entries))
    index += b"".join(struct.pack("<II", e, at) for e in entries) + struct.pack("<I", len(names)) + names
    return MAGIC + _named("__.SYMDEF", index) + _named(name, content)


def _padded(name: str) -> int:
    return -(-(len(name) + 1) // 8) * 8 + 4  # the header is 60 bytes long: what follows the name begins on 8


def _named(name: str, content: bytes) -> bytes:
    """A member whose name stands before its content."""
    room = _padded(name)
    return _member(f"#1/{room}", name.encode().ljust(room, b"\0") + content + bytes(-len(content) % 8))


def _member(name: str, content: bytes) -> bytes:
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'644':<8}{len(content):<10}`\n".encode()
    return head + content + b"\n" * (len(content) % 2)
