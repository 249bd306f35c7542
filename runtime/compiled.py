"""Compiled models in one file, `.gnx`: a shared library, its weights, and how both are used. NumPy runs them.

    model = gnomon.runtime.load("digits.gnx")
    model(images)

Neither the compiler nor LLVM is imported. The file is made by `gnomon compile MODEL -o digits.gnx`; `gnx` has its form.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gnomon.compiler.errors import ArgumentError, DataError, FileError, StateError, nearest
from gnomon.runtime import gnx, sharing

if TYPE_CHECKING:
    import numpy as np


def load(path: Any, threads: int | None = None) -> Compiled:
    """The model in a `.gnx` file, ready to be called.

    threads   how many may work on one call; as many as there are cores, or as GNOMON_THREADS says, if left out
    Results do not depend on it.

    Raises FileError if the file is not one, is cut short or altered, has a form that this version does not read, or was
    made for another system or processor; MissingFileError if it is not there.
    """
    count = sharing.threads(threads)
    description, content, name = gnx.read(path, count)
    return Compiled(description, content, name, count)


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
    import tempfile  # takes longer than all else here, and is rarely needed

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
    """An array that a compiled model takes or gives: name, dtype, shape (open sizes by name).

    bits   whether it is of bfloat16, which NumPy does not have: `dtype` is that of the arrays it is made from
    """

    def __init__(self, description: Mapping[str, Any]):
        import numpy

        self.name: str = description["label"] or description["name"]
        self.bits = description["dtype"] == "bfloat16"
        self.dtype = numpy.dtype("float32" if self.bits else description["dtype"])
        self.dims: list[Any] = description["shape"]
        self.shape = tuple(d if isinstance(d, int) else d["text"] for d in self.dims)

    def __repr__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


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
        self.digest: str = gnx.digest_of(content)
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
        self._threads = threads if description["threads"] else 0
        self._own_threads = bool(description.get("pool"))
        self._last: list[Any] | None = None  # what each function gets last, once there are threads
        _alive.add(self)
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
        results = [np.empty(s, "u2" if a.bits else a.dtype) for s, a in zip(shapes, routine.outputs, strict=True)]
        pointers = [_pointer(a) for a in (*given, *results)]
        own = _pointer(memory), ctypes.c_size_t(memory.nbytes)
        last = self._shared() if self._last is None else self._last
        code = routine.function(*self._kept, *pointers, *sizes, *own, *last)
        self._check(code)
        return [_shown(r) if a.bits else r for r, a in zip(results, routine.outputs, strict=True)]

    def _shared(self) -> list[Any]:
        """The last argument of functions: the library's own threads, Python's, or none."""
        with self._lock:
            if self._last is None:
                pool: Any = None
                if self._threads > 1 and self._own_threads:
                    pool = sharing.own_pool(self, self._function, self._threads)
                if self._threads > 1 and pool is None:
                    pool = sharing.Pool(self._threads).pointer
                self._last = [pool] if self._threads else []
            return self._last

    def _plan(self, routine: Routine, given: Sequence[np.ndarray]) -> Plan:
        sizes = _sizes(routine, given)
        shapes = [tuple(_value(d, sizes) for d in a.dims) for a in routine.outputs]
        needed = self._workspace_bytes(*(ctypes.c_size_t(sizes.get(s, 1)) for s in self._sizes))
        asked = [s for s, (_, axis) in zip(routine.sizes, routine.bindings, strict=True) if axis >= 0]
        return [ctypes.c_size_t(sizes[s]) for s in asked], shapes, needed

    def _check(self, code: int) -> None:
        if code:
            raise DataError(f"{self.name}: {self._error_text(code).decode()}")


_alive: weakref.WeakSet[Compiled] = weakref.WeakSet()


def _forget() -> None:
    """In a forked child threads are gone: the next call makes new ones."""
    for compiled in _alive:
        compiled._last = None
        compiled._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _shown(bits: np.ndarray) -> np.ndarray:
    """Numbers of bfloat16 as a function in the process gives them."""
    from gnomon.compiler import dtypes
    from gnomon.runtime.buffer import shown

    return shown("bfloat16", bits.view(dtypes.named("bfloat16").memory))


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.__array_interface__["data"][0])


def _aligned(count: int) -> np.ndarray:
    """Memory that begins on a cache line."""
    import numpy as np

    memory = np.zeros(count + gnx.ALIGN, np.uint8)
    skip = -memory.__array_interface__["data"][0] % gnx.ALIGN
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
    if wanted.bits and array.dtype.name == "bfloat16":
        array = array.astype("float32")
    if array.dtype != wanted.dtype:
        number = array.dtype.kind in "iub" and wanted.dtype.kind == "f"
        if not (number or np.can_cast(array.dtype, wanted.dtype, "same_kind")):
            hint = f"convert it with .astype({str(wanted.dtype)!r})"
            raise DataError(f"the input {wanted!r} cannot be {array.dtype}: {hint}")
        array = array.astype(wanted.dtype)
    if array.ndim != len(wanted.dims):
        raise DataError(f"the input {wanted!r} has {len(wanted.dims)} axes, but an array of shape {array.shape} came")
    if wanted.bits:
        from gnomon.compiler import dtypes

        array = dtypes.encoded("bfloat16", array)
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


__all__ = ["Array", "Compiled", "load"]
