"""The C functions of a library as LLVM IR: a module that calls the entries of programs.

Each function checks what it is given, lays its temporaries out in the caller's workspace, and enters a program. It
allocates nothing and remembers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from gnomon.compiler import dtypes
from gnomon.compiler.aot import pool
from gnomon.compiler.aot.codes import (
    CHECKS,
    DATA,
    POINTER,
    SIZE,
    STATE,
    THREADS,
    WORKSPACE,
    all_checks,
    checks_of,
    error_texts,
)
from gnomon.compiler.aot.layout import owner_of
from gnomon.compiler.aot.library import HEAD, MAGIC, MIXED, Library, Routine
from gnomon.compiler.aot.objects import PLACE
from gnomon.compiler.aot.writing import Function
from gnomon.compiler.sizes import product

LARGE = 1 << 20
"""Bytes of weights from which they are put into the object when it is made."""

SHARED_WORK = 10_000
"""Nanoseconds of work below which a launch is not offered to the caller's threads."""


def pointer_bits(library: Library) -> int:
    """Of the target's addresses."""
    wide = ("x86_64", "aarch64", "arm64", "riscv64", "powerpc64", "s390x", "loongarch64")
    return 64 if library.target.triple.startswith(wide) else 32


class Functions:
    """The module of a library's C functions, and the names that it exports."""

    def __init__(self, library: Library):
        self.library = library
        self.word = f"i{pointer_bits(library)}"
        self.codes = {message: CHECKS + k for k, message in enumerate(checks_of(library))}
        self.exported: list[str] = []
        self.parts: list[str] = []
        self.globals: list[str] = []

    def module(self) -> str:
        library = self.library
        if library.stateful:
            self.state()
        if not library.embed:
            self.weights()
        for routine in library.routines:
            self.routine(routine)
        self.workspace_bytes()
        if library.pool:
            self.pool()
        self.error_text()
        self.strings("version", library.version)
        head = [f'target triple = "{library.target.triple}"']
        entries = dict.fromkeys(r.program.entry for r in library.routines)
        head += [f"declare i32 @{e}(ptr, ptr, ptr)" for e in entries]
        if library.stateful or not library.embed:
            self.parts.append(CHECK_SUM.format(mixed=MIXED))
        if library.embed and library.weights:
            head.append(_weights(library))
        if library.threads:
            self.parts.append(_share(self.word))
        if library.pool:
            head.append(pool.DECLARED)
            self.parts += pool.PARTS
        head += self.globals
        return "\n".join([*head, *self.parts, "attributes #0 = { nounwind }"]) + "\n"

    # ---- functions

    def define(self, name: str, result: str, parameters: Sequence[str]) -> Function:
        full = f"{self.library.prefix}_{name}"
        self.exported.append(full)
        return Function(f"define {result} @{full}({', '.join(parameters)})", self.word)

    def _sizes(self, f: Function, names: Sequence[str]) -> None:
        """Bind the names of sizes to the function's parameters."""
        for k, name in enumerate(names):
            wide = f"%size{k}"
            f.symbols[name] = wide if self.word == "i64" else f.emit(f"zext {self.word} {wide} to i64")

    def routine(self, routine: Routine) -> None:
        library, program = self.library, routine.program
        names = routine.asked
        state = self._state_parameters()
        arrays = [f"ptr %in{k}" for k in range(len(routine.inputs))]
        arrays += [f"ptr %out{k}" for k in range(len(routine.outputs))]
        sizes = [f"{self.word} %size{k}" for k in range(len(names))]
        f = self.define(
            routine.name,
            "i32",
            [*state, *arrays, *sizes, "ptr %workspace", f"{self.word} %bytes", *(["ptr %threads"] * library.threads)],
        )
        scalar = [k for k, a in enumerate(routine.outputs) if not a.shape]
        needed = [p.removeprefix("ptr ") for p in (*state, *arrays)]
        nulls = [f.emit(f"icmp eq ptr {p}, null") for p in needed if p not in {f"%out{k}" for k in scalar}]
        f.fail_if_any(nulls, POINTER)
        if library.stateful:
            self._check_head(f, "%state", STATE)
        if not library.embed:
            self._check_head(f, "%weights", DATA)
        self._sizes(f, names)
        for name, k in routine.read.items():
            dtype = dtypes.named(routine.inputs[k].dtype)
            value = f.emit(f"load {dtype.llvm}, ptr %in{k}, align {dtype.bytes}")
            f.symbols[name] = value if dtype.bits == 64 else f.emit(f"sext {dtype.llvm} {value} to i64")
        large = [f.emit(f"icmp ugt i64 {f.symbols[n]}, {library.most(n)}") for n in program.sizes]
        f.fail_if_any(large, SIZE)
        for check in all_checks(routine):
            f.fail_if(f.emit(f"icmp ne i64 {f.size(check.left)}, {f.size(check.right)}"), self.codes[check.message])
        offsets, total = self._offsets(f, routine)
        base = "%workspace"
        if total != "0":
            room = f.emit(f"add i64 {total}, {library.align - 1}")
            given = "%bytes" if self.word == "i64" else f.emit("zext i32 %bytes to i64")
            little = f.emit(f"icmp ult i64 {given}, {room}")
            f.fail_if_any([little, f.emit("icmp eq ptr %workspace, null")], WORKSPACE)
            base = f.aligned("%workspace", library.align)
        self._enter(f, routine, base, offsets, scalar)
        self.parts.append(f.text())

    def _state_parameters(self) -> list[str]:
        return ["ptr %weights"] * (not self.library.embed) + ["ptr %state"] * self.library.stateful

    def _mark(self) -> tuple[int, int]:
        """The first 16 bytes of this library's states, and of its weights if they are a file."""
        return MAGIC, int.from_bytes(self.library.digest, "little", signed=True)

    def _check_head(self, f: Function, base: str, code: int, *more: int) -> None:
        """Fail if the words at `base` are not the mark, followed by `more`."""
        wrong = []
        for k, value in enumerate((*self._mark(), *more)):
            found = f.emit(f"load i64, ptr {f.at(base, 8 * k)}, align 1")
            wrong.append(f.emit(f"icmp ne i64 {found}, {value}"))
        f.fail_if_any(wrong, code)

    def _check_data(self, f: Function, length: int) -> None:
        """Fail if `%bytes` bytes at `%data` are not a head and `length` bytes with their check sum."""
        f.fail_if(f.emit(f"icmp ult {self.word} %bytes, {HEAD + length}"), DATA)
        self._check_head(f, "%data", DATA, length)
        told = f.emit(f"load i64, ptr {f.at('%data', 24)}, align 1")
        found = f.emit(f"call i64 @gnomon.check_sum(ptr {f.at('%data', HEAD)}, i64 {length // 8})")
        f.fail_if(f.emit(f"icmp ne i64 {told}, {found}"), DATA)

    # ---- weights and state

    def number(self, name: str, value: int) -> None:
        """A function that returns a number of bytes."""
        f = self.define(name, self.word, [])
        f.do(f"ret {self.word} {value}")
        self.parts.append(f.text())

    def weights(self) -> None:
        """What checks a file of weights."""
        self.number("weights_bytes", HEAD + len(self.library.weights))
        f = self.define("check_weights", "i32", ["ptr %data", f"{self.word} %bytes"])
        f.fail_if(f.emit("icmp eq ptr %data, null"), POINTER)
        self._check_data(f, len(self.library.weights))
        f.do("ret i32 0")
        self.parts.append(f.text())

    def state(self) -> None:
        """What makes, saves and restores a state."""
        library = self.library
        copied, size = library.copied_bytes, library.state_bytes
        self.number("state_bytes", HEAD + size)
        f = self.define("init", "i32", self._state_parameters())
        f.fail_if_any([f.emit(f"icmp eq {p}, null") for p in self._state_parameters()], POINTER)
        if not library.embed:
            self._check_head(f, "%weights", DATA)
        self._put_head(f, "%state")
        if copied:
            self._copy(f, f.at("%state", HEAD), self._weights(f), copied)
        if size > copied:
            self._clear(f, f.at("%state", HEAD + copied), size - copied)
        f.do("ret i32 0")
        self.parts.append(f.text())
        if library.reset:
            self._reset()

        f = self.define("save", "i32", ["ptr %state", "ptr %data", f"{self.word} %bytes"])
        f.fail_if_any([f.emit(f"icmp eq ptr {p}, null") for p in ("%state", "%data")], POINTER)
        self._check_head(f, "%state", STATE)
        f.fail_if(f.emit(f"icmp ult {self.word} %bytes, {HEAD + size}"), WORKSPACE)
        self._put_head(f, "%data")
        f.do(f"store i64 {size}, ptr {f.at('%data', 16)}, align 1")
        total = f.emit(f"call i64 @gnomon.check_sum(ptr {f.at('%state', HEAD)}, i64 {size // 8})")
        f.do(f"store i64 {total}, ptr {f.at('%data', 24)}, align 1")
        self._copy(f, f.at("%data", HEAD), f.at("%state", HEAD), size)
        f.do("ret i32 0")
        self.parts.append(f.text())

        f = self.define("load", "i32", ["ptr %state", "ptr %data", f"{self.word} %bytes"])
        f.fail_if_any([f.emit(f"icmp eq ptr {p}, null") for p in ("%state", "%data")], POINTER)
        self._check_data(f, size)
        self._put_head(f, "%state")
        self._copy(f, f.at("%state", HEAD), f.at("%data", HEAD), size)
        f.do("ret i32 0")
        self.parts.append(f.text())

    def _reset(self) -> None:
        """What sets some variables to their first values."""
        library = self.library
        parameters = self._state_parameters()
        f = self.define("reset_metrics", "i32", parameters)
        f.fail_if_any([f.emit(f"icmp eq {p}, null") for p in parameters], POINTER)
        if not library.embed:
            self._check_head(f, "%weights", DATA)
        self._check_head(f, "%state", STATE)
        for s in library.stored:
            if s.changes and s.key in library.reset:
                offset = library.place_of(s.key).offset
                if any(s.data):
                    self._copy(f, f.at("%state", HEAD + offset), f.at(self._weights(f), offset), len(s.data))
                else:
                    self._clear(f, f.at("%state", HEAD + offset), len(s.data))
        f.do("ret i32 0")
        self.parts.append(f.text())

    def _weights(self, f: Function) -> str:
        return "@weights" if self.library.embed else f.at("%weights", HEAD)

    def _put_head(self, f: Function, base: str) -> None:
        self._clear(f, base, HEAD)
        for k, value in enumerate(self._mark()):
            f.do(f"store i64 {value}, ptr {f.at(base, 8 * k)}, align 1")

    def _copy(self, f: Function, target: str, source: str, count: int) -> None:
        f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {count}, i1 false)")

    def _clear(self, f: Function, target: str, count: int) -> None:
        f.do(f"call void @llvm.memset.p0.i64(ptr {target}, i8 0, i64 {count}, i1 false)")

    def _offsets(self, f: Function, routine: Routine) -> tuple[dict[int, str], str]:
        """Where each temporary lies, and the bytes of all."""
        layout, align = routine.layout, self.library.align
        if not routine.program.sizes:
            fixed, all_of_it = layout.place({}, align)
            return {b.slot: str(at) for b, at in zip(layout.blocks, fixed, strict=True)}, str(all_of_it)
        offsets: list[str] = []
        ends: list[str] = []
        sums: dict[tuple[str, str], str] = {}

        def highest(blocks: Sequence[int]) -> str:
            found = list(dict.fromkeys(ends[j] for j in blocks))
            top = found[0] if found else "0"
            for other in found[1:]:
                top = f.maximum(top, other)
            return top

        for block, below in zip(layout.blocks, layout.below, strict=True):
            at, size = highest(below), f.rounded(block.bytes, align)
            offsets.append(at)
            if (at, size) not in sums:
                sums[at, size] = size if at == "0" else f.emit(f"add i64 {at}, {size}")
            ends.append(sums[at, size])
        return {b.slot: at for b, at in zip(layout.blocks, offsets, strict=True)}, highest(layout.top)

    def _enter(self, f: Function, routine: Routine, base: str, offsets: dict[int, str], scalar: Sequence[int]) -> None:
        library, program = self.library, routine.program
        slots = program.slots
        step = 8 if self.word == "i64" else 4
        table = f.alloca(f"[{max(1, len(slots))} x ptr]", 16)
        values = f.alloca(f"[{max(1, len(program.sizes))} x i64]", 16)
        for k, name in enumerate(program.sizes):
            f.do(f"store i64 {f.symbols[name]}, ptr {f.at(values, k, 'i64')}, align 8")
        places: dict[int, str] = dict(zip(program.inputs, (f"%in{k}" for k in range(len(routine.inputs))), strict=True))
        weights = self._weights(f)
        for slot, key in program.variables:
            kept = library.place_of(key)
            places[slot] = f.at("%state", HEAD + kept.offset) if kept.in_state else f.at(weights, kept.offset)
        for slot, data in program.constants:
            places[slot] = f.at(weights, library.constant_at(data))
        for slot, offset in offsets.items():
            places[slot] = f.at(base, offset)
        late: list[tuple[int, str]] = []  # outputs that the program keeps elsewhere: copied at the end
        for k, slot in enumerate(program.outputs):
            place = f"%out{k}"
            if k in scalar:
                spare = f.alloca("i64", 8)
                absent = f.emit(f"icmp eq ptr {place}, null")
                place = f.emit(f"select i1 {absent}, ptr {spare}, ptr {place}")
            if slots[slot].kind == "output" and owner_of(program, slot) == slot and slot not in places:
                places[slot] = place
            else:
                late.append((slot, place))
        for slot in range(len(slots)):
            owner = owner_of(program, slot)
            if owner in places:
                f.do(f"store ptr {places[owner]}, ptr {f.at(table, slot, 'ptr')}, align {step}")
        parallel = "%threads" if library.threads else "null"
        status = f.emit(f"call i32 @{program.entry}(ptr {table}, ptr {values}, ptr {parallel})")
        for slot, place in late:
            count = f.size(product(slots[slot].shape) * dtypes.named(slots[slot].dtype).bytes)
            source = places[owner_of(program, slot)]
            f.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {place}, ptr {source}, i64 {count}, i1 false)")
        f.do(f"ret i32 {status}")

    def workspace_bytes(self) -> None:
        library = self.library
        names = list(library.sizes)
        f = self.define("workspace_bytes", self.word, [f"{self.word} %size{k}" for k in range(len(names))])
        self._sizes(f, names)
        for n in names:  # for sizes that no function takes there is nothing to say
            f.fail_if(f.emit(f"icmp ugt i64 {f.symbols[n]}, {library.most(n)}"), 0, self.word)
        most = "0"
        for routine in library.routines:
            _, total = self._offsets(f, routine)
            if total != "0":
                room = f.emit(f"add i64 {total}, {library.align - 1}")
                most = room if most == "0" else f.maximum(most, room)
        if self.word == "i32" and most != "0":
            most = f.emit(f"trunc i64 {most} to i32")
        f.do(f"ret {self.word} {most}")
        self.parts.append(f.text())

    # ---- threads

    def pool(self) -> None:
        """What makes a pool of threads, and ends it."""
        f = self.define("pool_bytes", self.word, ["i64 %count"])
        f.fail_if(f.emit(f"icmp ugt i64 %count, {pool.MOST}"), 0, self.word)
        f.do(f"ret i64 {self._pool_bytes(f)}")
        self.parts.append(f.text())

        f = self.define("pool_create", "i32", ["ptr %threads", "i64 %count", "ptr %memory", "i64 %bytes"])
        f.fail_if_any([f.emit(f"icmp eq ptr {p}, null") for p in ("%threads", "%memory")], POINTER)
        f.fail_if(f.emit(f"icmp ugt i64 %count, {pool.MOST}"), SIZE)
        f.fail_if(f.emit(f"icmp ult i64 %bytes, {self._pool_bytes(f)}"), WORKSPACE)
        memory = f.aligned("%memory", pool.ALIGN)
        failed = f.emit(f"call i32 @gnomon.start(ptr {memory}, i64 %count)")
        f.fail_if(f.emit(f"icmp ne i32 {failed}, 0"), THREADS)
        f.do("store ptr @gnomon.pool, ptr %threads, align 8")
        f.do(f"store ptr {memory}, ptr {f.at('%threads', 8)}, align 8")
        f.do("ret i32 0")
        self.parts.append(f.text())

        f = self.define("pool_destroy", "i32", ["ptr %threads"])
        f.fail_if(f.emit("icmp eq ptr %threads, null"), POINTER)
        memory = f.emit(f"load ptr, ptr {f.at('%threads', 8)}, align 8")
        f.fail_if(f.emit(f"icmp eq ptr {memory}, null"), POINTER)
        count = f.emit(f"load i64, ptr {f.at(memory, pool.FIELDS['threads'])}, align 8")
        f.do(f"call void @gnomon.end(ptr {memory}, i64 {count})")
        f.do(f"store ptr null, ptr {f.at('%threads', 8)}, align 8")
        f.do("ret i32 0")
        self.parts.append(f.text())

    def _pool_bytes(self, f: Function) -> str:
        return f.emit(f"add i64 {f.emit('mul i64 %count, 8')}, {pool.HEAD + pool.ALIGN - 1}")

    # ---- texts

    def strings(self, name: str, value: str) -> None:
        """A function that returns a constant text."""
        f = self.define(name, "ptr", [])
        f.do(f"ret ptr {self.constant(value)}")
        self.parts.append(f.text())

    def constant(self, value: str) -> str:
        data = value.encode() + b"\0"
        name = f"@text.{len(self.globals)}"
        self.globals.append(f"{name} = private unnamed_addr constant {_bytes(data)}, align 1")
        return name

    def error_text(self) -> None:
        f = self.define("error_text", "ptr", ["i32 %code"])
        found = self.constant("not a code of this library")
        for code, text in error_texts(self.library).items():
            is_it = f.emit(f"icmp eq i32 %code, {code}")
            found = f.emit(f"select i1 {is_it}, ptr {self.constant(text)}, ptr {found}")
        f.do(f"ret ptr {found}")
        self.parts.append(f.text())


CHECK_SUM = """\
define internal i64 @gnomon.check_sum(ptr %data, i64 %count) #0 {{
entry:
  br label %head
head:
  %k = phi i64 [ 0, %entry ], [ %next, %body ]
  %one = phi i64 [ 0, %entry ], [ %one.more, %body ]
  %two = phi i64 [ 0, %entry ], [ %two.more, %body ]
  %more = icmp ult i64 %k, %count
  br i1 %more, label %body, label %done
body:
  %place = getelementptr i64, ptr %data, i64 %k
  %word = load i64, ptr %place, align 1
  %one.more = add i64 %one, %word
  %two.more = add i64 %two, %one.more
  %next = add i64 %k, 1
  br label %head
done:
  %mixed = mul i64 %two, {mixed}
  %turned = call i64 @llvm.fshl.i64(i64 %mixed, i64 %mixed, i64 32)
  %sum = xor i64 %one, %turned
  ret i64 %sum
}}"""
"""See `library.check_sum`."""


def _bytes(data: bytes) -> str:
    """A constant array of bytes as LLVM spells it."""
    kind = f"[{len(data)} x i8]"
    return f"{kind} zeroinitializer" if not any(data) else f'{kind} c"\\{data.hex(chr(92))}"'


def _weights(library: Library) -> str:
    """The weights as a constant. Large ones are a place that they are put in when the object is there: their text would
    be three times as long, and take LLVM seconds. It must not reckon with what is not there (`externally_initialized`).
    """
    size = len(library.weights)
    if size < LARGE:
        return f"@weights = internal constant {_bytes(library.weights)}, align {library.align}"
    mark, rest = f"[{len(PLACE)} x i8]", f"[{size - len(PLACE)} x i8]"
    return (
        f"@weights = internal externally_initialized constant <{{ {mark}, {rest} }}> "
        f"<{{ {_bytes(PLACE)}, {rest} zeroinitializer }}>, align {library.align}"
    )


def _share(word: str) -> str:
    """Functions between a launch and the caller's threads: `<prefix>_threads` is {function, context}."""
    narrow = "i64" if word == "i64" else "i32"
    cut = "" if word == "i64" else (
        "  %n = trunc i64 %extent to i32\n"
        "  %most = call i64 @llvm.umin.i64(i64 %work, i64 2147483647)\n  %w = trunc i64 %most to i32\n"
    )  # fmt: skip
    count, much = ("%extent", "%work") if word == "i64" else ("%n", "%w")
    wide = ("  %b = zext i32 %begin to i64\n  %e = zext i32 %end to i64\n", "%b", "%e") if word == "i32" else (
        "", "%begin", "%end")  # fmt: skip
    step = 8 if word == "i64" else 4
    return f"""\
define hidden void @gnomon.share(ptr %threads, ptr %kernel, ptr %buffers, ptr %sizes, i64 %extent, i64 %work) #0 {{
entry:
  %job = alloca [3 x ptr], align 16
  %small = icmp slt i64 %work, {SHARED_WORK}
  br i1 %small, label %alone, label %together
alone:
  call void %kernel(ptr %buffers, ptr %sizes, i64 0, i64 %extent)
  ret void
together:
  store ptr %kernel, ptr %job, align {step}
  %job1 = getelementptr ptr, ptr %job, i64 1
  store ptr %buffers, ptr %job1, align {step}
  %job2 = getelementptr ptr, ptr %job, i64 2
  store ptr %sizes, ptr %job2, align {step}
  %run = load ptr, ptr %threads, align {step}
  %place = getelementptr ptr, ptr %threads, i64 1
  %context = load ptr, ptr %place, align {step}
{cut}  call void %run(ptr %context, ptr @gnomon.task, ptr %job, {narrow} {count}, {narrow} {much})
  ret void
}}
define internal void @gnomon.task(ptr %job, {narrow} %begin, {narrow} %end) #0 {{
entry:
  %kernel = load ptr, ptr %job, align {step}
  %job1 = getelementptr ptr, ptr %job, i64 1
  %buffers = load ptr, ptr %job1, align {step}
  %job2 = getelementptr ptr, ptr %job, i64 2
  %sizes = load ptr, ptr %job2, align {step}
{wide[0]}  call void %kernel(ptr %buffers, ptr %sizes, i64 {wide[1]}, i64 {wide[2]})
  ret void
}}"""


def modules(library: Library) -> tuple[list[str], list[str]]:
    """The texts of all modules of a library, and the names it exports. Equal sources of programs are there once."""
    functions = Functions(library)
    own = functions.module()
    texts: dict[str, str] = {}
    for routine in library.routines:
        for source in routine.program.sources:
            text = source.text
            if library.threads:
                text = _through_share(text)
            texts.setdefault(source.name, text)
    return [own, *texts.values()], functions.exported


def _through_share(text: str) -> str:
    """An entry whose `parallel` is a caller's threads, not a function."""
    call = "call void %parallel("
    if call not in text:
        return text
    declaration = "declare void @gnomon.share(ptr, ptr, ptr, ptr, i64, i64)\n"
    changed = text.replace(call, "call void @gnomon.share(ptr %parallel, ")
    at = changed.index("define ")
    return changed[:at] + declaration + changed[at:]
