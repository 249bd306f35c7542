"""What leaves the compiler: a `Program`, pure data. The runtime runs it, the cache stores it, `aot` ships it.

A program is a list of steps over *slots* (arrays). The caller binds input, output, variable and constant slots;
temporary slots live in one arena that the runtime lays out from their lifetimes for each set of sizes.
Symbolic sizes are bound from the shapes of the inputs at each call; one program serves every batch size.

How generated code is entered (CPU):
    int32 ENTRY(ptr slots, ptr sizes, ptr parallel)
        the whole program: slots[i] is the address of slot i, sizes[j] the int64 value of `sizes[j]`, `parallel` the
        function that shares a launch among threads (null: run serially)
    void KERNEL(ptr buffers, ptr sizes, int64 begin, int64 end)
        iterations [begin, end) of one kernel's parallel loop
    void PARALLEL(ptr kernel, ptr buffers, ptr sizes, int64 extent, int64 work)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gnomon.compiler.sizes import Dim


@dataclass(frozen=True)
class Slot:
    """An array of the program.

    kind   input | output | variable | constant | temporary | kept (the executable's own from call to call, zeroed at
           first) | clock (one int64 of the whole process, which counts changes of variables from 1 on) | view
    first, last   numbers of the first and last step during which a temporary is needed (see `numbered`)
    alias  the slot whose memory this one is (an output that is an updated variable), or -1
    row    of a view: which part of `alias` it is
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    kind: str
    first: int = -1
    last: int = -1
    alias: int = -1
    row: Row | None = None


@dataclass(frozen=True)
class Row:
    """A view is one element along the first axis of another slot; which one is seen whenever it is used.

    counter   the slot whose value (int64) is the number of the row
    shift     is added to it
    rows      a row is outside unless its number is below this; None: there are always enough
    edge      the slot that the view is where its row is outside (below 0 too), or -1
    ring      the number is taken modulo this, if it is not 0: after `edge` has been looked at
    """

    counter: int
    shift: Dim = 0
    rows: Dim | None = None
    edge: int = -1
    ring: int = 0


@dataclass(frozen=True)
class Launch:
    """Run a kernel. `buffers` are slots in the order of the kernel's arguments, `sizes` its size arguments in order.

    extent  iterations of its parallel loop (1 if it has none), which may be split at multiples of one
    work    about how many nanoseconds it takes on one core: whether waking a thread pays
    layers  layers and lines it came from, for profiles and errors
    grid, block, shared   CUDA: blocks, threads of a block, bytes of dynamic shared memory (a grid with a 0: no launch)
    cooperative   CUDA: blocks wait for each other, so all must run at once. The kernel takes any number of blocks along
            x: as many of grid[0] as fit on the device together are launched, and at least one
    share   iterations that are one share of the work: the s-th so many are about the s-th rows of arrays; 0: unknown
    """

    kernel: str
    buffers: tuple[int, ...]
    sizes: tuple[Dim, ...]
    extent: Dim
    work: Dim
    flops: Dim = 0
    bytes: Dim = 0
    label: str = ""
    layers: tuple[str, ...] = ()
    grid: tuple[Dim, ...] = ()
    block: tuple[int, ...] = ()
    shared: Dim = 0
    share: Dim = 0
    cooperative: bool = False


@dataclass(frozen=True)
class Copy:
    """Copy the whole of slot `source` to slot `target`."""

    source: int
    target: int


@dataclass(frozen=True)
class Repeat:
    """Run `steps` `count` times; before each, slot `counter` (int64, a scalar) holds 0, 1, 2…, and after the last what
    it would hold next.

    until    slot (bool): stop after the round in which it became true; -1: no early end
    reverse  count down to 0
    round    slot (int64, a scalar) that counts up in any case, so that it holds in the end how many rounds there were
    limit    slot (int64, a scalar): do at most so many rounds. `count` may then be None, and with `until`: without end
    kept     temporaries that one round leaves for the next
    shares   if not 0, the work of all rounds falls into so many shares that never meet (see `Launch.share`): threads
             may go through the rounds with shares of their own
    """

    count: Dim | None
    counter: int
    steps: tuple[Step, ...]
    until: int = -1
    reverse: bool = False
    round: int = -1
    limit: int = -1
    kept: tuple[int, ...] = ()
    shares: Dim = 0


@dataclass(frozen=True)
class Branch:
    """Run `then` if the bool slot `condition` holds, else `orelse`: only one side is computed."""

    condition: int
    then: tuple[Step, ...]
    orelse: tuple[Step, ...]


@dataclass(frozen=True)
class Clear:
    """Set all bits of slot `target` to 0."""

    target: int


@dataclass(frozen=True)
class Library:
    """A call of a library routine (LAPACK, cublasLt, cuDNN and the like) by name, run by the device on slots.

    parameters   (name, value) pairs: sizes, and words
    workspace    slot that the routine may use while it runs, or -1
    work, flops, bytes, label, layers   as those of a `Launch`
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    parameters: tuple[tuple[str, Dim | str], ...] = ()
    workspace: int = -1
    work: Dim = 0
    flops: Dim = 0
    bytes: Dim = 0
    label: str = ""
    layers: tuple[str, ...] = ()

    @property
    def written(self) -> tuple[int, ...]:
        """The slots that it writes: its outputs, and its workspace if it has one."""
        return self.outputs if self.workspace < 0 else (*self.outputs, self.workspace)


@dataclass(frozen=True)
class Prepare:
    """Run `steps` if variables may have changed since they last ran: if slot `clock` is below 0, for some may change at
    any time, or differs from the kept slot `seen`, which then becomes equal. What they compute, in kept slots, depends
    on nothing but variables and constants."""

    clock: int
    seen: int
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Changed:
    """Variables have changed: slot `clock` is one more."""

    clock: int


Step = Launch | Copy | Clear | Repeat | Branch | Library | Prepare | Changed


def parts(step: Step) -> tuple[Step, ...]:
    """The steps inside a step."""
    match step:
        case Repeat() | Prepare():
            return step.steps
        case Branch():
            return (*step.then, *step.orelse)
    return ()


def all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Steps and those inside them."""
    for s in steps:
        yield s
        yield from all_steps(parts(s))


def touched(step: Step) -> Iterator[int]:
    """The slots that a step and those inside it read or write."""
    match step:
        case Launch():
            yield from step.buffers
        case Copy():
            yield from (step.source, step.target)
        case Library():
            yield from (*step.inputs, *step.written)
        case Clear():
            yield step.target
        case Repeat():
            yield step.counter
            yield from (slot for slot in (step.until, step.round, step.limit) if slot >= 0)
        case Branch():
            yield step.condition
        case Prepare():
            yield from (step.clock, step.seen)
        case Changed():
            yield step.clock
    for s in parts(step):
        yield from touched(s)


def numbered(steps: Sequence[Step], number: int = 0) -> Iterator[tuple[int, int, Step]]:
    """(number, number of its last part, step) of all steps and those inside them, in the order they are written."""
    for s in steps:
        inside = list(numbered(parts(s), number + 1))
        last = max((n for n, _, _ in inside), default=number)
        yield number, last, s
        yield from inside
        number = last + 1


def own(step: Step) -> Iterator[int]:
    """The slots that a step itself uses, without those that only steps inside it do."""
    yield from touched(replace(step, steps=()) if isinstance(step, (Repeat, Prepare)) else
                       replace(step, then=(), orelse=()) if isinstance(step, Branch) else step)  # fmt: skip


def memory_of(slots: Sequence[Slot], slot: int) -> Iterator[int]:
    """The slots that have the memory that a slot may be or needs to be found: itself, unless it is a view or alias."""
    s = slots[slot]
    if s.alias < 0:
        yield slot
        return
    yield from memory_of(slots, s.alias)
    if s.row is not None:
        yield from memory_of(slots, s.row.counter)
        if s.row.edge >= 0:
            yield from memory_of(slots, s.row.edge)


def lifetimes(slots: Sequence[Slot], steps: Sequence[Step]) -> dict[int, tuple[int, int]]:
    """Numbers of the first and last step during which what a slot holds is needed, of all that steps use.

    What is used inside a loop and outside it, and what one round leaves for the next, is needed for as long as it runs;
    the rest is made anew in each round.
    """
    found: dict[int, tuple[int, int]] = {}

    def use(slot: int, first: int, last: int) -> None:
        for k in memory_of(slots, slot):
            before = found.get(k, (first, last))
            found[k] = min(first, before[0]), max(last, before[1])

    order = list(numbered(steps))
    for number, _, step in order:
        for slot in own(step):
            use(slot, number, number)
    loops = [(number, last, step) for number, last, step in order if isinstance(step, Repeat)]
    for number, last, loop in reversed(loops):  # inner ones first
        for slot in (loop.counter, loop.round, *loop.kept):
            if slot >= 0:
                use(slot, number, last)
        for slot, (first, end) in list(found.items()):
            crosses = first < number <= end or first <= last < end
            if crosses:
                found[slot] = min(first, number), max(end, last)
    return found


@dataclass(frozen=True)
class Check:
    """Two sizes that must be equal when the function is called, and what to say if they are not."""

    left: Dim
    right: Dim
    message: str


NARROW = 1 << 30
"""Half of what 31 bits hold: sums of what has both signs, and the step after the last, stay inside."""


@dataclass(frozen=True)
class Source:
    """A piece of the program's text that is compiled, cached and shared by itself.

    `name` is `<label>_<digest of the text's structure>`, and kernels are named the same way: programs that need equal
    kernels hold equal sources, which are compiled once. For a CPU a source is a whole LLVM module that defines the
    functions in `defines`; the last source of a program is its entry function, which declares the kernels it calls.
    A program that is kept has no texts but their digests, by which machine code is found.

    reach   CUDA: what no index exceeds. Where one of these is not below NARROW, GN_WIDE must be defined in front of
            the program's text, which computes indices in 64 bits then
    """

    name: str
    text: str
    defines: tuple[str, ...]
    digest: str = ""
    reach: tuple[Dim, ...] = ()

    @property
    def key(self) -> str:
        """The digest of the text."""
        return self.digest or hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class Program:
    """A compiled function, before it is machine code.

    inputs, outputs   slots in the caller's order
    variables         (slot, key of the variable) pairs; updates are written in place
    constants         (slot, bytes) pairs: literal arrays
    sizes             names of the symbolic sizes; `bindings[j]` = (input number, axis) that sizes[j] is read from, axis
                      -1 if it is the value of that input, an integer
    checks            what the sizes must fulfil
    sources           text for the target: LLVM modules of kernels and, last, of the entry function, or CUDA C++
    entry             name of the entry function
    kernels           printed text of each kernel, by name, for people
    """

    name: str
    target: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    variables: tuple[tuple[int, int], ...]
    constants: tuple[tuple[int, bytes], ...]
    sizes: tuple[str, ...]
    bindings: tuple[tuple[int, int], ...]
    checks: tuple[Check, ...]
    slots: tuple[Slot, ...]
    steps: tuple[Step, ...]
    sources: tuple[Source, ...] = ()
    entry: str = ""
    kernels: dict[str, str] = field(default_factory=dict)
