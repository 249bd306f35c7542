"""What `gnomon run`, `bench` and `profile` work on: a model, a compiled function or a `.gnx` file, all called alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DataError, nearest

OPEN = 16
"""What an open size other than the batch is taken to be where data are made up."""


@dataclass(frozen=True)
class Wanted:
    """An array that a subject takes. Open axes have a name in place of a size; the first is that of the samples."""

    name: str
    dtype: np.dtype
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


class Subject:
    """Something that gives arrays for arrays.

    source    the model, function or compiled model itself
    inputs    what it takes
    """

    def __init__(self, name: str, source: Any, inputs: Sequence[Wanted]):
        self.name, self.source, self.inputs = name, source, list(inputs)

    def __call__(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by name."""
        raise NotImplementedError

    def quickly(self, arrays: Sequence[np.ndarray]) -> Any:
        """The same with as little around it as there can be: what a benchmark times."""
        return self(arrays)

    @property
    def by_rows(self) -> bool:
        """Whether the first axis of every input is the same open size: then rows can be taken bit by bit."""
        return len({w.shape[:1] for w in self.inputs}) == 1 and all(
            w.shape and isinstance(w.shape[0], str) for w in self.inputs
        )

    def made_up(self, batch: int, sizes: Mapping[str, int] | None = None) -> list[np.ndarray]:
        """Inputs of random numbers, integers 0. Raises ArgumentError for a size that there is not."""
        rng = np.random.default_rng(0)
        known = {d for w in self.inputs for d in w.shape if isinstance(d, str)}
        for name in sizes or ():
            if name not in known:
                raise ArgumentError(f"{self.name} has no open size {name!r}.{nearest(name, known)}")
        first = {w.shape[0] for w in self.inputs if w.shape and isinstance(w.shape[0], str)}
        values = {d: batch if d in first else OPEN for d in known} | dict(sizes or {})
        arrays = []
        for w in self.inputs:
            shape = tuple(values[d] if isinstance(d, str) else d for d in w.shape)
            made = rng.normal(size=shape) if w.dtype.kind == "f" else np.zeros(shape)
            arrays.append(np.asarray(made).astype(w.dtype))
        return arrays


class _Model(Subject):
    def __call__(self, arrays):
        from gnomon.utils import tree

        model = self.source
        graph = getattr(model, "_graph", None)
        x = arrays[0] if len(arrays) == 1 else list(arrays)
        if graph is not None and len(arrays) > 1:
            x = tree.pack_sequence_as(graph.input_structure, list(arrays))
        outputs = tree.flatten(model.predict(x, batch_size=max(1, len(arrays[0])), verbose=0))
        names = list(getattr(model, "output_names", ()) or ())
        if len(names) != len(outputs):
            names = [f"output_{k + 1}" for k in range(len(outputs))]
        return dict(zip(names, outputs, strict=True))

    def quickly(self, arrays):
        model = self.source
        if len(arrays) == 1:
            return model.predict(arrays[0], batch_size=len(arrays[0]), verbose=0)
        return self(arrays)


class _Function(Subject):
    def __call__(self, arrays):
        from gnomon.tracing import output_names

        results = self.source.run([self.source._argument(k, a) for k, a in enumerate(arrays)])
        return dict(zip(output_names(self.source), results, strict=True))

    def quickly(self, arrays):
        return self.source(*arrays)


class _Compiled(Subject):
    def __call__(self, arrays):
        routine = self.source._routines["run"]
        return dict(zip((a.name for a in routine.outputs), self.source._run(routine, arrays, {}), strict=True))

    def quickly(self, arrays):
        return self.source(*arrays)


def subject(target: str) -> Subject:
    """What `target` names, ready to run.

    Raises ArgumentError for something that does not run, FileError for a file that is not what it should be.
    """
    if target.endswith(".gnx"):
        from gnomon.runtime import load

        loaded = load(target)
        return _Compiled(Path(target).name, loaded, [Wanted(a.name, a.dtype, a.shape) for a in loaded.inputs])
    from gnomon.cli.finding import find

    return subject_of(find(target), target)


def subject_of(found: Any, target: str) -> Subject:
    """A model or function, ready to run; `target` is what it is called in errors."""
    from gnomon.compiler import dtypes
    from gnomon.functions import Function
    from gnomon.models import Model
    from gnomon.utils import tree

    if isinstance(found, Function):
        leaves = [(leaf.type, name) for leaf, name in zip(found.graph.inputs, found.input_names, strict=True)]
        wanted = [
            Wanted(name, dtypes.named(t.dtype).numpy, tuple(d if isinstance(d, int) else str(d) for d in t.shape))
            for t, name in leaves
        ]
        return _Function(found.name, found, wanted)
    if isinstance(found, Model):
        graph = getattr(found, "_graph", None)
        if graph is None:
            raise ArgumentError(f"what model {found.name!r} takes is not known before it is called on data")
        tensors = [t for t in tree.flatten(graph.input_structure) if t is not None]
        names = list(getattr(found, "input_names", ()) or ())
        wanted = [
            Wanted(name, dtypes.named(t.dtype).numpy, tuple(d if isinstance(d, int) else str(d) for d in t.node.shape))
            for t, name in zip(tensors, names if len(names) == len(tensors) else [t.name for t in tensors], strict=True)
        ]
        return _Model(found.name, found, wanted)
    raise ArgumentError(f"{target} is of type {type(found).__name__}: a model or a compiled function can be run")


# ---- arrays in files


def read_inputs(subject: Subject, files: Sequence[str], ignored: Sequence[str] = ()) -> list[np.ndarray]:
    """The inputs of a subject from files: one for each, or `.npz` files with arrays by name; `name=file` says which.

    ignored   names of arrays that are something else

    Raises DataError for inputs that are missing or of another shape or dtype, FileError for a file that cannot be read.
    """
    names = [w.name for w in subject.inputs]
    given: dict[str, np.ndarray] = {}
    rest: list[np.ndarray] = []
    for file in files:
        name, equals, path = file.partition("=")
        if not equals:
            name, path = "", file
        elif name not in names:
            raise ArgumentError(f"{subject.name} has no input {name!r}.{nearest(name, names)}")
        for key, array in read_arrays(path).items():
            if key in ignored and key not in names:
                continue
            if name or key in names:
                given[name or key] = array
            else:
                rest.append(array)
    for name in names:
        if name not in given and rest:
            given[name] = rest.pop(0)
    missing = [str(w) for w in subject.inputs if w.name not in given]
    if missing:
        raise DataError(f"{subject.name} needs {' and '.join(missing)}; give a file for each, or NAME=FILE")
    if rest:
        known = ", ".join(names)
        raise DataError(f"{subject.name} takes {len(names)} arrays ({known}), and {len(rest)} more were given")
    return [_fitting(given[w.name], w) for w in subject.inputs]


def read_arrays(path: str) -> dict[str, np.ndarray]:
    """The arrays in a `.npy`, `.npz` or `.csv` file, by name (empty where there is none)."""
    from gnomon.compiler.errors import FileError
    from gnomon.saving.files import to_read

    file = to_read(path)
    try:
        if file.suffix == ".npy":
            return {"": np.load(file, allow_pickle=False)}
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as content:
                return {name: content[name] for name in content.files}
        if file.suffix == ".csv":
            return {"": _read_csv(file)}
    except (ValueError, OSError, EOFError) as error:
        raise FileError(f"cannot read {path!r}: {str(error).splitlines()[0]}") from error
    raise ArgumentError(f"{path!r}: arrays are read from .npy, .npz and .csv files")


def _read_csv(file: Path) -> np.ndarray:
    """Numbers in lines; the first line may be names."""
    with file.open(encoding="utf-8") as lines:
        first = lines.readline()
        if not (first + lines.readline()).strip():
            raise ValueError("there are no numbers in it")
    try:
        [float(part) for part in first.split(",")]
        heads = 0
    except ValueError:
        heads = 1
    return np.loadtxt(file, delimiter=",", skiprows=heads, ndmin=2, encoding="utf-8")


def _fitting(array: np.ndarray, wanted: Wanted) -> np.ndarray:
    """`array` as an input: rows of numbers take the form of what they are rows of, if there are as many in each."""
    number = array.dtype.kind in "iub" and wanted.dtype.kind == "f"
    if not number and not np.can_cast(array.dtype, wanted.dtype, "same_kind"):
        whole = array.dtype.kind == "f" and wanted.dtype.kind in "iu" and bool((array == np.floor(array)).all())
        if not whole:
            raise DataError(f"the input {wanted} cannot be {array.dtype}")
    inner = wanted.shape[1:]
    if array.ndim == 2 and len(inner) != 1 and all(isinstance(d, int) for d in inner):
        count = int(np.prod(inner))  # type: ignore[arg-type]  # all are integers
        if array.shape[1] == count:
            array = array.reshape(len(array), *inner)
    fits = array.ndim == len(wanted.shape) and all(
        isinstance(d, str) or d == n for d, n in zip(wanted.shape, array.shape, strict=True)
    )
    if not fits:
        raise DataError(f"the input {wanted} cannot be an array of shape {array.shape}")
    return np.ascontiguousarray(array.astype(wanted.dtype, copy=False))


__all__ = ["Subject", "Wanted", "read_arrays", "read_inputs", "subject", "subject_of"]
