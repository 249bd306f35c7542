"""A WebAssembly module from one relocatable object: what a linker would do, for an object that needs nothing.

The module exports the library's functions, its memory as `memory`, and as the global `__heap_base` where memory begins
that the caller may use for arrays and workspaces: constants and a stack lie below.

Reference: "WebAssembly Object File Linking" (tool-conventions), sections "Relocation Sections" and "Symbol Table".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gnomon.compiler.errors import CompileError

FUNCTION_INDEX, TABLE_SLEB, TABLE_I32, ADDRESS_LEB, ADDRESS_SLEB, ADDRESS_I32, TYPE_INDEX, GLOBAL_INDEX = range(8)
TABLE_NUMBER = 20
PAGE, STACK, START = 65536, 65536, 1024
"""Bytes of a page and of the stack; where constants begin, so that no address is 0."""


@dataclass
class _Symbol:
    kind: int
    flags: int
    name: str
    index: int = 0
    offset: int = 0

    @property
    def defined(self) -> bool:
        return not self.flags & 0x10


@dataclass
class _Object:
    sections: dict[int, bytearray] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    symbols: list[_Symbol] = field(default_factory=list)
    relocations: list[tuple[int, bytes]] = field(default_factory=list)
    table: bool = False


def link(content: bytes, exported: Sequence[str]) -> bytes:
    """The module that exports the functions `exported`. Raises CompileError for an object that needs others."""
    o = _read(content)
    missing = sorted(s.name for s in o.symbols if s.kind == 0 and not s.defined)
    if missing:
        raise CompileError(f"the WebAssembly object needs {', '.join(missing)}, which only a linker can bring")
    segments = _segments(o.sections.get(11, bytearray(b"\0")))
    places, at = [], START
    for data, align in segments:
        at = -(-at // align) * align
        places.append(at)
        at += len(data)
    stack = -(-at // 16) * 16 + STACK
    taken = _relocate(o, [bytearray(d) for d, _ in segments], places)
    parts = {
        1: bytes(o.sections[1]),
        3: bytes(o.sections[3]),
        5: _vector([b"\0" + _unsigned(-(-stack // PAGE))]),
        6: _vector([b"\x7f\x01\x41" + _signed(stack) + b"\x0b", b"\x7f\x00\x41" + _signed(stack) + b"\x0b"]),
        7: _vector(_exports(o, exported)),
        10: bytes(o.sections[10]),
        11: _vector(
            b"\0\x41" + _signed(place) + b"\x0b" + _unsigned(len(d)) + bytes(d)
            for d, place in zip(taken.data, places, strict=True)
        ),
    }
    if taken.functions:
        parts[4] = _vector([b"\x70\0" + _unsigned(len(taken.functions) + 1)])
        parts[9] = _vector([b"\0\x41\x01\x0b" + _vector(_unsigned(f) for f in taken.functions)])
    body = b"".join(bytes([n]) + _unsigned(len(parts[n])) + parts[n] for n in sorted(parts))
    return content[:8] + body


def _exports(o: _Object, exported: Sequence[str]) -> list[bytes]:
    functions = {s.name: s.index for s in o.symbols if s.kind == 0 and s.defined}
    found = [_named(name) + b"\0" + _unsigned(functions[name]) for name in exported]
    return [*found, _named("memory") + b"\x02\0", _named("__heap_base") + b"\x03\x01"]


# ---- reading


def _read(content: bytes) -> _Object:
    o = _Object()
    at = 8
    while at < len(content):
        number, (length, at) = content[at], _read_unsigned(content, at + 1)
        body, at = content[at : at + length], at + length
        if number == 0:
            size, start = _read_unsigned(body, 0)
            name = body[start : start + size].decode()
            if name == "linking":
                o.symbols = _read_symbols(body, start + size)
            elif name.startswith("reloc."):
                o.relocations.append((start + size, body))
        elif number == 2:
            _check_imports(body)
        elif number not in (12,):
            o.sections[number] = bytearray(body)
        o.numbers.append(number)
    return o


def _check_imports(body: bytes) -> None:
    """Only memory, table and the stack pointer may be asked for: else functions would be numbered otherwise."""
    count, at = _read_unsigned(body, 0)
    for _ in range(count):
        for _ in range(2):
            size, at = _read_unsigned(body, at)
            name, at = body[at : at + size].decode(), at + size
        kind, at = body[at], at + 1
        if kind == 0:
            raise CompileError(f"the WebAssembly object needs {name!r}, which only a linker can bring")
        if kind in (1, 2):
            at += kind == 1
            flags, at = _read_unsigned(body, at)
            for _ in range(1 + (flags & 1)):
                _, at = _read_unsigned(body, at)
        else:
            at += 2


def _read_symbols(body: bytes, at: int) -> list[_Symbol]:
    found: list[_Symbol] = []
    _, at = _read_unsigned(body, at)
    while at < len(body):
        kind, (length, at) = body[at], _read_unsigned(body, at + 1)
        end = at + length
        if kind == 8:
            count, at = _read_unsigned(body, at)
            for _ in range(count):
                s = _Symbol(body[at], 0, "")
                s.flags, at = _read_unsigned(body, at + 1)
                if s.kind in (0, 2, 4, 5):
                    s.index, at = _read_unsigned(body, at)
                if s.kind == 1 or (s.kind != 3 and (s.defined or s.flags & 0x40)):
                    size, at = _read_unsigned(body, at)
                    s.name, at = body[at : at + size].decode(), at + size
                if s.kind == 1 and s.defined:
                    s.index, at = _read_unsigned(body, at)
                    s.offset, at = _read_unsigned(body, at)
                    _, at = _read_unsigned(body, at)
                elif s.kind == 3:
                    s.index, at = _read_unsigned(body, at)
                found.append(s)
        at = end
    return found


def _segments(body: bytearray) -> list[tuple[bytes, int]]:
    """The data segments with their alignment: enough for any of ours."""
    count, at = _read_unsigned(body, 0)
    found = []
    for _ in range(count):
        assert body[at] == 0, "an active segment of memory 0"
        _, at = _read_signed(body, at + 2)
        size, at = _read_unsigned(body, at + 1)
        found.append((bytes(body[at : at + size]), 64 if size >= 64 else 16))
        at += size
    return found


# ---- relocating


@dataclass
class _Taken:
    data: list[bytearray]
    functions: list[int]


def _relocate(o: _Object, data: list[bytearray], places: Sequence[int]) -> _Taken:
    """Put addresses into code and data; the functions whose addresses are taken, in the order of the table."""
    functions: list[int] = []
    starts = _data_starts(o.sections.get(11, bytearray(b"\0")))
    for at, body in o.relocations:
        section, at = _read_unsigned(body, at)
        target = o.numbers[section]
        count, at = _read_unsigned(body, at)
        for _ in range(count):
            kind = body[at]
            offset, at = _read_unsigned(body, at + 1)
            index, at = _read_unsigned(body, at)
            addend = 0
            if kind in (ADDRESS_LEB, ADDRESS_SLEB, ADDRESS_I32):
                addend, at = _read_signed(body, at)
            if kind in (FUNCTION_INDEX, TYPE_INDEX, GLOBAL_INDEX, TABLE_NUMBER):
                continue  # numbered as in the object
            symbol = o.symbols[index]
            if kind in (TABLE_SLEB, TABLE_I32):
                if symbol.index not in functions:
                    functions.append(symbol.index)
                value = functions.index(symbol.index) + 1
            elif kind in (ADDRESS_LEB, ADDRESS_SLEB, ADDRESS_I32):
                value = places[symbol.index] + symbol.offset + addend
            else:
                raise CompileError(f"the WebAssembly object has an unknown relocation, kind {kind} for {symbol.name!r}")
            where, place = (o.sections[target], offset) if target == 10 else _in_data(data, starts, offset)
            if kind in (ADDRESS_I32, TABLE_I32):
                struct.pack_into("<I", where, place, value)
            else:
                where[place : place + 5] = _padded(value)
    return _Taken(data, functions)


def _data_starts(body: bytearray) -> list[tuple[int, int]]:
    """Where each segment's bytes begin and end in the data section."""
    count, at = _read_unsigned(body, 0)
    found = []
    for _ in range(count):
        _, at = _read_signed(body, at + 2)
        size, at = _read_unsigned(body, at + 1)
        found.append((at, at + size))
        at += size
    return found


def _in_data(data: list[bytearray], starts: Sequence[tuple[int, int]], offset: int) -> tuple[bytearray, int]:
    k = next(k for k, (start, end) in enumerate(starts) if start <= offset < end)
    return data[k], offset - starts[k][0]


# ---- numbers


def _read_unsigned(data: bytes | bytearray, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        b, at = data[at], at + 1
        value |= (b & 0x7F) << shift
        shift += 7
        if not b & 0x80:
            return value, at


def _read_signed(data: bytes | bytearray, at: int) -> tuple[int, int]:
    start = at
    value, at = _read_unsigned(data, at)
    bits = 7 * (at - start)
    return value - (1 << bits) if value >> (bits - 1) else value, at


def _unsigned(value: int) -> bytes:
    found = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        found.append(low | (0x80 if value else 0))
        if not value:
            return bytes(found)


def _signed(value: int) -> bytes:
    found = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        last = value == (-1 if low & 0x40 else 0)
        found.append(low if last else low | 0x80)
        if last:
            return bytes(found)


def _padded(value: int) -> bytes:
    """In five bytes, as linkers find room for: the same for both signs, for addresses are below 2^31."""
    return bytes([value >> 7 * k & 0x7F | (0x80 if k < 4 else 0) for k in range(5)])


def _named(name: str) -> bytes:
    return _unsigned(len(name.encode())) + name.encode()


def _vector(items: Iterable[bytes]) -> bytes:
    found = list(items)
    return _unsigned(len(found)) + b"".join(found)
