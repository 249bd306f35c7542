"""Puts compiled objects into this process without LLVM: a loader of x86-64 ELF object files.

Importing llvmlite takes longer than all else a warm start does, so objects that come from the cache are not linked by
it. What the code generator emits for our modules (one text section, constants, a few kinds of relocation) is laid out
in one mapping, relocated and made executable; nothing is ever both writable and executable. Mappings are never given
back: the pool's threads run in them until the process has ended.

References: "System V Application Binary Interface", chapters 4 and 5; "AMD64 Architecture Processor Supplement", 4.4.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

from gnomon.compiler.errors import CompileError, DeviceError

READ, WRITE, EXECUTE = 1, 2, 4
FORMAT = b"\x7fELF\x02\x01\x01"
SECTION = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
NOBITS, SYMTAB, RELA = 8, 2, 4
ALLOCATED = 2
UNDEFINED, ABSOLUTE, RESERVED = 0, 0xFFF1, 0xFF00
ABS64, PC32, PLT32, GOTPCREL, PC64, GOTPCRELX, REX_GOTPCRELX = 1, 2, 4, 9, 24, 41, 42
STUB = b"\xff\x25\x00\x00\x00\x00"
"""jmp *(%rip): the address follows."""


def supported() -> bool:
    """Whether object files of this machine can be loaded here; elsewhere LLVM's own linker must do it."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32


@dataclass
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    address: int = 0


@dataclass
class _Object:
    """One object file, cut into sections and symbols (name, section number, value, whether it is global)."""

    label: str
    data: bytes
    sections: list[_Section] = field(default_factory=list)
    symbols: list[tuple[str, int, int, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        data = self.data
        if data[:7] != FORMAT:
            raise CompileError(f"The object of {self.label!r} is not a 64-bit little-endian ELF file.")
        (start,) = struct.unpack_from("<Q", data, 40)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        heads = [SECTION.unpack_from(data, start + i * size) for i in range(count)]
        text = heads[names][4]
        for name, kind, flags, _, offset, length, link, info, align, _ in heads:
            self.sections.append(_Section(_string(data, text + name), kind, flags, offset, length, link, info, align))
        for section in self.sections:
            if section.kind == SYMTAB:
                strings = self.sections[section.link].offset
                table = data[section.offset : section.offset + section.size]
                for name, info, _, number, value, _ in SYMBOL.iter_unpack(table):
                    self.symbols.append((_string(data, strings + name), number, value, info >> 4 != 0))

    def loaded(self) -> Iterator[_Section]:
        """Sections that take memory. Unwinding tables are left out: our functions never unwind."""
        return (s for s in self.sections if s.flags & ALLOCATED and s.size and s.name != ".eh_frame")


def load(objects: list[tuple[str, bytes]], resolve: Callable[[str], int | None]) -> dict[str, int]:
    """Load (label, object file) pairs together. Returns the address of every global symbol they define.

    An undefined symbol is looked for among the others' global symbols, then by `resolve`.
    Raises CompileError if one is found nowhere or an object needs what this loader does not know.
    """
    parsed = [_Object(label, data) for label, data in objects]
    code, constants, variables = _Region(EXECUTE), _Region(0), _Region(WRITE)
    for o in parsed:
        for section in o.loaded():
            region = code if section.flags & EXECUTE else variables if section.flags & 1 else constants
            region.add(section)
    # what is defined elsewhere may be too far for a relative jump: a table of addresses, and a stub for each
    names = sorted({s[0] for o in parsed for s in o.symbols if s[3] and s[0]})
    linkage = {name: i * 8 for i, name in enumerate(names)}
    constants.reserve(8 * len(names), 8)
    code.reserve(16 * len(names), 16)

    regions = (code, constants, variables)
    total = sum(r.pages for r in regions)
    base = _map(total)
    at = base
    for region in regions:
        region.address = at
        for section, offset in region.sections:
            section.address = at + offset
        at += region.pages

    defined: dict[str, int] = {}
    for o in parsed:
        for name, number, value, is_global in o.symbols:
            if is_global and UNDEFINED < number < RESERVED:
                defined[name] = o.sections[number].address + value
    addresses = {}
    for name in names:
        address = defined.get(name) or resolve(name)
        if address is None:
            raise CompileError(f"The symbol {name!r}, which {_users(parsed, name)} needs, is defined nowhere.")
        addresses[name] = address

    memory = bytearray(total)
    table, stubs = constants.address + constants.reserved, code.address + code.reserved
    for name, position in linkage.items():
        struct.pack_into("<Q", memory, table - base + position, addresses[name])
        stub = stubs - base + 2 * position
        memory[stub : stub + 14] = STUB + struct.pack("<Q", addresses[name])
    for o in parsed:
        for section in o.loaded():
            if section.kind != NOBITS:
                place = section.address - base
                memory[place : place + section.size] = o.data[section.offset : section.offset + section.size]
    for o in parsed:
        for section in o.sections:
            if section.kind == RELA and o.sections[section.info].address:
                _relocate(o, section, memory, base, addresses, linkage, table, stubs)

    ctypes.memmove(base, (ctypes.c_char * total).from_buffer(memory), total)
    for region in regions:
        if region.pages:
            _protect(region.address, region.pages, READ | region.access)
    return defined


class _Region:
    """Sections with the same access rights, side by side."""

    def __init__(self, access: int):
        self.access, self.size, self.address, self.reserved = access, 0, 0, 0
        self.sections: list[tuple[_Section, int]] = []

    def add(self, section: _Section) -> None:
        self.sections.append((section, self.reserve(section.size, section.align)))

    def reserve(self, size: int, align: int) -> int:
        """Room for `size` bytes; where it begins. The last such place is also kept in `reserved`."""
        self.reserved = -(-self.size // max(1, align)) * max(1, align)
        self.size = self.reserved + size
        return self.reserved

    @property
    def pages(self) -> int:
        return -(-self.size // 4096) * 4096


def _relocate(o, section, memory, base, addresses, linkage, table, stubs) -> None:
    """Apply the relocations that `section` holds for another section."""
    start = o.sections[section.info].address
    for offset, info, addend in RELOCATION.iter_unpack(o.data[section.offset : section.offset + section.size]):
        name, number, value, _ = o.symbols[info >> 32]
        place, kind = start + offset, info & 0xFFFFFFFF
        outside = number == UNDEFINED
        if outside:
            symbol = addresses[name]
        elif number == ABSOLUTE:
            symbol = value
        else:
            symbol = o.sections[number].address + value
        if kind in (PC32, PLT32):
            delta = symbol + addend - place
            if outside and not -0x80000000 <= delta < 0x80000000:
                delta = stubs + 2 * linkage[name] + addend - place
            struct.pack_into("<i", memory, place - base, delta)
        elif kind in (GOTPCREL, GOTPCRELX, REX_GOTPCRELX) and name in linkage:
            struct.pack_into("<i", memory, place - base, table + linkage[name] + addend - place)
        elif kind == ABS64:
            struct.pack_into("<Q", memory, place - base, (symbol + addend) & 0xFFFFFFFFFFFFFFFF)
        elif kind == PC64:
            struct.pack_into("<q", memory, place - base, symbol + addend - place)
        else:
            raise CompileError(f"The object of {o.label!r} has an unknown relocation, kind {kind} for {name!r}.")


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def _users(objects: list[_Object], name: str) -> str:
    return " and ".join(repr(o.label) for o in objects if any(s[0] == name for s in o.symbols))


@cache
def _libraries() -> list[ctypes.CDLL]:
    """The process itself, then what generated code may call: mathematics, and conversions of half precision."""
    found = [ctypes.CDLL(None)] if os.name == "posix" else [ctypes.CDLL("msvcrt")]
    for name in ("libm.so.6", "libgcc_s.so.1"):
        try:
            found.append(ctypes.CDLL(name))
        except OSError:
            continue
    return found


def process_symbol(name: str) -> int | None:
    """The address of a symbol of the process or of the mathematical library; None if there is none."""
    for library in _libraries():
        try:
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            continue
    return None


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    whole = ctypes.c_int
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, whole, whole, whole, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def _map(size: int) -> int:
    address = _libc().mmap(None, size, READ | WRITE, 0x22, -1, 0)  # MAP_PRIVATE | MAP_ANONYMOUS
    if address is None or address == ctypes.c_void_p(-1).value:
        raise DeviceError(f"No memory for {size} bytes of compiled code.")
    return address


def _protect(address: int, size: int, access: int) -> None:
    if _libc().mprotect(address, size, access):
        raise DeviceError(
            f"The system does not let this process make code executable (error {ctypes.get_errno()}): "
            "a security policy such as SELinux's execmem forbids what any just-in-time compiler does."
        )
