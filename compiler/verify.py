"""What must hold between the stages of the compiler, checked under GNOMON_CHECK. What breaks is gnomon's own mistake.

    check_graph(roots)                  every type is what its op infers; nothing reads a leaf that is not given
    check_pass(name, before, after)     as many results as before, of the same types
    check_program(program, kernels)     slots exist, fit their kernels, are written before read, and live long enough
    check_bounds(kernel, sizes)         with these sizes no access is outside its buffer
All raise CheckError. Whether the numbers are right is not asked here: `gnomon.debug` compares them with the oracle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.compiler.errors import CheckError
from gnomon.compiler.graph import Node, origins, walk
from gnomon.compiler.kernel import (
    Apply,
    Buffer,
    Cast,
    Const,
    Expr,
    For,
    If,
    IndexValue,
    Kernel,
    Lanes,
    Let,
    Load,
    Local,
    Rounds,
    Stmt,
    Store,
    Value,
    expressions,
    statements,
)
from gnomon.compiler.ops.leaves import Input, Parameter
from gnomon.compiler.program import (
    Branch,
    Clear,
    Copy,
    Launch,
    Library,
    Prepare,
    Program,
    Repeat,
    Row,
    Slot,
    Step,
    all_steps,
    memory_of,
    numbered,
    own,
)
from gnomon.compiler.sizes import Atom, Dim, FloorDiv, Index, Max, Size, Symbol, product, substitute, symbols

# ---- graphs


def check_graph(roots: Sequence[Node], leaves: Iterable[Node] | None = None) -> None:
    """Every node's type is what its op infers of its inputs' types, and every argument read is among `leaves`."""
    given = None if leaves is None else set(leaves)
    for node in walk(roots):
        inferred = node.op.infer(*(x.type for x in node.inputs))
        if inferred != node.type:
            raise CheckError(f"{node!r} has another type than its op infers, {inferred}{_made(node)}")
        argument = isinstance(node.op, Input) and not isinstance(node.op, Parameter)
        if argument and given is not None and node not in given:
            raise CheckError(f"{node!r} is read but not given{_made(node)}")


def check_pass(name: str, before: Sequence[Node], after: Sequence[Node]) -> None:
    """A pass keeps the number of results and their types."""
    if len(before) != len(after):
        raise CheckError(f"the pass {name!r} made {len(after)} results of {len(before)}")
    for k, (a, b) in enumerate(zip(before, after, strict=True)):
        if a.type != b.type:
            raise CheckError(f"the pass {name!r} changed the type of result {k} from {a.type} to {b.type}{_made(a)}")
    check_graph(after)


def _made(node: Node) -> str:
    found = ", ".join(repr(o) for o in origins(node) if repr(o))
    return f"; made at {found}" if found else ""


# ---- programs


def check_program(program: Program, kernels: Mapping[str, Kernel]) -> None:
    """Slots exist, fit the buffers they are passed for, are written before they are read, and live long enough."""
    _Program(program, kernels).run()


class _Program:
    def __init__(self, program: Program, kernels: Mapping[str, Kernel]):
        self.program, self.kernels = program, kernels
        self.sizes = set(program.sizes)
        self.launches = Counter(s.kernel for s in all_steps(program.steps) if isinstance(s, Launch))

    def run(self) -> None:
        p = self.program
        for k, slot in enumerate(p.slots):
            if slot.alias >= len(p.slots) or self._owner(k) == -1:
                raise self._error(f"slot {slot.name!r} is the memory of slot {slot.alias}, which does not exist")
            self._known(f"slot {slot.name!r}", slot.shape)
            if slot.row is not None:
                self._row(slot, slot.row)
        known = {*p.inputs, *(s for s, _ in p.variables), *(s for s, _ in p.constants)}
        written = self._steps(p.steps, {self._owner(s) for s in known})
        for s in p.outputs:
            if self._owner(s) not in written:
                raise self._error(f"the output {p.slots[s].name!r} is never written")
        for number, _, step in numbered(p.steps):
            self._alive(number, step)

    def _row(self, slot: Slot, row: Row) -> None:
        """A view has the shape of a row of its slot, and of what it is where there is none."""
        whole = self.program.slots[slot.alias]
        if (whole.dtype, whole.shape[1:]) != (slot.dtype, slot.shape):
            raise self._error(f"{slot.dtype}{list(slot.shape)} is no row of {whole.name!r}")
        if row.edge >= 0 and (edge := self.program.slots[row.edge]).shape != slot.shape:
            raise self._error(f"{edge.name!r} stands for rows of {whole.name!r}, but has another shape")
        if (counter := self.program.slots[row.counter]).dtype != "int64":
            raise self._error(f"{counter.name!r} is {counter.dtype}, but numbers rows of {whole.name!r}")

    def _owner(self, slot: int) -> int:
        for _ in self.program.slots:
            alias = self.program.slots[slot].alias
            if alias < 0:
                return slot
            slot = alias
        return -1

    def _error(self, message: str) -> CheckError:
        return CheckError(f"program {self.program.name!r}: {message}")

    def _known(self, what: str, dims: Iterable[Dim]) -> None:
        """Raise if a size is in no input's shape."""
        unknown = {name for d in dims for name in symbols(d)} - self.sizes
        if unknown:
            raise self._error(f"{what} depends on the size {min(unknown)!r}, which no input tells")

    def _slot(self, k: int, what: str) -> int:
        if not 0 <= k < len(self.program.slots):
            raise self._error(f"{what} uses slot {k}, but there are {len(self.program.slots)}")
        return self._owner(k)

    def _steps(self, steps: Sequence[Step], written: set[int]) -> set[int]:
        """The slots that hold something after `steps`, given those that do before."""
        for step in steps:
            match step:
                case Launch():
                    written = written | self._launch(step, written)
                case Copy():
                    self._read(step.source, written, "a copy")
                    source, target = self.program.slots[step.source], self.program.slots[step.target]
                    if (source.dtype, product(source.shape)) != (target.dtype, product(target.shape)):
                        raise self._error(f"a copy of {source.name!r} to {target.name!r}, which is of another type")
                    written = written | {self._slot(step.target, "a copy")}
                case Clear():
                    written = written | {self._slot(step.target, "a step")}
                case Library():
                    for s in step.inputs:
                        self._read(s, written, step.name)
                    self._known(step.name, [value for _, value in step.parameters if not isinstance(value, str)])
                    written = written | {self._slot(s, step.name) for s in step.written}
                case Repeat():
                    self._known("a loop", [] if step.count is None else [step.count])
                    if step.limit >= 0:
                        self._read(step.limit, written, "a loop")
                    counters = [step.counter] if step.round < 0 else [step.counter, step.round]
                    written = self._steps(step.steps, written | {self._slot(s, "a loop") for s in counters})
                    if step.until >= 0:
                        self._read(step.until, written, "the end of a loop")
                case Branch():
                    self._read(step.condition, written, "a condition")
                    written = self._steps(step.then, written) & self._steps(step.orelse, written)
                case Prepare():
                    written = self._steps(step.steps, written)
        return written

    def _read(self, slot: int, written: set[int], what: str) -> None:
        row = self.program.slots[slot].row if 0 <= slot < len(self.program.slots) else None
        if row is not None:
            self._read(row.counter, written, what)
            if row.edge >= 0:  # what is read first; the rest is written until it is wanted
                self._read(row.edge, written, what)
                return
        if self._slot(slot, what) not in written:
            raise self._error(f"{what} reads {self.program.slots[slot].name!r} before anything is written to it")

    def _launch(self, step: Launch, written: set[int]) -> set[int]:
        kernel = self.kernels.get(step.kernel)
        what = f"kernel {step.kernel!r}"
        if kernel is None:
            raise self._error(f"{what} is launched but not there")
        if len(step.buffers) != len(kernel.buffers) or len(step.sizes) != len(kernel.sizes):
            raise self._error(
                f"{what} takes {len(kernel.buffers)} buffers and {len(kernel.sizes)} sizes, but is launched with "
                f"{len(step.buffers)} and {len(step.sizes)}"
            )
        self._known(what, [*step.sizes, step.extent])
        given = dict(zip(kernel.sizes, step.sizes, strict=True))  # equal code is shared whatever its sizes are called
        for s, buffer in zip(step.buffers, kernel.buffers, strict=True):
            self._slot(s, what)
            slot = self.program.slots[s]
            count = substitute(product(buffer.shape), lambda a: given.get(a.name) if isinstance(a, Symbol) else None)
            fits = product(slot.shape) == count or self.launches[step.kernel] > 1  # equal code may serve other lengths
            if slot.dtype != buffer.dtype or not fits:
                raise self._error(f"{what} takes {buffer!r}, but slot {slot.name!r} is {slot.dtype}{list(slot.shape)}")
            if buffer in kernel.reads and (buffer not in kernel.writes or _reads_first(kernel, buffer)):
                self._read(s, written, what)
        return {self._owner(s) for s, b in zip(step.buffers, kernel.buffers, strict=True) if b in kernel.writes}

    def _alive(self, number: int, step: Step) -> None:
        for s in (k for used in own(step) for k in memory_of(self.program.slots, used)):
            slot = self.program.slots[s]
            if slot.kind == "temporary" and not slot.first <= number <= slot.last:
                raise self._error(f"step {number} uses {slot.name!r}, which lives from {slot.first} to {slot.last}")


def _reads_first(kernel: Kernel, buffer: Buffer) -> bool:
    """Whether a kernel reads a buffer before it writes it, rather than what it wrote itself."""
    for s in statements(kernel.body):
        match s:
            case Store() | Let():
                places = s.index if isinstance(s, Store) else ()
                roots = [s.value, *(a.x for i in places for a in _all_atoms(i) if isinstance(a, Value))]
            case If():
                roots = [s.condition]
            case _:
                continue
        if any(isinstance(e, Load) and e.buffer is buffer for e in expressions(roots)):
            return True
        if isinstance(s, Store) and s.buffer is buffer:
            return False
    return False


# ---- kernels

EXACT = 1 << 16
"""Loop iterations up to which every one is tried; of longer loops the first, the last and some between."""


def check_bounds(kernel: Kernel, sizes: Mapping[str, int]) -> None:
    """With these values of its named sizes, the kernel touches no element outside its buffers.

    Indices are worked out for all iterations of the loops around an access at once; conditions on indices count, and an
    access that depends on a condition on data is taken to be right.
    """
    _bounds(kernel.body, (), (), sizes, {}, kernel)


def _bounds(
    body: Sequence[Stmt],
    loops: tuple[Index, ...],
    conditions: tuple[Expr, ...],
    sizes: Mapping[str, int],
    named: dict[str, Expr],
    kernel: Kernel,
) -> None:
    for s in body:
        match s:
            case Store():
                _check_access(s.buffer, s.index, loops, conditions, sizes, named, kernel)
                _check_loads([s.value], loops, conditions, sizes, named, kernel)
            case Let():
                named[s.local.name] = s.value
                _check_loads([s.value], loops, conditions, sizes, named, kernel)
            case For() | Rounds():
                _bounds(s.body, (*loops, s.index), conditions, sizes, named, kernel)
            case If():
                _check_loads([s.condition], loops, conditions, sizes, named, kernel)
                _bounds(s.then, loops, (*conditions, s.condition), sizes, named, kernel)
                if s.orelse:
                    negated = Apply(_negation(), (s.condition,))
                    _bounds(s.orelse, loops, (*conditions, negated), sizes, named, kernel)


def _negation() -> Any:
    from gnomon.compiler.ops.scalar import scalar

    return scalar("logical_not")


def _check_loads(roots, loops, conditions, sizes, named, kernel) -> None:
    found = expressions(roots)
    lanes = dict.fromkeys(e.index for e in found if isinstance(e, Lanes) and e.index not in loops)
    loops = (*loops, *lanes)  # a reduction over lanes outside their loop goes through them itself
    for e in found:
        if isinstance(e, Load):
            masks = conditions if e.mask is None else (*conditions, e.mask)
            _check_access(e.buffer, e.index, loops, masks, sizes, named, kernel)


def _check_access(buffer: Buffer, index, loops, conditions, sizes, named, kernel) -> None:
    grid = _Grid(loops, sizes, named)
    inside = [c for c in (grid.truth(c) for c in conditions) if c is not None]
    if len(inside) < len(conditions):
        return  # a condition on data
    running = grid.running()
    for c in inside:
        running = running & c
    if not np.any(running):
        return
    for k, (i, extent) in enumerate(zip(index, buffer.shape, strict=True)):
        place, limit = grid.size(i), grid.size(extent)
        wrong = running & ((place < 0) | (place >= limit))
        if np.any(wrong):
            place, wrong = np.broadcast_arrays(place, wrong)
            found = place[wrong].ravel()[0]
            values = ", ".join(f"{name} = {n}" for name, n in sizes.items())
            raise CheckError(
                f"kernel {kernel.label!r} touches {buffer.name}[{', '.join(map(str, index))}] outside its bounds: "
                f"axis {k} has {int(np.max(limit))} elements, the index reaches {int(found)}"
                + (f" where {values}" if values else "")
            )


class _Grid:
    """All iterations of some nested loops at once: each loop's index is an axis of the arrays computed here."""

    def __init__(self, loops: tuple[Index, ...], sizes: Mapping[str, int], named: Mapping[str, Expr]):
        self.loops, self.sizes, self.named = loops, sizes, named
        self.indices: dict[Atom, np.ndarray] = {}
        self.values: dict[Atom, Any] = {}
        each = max(4, int(EXACT ** (1 / max(1, len(loops)))))
        for k, loop in enumerate(loops):
            extent = int(np.max(self.size(loop.extent)))
            if extent <= each:
                tried = np.arange(max(0, extent))
            else:
                tried = np.unique(np.concatenate([[0, 1], np.linspace(0, extent - 1, each).astype(int), [extent - 2]]))
            self.indices[loop] = tried.reshape([-1 if j == k else 1 for j in range(len(loops))])

    def running(self) -> Any:
        """Where all loops are within their extents, which may depend on outer loops."""
        result: Any = np.ones([1] * len(self.loops), bool)
        for loop in self.loops:
            result = result & (self.indices[loop] < self.size(loop.extent))
        return result

    def size(self, d: Dim) -> Any:
        """The value of a size at every iteration."""
        if isinstance(d, int):
            return np.int64(d)
        total: Any = np.int64(0)
        for monomial, c in d.terms:
            term: Any = np.int64(c)
            for atom in monomial:
                term = term * self.atom(atom)
            total = total + term
        return total

    def atom(self, a: Atom) -> Any:
        match a:
            case Symbol():
                return np.int64(self.sizes[a.name])
            case Index():
                if a not in self.indices:
                    raise CheckError(f"the index {a.name} is used outside its loop")
                return self.indices[a]
            case FloorDiv():
                return self.size(a.a) // self.size(a.b)
            case Max():
                return np.maximum(self.size(a.a), self.size(a.b))
            case Value():
                return self._value(a)
        raise AssertionError(a)

    def _value(self, a: Value) -> Any:
        """What a gather reads is not known: the ends of the range that was promised."""
        if a not in self.values:
            known = self.number(a.x)
            if known is not None:
                self.values[a] = known
            else:
                last = np.int64(0) if a.extent is None else self.size(a.extent) - 1
                self.values[a] = np.maximum(last, 0)
        return self.values[a]

    def truth(self, e: Expr) -> Any:
        """A condition at every iteration; None if it depends on data."""
        match e:
            case Const():
                return np.bool_(e.value)
            case Local() if e.name in self.named:
                return self.truth(self.named[e.name])
            case Apply() if e.fn.name in ("logical_and", "logical_or"):
                a, b = (self.truth(x) for x in e.args)
                if a is None or b is None:
                    return None
                return a & b if e.fn.name == "logical_and" else a | b
            case Apply() if e.fn.name == "logical_not":
                x = self.truth(e.args[0])
                return None if x is None else ~x
            case Apply() if e.fn.name in ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal"):
                numbers = [self.number(x) for x in e.args]
                if any(n is None for n in numbers):
                    return None
                return e.fn.numpy(*numbers)
        return None

    def number(self, e: Expr) -> Any:
        """An integer at every iteration; None if it depends on data."""
        match e:
            case Const():
                return e.value
            case IndexValue():
                if any(isinstance(a, Value) for a in _all_atoms(e.size)):
                    return None
                return self.size(e.size)
            case Local() if e.name in self.named:
                return self.number(self.named[e.name])
            case Cast():
                return self.number(e.x)
            case Apply() if e.fn.name in ("add", "subtract", "multiply", "maximum", "minimum"):
                numbers = [self.number(x) for x in e.args]
                return None if any(n is None for n in numbers) else e.fn.numpy(*numbers)
        return None


def _all_atoms(d: Dim) -> Iterator[Atom]:
    if isinstance(d, Size):
        for monomial, _ in d.terms:
            for a in monomial:
                yield a
                yield from a.inner()


__all__ = ["check_bounds", "check_graph", "check_pass", "check_program"]
