"""Weights in Keras's `.weights.h5`: a group for each layer (see `tree`), in it `vars` with arrays 0, 1, 2 ...

Besides what Keras writes there is a group for the state of each random stream (`layers/dropout/seed_generator`), which
Keras passes over. A file is data: reading it runs nothing, follows no link, and takes no array of an unexpected shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DataError, FileError, NotBuiltError, ShapeError
from gnomon.layers.layer import Layer
from gnomon.optimizers import Optimizer
from gnomon.random import SeedGenerator
from gnomon.runtime.buffer import shown
from gnomon.saving.files import to_read, to_write, warn, written_aside
from gnomon.saving.tree import saved_objects
from gnomon.variable import Variable

EXTENSION = ".weights.h5"


def save_weights(model: Any, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None) -> None:
    """Write the weights of a model, its optimizer's state and its random streams to a `.weights.h5` file.

    The file is written aside and renamed: a reader sees the old one or the new one. Keras 3 reads it.
    Raises ArgumentError for a name that does not end so, FileError if the file cannot be written (or is there already
    and `overwrite` is false), NotBuiltError for a model without weights yet.
    """
    if max_shard_size is not None:
        raise ArgumentError(f"save_weights writes one file; max_shard_size={max_shard_size!r} is not supported")
    path = to_write(filepath, EXTENSION, overwrite)
    _check_built(model, "save_weights")
    with written_aside(path) as aside:
        write_h5(aside, model)


def load_weights(
    model: Any, filepath: Any, skip_mismatch: bool = False, objects_to_skip: Sequence[Any] | None = None
) -> None:
    """Read weights from a `.weights.h5` file, or those in a `.keras` file, of Keras's or gnomon's, into a model.

    skip_mismatch     leave layers that do not fit as they are, with a warning, instead of raising
    objects_to_skip   layers to leave as they are

    Nothing is changed unless all of it fits. Raises FileError if the file cannot be read or is no such file, DataError
    naming the layers, arrays and shapes that do not fit, NotBuiltError for a model without weights yet.
    """
    path = to_read(filepath)
    if path.name.endswith(".keras"):
        from gnomon.saving.archive import reading_archive

        with reading_archive(path) as archive:
            _check_built(model, "load_weights")
            read_h5(BytesIO(archive.weights()), model, str(path), skip_mismatch, objects_to_skip or ())
        return
    _check_readable(path)
    _check_built(model, "load_weights")
    read_h5(path, model, str(path), skip_mismatch, objects_to_skip or ())


def _check_readable(path: Path) -> None:
    if path.name.endswith(EXTENSION):
        return
    if path.name.endswith(".weights.json"):
        raise FileError(f"{str(path)!r} is the index of weights in several files, which gnomon does not read")
    if path.suffix in (".h5", ".hdf5"):
        raise FileError(
            f"{str(path)!r}: only files whose names end in {EXTENSION!r} or '.keras' are read. If it is one of Keras's "
            f"older .h5 files, save it from Keras as '.keras'; if it was written by save_weights, rename it"
        )
    raise FileError(f"weights are read from files whose names end in {EXTENSION!r} or '.keras', got {str(path)!r}")


def _check_built(model: Any, what: str) -> None:
    if not model.built:
        raise NotBuiltError(
            f"{what}: model {model.name!r} is not built yet, so its weights do not exist. Begin it with an Input, call "
            "it on data, or `build(input_shape)`, first."
        )


# ---- writing


def write_h5(target: Path | BytesIO, model: Any) -> None:
    """Write all state of a model to an HDF5 file (a path or a file object)."""
    import h5py

    with h5py.File(target, "w") as file:
        for path, found in saved_objects(model):
            store: dict[str, np.ndarray] = {}
            if isinstance(found, SeedGenerator):
                store["0"] = found.state.numpy()
            else:
                found.save_own_variables(store)
            group = file.create_group(f"{path}/vars" if path else "vars")
            group.attrs["name"] = found.name
            for key, value in store.items():
                _write(group, key, np.asarray(value), _dtype_of(found, key))


def _dtype_of(found: Any, key: str) -> str:
    """The dtype of the variable that is kept under a key, '' if the object writes what it likes."""
    base = Optimizer if isinstance(found, Optimizer) else Layer
    if isinstance(found, SeedGenerator) or type(found).save_own_variables is not base.save_own_variables:
        return ""
    own = found.variables if isinstance(found, Optimizer) else found._own_variables()
    return own[int(key)].dtype


def _write(group: Any, key: str, value: np.ndarray, dtype: str) -> None:
    """One array. HDF5 has no bfloat16 either: two opaque bytes each, and an attribute that says so, as Keras writes."""
    if "bfloat16" in (dtype, value.dtype.name):
        group.create_dataset(key, data=dtypes.encoded("bfloat16", value)).attrs["dtype"] = "bfloat16"
    else:
        group[key] = value


# ---- reading


def _read(dataset: Any) -> np.ndarray:
    """An array in a file as NumPy has it."""
    return shown("bfloat16", dataset[()]) if _is_bfloat16(dataset) else dataset[()]


def _is_bfloat16(dataset: Any) -> bool:
    memory = dtypes.named("bfloat16").memory
    return dataset.dtype == memory and dataset.attrs.get("dtype") in ("bfloat16", b"bfloat16")


class Stored(Mapping[str, np.ndarray]):
    """The arrays of one layer in a file, read when they are asked for."""

    def __init__(self, group: Any, path: str):
        self.group, self.path = group, path

    def __getitem__(self, key: str) -> np.ndarray:
        return _read(self.dataset(key))

    def dataset(self, key: str) -> Any:
        """The array as it lies in the file, with `shape` and `dtype`. Raises FileError for something else."""
        import h5py

        place = f"{self.path}/{key}"
        if self.group is None or key not in self.group:
            raise FileError(f"the file has no array {place!r}")
        if not isinstance(self.group.get(key, getlink=True), h5py.HardLink):
            raise FileError(f"{place!r} in the file is a link to elsewhere, which is not followed")
        found = self.group[key]
        if not isinstance(found, h5py.Dataset):
            raise FileError(f"{place!r} in the file is a group where an array was expected")
        if found.external or found.is_virtual:
            raise FileError(f"{place!r} keeps its values in another file, which is not followed")
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.group if self.group is not None else ())

    def __len__(self) -> int:
        return len(self.group) if self.group is not None else 0

    @property
    def name(self) -> str:
        """The name that the layer had when it was saved."""
        found = self.group.attrs.get("name", "") if self.group is not None else ""
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def read_h5(source: Any, model: Any, shown: str, skip_mismatch: bool, skip: Sequence[Any]) -> None:
    """Read all state of a model from an HDF5 file (a path or a file object); `shown` is its name in messages."""
    with _opened(source, shown) as file:
        loading = Loading(file, shown)
        objects = saved_objects(model, skip)
        for path, found in objects:
            if not isinstance(found, Optimizer):
                loading.plan(found, path)
        for path, found in objects:
            if isinstance(found, Optimizer):
                loading.plan_optimizer(found, path, model)
        if loading.problems and not skip_mismatch:
            raise DataError(loading.complaint(model))
        for message in loading.problems:
            warn(f"{shown!r}: {message}. It is left as it is.")
        loading.warn_of_unread()
        loading.finish()


@contextmanager
def _opened(source: Any, shown: str) -> Iterator[Any]:
    import h5py

    try:
        options = {"locking": False} if isinstance(source, Path) else {}  # files are renamed into place, never changed
        file = h5py.File(source, "r", **options)
    except OSError as error:
        reason = "it cannot be opened" if isinstance(error, PermissionError) else "it is no HDF5 file, or damaged"
        raise FileError(f"cannot read {shown!r}: {reason} ({error})") from error
    with file:
        yield file


class Loading:
    """What is to be set once all of a file is known to fit."""

    def __init__(self, file: Any, shown: str):
        self.file, self.shown = file, shown
        self.values: list[tuple[Variable, Any]] = []
        self.own: list[tuple[Any, Stored]] = []  # objects that load themselves
        self.problems: list[str] = []
        self.visited: set[str] = set()

    def stored(self, path: str) -> Stored:
        """What the file has for an object; links are not followed on the way."""
        import h5py

        group, place = self.file, ""
        for part in [*path.split("/"), "vars"] if path else ["vars"]:
            place = f"{place}/{part}" if place else part
            if part not in group:
                return Stored(None, place)
            if not isinstance(group.get(part, getlink=True), h5py.HardLink):
                raise FileError(f"{self.shown!r}: {place!r} is a link to elsewhere, which is not followed")
            group = group[part]
            if not isinstance(group, h5py.Group):
                raise FileError(f"{self.shown!r}: {place!r} is no group of arrays")
        self.visited.add(place)
        return Stored(group, place)

    def plan(self, found: Any, path: str) -> None:
        """Note what a layer or random stream is to be set to, or what is wrong with it."""
        stored = self.stored(path)
        if isinstance(found, SeedGenerator):
            if len(stored):  # files of Keras have none
                self.note(found, path, stored, [found.state])
        elif type(found).load_own_variables is not Layer.load_own_variables:
            self.own.append((found, stored))
        else:
            self.note(found, path, stored, found._own_variables())

    def plan_optimizer(self, optimizer: Optimizer, path: str, model: Any) -> None:
        """The same for an optimizer, which is built first if the file has state of a built one."""
        stored = self.stored(path)
        if not len(stored):
            return
        if not optimizer.built and len(stored) != len(optimizer.variables) and optimizer is model.optimizer:
            optimizer.build(model.trainable_variables)
        if type(optimizer).load_own_variables is not Optimizer.load_own_variables:
            self.own.append((optimizer, stored))
        elif misfit := self.misfit(stored, optimizer.variables):
            warn(f"the state of optimizer {optimizer.name!r} is not loaded from {self.shown!r}: it {misfit}")
        else:
            self.note(optimizer, path, stored, optimizer.variables)

    def note(self, found: Any, path: str, stored: Stored, variables: Sequence[Variable]) -> None:
        misfit = self.misfit(stored, variables)
        if misfit is None:
            self.values += [(v, stored.dataset(str(k))) for k, v in enumerate(variables)]
        else:
            kind, was = type(found).__name__, stored.name
            old = f", there named {was!r}" if was and was != found.name else ""
            place = f"at {path!r} of the file{old}" if path else "itself"
            what = "layer" if isinstance(found, Layer) else "object"
            unbuilt = "" if getattr(found, "built", True) else " (it is not built yet: call the model on data first)"
            self.problems.append(f"{what} {found.name!r} ({kind}, {place}) {misfit}{unbuilt}")

    def misfit(self, stored: Stored, variables: Sequence[Variable]) -> str | None:
        """Why arrays cannot be given to variables, None if they can."""
        if len(stored) != len(variables):
            has = ", ".join(f"{v.name} {v.shape}" for v in variables) or "none"
            arrays = [getattr(stored.group[key], "shape", "group") for key in sorted(stored)]
            given = ", ".join(map(str, arrays)) or "none"
            return f"has {len(variables)} variables ({has}), the file has {len(stored)} ({given})"
        for k, variable in enumerate(variables):
            array = stored.dataset(str(k))
            if tuple(array.shape) != variable.shape:
                return f"has {variable.name!r} of shape {variable.shape}, the file has it of shape {tuple(array.shape)}"
            if array.dtype.kind not in "fiub" and not _is_bfloat16(array):
                return f"has {variable.name!r} of dtype {variable.dtype}, the file has it of dtype {array.dtype}"
        return None

    def complaint(self, model: Any) -> str:
        count = len(self.problems)
        shown = [f"\n  {message}" for message in self.problems[:10]]
        more = f"\n  and {count - 10} more" if count > 10 else ""
        return (
            f"the weights in {self.shown!r} do not fit model {model.name!r}; nothing was loaded:"
            f"{''.join(shown)}{more}\n"
            "Make the model as it was when the file was written, or pass skip_mismatch=True to load what fits."
        )

    def warn_of_unread(self) -> None:
        """Say what the file has that the model has not: most often it is not the model that was saved."""
        unread: list[str] = []

        def look(place: str, found: Any) -> None:
            path = place.removesuffix("vars").removesuffix("/")
            if (
                place in self.visited
                or path == place
                or path.split("/")[0] == "optimizer"
                or not hasattr(found, "keys")
            ):
                return
            if len(found):
                was = Stored(found, place).name
                unread.append(repr(path) + (f" (named {was!r})" if was else ""))

        self.file.visititems(look)
        if unread:
            warn(
                f"{self.shown!r} has weights that the model has no layer for: {', '.join(unread[:5])}"
                + (f" and {len(unread) - 5} more" if len(unread) > 5 else "")
            )

    def finish(self) -> None:
        arrays = [(variable, _read(dataset)) for variable, dataset in self.values]  # all read before any is set
        for variable, array in arrays:
            variable.set_value(array)
        for found, stored in self.own:
            found.load_own_variables(stored)


def read_own_variables(layer: Any, store: Mapping[str, Any]) -> None:
    """Set a layer's own variables to the arrays "0", "1" ... of a store. Raises DataError or ShapeError."""
    variables = layer._own_variables()
    if len(store) != len(variables):
        has = ", ".join(f"{v.name} {v.shape}" for v in variables) or "none"
        state = "" if layer.built else ". It is not built yet: call it on data, or `build(input_shape)`, first"
        raise DataError(f"layer {layer.name!r} has {len(variables)} variables ({has}), got {len(store)}{state}")
    values = [np.asarray(store[str(k)]) for k in range(len(variables))]
    for variable, value in zip(variables, values, strict=True):
        if value.shape != variable.shape:
            raise ShapeError(
                f"layer {layer.name!r} has {variable.name!r} of shape {variable.shape}, got one of shape {value.shape}"
            )
    for variable, value in zip(variables, values, strict=True):
        variable.set_value(value)


__all__ = ["load_weights", "read_h5", "read_own_variables", "save_weights", "write_h5"]
