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

from dataclasses import dataclass, field

from gnomon.compiler.sizes import Dim


@dataclass(frozen=True)
class Slot:
    """An array of the program.

    kind   input | output | variable | constant | temporary
    first, last   indices of the first and last top-level step that touches a temporary: its lifetime
    alias  the slot whose memory this one is (an output that is an updated variable), or -1
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    kind: str
    first: int = -1
    last: int = -1
    alias: int = -1


@dataclass(frozen=True)
class Launch:
    """Run a kernel. `buffers` are slots in the order of the kernel's arguments, `sizes` its size arguments in order.

    extent  iterations of its parallel loop (1 if it has none), which may be split at multiples of one
    work    about how many nanoseconds it takes on one core: whether waking a thread pays
    layers  layers and lines it came from, for profiles and errors
    grid, block, shared   CUDA: blocks, threads of a block, bytes of dynamic shared memory (a grid with a 0: no launch)
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


@dataclass(frozen=True)
class Copy:
    """Copy the whole of slot `source` to slot `target`."""

    source: int
    target: int


@dataclass(frozen=True)
class Repeat:
    """Run `steps` `count` times; before each, slot `counter` (int64, a scalar) holds 0, 1, 2…  A negative `until` means
    no early end; else stop after the round in which that bool slot became true. `reverse` counts down."""

    count: Dim
    counter: int
    steps: tuple[Step, ...]
    until: int = -1
    reverse: bool = False


@dataclass(frozen=True)
class Branch:
    """Run `then` if the bool slot `condition` holds, else `orelse`: only one side is computed."""

    condition: int
    then: tuple[Step, ...]
    orelse: tuple[Step, ...]


@dataclass(frozen=True)
class Library:
    """A call of a library routine (LAPACK and the like) by name, run by the device on slots."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


Step = Launch | Copy | Repeat | Branch | Library


@dataclass(frozen=True)
class Check:
    """Two sizes that must be equal when the function is called, and what to say if they are not."""

    left: Dim
    right: Dim
    message: str


@dataclass(frozen=True)
class Source:
    """A piece of the program's text that is compiled, cached and shared by itself.

    `name` is `<label>_<digest of the text's structure>`, and kernels are named the same way: programs that need equal
    kernels hold equal sources, which are compiled once. For a CPU a source is a whole LLVM module that defines the
    functions in `defines`; the last source of a program is its entry function, which declares the kernels it calls.
    """

    name: str
    text: str
    defines: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A compiled function, before it is machine code.

    inputs, outputs   slots in the caller's order
    variables         (slot, key of the variable) pairs; updates are written in place
    constants         (slot, bytes) pairs: literal arrays
    sizes             names of the symbolic sizes; `bindings[j]` = (input number, axis) that sizes[j] is read from
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
