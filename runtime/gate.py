"""The quick way into a program: a function object of Python made in LLVM IR, which reads arrays' headers itself.

An ordinary call through ctypes takes about ten microseconds, most of it looking at shapes and dtypes from Python.
Here a builtin function (METH_FASTCALL) compares type, dtype, layout and shape of each argument with those of the plans
made so far, takes the executable's arena, makes the outputs, enters the program without the interpreter's lock and
returns the list of outputs. Whatever it does not know (new shapes, other memory layouts, an arena in use) makes it
return None, and the caller goes the slow way, which also words the errors. It returns an int if the program failed.

Large outputs are made on cache lines of their own and their memory is kept for the next when their array is gone:
NumPy's begins 16 bytes into a line, where each store of a full vector touches two, and what the C library gives back
to the system comes as fresh pages, each with a fault (64 MB: 9.4 ms to fill, against 4.0).

It knows NumPy's array header and CPython's object header by their layout, so it is used only where `supported` has
found both to be as expected.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import weakref
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.program import Source
from gnomon.runtime import cpu, image
from gnomon.runtime.buffer import address_of

CALL, SEIZE, FREE = "gnomon.call", "gnomon.seize", "gnomon.free"

LARGE = 128 << 10
"""Bytes from which an output is made in memory of our own."""

KEPT, KEPT_BYTES = 8, 256 << 20
"""How many blocks of large outputs, and how many bytes in all, are kept for the next."""

PLANS = 64
"""How many plans are searched; the latest are first. Beyond this the search takes as long as the slow way's."""

DATA, RANK, DIMENSIONS, DTYPE, FLAGS = 16, 24, 32, 56, 64
"""Where NumPy's array object has its fields, in bytes from its start (PyArrayObject_fields, unchanged since 1.7)."""

TYPE, NEW_FROM_DESCR, SET_BASE = 2, 94, 282
"""Places in the table of NumPy's C interface, which never change: the type, PyArray_NewFromDescr,
PyArray_SetBaseObject."""

# The call table, %self's data, as words of 8 bytes:
#   0 inputs  1 outputs  2 slots  3 entry  4 parallel  5 arena in use  6 first plan
#   7, 8 addresses of rows (dtype object, rank, slot) of inputs, of outputs
#   9 aliases  10 address of rows (slot, slot whose memory it is)
#   11 ndarray  12 PyArray_NewFromDescr  13 None  14 PyArray_SetBaseObject
# A plan: 0 next plan  1 address of size values  2 address of the table of slots  3 what wakes the threads, if it pays
#   4 address of the bytes of each output  5… dimensions of inputs, then of outputs
# A block of a large output has its size 64 bytes before its beginning, and 64 more for the sake of alignment.
_TEXT = """
declare ptr @PyEval_SaveThread()
declare void @PyEval_RestoreThread(ptr)
declare ptr @PyList_New(i64)
declare i32 @PyList_SetItem(ptr, i64, ptr)
declare ptr @PyLong_FromLong(i64)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @PyCapsule_New(ptr, ptr, ptr)
declare ptr @PyCapsule_GetPointer(ptr, ptr)
declare ptr @PyErr_NoMemory()
declare i32 @posix_memalign(ptr, i64, i64)
declare i32 @madvise(ptr, i64, i32)
declare void @free(ptr)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

define i64 @{seize}(ptr %busy) nounwind {{
entry:
  %old = cmpxchg ptr %busy, i64 0, i64 1 acquire monotonic
  %got = extractvalue {{ i64, i1 }} %old, 1
  %result = zext i1 %got to i64
  ret i64 %result
}}

define void @{free}(ptr %busy) nounwind {{
entry:
  store atomic i64 0, ptr %busy release, align 8
  ret void
}}

define internal i64 @word(ptr %words, i64 %i) alwaysinline nounwind {{
entry:
  %q = getelementptr i64, ptr %words, i64 %i
  %x = load i64, ptr %q
  ret i64 %x
}}

define internal ptr @pointer(ptr %words, i64 %i) alwaysinline nounwind {{
entry:
  %q = getelementptr ptr, ptr %words, i64 %i
  %x = load ptr, ptr %q
  ret ptr %x
}}

define internal i1 @fits(ptr %array, ptr %row, ptr %type) nounwind {{
entry:
  %found = call ptr @pointer(ptr %array, i64 1)
  %right = icmp eq ptr %found, %type
  br i1 %right, label %array_, label %no
array_:
  %dtype = call ptr @pointer(ptr %array, i64 {dtype})
  %wanted = call ptr @pointer(ptr %row, i64 0)
  %same = icmp eq ptr %dtype, %wanted
  br i1 %same, label %typed, label %no
typed:
  %rank_ = getelementptr i8, ptr %array, i64 {rank}
  %rank = load i32, ptr %rank_
  %flags_ = getelementptr i8, ptr %array, i64 {flags}
  %flags = load i32, ptr %flags_
  %rank64 = sext i32 %rank to i64
  %wants = call i64 @word(ptr %row, i64 1)
  %a = icmp eq i64 %rank64, %wants
  %known = and i32 %flags, 257                                 ; C_CONTIGUOUS, ALIGNED
  %b = icmp eq i32 %known, 257
  %ok = and i1 %a, %b
  ret i1 %ok
no:
  ret i1 false
}}

; where the dimensions of outputs begin if those of the inputs are the plan's; null if they are not
define internal ptr @match(ptr %dims, ptr %args, ptr %rows, i64 %count) nounwind {{
entry:
  br label %array
array:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %d = phi ptr [ %dims, %entry ], [ %dn, %next ]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %look, label %yes
look:
  %at = mul i64 %i, 3
  %row = getelementptr i64, ptr %rows, i64 %at
  %rank = call i64 @word(ptr %row, i64 1)
  %x = call ptr @pointer(ptr %args, i64 %i)
  %shape = call ptr @pointer(ptr %x, i64 {dimensions})
  br label %axis
axis:
  %k = phi i64 [ 0, %look ], [ %k1, %equal ]
  %left = icmp slt i64 %k, %rank
  br i1 %left, label %compare, label %next
compare:
  %a = call i64 @word(ptr %shape, i64 %k)
  %b = call i64 @word(ptr %d, i64 %k)
  %same = icmp eq i64 %a, %b
  br i1 %same, label %equal, label %no
equal:
  %k1 = add i64 %k, 1
  br label %axis
next:
  %dn = getelementptr i64, ptr %d, i64 %rank
  %i1 = add i64 %i, 1
  br label %array
yes:
  ret ptr %d
no:
  ret ptr null
}}

; blocks whose arrays are gone, and the bytes of all. Everything here happens with the interpreter's lock held.
@kept = internal global [{kept} x ptr] zeroinitializer, align 8
@kept_bytes = internal global i64 0, align 8
@turn = internal global i64 0, align 8

; a block of at least this size, none more than a quarter too large
define internal ptr @take(i64 %size) nounwind {{
entry:
  %out = alloca ptr
  %quarter = lshr i64 %size, 2
  %most = add i64 %size, %quarter
  br label %look
look:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %more = icmp slt i64 %i, {kept}
  br i1 %more, label %one, label %new
one:
  %q = getelementptr ptr, ptr @kept, i64 %i
  %block = load ptr, ptr %q
  %none = icmp eq ptr %block, null
  br i1 %none, label %next, label %measure
measure:
  %has = call i64 @word(ptr %block, i64 -8)
  %enough = icmp uge i64 %has, %size
  %close = icmp ule i64 %has, %most
  %good = and i1 %enough, %close
  br i1 %good, label %reuse, label %next
next:
  %i1 = add i64 %i, 1
  br label %look
reuse:
  store ptr null, ptr %q
  %b0 = load i64, ptr @kept_bytes
  %b1 = sub i64 %b0, %has
  store i64 %b1, ptr @kept_bytes
  ret ptr %block
new:
  %all = add i64 %size, 64
  %huge = icmp uge i64 %size, 4194304                          ; on huge pages, if the system has them
  %align = select i1 %huge, i64 2097152, i64 64
  %failed = call i32 @posix_memalign(ptr %out, i64 %align, i64 %all)
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %made, label %full
full:
  ret ptr null
made:
  %base = load ptr, ptr %out
  br i1 %huge, label %advise, label %head
advise:
  %r = call i32 @madvise(ptr %base, i64 %all, i32 14)
  br label %head
head:
  store i64 %size, ptr %base
  %begin = getelementptr i8, ptr %base, i64 64
  ret ptr %begin
}}

; keep a block for the next, in the place of those kept longest if there is no room
define internal void @give(ptr %block) nounwind {{
entry:
  %size = call i64 @word(ptr %block, i64 -8)
  %possible = icmp ule i64 %size, {kept_bytes}
  br i1 %possible, label %try, label %drop
try:
  %turn = load i64, ptr @turn
  %next = add i64 %turn, 1
  %wrapped = urem i64 %next, {kept}
  store i64 %wrapped, ptr @turn
  %q = getelementptr ptr, ptr @kept, i64 %turn
  %old = load ptr, ptr %q
  %empty = icmp eq ptr %old, null
  br i1 %empty, label %room, label %evict
evict:
  %olds = call i64 @word(ptr %old, i64 -8)
  %e0 = load i64, ptr @kept_bytes
  %e1 = sub i64 %e0, %olds
  store i64 %e1, ptr @kept_bytes
  store ptr null, ptr %q
  %base0 = getelementptr i8, ptr %old, i64 -64
  call void @free(ptr %base0)
  br label %room
room:
  %b0 = load i64, ptr @kept_bytes
  %b1 = add i64 %b0, %size
  %fits = icmp ule i64 %b1, {kept_bytes}
  br i1 %fits, label %keep, label %try                         ; ends: after a round nothing is kept
keep:
  store ptr %block, ptr %q
  store i64 %b1, ptr @kept_bytes
  ret void
drop:
  %base1 = getelementptr i8, ptr %block, i64 -64
  call void @free(ptr %base1)
  ret void
}}

define internal void @gone(ptr %capsule) nounwind {{
entry:
  %block = call ptr @PyCapsule_GetPointer(ptr %capsule, ptr null)
  call void @give(ptr %block)
  ret void
}}

; a new array, its memory uninitialised; null with Python's error set if there is none
define internal ptr @array(ptr %head, ptr %dtype, i64 %rank, ptr %shape, i64 %bytes) nounwind {{
entry:
  %type = call ptr @pointer(ptr %head, i64 11)
  %make = call ptr @pointer(ptr %head, i64 12)
  %rank32 = trunc i64 %rank to i32
  %large = icmp uge i64 %bytes, {large}
  br i1 %large, label %own, label %numpy
numpy:
  call void @Py_IncRef(ptr %dtype)
  %small = call ptr %make(ptr %type, ptr %dtype, i32 %rank32, ptr %shape, ptr null, ptr null, i32 0, ptr null)
  ret ptr %small
own:
  %block = call ptr @take(i64 %bytes)
  %full = icmp eq ptr %block, null
  br i1 %full, label %nomemory, label %owned
nomemory:
  %e = call ptr @PyErr_NoMemory()
  ret ptr null
owned:
  %capsule = call ptr @PyCapsule_New(ptr %block, ptr null, ptr @gone)
  %bare = icmp eq ptr %capsule, null
  br i1 %bare, label %back, label %wrap
back:
  call void @give(ptr %block)
  ret ptr null
wrap:                                                          ; C_CONTIGUOUS, ALIGNED, WRITEABLE
  call void @Py_IncRef(ptr %dtype)
  %new = call ptr %make(ptr %type, ptr %dtype, i32 %rank32, ptr %shape, ptr null, ptr %block, i32 1281, ptr null)
  %nothing = icmp eq ptr %new, null
  br i1 %nothing, label %unwrap, label %based
unwrap:
  call void @Py_DecRef(ptr %capsule)
  ret ptr null
based:
  %base = call ptr @pointer(ptr %head, i64 14)
  %s = call i32 %base(ptr %new, ptr %capsule)                  ; fails only for an array that has a base already
  ret ptr %new
}}

define ptr @{call}(ptr %self, ptr %args, i64 %given) nounwind {{
entry:
  %head = call ptr @pointer(ptr %self, i64 {data})
  %inputs = call i64 @word(ptr %head, i64 0)
  %rows = call ptr @pointer(ptr %head, i64 7)
  %type = call ptr @pointer(ptr %head, i64 11)
  %first = call ptr @pointer(ptr %head, i64 6)
  %complete = icmp eq i64 %inputs, %given
  br i1 %complete, label %check, label %miss

check:
  %i = phi i64 [ 0, %entry ], [ %i1, %fitting ]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %one, label %search
one:
  %x = call ptr @pointer(ptr %args, i64 %i)
  %at = mul i64 %i, 3
  %row = getelementptr i64, ptr %rows, i64 %at
  %ok = call i1 @fits(ptr %x, ptr %row, ptr %type)
  br i1 %ok, label %fitting, label %miss
fitting:
  %i1 = add i64 %i, 1
  br label %check

search:
  %plan = phi ptr [ %first, %check ], [ %following, %other ]
  %end = icmp eq ptr %plan, null
  br i1 %end, label %miss, label %try
try:
  %dims = getelementptr i64, ptr %plan, i64 5
  %shapes = call ptr @match(ptr %dims, ptr %args, ptr %rows, i64 %inputs)
  %differs = icmp eq ptr %shapes, null
  br i1 %differs, label %other, label %take
other:
  %following = call ptr @pointer(ptr %plan, i64 0)
  br label %search

take:
  %busy = getelementptr i64, ptr %head, i64 5
  %got = call i64 @{seize}(ptr %busy)
  %free = icmp eq i64 %got, 1
  br i1 %free, label %bind, label %miss
bind:
  %slots = call i64 @word(ptr %head, i64 2)
  %bytes = mul i64 %slots, 8
  %table = alloca i64, i64 %slots, align 16
  %template = call ptr @pointer(ptr %plan, i64 2)
  call void @llvm.memcpy.p0.p0.i64(ptr %table, ptr %template, i64 %bytes, i1 false)
  br label %input
input:
  %j = phi i64 [ 0, %bind ], [ %j1, %bound ]
  %left = icmp slt i64 %j, %inputs
  br i1 %left, label %bound, label %results
bound:
  %y = call ptr @pointer(ptr %args, i64 %j)
  %from = call i64 @word(ptr %y, i64 {data})
  %jat = mul i64 %j, 3
  %jrow = getelementptr i64, ptr %rows, i64 %jat
  %slot = call i64 @word(ptr %jrow, i64 2)
  %to = getelementptr i64, ptr %table, i64 %slot
  store i64 %from, ptr %to
  %j1 = add i64 %j, 1
  br label %input

results:
  %outputs = call i64 @word(ptr %head, i64 1)
  %orows = call ptr @pointer(ptr %head, i64 8)
  %sizes_ = call ptr @pointer(ptr %plan, i64 4)
  %list = call ptr @PyList_New(i64 %outputs)
  %nolist = icmp eq ptr %list, null
  br i1 %nolist, label %nothing, label %output
output:
  %o = phi i64 [ 0, %results ], [ %o1, %kept ]
  %shape = phi ptr [ %shapes, %results ], [ %shape1, %kept ]
  %wanted = icmp slt i64 %o, %outputs
  br i1 %wanted, label %fresh, label %alias
fresh:
  %oat = mul i64 %o, 3
  %orow = getelementptr i64, ptr %orows, i64 %oat
  %dtype = call ptr @pointer(ptr %orow, i64 0)
  %orank = call i64 @word(ptr %orow, i64 1)
  %oslot = call i64 @word(ptr %orow, i64 2)
  %obytes = call i64 @word(ptr %sizes_, i64 %o)
  %array = call ptr @array(ptr %head, ptr %dtype, i64 %orank, ptr %shape, i64 %obytes)
  %none = icmp eq ptr %array, null
  br i1 %none, label %nomemory, label %kept
kept:
  %memory = call i64 @word(ptr %array, i64 {data})
  %place = getelementptr i64, ptr %table, i64 %oslot
  store i64 %memory, ptr %place
  %s = call i32 @PyList_SetItem(ptr %list, i64 %o, ptr %array)
  %shape1 = getelementptr i64, ptr %shape, i64 %orank
  %o1 = add i64 %o, 1
  br label %output

alias:
  %aliases = call i64 @word(ptr %head, i64 9)
  %arows = call ptr @pointer(ptr %head, i64 10)
  br label %share
share:
  %a = phi i64 [ 0, %alias ], [ %a1, %shared ]
  %unshared = icmp slt i64 %a, %aliases
  br i1 %unshared, label %shared, label %run
shared:
  %aat = mul i64 %a, 2
  %arow = getelementptr i64, ptr %arows, i64 %aat
  %aslot = call i64 @word(ptr %arow, i64 0)
  %owner = call i64 @word(ptr %arow, i64 1)
  %theirs = call i64 @word(ptr %table, i64 %owner)
  %mine = getelementptr i64, ptr %table, i64 %aslot
  store i64 %theirs, ptr %mine
  %a1 = add i64 %a, 1
  br label %share

run:
  %program = call ptr @pointer(ptr %head, i64 3)
  %parallel = call ptr @pointer(ptr %head, i64 4)
  %sizes = call ptr @pointer(ptr %plan, i64 1)
  %waken = call ptr @pointer(ptr %plan, i64 3)
  %thread = call ptr @PyEval_SaveThread()
  %small = icmp eq ptr %waken, null
  br i1 %small, label %enter, label %wake
wake:
  call void %waken()
  br label %enter
enter:
  %status = call i32 %program(ptr %table, ptr %sizes, ptr %parallel)
  call void @PyEval_RestoreThread(ptr %thread)
  call void @{free}(ptr %busy)
  %good = icmp eq i32 %status, 0
  br i1 %good, label %done, label %failed
done:
  ret ptr %list
failed:
  call void @Py_DecRef(ptr %list)
  %wide = sext i32 %status to i64
  %number = call ptr @PyLong_FromLong(i64 %wide)
  ret ptr %number

nomemory:
  call void @Py_DecRef(ptr %list)
  br label %nothing
nothing:
  call void @{free}(ptr %busy)
  ret ptr null
miss:
  %nobody = call ptr @pointer(ptr %head, i64 13)
  call void @Py_IncRef(ptr %nobody)
  ret ptr %nobody
}}
"""


@cache
def source() -> Source:
    """The module that defines the three functions; the same for every program."""
    text = _TEXT.format(
        call=CALL,
        seize=SEIZE,
        free=FREE,
        data=DATA // 8,
        rank=RANK,
        dimensions=DIMENSIONS // 8,
        dtype=DTYPE // 8,
        flags=FLAGS,
        large=LARGE,
        kept=KEPT,
        kept_bytes=KEPT_BYTES,
    )
    return Source("gate", text, (CALL, SEIZE, FREE))


@cache
def supported() -> bool:
    """Whether arrays and Python's objects are laid out here as this module takes them to be."""
    if sys.implementation.name != "cpython" or object.__basicsize__ != 16 or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False  # another Python, one without its lock, one that counts references for debugging
    if not image.supported() or platform.system() == "Windows":
        return False
    for array in (np.zeros((2, 3), np.float32), np.zeros((), np.int64), np.zeros((4, 4))[:, ::2]):
        at = id(array)
        dimensions = ctypes.c_void_p.from_address(at + DIMENSIONS).value or 0
        shape = tuple((ctypes.c_int64 * array.ndim).from_address(dimensions)) if array.ndim else ()
        if (
            ctypes.c_void_p.from_address(at + 8).value != id(np.ndarray)
            or ctypes.c_void_p.from_address(at + DATA).value != address_of(array)
            or ctypes.c_int.from_address(at + RANK).value != array.ndim
            or ctypes.c_void_p.from_address(at + DTYPE).value != id(array.dtype)
            or ctypes.c_int.from_address(at + FLAGS).value != array.flags.num
            or shape != array.shape
        ):
            return False
    return _numpy_interface()[TYPE] == id(np.ndarray)


@cache
def _numpy_interface() -> Any:
    """NumPy's table of C functions."""
    capsule = import_module("numpy._core._multiarray_umath")._ARRAY_API
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return (ctypes.c_void_p * (SET_BASE + 1)).from_address(pointer(capsule, None))


class _Method(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


@cache
def _functions() -> tuple[Any, Any, Any, _Method]:
    """What makes a function object, the functions that seize and free an arena, and the description of a call."""
    symbols, _ = cpu.load_sources([source()])
    seize = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(symbols[SEIZE])
    free = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(symbols[FREE])
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p]
    return new, seize, free, _Method(b"program", symbols[CALL], 0x80, b"")  # METH_FASTCALL


class Gate:
    """The quick way into one executable.

    entry, parallel    addresses
    inputs, outputs    (slot, dtype, rank) of each
    aliases            (slot, slot whose memory it is)
    `call` is the function object. It must not be called after the executable that owns the memory is gone.
    """

    def __init__(
        self,
        entry: int,
        parallel: int,
        slots: int,
        inputs: Sequence[tuple[int, str, int]],
        outputs: Sequence[tuple[int, str, int]],
        aliases: Sequence[tuple[int, int]],
    ):
        def rows(described: Sequence[tuple[int, str, int]]) -> np.ndarray:
            return _words([word for s, d, rank in described for word in (id(dtypes.named(d).memory), rank, s)])

        new, self._seize, self._free, method = _functions()
        self._rows = rows(inputs), rows(outputs), _words([word for pair in aliases for word in pair])
        interface = _numpy_interface()
        self._head = _words([
            len(inputs), len(outputs), slots, entry, parallel, 0, 0, address_of(self._rows[0]),
            address_of(self._rows[1]), len(aliases), address_of(self._rows[2]),
            id(np.ndarray), interface[NEW_FROM_DESCR], id(None), interface[SET_BASE],
        ])  # fmt: skip
        self._widths = [dtypes.named(d).bytes for _, d, _ in outputs]
        self._plans: list[tuple[np.ndarray, np.ndarray, Any]] = []
        self._busy = address_of(self._head) + 5 * 8
        _gates.add(self)
        self.call = new(ctypes.addressof(method), self._head, None)

    def seize(self) -> bool:
        """Take the arena for oneself, if nobody has it."""
        return bool(self._seize(self._busy))

    def free(self) -> None:
        self._free(self._busy)

    def clear(self) -> None:
        """Let no call through until plans are added anew. The arena must have been seized."""
        self._head[6] = 0
        self._plans.clear()

    def add(self, values: int, table: int, waken: int, shapes: Sequence[tuple[int, ...]], owner: Any) -> None:
        """Let calls with these shapes (of inputs, then outputs) through.

        values, table   addresses of the sizes and of the table of slots, which `owner` keeps
        waken           address of what to call before the program, or 0
        The arena must have been seized.
        """
        dimensions = [extent for shape in shapes for extent in shape]
        results = shapes[len(shapes) - len(self._widths) :]
        sizes = _words([prod(shape) * width for shape, width in zip(results, self._widths, strict=True)])
        plan = _words([int(self._head[6]), values, table, waken, address_of(sizes), *dimensions])
        self._plans.append((plan, sizes, owner))
        self._head[6] = address_of(plan)
        if len(self._plans) > PLANS:  # the last in line is the first that was added
            self._plans.pop(0)
            self._plans[0][0][0] = 0


_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def _free_all() -> None:
    """In a forked child: threads that were in a program are gone, and their arenas free."""
    for made in _gates:
        made.free()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_all)


def _words(values: Sequence[int]) -> np.ndarray:
    return np.array(values or [0], np.uint64).view(np.int64)
