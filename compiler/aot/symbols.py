"""What an object file defines and needs, and how large its parts are: readers of ELF, COFF, Mach-O and WebAssembly.

References: "System V Application Binary Interface", chapter 4; "PE Format", sections 3 to 5 (Microsoft); <mach-o/
loader.h> and <mach-o/nlist.h>; "WebAssembly Object File Linking" (tool-conventions), section "Symbol Table".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Contents:
    """Names that others can use, names that others must have, and the bytes of the sections that take memory."""

    defined: set[str] = field(default_factory=set)
    undefined: set[str] = field(default_factory=set)
    sections: dict[str, int] = field(default_factory=dict)


def read(content: bytes) -> Contents:
    """What is in an object file. Raises ValueError for a format that is not one of the four."""
    if content[:4] == b"\x7fELF":
        return _elf(content)
    if content[:4] == b"\0asm":
        return _wasm(content)
    if content[:4] == b"\xcf\xfa\xed\xfe":
        return _macho(content)
    if content[:2] in (b"\x64\x86", b"\x64\xaa"):
        return _coff(content)
    raise ValueError("not an object file of ELF, COFF, Mach-O or WebAssembly")


def _text(content: bytes, at: int) -> str:
    return content[at : content.index(b"\0", at)].decode()


def _elf(content: bytes) -> Contents:
    found = Contents()
    wide = content[4] == 2
    start, size, count, names = (*struct.unpack_from("<Q" if wide else "<I", content, 40 if wide else 32),
                                 *struct.unpack_from("<HHH", content, 58 if wide else 46))  # fmt: skip
    head = struct.Struct("<IIQQQQIIQQ" if wide else "<IIIIIIIIII")
    sections = [head.unpack_from(content, start + k * size) for k in range(count)]
    text = sections[names][4]
    for name, kind, flags, _, _, length, *_ in sections:
        if flags & 2 and length and kind != 0x70000001:  # takes memory, and no table for unwinding
            label = _text(content, text + name)
            found.sections[label] = found.sections.get(label, 0) + length
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != 2:
            continue
        strings, step = sections[link][4], 24 if wide else 16
        for at in range(offset + step, offset + length, step):
            if wide:
                name, info, _, number = struct.unpack_from("<IBBH", content, at)
            else:
                name, info, _, number = struct.unpack_from("<I8xBBH", content, at)
            if info >> 4 and name:
                (found.defined if number else found.undefined).add(_text(content, strings + name))
    return found


def _coff(content: bytes) -> Contents:
    found = Contents()
    count, table, symbols, optional = struct.unpack_from("<H4xIIH", content, 2)
    strings = table + 18 * symbols

    def name_at(at: int) -> str:
        if content[at : at + 4] == bytes(4):
            return _text(content, strings + struct.unpack_from("<I", content, at + 4)[0])
        return content[at : at + 8].rstrip(b"\0").decode()

    for k in range(count):
        at = 20 + optional + 40 * k
        name, size, flags = name_at(at), *struct.unpack_from("<I", content, at + 16), struct.unpack_from(
            "<I", content, at + 36)[0]  # fmt: skip
        if name.startswith("/"):
            name = _text(content, strings + int(name[1:]))
        if size and not flags & 0x02000200:  # neither discarded nor for the linker alone
            found.sections[name] = found.sections.get(name, 0) + size
    k = 0
    while k < symbols:
        at = table + 18 * k
        value, section, _, kind, more = struct.unpack_from("<IhHBB", content, at + 8)
        if kind == 2:
            (found.defined if section or value else found.undefined).add(name_at(at))
        k += 1 + more
    return found


def _macho(content: bytes) -> Contents:
    found = Contents()
    (commands,) = struct.unpack_from("<I", content, 16)
    at = 32
    for _ in range(commands):
        command, size = struct.unpack_from("<II", content, at)
        if command == 0x19:  # a segment with sections
            (count,) = struct.unpack_from("<I", content, at + 64)
            for k in range(count):
                place = at + 72 + 80 * k
                name = content[place : place + 16].rstrip(b"\0").decode()
                (length,) = struct.unpack_from("<Q", content, place + 40)
                if length and name not in ("__compact_unwind", "__eh_frame"):
                    found.sections[name] = found.sections.get(name, 0) + length
        elif command == 2:  # the symbol table
            symbols, count, strings = struct.unpack_from("<III", content, at + 8)
            for k in range(count):
                name_at, kind = struct.unpack_from("<IB", content, symbols + 16 * k)
                if kind & 1 and not kind & 0xE0:
                    name = _text(content, strings + name_at).removeprefix("_")
                    (found.defined if kind & 0x0E else found.undefined).add(name)
        at += size
    return found


def _wasm(content: bytes) -> Contents:
    found = Contents()
    imported: list[tuple[str, int]] = []
    for number, body in _wasm_sections(content):
        reader = _Reader(body)
        if number == 2:
            for _ in range(reader.number()):
                reader.string()
                name, kind = reader.string(), reader.byte()
                if kind == 0:
                    reader.number()
                    imported.append((name, kind))
                else:  # a table, memory, global or tag
                    reader.at += {1: 1, 2: 0}.get(kind, 2)
                    if kind in (1, 2):
                        reader.limits()
        elif number in (10, 11):
            found.sections["code" if number == 10 else "data"] = len(body)
        elif number == 7:
            for _ in range(reader.number()):
                name = reader.string()
                reader.byte(), reader.number()
                found.defined.add(name)
        elif number == 0 and reader.string() == "linking":
            reader.number()
            _wasm_linking(reader, found, [name for name, _ in imported])
    if not found.defined or found.undefined:
        return found
    found.undefined |= {name for name, _ in imported} if not found.undefined and not _is_object(content) else set()
    return found


def _is_object(content: bytes) -> bool:
    return any(n == 0 and _Reader(body).string() == "linking" for n, body in _wasm_sections(content))


def _wasm_linking(reader: _Reader, found: Contents, imported: list[str]) -> None:
    """The symbols of a relocatable module."""
    while reader.left():
        part, length = reader.byte(), reader.number()
        end = reader.at + length
        if part == 8:
            for _ in range(reader.number()):
                kind, flags = reader.byte(), reader.number()
                missing, named, local = flags & 0x10, flags & 0x40, flags & 0x02
                name = ""
                if kind in (0, 2, 4, 5):
                    number = reader.number()
                    if not missing or named:
                        name = reader.string()
                    elif kind == 0:
                        name = imported[number]
                elif kind == 1:
                    name = reader.string()
                    if not missing:
                        reader.number(), reader.number(), reader.number()
                else:
                    reader.number()
                if name and not local and kind in (0, 1):
                    (found.undefined if missing else found.defined).add(name)
        reader.at = end


def _wasm_sections(content: bytes) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(content, 8)
    while reader.left():
        number, length = reader.byte(), reader.number()
        yield number, content[reader.at : reader.at + length]
        reader.at += length


class _Reader:
    """WebAssembly's numbers and strings, one after the other."""

    def __init__(self, data: bytes, at: int = 0):
        self.data, self.at = data, at

    def left(self) -> bool:
        return self.at < len(self.data)

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            b = self.byte()
            value |= (b & 0x7F) << shift
            shift += 7
            if not b & 0x80:
                return value

    def string(self) -> str:
        length = self.number()
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def limits(self) -> None:
        flags = self.number()
        self.number()
        if flags & 1:
            self.number()
