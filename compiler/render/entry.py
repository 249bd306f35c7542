"""The entry function of a program as LLVM IR: its steps in order, loops and branches included.

    int32 ENTRY(ptr slots, ptr sizes, ptr parallel)

Sizes that launches need are computed where they are used; LLVM merges equal ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gnomon.compiler import dtypes
from gnomon.compiler.program import Branch, Changed, Clear, Copy, Launch, Library, Prepare, Repeat, Slot, Step
from gnomon.compiler.sizes import Dim, FloorDiv, Max, Symbol, product
from gnomon.compiler.targets import Target


def render_entry(name: str, steps: Sequence[Step], slots: Sequence[Slot], sizes: Sequence[str], target: Target) -> str:
    """The module that defines `name`; it declares the kernels that the steps launch."""
    return _Entry(name, slots, sizes, target).module(steps)


class _Entry:
    def __init__(self, name: str, slots: Sequence[Slot], sizes: Sequence[str], target: Target):
        self.name, self.slots, self.target = name, slots, target
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.counter = 0
        self.symbols = {s: f"%size{j}" for j, s in enumerate(sizes)}
        self.kernels: dict[str, None] = {}
        self.functions: list[str] = []  # their lines
        self.launchers: dict[tuple, str] = {}
        self.tables: dict[str, str] = {}
        self.by_shares = False  # in the function of a loop that threads go through with shares of their own

    def module(self, steps: Sequence[Step]) -> str:
        self.run(steps)
        head = [f'target triple = "{self.target.triple}"'] if self.target.triple else []
        head += [f"declare void @{k}(ptr, ptr, i64, i64)" for k in self.kernels]
        head += [f"{name} = private unnamed_addr constant {table}" for table, name in self.tables.items()]
        head += self.functions
        head.append(f"define i32 @{self.name}(ptr %slots, ptr %sizes, ptr %parallel) #0 {{")
        head += ["entry:", *self.symbol_lines()]
        tail = ["  ret i32 0", "}", "attributes #0 = { nounwind }", "attributes #1 = { nounwind noinline }"]
        return "\n".join([*head, *self.allocas, *self.lines, *tail]) + "\n"

    def symbol_lines(self) -> list[str]:
        """Read all sizes, at the top of a function."""
        lines = []
        for j, text in enumerate(self.symbols.values()):
            lines.append(f"  %sp{j} = getelementptr i64, ptr %sizes, i64 {j}")
            lines.append(f"  {text} = load i64, ptr %sp{j}, align 8")
        return lines

    def do(self, code: str) -> None:
        self.lines.append(f"  {code}")

    def emit(self, code: str) -> str:
        self.counter += 1
        self.do(f"%x{self.counter} = {code}")
        return f"%x{self.counter}"

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def run(self, steps: Sequence[Step]) -> None:
        for s in steps:
            match s:
                case Launch():
                    self.launch(s)
                case Copy():
                    slot = self.slots[s.target]
                    n = self.size(product(slot.shape) * dtypes.named(slot.dtype).bytes)
                    target, source = self.slot(s.target), self.slot(s.source)
                    self.do(f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {n}, i1 false)")
                case Clear():
                    n = self.size(product(self.slots[s.target].shape) * dtypes.named(self.slots[s.target].dtype).bytes)
                    self.do(f"call void @llvm.memset.p0.i64(ptr {self.slot(s.target)}, i8 0, i64 {n}, i1 false)")
                case Repeat():
                    self.repeat(s)
                case Branch():
                    self.branch(s)
                case Prepare():
                    self.prepare(s)
                case Changed():
                    self.emit(f"atomicrmw add ptr {self.slot(s.clock)}, i64 1 seq_cst, align 8")
                case Library():
                    raise NotImplementedError(s.name)

    def slot(self, k: int) -> str:
        """The address of a slot; that of a view is worked out where it is used."""
        slot = self.slots[k]
        if slot.row is None:
            pointer = self.emit(f"getelementptr ptr, ptr %slots, i64 {k}")
            return self.emit(f"load ptr, ptr {pointer}, align 8")
        at = slot.row
        row = self.number(at.counter)
        if at.shift != 0:
            row = self.emit(f"add i64 {row}, {self.size(at.shift)}")
        inside = ""
        if at.edge >= 0:
            inside = self.emit(f"icmp sge i64 {row}, 0")
            if at.rows is not None:
                below = self.emit(f"icmp slt i64 {row}, {self.size(at.rows)}")
                inside = self.emit(f"and i1 {inside}, {below}")
        if at.ring:
            row = self.emit(f"urem i64 {row}, {at.ring}")
        bytes_ = self.size(product(slot.shape) * dtypes.named(slot.dtype).bytes)
        offset = self.emit(f"mul i64 {row}, {bytes_}")
        place = self.emit(f"getelementptr i8, ptr {self.slot(slot.alias)}, i64 {offset}")
        return self.emit(f"select i1 {inside}, ptr {place}, ptr {self.slot(at.edge)}") if inside else place

    def number(self, k: int) -> str:
        """The value of an int64 slot."""
        return self.emit(f"load i64, ptr {self.slot(k)}, align 8")

    def launch(self, s: Launch) -> None:
        """A call of the function that launches this kernel with these sizes, given the slots it is to run on.

        Layers that are alike share it, and the entry stays short: LLVM takes more than twice as long for a function
        that is twice as long.
        """
        self.kernels[s.kernel] = None
        own = ["i64 %begin", "i64 %end"] if self.by_shares else []
        if any(self.slots[b].row is not None for b in s.buffers):
            buffers = ["ptr %sizes", "ptr %parallel", *(f"ptr {self.slot(b)}" for b in s.buffers), *own]
            self.do(f"call void {self.launcher(s, False)}({', '.join(buffers)})")
            return
        numbers = ", ".join(f"i64 {b}" for b in s.buffers)
        table = f"[{len(s.buffers)} x i64] [{numbers}]"
        known = self.tables.setdefault(table, f"@slots{len(self.tables)}")
        given = ["ptr %slots", "ptr %sizes", "ptr %parallel", f"ptr {known}", *own]
        self.do(f"call void {self.launcher(s, True)}({', '.join(given)})")

    def launcher(self, s: Launch, numbered: bool) -> str:
        """The name of a function that launches a kernel with the sizes that `s` has, on any buffers: it gets a table of
        slots' numbers (`numbered`), or the buffers themselves. Of a loop by shares it gets which shares to do, too."""
        count = len(s.buffers)
        key = (s.kernel, count, s.sizes, s.extent, s.work, numbered, s.share if self.by_shares else 0)
        found = self.launchers.get(key)
        if found is not None:
            return found
        name = self.launchers[key] = f"@launch{len(self.launchers)}"
        outer, self.lines, counter = self.lines, [], self.counter
        self.counter = 0
        given = ["ptr %slots", "ptr %sizes", "ptr %parallel", "ptr %numbers"]
        if not numbered:
            given = ["ptr %sizes", "ptr %parallel", *(f"ptr %b{k}" for k in range(count))]
        if self.by_shares:
            given += ["i64 %begin", "i64 %end"]
        self.lines = [f"define internal void {name}({', '.join(given)}) #1 {{", "entry:", *self.symbol_lines()]
        self.do(f"%table = alloca [{max(1, count)} x ptr], align 16")
        for k in range(count):
            buffer = f"%b{k}"
            if numbered:
                place = self.emit(f"getelementptr i64, ptr %numbers, i64 {k}")
                place = self.emit(f"getelementptr ptr, ptr %slots, i64 {self.emit(f'load i64, ptr {place}, align 8')}")
                buffer = self.emit(f"load ptr, ptr {place}, align 8")
            place = self.emit(f"getelementptr ptr, ptr %table, i64 {k}")
            self.do(f"store ptr {buffer}, ptr {place}, align 8")
        sizes = "%sizes"
        if s.sizes:
            sizes = "%own"
            self.do(f"%own = alloca [{len(s.sizes)} x i64], align 16")
            for k, d in enumerate(s.sizes):
                place = self.emit(f"getelementptr i64, ptr %own, i64 {k}")
                self.do(f"store i64 {self.size(d)}, ptr {place}, align 8")
        if self.by_shares:
            extent = self.size(s.extent)
            share = self.size(s.share)
            ends = [self.emit(f"mul i64 {end}, {share}") for end in ("%begin", "%end")]
            first, last = (self.emit(f"call i64 @llvm.smin.i64(i64 {end}, i64 {extent})") for end in ends)
            self.do(f"call void @{s.kernel}(ptr %table, ptr {sizes}, i64 {first}, i64 {last})")
        elif s.extent == 1:
            self.do(f"call void @{s.kernel}(ptr %table, ptr {sizes}, i64 0, i64 1)")
        else:
            extent = self.size(s.extent)
            threaded = self.emit("icmp ne ptr %parallel, null")
            self.do(f"br i1 {threaded}, label %many, label %one")
            self.label("many")
            work = self.size(s.work)
            self.do(f"call void %parallel(ptr @{s.kernel}, ptr %table, ptr {sizes}, i64 {extent}, i64 {work})")
            self.do("ret void")
            self.label("one")
            self.do(f"call void @{s.kernel}(ptr %table, ptr {sizes}, i64 0, i64 {extent})")
        self.do("ret void")
        self.functions += [*self.lines, "}"]
        self.lines, self.counter = outer, counter
        return name

    def repeat_by_shares(self, s: Repeat) -> None:
        """A loop that threads go through with shares of their own: a function of the shares to do, which has counters
        of its own."""
        name = f"@shares{len(self.functions)}"
        outer = self.lines, self.allocas, self.counter
        self.lines, self.allocas, self.counter, self.by_shares = [], [], 0, True
        self.do(f"%slots = alloca [{len(self.slots)} x ptr], align 16")
        size = 8 * len(self.slots)
        self.do(f"call void @llvm.memcpy.p0.p0.i64(ptr %slots, ptr %given, i64 {size}, i1 false)")
        for k in (s.counter, s.round):
            self.do(f"%own{k} = alloca i64, align 8")
            self.do(f"store ptr %own{k}, ptr {self.emit(f'getelementptr ptr, ptr %slots, i64 {k}')}, align 8")
        self.do("%parallel = inttoptr i64 0 to ptr")
        self.repeat(replace(s, shares=0))
        self.do("ret void")
        head = [f"define internal void {name}(ptr %given, ptr %sizes, i64 %begin, i64 %end) #1 {{", "entry:"]
        self.functions += [*head, *self.symbol_lines(), *self.allocas, *self.lines, "}"]
        (self.lines, self.allocas, self.counter), self.by_shares = outer, False
        self.counter += 1
        n = self.counter
        assert s.count is not None
        extent, count = self.size(s.shares), self.size(s.count)
        work = self.size(s.count * sum_of(step.work for step in s.steps if isinstance(step, Launch)))
        threaded = self.emit("icmp ne ptr %parallel, null")
        self.do(f"br i1 {threaded}, label %many{n}, label %one{n}")
        self.label(f"many{n}")
        self.do(f"call void %parallel(ptr {name}, ptr %slots, ptr %sizes, i64 {extent}, i64 {work})")
        self.do(f"br label %shared{n}")
        self.label(f"one{n}")
        self.do(f"call void {name}(ptr %slots, ptr %sizes, i64 0, i64 {extent})")
        self.do(f"br label %shared{n}")
        self.label(f"shared{n}")
        self.do(f"store i64 {-1 if s.reverse else count}, ptr {self.slot(s.counter)}, align 8")
        self.do(f"store i64 {count}, ptr {self.slot(s.round)}, align 8")

    def repeat(self, s: Repeat) -> None:
        if s.shares != 0:
            self.repeat_by_shares(s)
            return
        self.counter += 1
        n = self.counter
        count = "" if s.count is None else self.size(s.count)
        if s.limit >= 0:
            most = self.emit(f"call i64 @llvm.smax.i64(i64 {self.number(s.limit)}, i64 0)")
            count = self.emit(f"call i64 @llvm.smin.i64(i64 {most}, i64 {count})") if count else most
        place, stop = f"%round{n}", f"%stop{n}"
        self.allocas += [f"  {place} = alloca i64, align 8", f"  {stop} = alloca i1, align 1"]
        self.do(f"store i64 0, ptr {place}, align 8")
        self.do(f"store i1 false, ptr {stop}, align 1")
        self.do(f"br label %head{n}")
        self.label(f"head{n}")
        i = self.emit(f"load i64, ptr {place}, align 8")
        value = i
        if s.reverse:
            last = self.emit(f"sub i64 {count}, 1")
            value = self.emit(f"sub i64 {last}, {i}")
        self.do(f"store i64 {value}, ptr {self.slot(s.counter)}, align 8")
        if s.round >= 0:
            self.do(f"store i64 {i}, ptr {self.slot(s.round)}, align 8")
        ended = self.emit(f"load i1, ptr {stop}, align 1")
        if count:
            enough = self.emit(f"icmp sge i64 {i}, {count}")
            ended = self.emit(f"or i1 {ended}, {enough}")
        self.do(f"br i1 {ended}, label %done{n}, label %round{n}.body")
        self.label(f"round{n}.body")
        self.run(s.steps)
        following = self.emit(f"add i64 {i}, 1")
        self.do(f"store i64 {following}, ptr {place}, align 8")
        if s.until >= 0:
            flag = self.emit(f"load i8, ptr {self.slot(s.until)}, align 1")
            self.do(f"store i1 {self.emit(f'icmp ne i8 {flag}, 0')}, ptr {stop}, align 1")
        self.do(f"br label %head{n}")
        self.label(f"done{n}")

    def branch(self, s: Branch) -> None:
        self.counter += 1
        n = self.counter
        flag = self.emit(f"load i8, ptr {self.slot(s.condition)}, align 1")
        holds = self.emit(f"icmp ne i8 {flag}, 0")
        self.do(f"br i1 {holds}, label %then{n}, label %else{n}")
        for name, steps in (("then", s.then), ("else", s.orelse)):
            self.label(f"{name}{n}")
            self.run(steps)
            self.do(f"br label %join{n}")
        self.label(f"join{n}")

    def prepare(self, s: Prepare) -> None:
        self.counter += 1
        n = self.counter
        now = self.emit(f"load atomic i64, ptr {self.slot(s.clock)} acquire, align 8")
        seen = self.slot(s.seen)
        then = self.emit(f"load i64, ptr {seen}, align 8")
        other, lent = self.emit(f"icmp ne i64 {now}, {then}"), self.emit(f"icmp slt i64 {now}, 0")
        stale = self.emit(f"or i1 {other}, {lent}")
        self.do(f"br i1 {stale}, label %prepare{n}, label %ready{n}")
        self.label(f"prepare{n}")
        self.run(s.steps)
        self.do(f"store i64 {now}, ptr {seen}, align 8")
        self.do(f"br label %ready{n}")
        self.label(f"ready{n}")

    def size(self, d: Dim) -> str:
        """The text of a size's value."""
        if isinstance(d, int):
            return str(d)
        total = ""
        for monomial, c in d.terms:
            part = str(c)
            for atom in monomial:
                match atom:
                    case Symbol():
                        value = self.symbols[atom.name]
                    case FloorDiv():
                        value = self.floordiv(atom)
                    case Max():
                        value = self.emit(f"call i64 @llvm.smax.i64(i64 {self.size(atom.a)}, i64 {self.size(atom.b)})")
                    case _:
                        raise AssertionError(f"{atom!r} in the extent of a launch")
                part = value if part == "1" else self.emit(f"mul i64 {part}, {value}")
            total = part if not total else self.emit(f"add i64 {total}, {part}")
        return total

    def floordiv(self, atom: FloorDiv) -> str:
        a, b = self.size(atom.a), self.size(atom.b)
        if not isinstance(atom.b, int):  # a size of 0 divides nothing, but must not trap
            b = self.emit(f"call i64 @llvm.smax.i64(i64 {b}, i64 1)")
        quotient = self.emit(f"sdiv i64 {a}, {b}")
        rest = self.emit(f"srem i64 {a}, {b}")
        below = self.emit(f"icmp slt i64 {rest}, 0")
        less = self.emit(f"sub i64 {quotient}, 1")
        return self.emit(f"select i1 {below}, i64 {less}, i64 {quotient}")


def sum_of(dims: Iterable[Dim]) -> Dim:
    total: Dim = 0
    for d in dims:
        total = total + d
    return total
