"""Kernel -> CUDA C++ text: one recursive match over statements and expressions. Nothing here needs a GPU or a driver.

    geometry(kernel)        blocks, threads and shared bytes of a launch, as sizes
    render(kernel, name)    the text of one `extern "C" __global__` function
    program(functions)      the text of a module: the prelude, then functions

Arguments: the buffers in the order of `Kernel.buffers` as pointers, then `Kernel.sizes` as `long long`. Indices are
computed in 32 bits unless GN_WIDE is defined (`cuda_reach`).
How loops become threads:
    block    blockIdx of its axis
    thread   threadIdx of its axis. An extent that is symbolic or larger than a block strides over the block's threads
    parallel one thread per iteration, grid-stride
    vector, unroll   written out by the device compiler
A store to global or shared memory that stands outside a thread loop is one store, not one per thread: thread 0 does
it. Others see it after a `Barrier`. Statements on local buffers and `Let`s are repeated by every thread.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import CompileError
from gnomon.compiler.kernel import (
    IDENTITY,
    Alloc,
    Apply,
    Barrier,
    Bitcast,
    Buffer,
    Cast,
    Const,
    CopyTransposed,
    CopyVector,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Lanes,
    Let,
    Load,
    Local,
    MultiplyFragments,
    Prefetch,
    Shuffle,
    Stmt,
    Store,
    Value,
    children,
    expressions,
    highest,
    lowest,
    statements,
)
from gnomon.compiler.render.cuda_launch import (
    AXES,
    all_expressions,
    geometry,
    is_greedy,
    operands,
    pooled,
)
from gnomon.compiler.render.cuda_matrix import copy_vector, multiply_fragments
from gnomon.compiler.render.cuda_prelude import PRELUDE
from gnomon.compiler.render.cuda_reach import reach
from gnomon.compiler.sizes import (
    Atom,
    Dim,
    FloorDiv,
    Index,
    Max,
    Size,
    Symbol,
    atoms,
    bounds,
    coefficient,
    known_factor,
    non_negative,
    product,
)

RESIDENT = 512
"""Threads of a multiprocessor that a greedy kernel must leave room for, with 128 registers each: they wait for memory
in turn."""

INT64 = "long long"
WIDENED = f"({INT64})"
"""In front of an index that is an operand of arithmetic in 64 bits."""

WIDE = 96
"""An expression whose text is longer than this gets a name."""


def program(functions: Iterable[str]) -> str:
    """The text of a module that defines the rendered `functions`."""
    return "\n".join([PRELUDE, *functions])


def _functions(kernel: Kernel) -> set[str]:
    """Words of the spellings in use: no variable may hide a function."""
    used = {e.fn for e in all_expressions(kernel.body) if isinstance(e, Apply)}
    return {word for fn in used for text in fn.cuda.values() for word in re.findall(r"[A-Za-z_]\w*", text)}


def render(kernel: Kernel, name: str) -> str:
    """The kernel as the text of one CUDA C++ function called `name`.

    Raises CompileError for what a CUDA kernel cannot do: a local array of symbolic size, a barrier in divergent code.
    """
    return Writer(kernel, name).text()


KEYWORDS = frozenset(
    "alignas alignof and asm auto bool break case catch char class const continue default delete do double else enum "
    "explicit export extern false float for friend goto if inline int long namespace new not operator or private "
    "protected public register return short signed sizeof static struct switch template this throw true try typedef "
    "typeid typename union unsigned using virtual void volatile while xor blockIdx threadIdx blockDim gridDim memcpy "
    "warpSize main".split()
)


class Writer:
    """Renders one kernel. `names` gives buffers, indices, sizes and locals in scope their C names."""

    def __init__(self, kernel: Kernel, name: str):
        self.kernel, self.name = kernel, name
        self.geometry = geometry(kernel)
        self.dynamic, _ = pooled(kernel)
        moved = [s for s in statements(kernel.body) if isinstance(s, CopyVector)]
        self.vectors = {b for s in moved for b in (s.target, s.source) if b.space == "shared"}
        self.int = INT64 if reach(kernel) is None else "gn_int"  # what indices are computed in
        self.lines: list[str] = []
        self.depth = 1
        self.names: dict[Buffer | Atom | Expr, str] = {}
        self.taken: set[str] = {name, *KEYWORDS, *_functions(kernel)}
        self.numbered = 0  # names of the form v1, v2 in scope
        self.lanes: dict[Expr, str] = {}  # reductions over lanes that the statement at hand has already computed
        self.moved: dict[Load | Store, str] = {}  # what is moved with its neighbours, and where it is meanwhile
        self.expanded: dict[Expr, Expr] = {}  # applications that have no spelling here, in simpler functions
        self.varying: set[Index | Local] = set()  # what may differ between threads of one block
        self.divergent = False  # whether threads of one block may differ in coming by here
        self.bound: frozenset[str] = frozenset()  # axes of the launch that enclosing loops stand for
        self.spread = [  # axes on which there is more than one block or thread
            f"{place}.{axis}"
            for place, extents in (("blockIdx", self.geometry.grid), ("threadIdx", self.geometry.block))
            for axis, extent in zip(AXES, extents, strict=True)
            if extent != 1
        ]

    def text(self) -> str:
        arguments = [self._argument(b) for b in self.kernel.buffers]
        for s in self.kernel.sizes:
            name = self._named(Symbol(s), s)
            if self.int == INT64:
                arguments.append(f"long long {name}")
                continue
            arguments.append(f"long long {self._free(f'{s}_given')}")
            self._line(f"const {self.int} {name} = ({self.int}){arguments[-1].split()[-1]};")
        if self.dynamic:
            self._line("extern __shared__ __align__(16) unsigned char gn_shared[];")
        for b, offset in self.dynamic.items():
            place = "gn_shared" if offset == 0 else f"(gn_shared + {self._size(offset)})"
            self._line(f"{ctype(b.dtype)} *const {self._named(b, b.name)} = ({ctype(b.dtype)} *){place};")
        self._body(self.kernel.body)
        wide, high, deep = self.geometry.block
        threads = wide * high * deep
        resident = f", {max(1, RESIDENT // threads)}" if is_greedy(self.kernel) else ""
        bounds = f"__launch_bounds__({threads}{resident})"
        head = f'extern "C" __global__ void {bounds} {self.name}({", ".join(arguments)}) {{'
        return "\n".join([f"// {' '.join(self.kernel.label.split())}", head, *self.lines, "}", ""])

    def _argument(self, b: Buffer) -> str:
        const = "" if b in self.kernel.writes else "const "
        return f"{const}{ctype(b.dtype)} *__restrict__ {self._named(b, b.name)}"

    # -- lines, scopes, names

    def _line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    @contextmanager
    def _scope(self, head: str) -> Iterator[None]:
        """A block in braces, at whose end what was named in it is forgotten. Made around `_named` of a loop's index."""
        self._line(f"{head} {{" if head else "{")
        names, taken, numbered = dict(self.names), set(self.taken), self.numbered
        state = self.divergent, self.bound, set(self.varying)
        self.depth += 1
        yield
        self.depth -= 1
        self.names, self.taken, self.numbered = names, taken, numbered
        self.divergent, self.bound, self.varying = state
        self._line("}")

    def _free(self, wish: str) -> str:
        """A C name like `wish` that nothing else in scope has."""
        word = re.sub(r"\W", "_", wish)
        word = word if re.match(r"[A-Za-z]", word) else f"v{word}"
        name, k = word, 1
        while name in self.taken:
            name, k = f"{word}_{k}", k + 1
        self.taken.add(name)
        return name

    def _named(self, key: Buffer | Atom | Expr, wish: str) -> str:
        self.names[key] = self._free(wish)
        return self.names[key]

    # -- statements

    def _body(self, body: tuple[Stmt, ...]) -> None:
        for s in body:
            self._statement(s)

    def _statement(self, s: Stmt) -> None:
        match s:
            case Store():
                self._store(s)
            case Let():
                (value,) = self._evaluate(s.value)
                if self._varies(s.value):
                    self.varying.add(s.local)
                self._line(f"const {ctype(s.local.dtype)} {self._named(s.local, s.local.name)} = {bare(value)};")
            case Alloc():
                self._alloc(s.buffer)
            case Barrier():
                self._converged("a barrier")
                self._line("__syncwarp();" if s.warp else "__syncthreads();")
            case If():
                (condition,) = self._evaluate(s.condition)
                varies = self._varies(s.condition)
                with self._scope(f"if ({bare(condition)})"):
                    self.divergent |= varies
                    self._body(s.then)
                if s.orelse:
                    with self._scope("else"):
                        self.divergent |= varies
                        self._body(s.orelse)
            case For():
                self._for(s)
            case CopyTransposed():
                self._copy_transposed(s)
            case CopyVector():
                self._copy_vector(s)
            case MultiplyFragments():
                sizes = (IndexValue("int64", d) for d in (s.t, s.x, s.w))
                places = zip((s.total, s.left, s.right), self._evaluate(*sizes), strict=True)
                self._line(multiply_fragments(s, *(f"&{self._element(b, bare(at))}" for b, at in places)))
            case Prefetch():
                pass  # other threads run while one waits for memory
            case _:
                raise AssertionError(f"{type(s).__name__} has no CUDA text: {s!r}")
        self.lanes = {}

    def _converged(self, what: str) -> None:
        """Raises CompileError where threads of one block may differ in coming by."""
        if self.divergent:
            raise CompileError(f"{self.kernel.label}: {what} where not all threads of a block come by.")

    def _alloc(self, b: Buffer) -> None:
        if b in self.dynamic:
            return
        extent = product(b.shape)
        if not isinstance(extent, int):
            raise CompileError(f"{self.kernel.label}: a thread cannot hold {b!r}, whose size is not static.")
        space = "__shared__ __align__(16) " if b in self.vectors else "__shared__ " if b.space == "shared" else ""
        size = "" if _is_scalar(b) else f"[{max(1, extent)}]"
        self._line(f"{space}{ctype(b.dtype)} {self._named(b, b.name)}{size};")

    def _store(self, s: Store) -> None:
        if s in self.moved:
            (value,) = self._evaluate(s.value)
            self._line(f"{self.moved[s]} = {bare(value)};")
            return
        with self._once(s.buffer):
            self._assign(s)

    @contextmanager
    def _once(self, target: Buffer) -> Iterator[None]:
        """A store inside is done by one thread of those that no enclosing loop stands for."""
        alone = [p for p in self.spread if p not in self.bound] if target.space in ("global", "shared") else []
        if alone:
            with self._scope(f"if ({' && '.join(f'{p} == 0' for p in alone)})"):
                yield
        else:
            yield

    def _assign(self, s: Store) -> None:
        value, place = self._evaluate(s.value, IndexValue("int64", s.buffer.offset(s.index)))
        self._line(f"{self._element(s.buffer, bare(place))} = {bare(value)};")

    def _copy_vector(self, s: CopyVector) -> None:
        with self._once(s.target):
            t, at = self._evaluate(IndexValue("int64", s.t), IndexValue("int64", s.s))
            places = f"&{self._element(s.target, bare(t))}", f"&{self._element(s.source, bare(at))}"
            self._line(copy_vector(s, *places))

    def _copy_transposed(self, s: CopyTransposed) -> None:
        sizes = (s.t, s.target_stride, s.s, s.source_stride)
        t, down, first, across = self._evaluate(*(IndexValue("int64", d) for d in sizes))
        target, source = self.names[s.target], self.names[s.source]
        with self._once(s.target), self._scope(""):
            i, j = self._free("i"), self._free("j")
            loops = (f"for (int {k} = 0; {k} < {s.size}; ++{k})" for k in (j, i))
            copy = f"{target}[{t} + {j} * {down} + {i}] = {source}[{first} + {i} * {across} + {j}];"
            self._line(" ".join([*loops, copy]))

    def _element(self, b: Buffer, place: str) -> str:
        return self.names[b] if _is_scalar(b) else f"{self.names[b]}[{place}]"

    def _for(self, s: For) -> None:
        match s.kind:
            case "block":
                self._spread(s, f"blockIdx.{s.axis}", self.geometry.grid[AXES.index(s.axis)])
            case "thread":
                self._spread(s, f"threadIdx.{s.axis}", self.geometry.block[AXES.index(s.axis)])
            case "parallel":
                many = f"({self.int})blockDim.x"
                with self._loop(s.index, f"blockIdx.x * {many} + threadIdx.x", f"gridDim.x * {many}"):
                    self.bound |= {"blockIdx.x", "threadIdx.x"}
                    self.varying.add(s.index)
                    self.divergent = True
                    self._body(s.body)
            case "vector" if any(isinstance(e, Lanes) for e in all_expressions(s.body)):
                with self._scope(""):
                    self._named(s.index, s.index.name)
                    self._lockstep(s.index, s.body, "")
            case "vector" if self._moves(s):
                self._vector(s)
            case _:
                if s.kind in ("vector", "unroll"):
                    self._line("#pragma unroll")
                varies = self._varies(IndexValue("int64", s.index.extent))
                with self._loop(s.index):
                    self.divergent |= varies
                    if varies:
                        self.varying.add(s.index)
                    self._body(s.body)

    @contextmanager
    def _loop(self, index: Index, first: str = "0", step: str = "") -> Iterator[str]:
        (extent,) = self._evaluate(IndexValue("int64", index.extent))
        i = self._free(index.name)
        more = f"{i} += {step}" if step else f"++{i}"
        with self._scope(f"for ({self.int} {i} = {first}; {i} < {bare(extent)}; {more})"):
            self.names[index] = i
            yield i
        self.taken.discard(i)

    def _spread(self, s: For, place: str, launched: Dim) -> None:
        """A loop over blocks or threads: an index that is given, guarded if more of them run than it has iterations."""
        extent, thread = s.index.extent, place.startswith("thread")
        if extent == launched:
            bound = self.bound
            if self.names.get(s.index) is None:
                self._line(f"const {self.int} {self._named(s.index, s.index.name)} = {place};")
            self._enter(s, place, thread, False)
            self._body(s.body)
            self.bound = bound
        elif thread and not (isinstance(extent, int) and isinstance(launched, int) and extent <= launched):
            with self._loop(s.index, place, str(launched)):
                self._enter(s, place, thread, True)
                self._body(s.body)
        else:
            (limit,) = self._evaluate(IndexValue("int64", extent))
            with self._scope(f"if ({place} < {limit})"):
                self._line(f"const {self.int} {self._named(s.index, s.index.name)} = {place};")
                self._enter(s, place, thread, thread)
                self._body(s.body)

    def _enter(self, s: For, place: str, thread: bool, divergent: bool) -> None:
        self.bound |= {place}
        self.divergent |= divergent
        if thread:
            self.varying.add(s.index)

    def _varies(self, x: Expr) -> bool:
        """Whether threads of one block may find different values of `x`."""
        for e in expressions((x,)):
            match e:
                case Local():
                    varies = e in self.varying
                case IndexValue():
                    varies = not self.varying.isdisjoint(atoms(e.size))
                case Load():
                    inside = {a for i in e.index for a in atoms(i)}
                    varies = e.buffer.space in ("local", "register") or not self.varying.isdisjoint(inside)
                case Shuffle():
                    varies = True
                case _:
                    varies = False
            if varies:
                return True
        return False

    # -- vectors: what a vector loop reads and writes side by side is moved as one

    def _moves(self, s: For) -> list[Load | Store]:
        """Loads and stores of a vector loop, done in every iteration, of neighbours in global memory."""
        stores = Counter(t.buffer for t in statements(s.body) if isinstance(t, Store))
        found: dict[Load | Store, None] = {}
        written: set[Buffer] = set()
        for t in s.body:
            if not isinstance(t, (Let, Store)):
                return []  # what is inside may be left out, or read what has been stored before
            for e in expressions(operands(t)):
                if isinstance(e, Load) and e.buffer in written:
                    return []
                if isinstance(e, Load) and e.mask is None and self._is_wide(s.index, e.buffer, e.index):
                    found[e] = None
            if isinstance(t, Store) and t.buffer.space == "global":
                written.add(t.buffer)
                if stores[t.buffer] == 1 and self._is_wide(s.index, t.buffer, t.index):
                    found[t] = None
        return list(found)

    def _is_wide(self, lane: Index, b: Buffer, index: tuple[Dim, ...]) -> bool:
        """Whether the lanes' elements are neighbours, and the first at a multiple of their number, known before."""
        offset = b.offset(index)
        if b.space != "global" or coefficient(offset, lane) != 1:
            return False
        first = offset - Size.of(lane)
        known = all(a in self.names for a in atoms(first) if isinstance(a, Index))
        inside = expressions(a.x for a in atoms(first) if isinstance(a, Value))
        known = known and all(e in self.names for e in inside if isinstance(e, Local))
        assert isinstance(lane.extent, int)
        return known and known_factor(first) % lane.extent == 0

    def _vector(self, s: For) -> None:
        lane, moved = s.index, self._moves(s)
        with self._scope(""):
            before, stores = dict(self.moved), []
            for m in moved:
                (first,) = self._evaluate(IndexValue("int64", m.buffer.offset(m.index) - Size.of(lane)))
                kind, place = f"gn_vector<{ctype(m.buffer.dtype)}, {lane.extent}>", f"{self.names[m.buffer]} + {first}"
                name = self._free(f"{m.buffer.name}_{lane.extent}")
                if isinstance(m, Store):
                    self._line(f"{kind} {name};")
                    stores.append((m, f"gn_store({place}, {name});"))
                else:
                    self._line(f"const {kind} {name} = gn_load<{kind}>({place});")
                self.moved[m] = name
            self._line("#pragma unroll")
            with self._loop(lane) as i:
                for m in moved:
                    self.moved[m] = f"{self.moved[m]}.at[{i}]"
                self._body(s.body)
            for store, text in stores:
                with self._once(store.buffer):
                    self._line(text)
            self.moved = before

    # -- lanes: a vector loop with reductions over its lanes runs statement by statement, all lanes of each

    def _lockstep(self, lane: Index, body: tuple[Stmt, ...], mask: str) -> None:
        """`body` for all lanes of `lane` at once; `mask` is the array of those that take part ('': all)."""
        for s in body:
            self._reduce(s, mask)
            match s:
                case Let():
                    name = self._free(s.local.name)
                    self._line(f"{ctype(s.local.dtype)} {name}[{lane.extent}];")
                    with self._each(lane, mask):
                        (value,) = self._evaluate(s.value)
                        self._line(f"{name}[{self.names[lane]}] = {bare(value)};")
                    self.names[s.local] = f"{name}[{self.names[lane]}]"
                case If():
                    for side, then in (("", s.then), ("!", s.orelse)):
                        name = self._free("mask")
                        self._line(f"bool {name}[{lane.extent}];")
                        with self._each(lane, ""):
                            (value,) = self._evaluate(s.condition)
                            both = f"{mask}[{self.names[lane]}] && " if mask else ""
                            self._line(f"{name}[{self.names[lane]}] = {both}{side}{value};")
                        self._lockstep(lane, then, name)
                case For():
                    if s.kind in ("vector", "unroll"):
                        self._line("#pragma unroll")
                    with self._loop(s.index):
                        self._lockstep(lane, s.body, mask)
                case Store():
                    with self._each(lane, mask):
                        self._store(s)
                case _:
                    self._statement(s)
            self.lanes = {}

    @contextmanager
    def _each(self, lane: Index, mask: str) -> Iterator[None]:
        i = self.names[lane]
        self._line("#pragma unroll")
        taking_part = f" if ({mask}[{i}])" if mask else ""
        with self._scope(f"for ({self.int} {i} = 0; {i} < {lane.extent}; ++{i}){taking_part}"):
            yield

    def _reduce(self, s: Stmt, mask: str) -> None:
        """Compute the reductions over lanes that a statement needs, before its own loop over lanes."""
        for e in expressions(operands(s)):
            if isinstance(e, Lanes):
                self._lane_reduction(e, mask)

    def _lane_reduction(self, e: Lanes, mask: str = "") -> None:
        total = self._free(e.kind)
        start = _literal(Const(e.dtype, IDENTITY[e.kind](dtypes.named(e.dtype))))
        self._line(f"{ctype(e.dtype)} {total} = {start};")
        if e.index not in self.names:
            self._named(e.index, e.index.name)
        with self._each(e.index, mask):
            (x,) = self._evaluate(e.x)
            self._line(f"{total} = {REDUCE[e.kind].format(total, x)};")
        self.lanes[e] = total

    # -- expressions

    def _evaluate(self, *roots: Expr) -> list[str]:
        """Texts of `roots`, each a word or bracketed; what is shared between them or long is written out before."""
        order, uses = self._order(roots)
        texts: dict[Expr, str] = {}
        for e in order:
            text = self._expression(e, texts)
            shared = uses[e] > 1 and not isinstance(e, (Const, Local, Lanes)) and not re.fullmatch(r"\w+", text)
            # a shuffle apart: as an operand of || it might not be done by all
            if shared or isinstance(e, Shuffle) or (len(text) > WIDE and e not in roots):
                self.numbered += 1
                name = self._free(f"v{self.numbered}")
                self._line(f"const {ctype(e.dtype)} {name} = {bare(text)};")
                text = name
            texts[e] = text
        return [_narrow(texts[r]) if isinstance(r, IndexValue) else texts[r] for r in roots]

    def _order(self, roots: tuple[Expr, ...]) -> tuple[list[Expr], Counter[Expr]]:
        """Every expression to evaluate, inner ones first, and how often the text of each is needed."""
        order: list[Expr] = []
        uses: Counter[Expr] = Counter(roots)
        done: set[Expr] = set()
        stack = [(r, False) for r in reversed(roots)]
        while stack:  # no recursion: melted chains are long
            e, ready = stack.pop()
            if e in done:
                continue
            if ready:
                done.add(e)
                order.append(e)
                continue
            if isinstance(e, Lanes) and e not in self.lanes:
                self._lane_reduction(e)
            inner = self._inner(e)
            uses.update(inner)
            stack.append((e, True))
            stack.extend((c, False) for c in reversed(inner))
        return order, uses

    def _inner(self, e: Expr) -> tuple[Expr, ...]:
        """Expressions whose texts that of `e` is made of, as often as it needs them."""
        match e:
            case Lanes():
                return ()
            case Apply():
                template = _template(e)
                if template is None:
                    self.expanded[e] = _expanded(e)
                    return (self.expanded[e],)
                return tuple(a for i, a in enumerate(e.args) for _ in range(template.count(f"{{{i}}}")))
        return children(e)

    def _expression(self, e: Expr, texts: dict[Expr, str]) -> str:
        match e:
            case Const():
                return _literal(e)
            case Local():
                return self.names[e]
            case Lanes():
                return self.lanes[e]
            case IndexValue():
                text = self._size(e.size, texts)
                if e.dtype == "int64":
                    return _wrapped(text) if self.int == INT64 else f"{WIDENED}{_wrapped(text)}"
                return _cast(e.dtype, "int64", _wrapped(text))
            case Load() if e in self.moved:
                return self.moved[e]
            case Load():
                text = self._element(e.buffer, self._size(e.buffer.offset(e.index), texts))
                return text if e.mask is None else f"({texts[e.mask]} ? {text} : {_literal(Const(e.dtype, 0))})"
            case Cast():
                return _cast(e.dtype, e.x.dtype, texts[e.x])
            case Shuffle():
                self._converged("a shuffle")
                row = dtypes.named(e.dtype)
                text = texts[e.x] if row.bits >= 32 else _cast("int32", e.dtype, texts[e.x])
                text = f"__shfl_xor_sync(0xffffffffu, {bare(text)}, {e.lane})"
                return text if row.bits >= 32 else _wrapped(_cast(e.dtype, "int32", text))
            case Bitcast():
                return f"gn_bits<{ctype(e.dtype)}>({bare(texts[e.x])})"
            case Apply() if e in self.expanded:
                return texts[self.expanded[e]]
            case Apply():
                template = _template(e)
                assert template is not None
                arguments = [f"(float){texts[a]}" if _is_half(a.dtype) else texts[a] for a in e.args]
                if e.dtype == "bool" and all(isinstance(a, IndexValue) for a in e.args):
                    arguments = [_narrow(a) for a in arguments]  # comparing is the same in any width
                if re.fullmatch(r"\w+\((, |\{\d\})*\)", template):
                    arguments = [bare(a) for a in arguments]
                text = _wrapped(template.format(*arguments))
                row = dtypes.named(e.dtype)
                if _is_half(row.name):
                    return f"{row.cuda}((float){text})"
                return f"({ctype(e.dtype)}){text}" if row.kind in "iu" and row.bits < 32 else text
        raise AssertionError(f"{type(e).__name__} has no CUDA text: {e!r}")

    def _size(self, size: Dim, texts: dict[Expr, str] | None = None) -> str:
        """A size, in the type that indices have."""
        if isinstance(size, int):
            return f"{size}LL" if abs(size) >= 1 << 31 else str(size)
        terms = []
        for monomial, c in size.terms:
            factors = [self._atom(a, texts or {}) for a in monomial]
            if abs(c) != 1 or not factors:
                factors.insert(0, self._size(abs(c)))
            terms.append((" - " if c < 0 else " + ") + " * ".join(factors))
        text = "".join(terms)
        return text[3:] if text.startswith(" + ") else f"-{text[3:]}"

    def _atom(self, a: Atom, texts: dict[Expr, str]) -> str:
        match a:
            case Value():
                return f"({self.int}){texts[a.x]}"
            case FloorDiv():
                top, bottom = self._size(a.a, texts), self._size(a.b, texts)
                low, _ = bounds(a.a)
                if non_negative(low):
                    return f"({_wrapped(top)} / {_wrapped(bottom)})"
                return f"gn_floordiv({top}, {bottom})"
            case Max():
                return f"gn_larger({self._size(a.a, texts)}, {self._size(a.b, texts)})"
        return self.names[a]


REDUCE = {
    "sum": "{} + {}",
    "prod": "{} * {}",
    "max": "gn_max({}, {})",
    "min": "gn_min({}, {})",
    "any": "{} || {}",
    "all": "{} && {}",
}


def _narrow(text: str) -> str:
    """An index without its conversion to 64 bits."""
    return text.removeprefix(WIDENED)


def _template(e: Apply) -> str | None:
    """How the function is spelled for the dtype of its arguments, None if it is not."""
    row = dtypes.named(e.args[-1].dtype)
    for key in (row.name, row.compute, row.kind):
        if key in e.fn.cuda:
            return e.fn.cuda[key]
    return None


def _expanded(e: Apply) -> Expr:
    """A function without a spelling here in simpler ones; those of float16 and bfloat16 in float32."""
    expand = e.fn.expand
    assert expand is not None, f"{e.fn} has neither a CUDA spelling for {e.args[-1].dtype} nor an expansion"
    wide = [Cast(c, a) if (c := dtypes.named(a.dtype).compute) != a.dtype else a for a in e.args]
    x = expand(*wide)
    return x if x.dtype == e.dtype else Cast(e.dtype, x)


def _is_scalar(b: Buffer) -> bool:
    """Whether it is a variable of a thread and no array."""
    return b.space in ("local", "register") and product(b.shape) == 1


def _is_half(dtype: str) -> bool:
    """Whether it is stored in 16 bits and computed in 32."""
    return dtypes.named(dtype).compute != dtype


def ctype(dtype: str) -> str:
    return dtypes.named(dtype).cuda


def _cast(to: str, of: str, text: str) -> str:
    """`text`, a value of dtype `of`, converted to `to` as NumPy does; floats to integers saturate and NaN gives 0."""
    new, old = dtypes.named(to), dtypes.named(of)
    if new is old:
        return text
    if _is_half(of):
        text = f"(float){text}"
        if to == "float32":
            return text
    if new.kind == "b":
        return f"({text} != 0)"
    if _is_half(to):
        return f"{new.cuda}({'' if of == 'float64' else '(float)'}{text})"
    if old.kind == "f" and new.kind in "iu":
        ends = (_literal(Const(to, end(new))) for end in (lowest, highest))
        return f"gn_integer<{new.cuda}>({bare(text)}, {', '.join(ends)})"
    return f"({new.cuda}){text}"


def _literal(c: Const) -> str:
    row, value = dtypes.named(c.dtype), c.value
    if row.kind == "b":
        return "true" if value else "false"
    if row.kind in "iu":
        if value == -(1 << 63):
            return "(-9223372036854775807LL - 1)"
        suffix = ("U" if row.kind == "u" else "") + ("LL" if row.bits == 64 else "")
        return f"{value}{suffix}" if row.bits >= 32 else f"({row.cuda}){value}"
    if row.bits == 64:
        if math.isfinite(value):
            return repr(value)
        return "__longlong_as_double(0x7ff8000000000000LL)" if math.isnan(value) else _infinity(value, "double")
    if math.isnan(value):
        text = "__int_as_float(0x7fc00000)"
    else:
        text = f"{np.float32(value)!s}f" if math.isfinite(value) else _infinity(value, "float")
    return f"{row.cuda}({text})" if row.bits == 16 else text


def _infinity(value: float, ctype: str) -> str:
    bits = "__int_as_float(0x7f800000)" if ctype == "float" else "__longlong_as_double(0x7ff0000000000000LL)"
    return bits if value > 0 else f"(-{bits})"


def _bracketed(text: str) -> bool:
    """Whether the first bracket closes at the very end."""
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i == len(text) - 1
    return False


def bare(text: str) -> str:
    """Without the brackets around the whole."""
    return text[1:-1] if text.startswith("(") and _bracketed(text) else text


def _wrapped(text: str) -> str:
    """In brackets unless it is a word, a number, or a call."""
    if re.fullmatch(r"[\w.]+", text) or (text.startswith("(") and _bracketed(text)):
        return text
    call = re.match(r"[A-Za-z_]\w*", text)
    return text if call and _bracketed(text[call.end() :]) and text[call.end()] == "(" else f"({text})"
