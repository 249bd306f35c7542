"""Compiled models in one file, `.gnx`: a shared library, its weights, and how both are used. NumPy runs them.

    model = gnomon.runtime.load("digits.gnx")
    model(images)

Neither the compiler nor LLVM is imported. The file is made by `gnomon compile MODEL -o digits.gnx`.

A file is a head of 64 bytes (magic number, form, bytes of the description, digest of all that follows the head, bytes
of the file), the description as JSON, the library and the weights, each at a multiple of 64 bytes. The digest is the
SHA-256 of those of parts of 8 MiB, so that several threads can check a large file.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import mmap
import os
import platform
import struct
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnomon.compiler.errors import ArgumentError, DataError, FileError, MissingFileError, StateError, nearest

if TYPE_CHECKING:
    import numpy as np

MAGIC = b"\x89gnx\r\n\x1a\n"
"""Not text, and damaged by whoever takes it for text."""

FORM = 1
"""Of the file: another one is not read."""

HEAD = struct.Struct("<8sII32sQ8x")

ALIGN = 64

PART = 8 << 20
"""Bytes that one digest is of."""

SHARED = 200_000
"""Nanoseconds of work from which Python's threads are worth waking."""


def pack(description: Mapping[str, Any], library: bytes, weights: bytes) -> bytes:
    """The contents of a file. `description` is what `Compiled` reads, without the places of library and weights."""
    places = {"library": [0, len(library)], "weights": [0, len(weights)]}
    told = 0
    while True:  # the places are part of the text whose length they depend on
        text = json.dumps({**description, **places}, sort_keys=True, separators=(",", ":")).encode()
        if len(text) == told:
            break
        told = len(text)
        at = _rounded(HEAD.size + told)
        places = {"library": [at, len(library)], "weights": [_rounded(at + len(library)), len(weights)]}
    body = bytearray(text)
    for content in (library, weights):
        body += bytes(-(HEAD.size + len(body)) % ALIGN)
        body += content
    whole = hashlib.sha256(b"".join(_digests(body, 0, len(body)))).digest()
    return HEAD.pack(MAGIC, FORM, len(text), whole, HEAD.size + len(body)) + body


def _digests(body: Any, begin: int, end: int) -> list[bytes]:
    """The digests of the parts of `body` from `begin` to `end`."""
    with memoryview(body) as view:
        return [hashlib.sha256(view[at : min(at + PART, end)]).digest() for at in range(begin, end, PART)]


def _rounded(size: int) -> int:
    return -(-size // ALIGN) * ALIGN


# ---- this machine


def here() -> tuple[str, str]:
    """The system and processor that this process runs on."""
    machine = platform.machine().lower()
    return sys.platform, {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def cpu_flags() -> frozenset[str] | None:
    """What the processor can do, in Linux's words; None where that is not told."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() in ("flags", "Features"):
                    return frozenset(value.split())
    except OSError:
        pass
    return None


# ---- loading


def load(path: Any, threads: int | None = None) -> Compiled:
    """The model in a `.gnx` file, ready to be called.

    threads   how many may work on one call; as many as there are cores, or as GNOMON_THREADS says, if left out
    Results do not depend on it.

    Raises FileError if the file is not one, is cut short or altered, has a form that this version does not read, or was
    made for another system or processor; MissingFileError if it is not there.
    """
    name = os.fsdecode(os.fspath(path))
    try:
        with open(name, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except FileNotFoundError:
        folder = Path(name).parent
        near = sorted(p.name for p in folder.glob("*.gnx"))[:5] if folder.is_dir() else []
        hint = f" In that folder are {', '.join(map(repr, near))}." if near else ""
        raise MissingFileError(f"there is no file {name!r}.{hint}") from None
    except OSError as error:
        raise FileError(f"cannot read {name!r}: {error.strerror or error}") from error
    if size < HEAD.size or content[:8] != MAGIC:
        raise FileError(f"{name!r} is not a compiled model: `gnomon compile MODEL -o FILE.gnx` makes them")
    _, form, length, digest, told = HEAD.unpack_from(content)
    if form != FORM:
        raise FileError(
            f"{name!r} is a compiled model of form {form}, and this gnomon reads form {FORM}: compile the model again"
        )
    if size != told:
        raise FileError(f"{name!r} is {'cut short' if size < told else 'too long'}: {size:,} bytes instead of {told:,}")
    count = _threads(threads)
    check = _Check(content, digest, count)
    import numpy  # noqa: F401  # on this thread while the other one reads the file

    if not check.holds():
        raise FileError(f"{name!r} is damaged: its contents are not those that were written")
    description = json.loads(content[HEAD.size : HEAD.size + length])
    _check_machine(name, description["platform"])
    return Compiled(description, content, name, count)


def _threads(wanted: int | None) -> int:
    """How many threads to use. Raises ArgumentError for a number that is none."""
    told: Any = os.environ.get("GNOMON_THREADS", "").strip() if wanted is None else wanted
    if told == "":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if isinstance(told, bool) or not str(told).isdecimal() or int(told) < 1:
        what = "GNOMON_THREADS" if wanted is None else "threads"
        raise ArgumentError(f"{what} is {told!r}; it must be a whole number, at least 1")
    return min(int(told), 1024)


class _Check:
    """Compares a file with its digest on threads of its own."""

    def __init__(self, content: Any, digest: bytes, count: int):
        self.content, self.digest = content, digest
        parts = -(-(len(content) - HEAD.size) // PART)
        count = max(1, min(count, parts))
        each = -(-parts // count) * PART
        self.found: list[list[bytes]] = [[] for _ in range(count)]
        self.threads = [threading.Thread(target=self._run, args=(k, each)) for k in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self, k: int, each: int) -> None:
        with memoryview(self.content) as view, view[HEAD.size :] as body:
            self.found[k] = _digests(body, min(k * each, len(body)), min((k + 1) * each, len(body)))

    def holds(self) -> bool:
        for thread in self.threads:
            thread.join()
        return hashlib.sha256(b"".join(d for found in self.found for d in found)).digest() == self.digest


def _check_machine(name: str, wanted: Mapping[str, Any]) -> None:
    system, machine = here()
    if (wanted["system"], wanted["machine"]) != (system, machine):
        raise FileError(
            f"{name!r} was compiled for {wanted['machine']} on {wanted['system']}, and this is {machine} on {system}: "
            "compile the model for this machine"
        )
    flags = cpu_flags()
    missing = sorted(set(wanted["flags"]) - flags) if flags is not None else []
    if missing:
        raise FileError(
            f"{name!r} was compiled for a processor that can do {', '.join(missing[:8])}, and this one cannot: compile "
            "the model for it (--cpu)"
        )


def _open_library(name: str, content: memoryview, linked: bool) -> Callable[[str], Any]:
    """What gives the functions of a library by name. It is a shared library, or an object file if it is not linked."""
    if linked:
        return _open_shared(name, content).__getitem__
    from gnomon.runtime import image

    addresses = image.load([(name, bytes(content))], image.process_symbol)
    return lambda function: ctypes.CFUNCTYPE(ctypes.c_int)(addresses[function])


def _open_shared(name: str, content: memoryview) -> ctypes.CDLL:
    """The shared library that `content` is."""
    if hasattr(os, "memfd_create"):
        try:
            handle = os.memfd_create(name, getattr(os, "MFD_CLOEXEC", 1))
            with open(handle, "wb", closefd=False) as file:
                file.write(content)
            # the number stays open: the loader knows libraries by their path, and would take another one with it for
            # this one
            return ctypes.CDLL(f"/proc/self/fd/{handle}")
        except OSError:
            pass  # a policy against code from memory, or no /proc: a file may do
    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as aside:
        aside.write(content)
    try:
        return ctypes.CDLL(aside.name)
    except OSError as error:
        raise FileError(f"the system does not load the library in {name!r}: {error}") from error
    finally:
        if os.name == "posix":
            os.unlink(aside.name)


# ---- what was loaded


class Array:
    """An array that a compiled model takes or gives: name, dtype, shape (open sizes by name)."""

    def __init__(self, description: Mapping[str, Any]):
        import numpy

        self.name: str = description["label"] or description["name"]
        self.dtype = numpy.dtype(description["dtype"])
        self.dims: list[Any] = description["shape"]
        self.shape = tuple(d if isinstance(d, int) else d["text"] for d in self.dims)

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


_TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_RUN = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)


class _Threads(ctypes.Structure):
    """The structure through which a library shares work."""

    _fields_ = [("run", _RUN), ("pool", ctypes.c_void_p)]


class _Pool:
    """Python's threads, as a library is given them. There is one for each number of threads in a process."""

    made: dict[int, _Pool] = {}

    def __new__(cls, count: int) -> _Pool:
        if count not in cls.made:
            pool = cls.made[count] = super().__new__(cls)
            pool.count, pool.pid, pool.executor = count, 0, None
            pool.callback = _RUN(pool.run)
            pool.table = _Threads(pool.callback, None)
            pool.pointer = ctypes.c_void_p(ctypes.addressof(pool.table))
        return cls.made[count]

    count: int
    pid: int
    executor: Any
    callback: Any
    table: _Threads
    pointer: ctypes.c_void_p

    def run(self, context: int, task: int, job: int, count: int, work: int) -> None:
        """Called by the library: run `task` for [0, count)."""
        call = _TASK(task)
        shares = min(self.count, count)
        if work < SHARED or shares < 2:
            call(job, 0, count)
            return
        if self.pid != os.getpid():  # in a forked child the threads are gone
            from concurrent.futures import ThreadPoolExecutor

            self.pid, self.executor = os.getpid(), ThreadPoolExecutor(self.count - 1, "gnomon")
        edges = [count * k // shares for k in range(shares + 1)]
        others = [self.executor.submit(call, job, a, b) for a, b in zip(edges[1:-1], edges[2:], strict=True)]
        call(job, edges[0], edges[1])
        for other in others:
            other.result()


Plan = tuple[list[ctypes.c_size_t], list[tuple[int, ...]], int]
"""What the shapes of a call decide: sizes as the function takes them, shapes of the outputs, bytes of workspace."""

PLANS = 1000
"""How many sets of shapes are remembered."""


class Routine:
    """A function of the library, with what it needs to be called."""

    def __init__(self, description: Mapping[str, Any], function: Any):
        self.name: str = description["name"]
        self.inputs = [Array(a) for a in description["inputs"]]
        self.outputs = [Array(a) for a in description["outputs"]]
        self.sizes: list[str] = description["sizes"]
        self.bindings: list[tuple[int, int]] = description["bindings"]
        self.form: Any = description["form"]
        self.function = function
        function.restype = ctypes.c_int
        self.values = [k for k, axis in self.bindings if axis < 0]  # inputs that are sizes
        self.plans: dict[tuple[Any, ...], Plan] = {}


class Compiled:
    """A compiled model: call it with arrays.

    inputs, outputs   what it takes and gives
    digest            of the file's contents, in hexadecimal: equal files have equal names by it
    trains            whether it has `step` and `evaluate`
    made_by           version of gnomon that compiled it
    """

    def __init__(self, description: Mapping[str, Any], content: Any, file: str, threads: int):
        import numpy as np

        self.file, self._content = file, content
        self.digest: str = bytes(HEAD.unpack_from(content)[3]).hex()
        self.name: str = description["model"]
        self.made_by: str = description["gnomon"]
        self._functions: dict[str, Any] = {}
        at, size = description["library"]
        with memoryview(content) as view, view[at : at + size] as library:
            self._find = _open_library(description["prefix"], library, description["linked"])
        at, size = description["weights"]
        self._weights = np.frombuffer(content, np.uint8, size, at)
        self._prefix: str = description["prefix"]
        self._routines = {r["name"]: Routine(r, self._function(r["name"])) for r in description["routines"]}
        self._sizes: list[str] = description["sizes"]
        self._workspace_bytes = self._function("workspace_bytes")
        self._workspace_bytes.restype = ctypes.c_size_t
        self._error_text = self._function("error_text")
        self._error_text.restype = ctypes.c_char_p
        self._memory = threading.local()
        self._lock = threading.RLock()
        self._pool = _Pool(threads).pointer if description["threads"] and threads > 1 else None
        self._last = [self._pool] if description["threads"] else []  # what each function gets last
        self._state: np.ndarray | None = None
        self._kept = [_pointer(self._weights)]  # the pointers that each function gets first
        if description["state"]:
            self._state = _aligned(description["state"])
            self._kept.append(_pointer(self._state))
            self._check(self._function("init")(*self._kept))
        self.trains = "step" in self._routines
        self._resets = bool(description["resets"])

    def _function(self, name: str) -> Any:
        if name not in self._functions:
            self._functions[name] = self._find(f"{self._prefix}_{name}")
        return self._functions[name]

    @property
    def inputs(self) -> list[Array]:
        return self._routines["run"].inputs

    @property
    def outputs(self) -> list[Array]:
        return self._routines["run"].outputs

    def __repr__(self) -> str:
        arrows = f"({', '.join(map(repr, self.inputs))}) -> ({', '.join(map(repr, self.outputs))})"
        return f"<compiled {self.name} {arrows}>"

    # ---- running

    def __call__(self, *arrays: Any, **named: Any) -> Any:
        """The outputs for arrays given in the order of `inputs` or by name, in the form that the model gives them.

        Raises DataError for an array that is missing or does not fit.
        """
        routine = self._routines["run"]
        return _formed(routine.form, self._run(routine, arrays, named))

    def step(self, *arrays: Any, **named: Any) -> dict[str, Any]:
        """One step of training on a batch: inputs, then labels. Returns its loss and metrics.

        Raises StateError if the model was compiled without `--train`.
        """
        return self._logs("step", arrays, named)

    def evaluate(self, *arrays: Any, **named: Any) -> dict[str, Any]:
        """The loss and metrics of a batch: inputs, then labels."""
        return self._logs("evaluate", arrays, named)

    def _logs(self, name: str, arrays: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        if name not in self._routines:
            raise StateError(f"{self.file!r} was compiled without --train: it has no {name!r}")
        routine = self._routines[name]
        with self._lock:
            if self._resets:
                self._check(self._function("reset_metrics")(*self._kept))
            results = self._run(routine, arrays, named)
        return {a.name: r.item() if r.ndim == 0 else r for a, r in zip(routine.outputs, results, strict=True)}

    def save_state(self, path: Any) -> None:
        """Write what training has changed to a file, aside and renamed."""
        target = Path(path)
        content = self.state()
        aside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            aside.write_bytes(content)
            os.replace(aside, target)
        except OSError as error:
            raise FileError(f"cannot write {str(target)!r}: {error.strerror or error}") from error
        finally:
            aside.unlink(missing_ok=True)

    def load_state(self, path: Any) -> None:
        """Go on from what `save_state` wrote, here or elsewhere. Raises FileError if it is of another model."""
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
        try:
            self.set_state(content)
        except DataError as error:
            raise FileError(f"{str(path)!r}: {error}") from None

    def state(self) -> bytes:
        """What training has changed, as the library's `save` gives it."""
        state = self._has_state()
        data = _aligned(state.nbytes)
        with self._lock:
            self._check(self._function("save")(_pointer(state), _pointer(data), ctypes.c_size_t(data.nbytes)))
        return data.tobytes()

    def set_state(self, content: bytes) -> None:
        """Take up what `state` gave."""
        state = self._has_state()
        data = _aligned(len(content))
        data[:] = memoryview(content)
        with self._lock:
            code = self._function("load")(_pointer(state), _pointer(data), ctypes.c_size_t(data.nbytes))
        if code:
            raise DataError(self._error_text(code).decode())

    def _has_state(self) -> np.ndarray:
        if self._state is None:
            raise StateError(f"{self.file!r} was compiled without --train: nothing in it changes")
        return self._state

    # ---- at every call

    def _run(self, routine: Routine, arrays: Sequence[Any], named: Mapping[str, Any]) -> list[np.ndarray]:
        import numpy as np

        given = _arguments(routine, arrays, named)
        key = tuple([a.shape for a in given] + [int(given[k]) for k in routine.values])
        plan = routine.plans.get(key)
        if plan is None:
            plan = self._plan(routine, given)
            if len(routine.plans) >= PLANS:
                routine.plans.clear()
            routine.plans[key] = plan
        sizes, shapes, needed = plan
        memory = getattr(self._memory, "array", None)
        if memory is None or memory.nbytes < needed:
            memory = self._memory.array = np.empty(needed, np.uint8)
        results = [np.empty(shape, a.dtype) for shape, a in zip(shapes, routine.outputs, strict=True)]
        pointers = [_pointer(a) for a in (*given, *results)]
        own = _pointer(memory), ctypes.c_size_t(memory.nbytes)
        code = routine.function(*self._kept, *pointers, *sizes, *own, *self._last)
        self._check(code)
        return results

    def _plan(self, routine: Routine, given: Sequence[np.ndarray]) -> Plan:
        sizes = _sizes(routine, given)
        shapes = [tuple(_value(d, sizes) for d in a.dims) for a in routine.outputs]
        needed = self._workspace_bytes(*(ctypes.c_size_t(sizes.get(s, 1)) for s in self._sizes))
        asked = [s for s, (_, axis) in zip(routine.sizes, routine.bindings, strict=True) if axis >= 0]
        return [ctypes.c_size_t(sizes[s]) for s in asked], shapes, needed

    def _check(self, code: int) -> None:
        if code:
            raise DataError(f"{self.name}: {self._error_text(code).decode()}")


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.__array_interface__["data"][0])


def _aligned(count: int) -> np.ndarray:
    """Memory that begins on a cache line."""
    import numpy as np

    memory = np.zeros(count + ALIGN, np.uint8)
    skip = -memory.__array_interface__["data"][0] % ALIGN
    return memory[skip : skip + count]


def _arguments(routine: Routine, arrays: Sequence[Any], named: Mapping[str, Any]) -> list[np.ndarray]:
    wanted = routine.inputs
    if not named and len(arrays) == len(wanted):
        return [_accepted(value, a) for value, a in zip(arrays, wanted, strict=True)]
    names = [a.name for a in wanted]
    if len(arrays) > len(wanted):
        raise DataError(f"{routine.name} takes {len(wanted)} arrays ({', '.join(names)}), but {len(arrays)} were given")
    values = dict(zip(names, arrays, strict=False))
    for name, value in named.items():
        if name not in names:
            raise ArgumentError(f"there is no input {name!r}.{nearest(name, names)}")
        if name in values:
            raise ArgumentError(f"the input {name!r} is given twice")
        values[name] = value
    for a in wanted:
        if a.name not in values:
            raise DataError(f"the input {a!r} is missing")
    return [_accepted(values[a.name], a) for a in wanted]


def _accepted(value: Any, wanted: Array) -> np.ndarray:
    """`value` as an array of the dtype that is wanted. Precision may be lost, but not the kind of number."""
    import numpy as np

    array = np.asarray(value)
    if array.dtype != wanted.dtype:
        number = array.dtype.kind in "iub" and wanted.dtype.kind == "f"
        if not (number or np.can_cast(array.dtype, wanted.dtype, "same_kind")):
            hint = f"convert it with .astype({str(wanted.dtype)!r})"
            raise DataError(f"the input {wanted!r} cannot be {array.dtype}: {hint}")
        array = array.astype(wanted.dtype)
    if array.ndim != len(wanted.dims):
        raise DataError(f"the input {wanted!r} has {len(wanted.dims)} axes, but an array of shape {array.shape} came")
    return array if array.flags.c_contiguous and array.flags.aligned else np.ascontiguousarray(array).copy()


def _sizes(routine: Routine, given: Sequence[np.ndarray]) -> dict[str, int]:
    """The values of the open sizes. Raises DataError if a shape does not fit."""
    sizes = {
        name: given[k].shape[axis] if axis >= 0 else int(given[k])
        for name, (k, axis) in zip(routine.sizes, routine.bindings, strict=True)
    }
    for wanted, array in zip(routine.inputs, given, strict=True):
        for axis, (dim, found) in enumerate(zip(wanted.dims, array.shape, strict=True)):
            value = _value(dim, sizes)
            if value != found:
                raise DataError(f"the input {wanted!r} needs {value} along axis {axis}, but {array.shape} came")
    return sizes


def _value(dim: Any, sizes: Mapping[str, int]) -> int:
    """The value of a size: an integer, or {"text", "terms": [[factor, [atoms]]]}; an atom is a name or [op, a, b]."""
    if isinstance(dim, int):
        return dim
    total = 0
    for factor, atoms in dim["terms"]:
        for atom in atoms:
            if isinstance(atom, str):
                factor *= sizes[atom]
            else:
                op, a, b = atom[0], _value(atom[1], sizes), _value(atom[2], sizes)
                factor *= max(a, b) if op == "max" else a // max(1, b)
        total += factor
    return total


def _formed(form: Any, results: Sequence[np.ndarray]) -> Any:
    if isinstance(form, dict):
        return {k: _formed(v, results) for k, v in form.items()}
    if isinstance(form, list):
        return [_formed(v, results) for v in form]
    return None if form is None else results[form]


__all__ = ["Array", "Compiled", "load", "pack"]
