"""What fit, evaluate and predict are given, made uniform: arrays that are held whole, or batches that come one by one.

A *feed* hands out an epoch as pairs of data and a table of row numbers [steps, batch] into them.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.placement import chosen_device
from gnomon.utils import tree

RAN_OUT = (
    "Your input ran out of data; interrupting training. Make sure that your dataset or generator can generate at least "
    "`steps_per_epoch * epochs` batches."
)

Data = tuple[Any, Any, Any]
"""x, y and sample_weight: structures of arrays, or None."""


# ---- arrays


def as_array(value: Any, what: str) -> np.ndarray:
    """A contiguous array of a dtype that programs take: floats become the default float, as in Keras.

    Nothing is copied that is so already. Raises DataError.
    """
    from gnomon.config import floatx

    if type(value) is not np.ndarray:
        if value is None:
            raise DataError(f"{what} is None where an array was expected")
        if hasattr(value, "__cuda_array_interface__") or hasattr(value, "__dlpack__"):
            value = _from_device(value)
        value = np.asarray(value)
    wanted = _taken_as(value.dtype, floatx())
    if wanted is None:
        raise DataError(f"{what} must hold numbers, got an array of dtype {value.dtype} and shape {value.shape}")
    return value if value.dtype == wanted and value.flags.c_contiguous else np.ascontiguousarray(value, wanted)


def _from_device(value: Any) -> Any:
    """A copy of what is in the memory of a device, which NumPy cannot read; anything else as it is."""
    there = chosen_device(None).adopt(value)
    return value if there is None else there.numpy()


@lru_cache(64)
def _taken_as(dtype: np.dtype, default: str) -> np.dtype | None:
    """The dtype that data of this one is converted to, None if it holds no numbers."""
    known = dtype.name in dtypes.TABLE
    if not known and dtype.kind != "f":
        return None
    return dtypes.named(default if not known or dtypes.is_float(dtype.name) else dtype.name).numpy


def as_arrays(value: Any, what: str) -> Any:
    """The same structure with every leaf an array (None stays). Nested lists of numbers are one array."""
    if type(value) is np.ndarray:
        return as_array(value, what)
    if isinstance(value, (list, tuple)) and value and _is_plain(value):
        return as_array(value, what)
    return tree.map_structure(lambda v: None if v is None else as_array(v, what), value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    return isinstance(value, (int, float, bool, np.generic))


def lengths(structure: Any) -> list[int]:
    """The length of every array in a structure, -1 for a single number."""
    return [a.shape[0] if a.ndim else -1 for a in tree.flatten(structure) if a is not None]


def check_cardinality(**data: Any) -> int:
    """The number of samples that all arrays share. Raises DataError naming each length."""
    sizes = {name: lengths(value) for name, value in data.items() if value is not None}
    every = {n for found in sizes.values() for n in found}
    if -1 in every:
        name = next(k for k, found in sizes.items() if -1 in found)
        raise DataError(f"{name!r} must have an axis of samples, got a single number")
    if len(every) > 1:
        shown = ", ".join(f"{name!r} sizes: {', '.join(map(str, found))}" for name, found in sizes.items())
        raise DataError(
            f"Data cardinality is ambiguous. Make sure all arrays contain the same number of samples. Got {shown}"
        )
    return every.pop() if every else 0


def find_nan(structure: Any) -> tuple[int, tuple[int, ...]] | None:
    """The first NaN in float arrays: which leaf, and its position; None if there is none."""
    for k, a in enumerate(tree.flatten(structure)):
        if a is None or a.dtype.kind != "f" or not a.size:
            continue
        flat = a.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not math.isfinite(float(np.dot(flat, flat)))  # one quick pass; large numbers overflow too
        if suspicious and (found := np.isnan(flat)).any():
            return k, tuple(int(i) for i in np.unravel_index(int(found.argmax()), a.shape))
    return None


# ---- what users give


def unpack(data: Any) -> Data:
    """(x, y, sample_weight) of what a generator yields or validation_data holds. Raises DataError."""
    if isinstance(data, list):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if not 1 <= len(data) <= 3:
        raise DataError(
            f"Data is expected to be in format `x`, `(x,)`, `(x, y)`, or `(x, y, sample_weight)`, got {len(data)} parts"
        )
    x, y, w = (*data, None, None)[:3]
    return x, y, w


def pack(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """What `unpack` takes apart: without the parts that are None."""
    if sample_weight is not None:
        return x, y, sample_weight
    if y is not None:
        return x, y
    return (x,) if isinstance(x, (list, tuple)) else x


def class_weights(y: Any, weights: Any) -> np.ndarray:
    """A weight for each sample from the class it is of: labels, or one-hot rows. Raises ArgumentError."""
    if not isinstance(weights, dict):
        raise ArgumentError(f"class_weight must be a dictionary from class to weight, got {weights!r}")
    if y is None:
        raise ArgumentError("class_weight needs labels, but y is None")
    if tree.is_nested(y):
        flat = tree.flatten(y)
        if len(flat) != 1:
            raise ArgumentError("`class_weight` is only supported for models with a single output")
        (y,) = flat
    if y.ndim > 2:
        raise ArgumentError(f"`class_weight` needs labels of shape (samples,) or (samples, classes), got {y.shape}")
    classes = np.argmax(y, 1) if y.ndim == 2 and y.shape[1] > 1 else np.round(y.reshape(len(y))).astype(np.int64)
    known, where = np.unique(classes, return_inverse=True)
    return np.array([weights.get(int(c), 1.0) for c in known], np.float32)[where]


def check_positive(name: str, value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


class ArrayData:
    """Arrays held whole: x, y and sample weights of `count` samples, taken `batch_size` at a time."""

    def __init__(self, x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None = None):
        self.x, self.y, self.sample_weight = x, y, sample_weight
        self.count = check_cardinality(x=x, y=y, sample_weight=sample_weight)
        if self.count == 0:
            raise DataError("the data set is empty: x has no samples")
        if batch_size is None:
            batch_size = math.ceil(self.count / steps) if steps else 32
        self.batch_size = check_positive("batch_size", batch_size)

    @property
    def data(self) -> Data:
        return self.x, self.y, self.sample_weight

    @property
    def steps(self) -> int:
        return math.ceil(self.count / self.batch_size)


class BatchData:
    """Batches that come one by one.

    make      gives the batches of one pass
    steps     how many those are, None if not known
    once      whether there is a single pass: an iterator goes on where it was
    begin, end   called around each epoch
    """

    def __init__(self, make: Callable[[], Iterator[Any]], steps: int | None, once: bool, owner: Any = None):
        self.make, self.steps, self.once = make, steps, once
        self.begin = getattr(owner, "on_epoch_begin", lambda: None)
        self.end = getattr(owner, "on_epoch_end", lambda: None)

    def __iter__(self) -> Iterator[Data]:
        for item in self.make():
            x, y, w = unpack(item)
            x = as_arrays(x, "x")
            y = None if y is None else as_arrays(y, "y")
            w = None if w is None else as_arrays(w, "sample_weight")
            if check_cardinality(x=x, y=y, sample_weight=w) == 0:
                raise DataError("the data set yielded a batch without samples")
            yield x, y, w


def is_batches(x: Any) -> bool:
    """Whether x yields batches rather than being data itself."""
    if isinstance(x, (np.ndarray, list, tuple, dict, str)) or hasattr(x, "__array__"):
        return False
    return hasattr(x, "__next__") or hasattr(x, "__iter__") or hasattr(x, "__getitem__")


def adapt(
    x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None = None, shuffle: bool = False
) -> ArrayData | BatchData:
    """Arrays or batches, by what x is.

    steps     batches of an epoch: decide the batch size of arrays if it is not given
    shuffle   whether a sequence of batches is taken in another order each epoch
    Raises DataError, or ArgumentError for arguments that do not go with batches.
    """
    if x is None:
        raise DataError("x is None: pass arrays, or something that yields batches")
    if steps is not None:
        check_positive("steps", steps)
    if not is_batches(x):
        return ArrayData(
            as_arrays(x, "x"),
            None if y is None else as_arrays(y, "y"),
            None if sample_weight is None else as_arrays(sample_weight, "sample_weight"),
            batch_size,
            steps,
        )
    kind = "generator" if hasattr(x, "send") else type(x).__name__
    for name, given, what in (("y", y, "targets"), ("sample_weight", sample_weight, "sample weights")):
        if given is not None:
            raise ArgumentError(
                f"When providing `x` as a {kind}, `{name}` should not be passed: it must yield the {what} with x"
            )
    if hasattr(x, "__next__"):
        return BatchData(lambda: x, None, True)
    if hasattr(x, "__getitem__") and (hasattr(x, "num_batches") or hasattr(x, "__len__")):
        return _sequence(x, shuffle)
    return BatchData(lambda: iter(x), len(x) if hasattr(x, "__len__") else None, False)


def _sequence(x: Any, shuffle: bool) -> BatchData:
    """A PyDataset, or something like it: batches by number."""
    from gnomon.utils.py_dataset import batches_of

    steps = x.num_batches if hasattr(x, "num_batches") else len(x)
    if steps == 0:
        raise DataError(f"the data set is empty: {type(x).__name__} has no batches")

    def make() -> Iterator[Any]:
        if steps is None:
            return batches_of(x, None)
        order = list(range(steps))
        if shuffle:
            random.shuffle(order)
        return batches_of(x, order)

    return BatchData(make, steps, False, x)


def split(data: ArrayData, fraction: float) -> tuple[ArrayData, Data]:
    """The first samples for training and the last `fraction` of them for validation, as Keras splits."""
    if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ArgumentError(f"validation_split must be between 0 and 1, got {fraction!r}")
    at = math.floor(data.count * (1.0 - fraction))
    if at == 0 or at == data.count:
        raise ArgumentError(
            f"validation_split={fraction} of {data.count} samples leaves {at} for training and {data.count - at} for "
            "validation: provide more data, or another fraction"
        )
    x, y, w = rows_of(data.data, 0, at)
    return ArrayData(x, y, w, data.batch_size), rows_of(data.data, at, data.count)


def rows_of(structure: Any, start: int, stop: int) -> Any:
    """Views of rows of every array in a structure."""
    return tree.map_structure(lambda a: None if a is None else a[start:stop], structure)


# ---- feeds


class ArrayFeed:
    """Epochs over arrays: tables of row numbers. An epoch of fewer steps than a pass has goes on where the last ended.

    shuffle   True for a new order in each pass, "batch" for one within each batch, else as they are
    """

    def __init__(self, source: ArrayData, shuffle: Any = False):
        self.source, self.shuffle = source, shuffle
        self._order = np.arange(0)
        self._step = 0

    def ready(self) -> bool:
        return True

    def epoch(self, steps: int | None) -> Iterator[tuple[Data, np.ndarray]]:
        """Whole batches as one table, then what remains of the last."""
        source = self.source
        if self._step == 0:
            self._order = self._new_order()
        stop = source.steps if steps is None else min(self._step + steps, source.steps)
        if steps is not None and stop - self._step < steps:
            warnings.warn(RAN_OUT, stacklevel=4)
        rows = self._order[self._step * source.batch_size : stop * source.batch_size]
        self._step = stop % source.steps
        whole = len(rows) // source.batch_size * source.batch_size
        if whole:
            yield source.data, rows[:whole].reshape(-1, source.batch_size)
        if whole < len(rows):
            yield source.data, rows[None, whole:]

    def _new_order(self) -> np.ndarray:
        n, size = self.source.count, self.source.batch_size
        if self.shuffle == "batch":
            starts = range(0, n, size)
            return np.concatenate([np.random.permutation(min(size, n - at)) + at for at in starts]).astype(np.int64)
        if self.shuffle:  # NumPy's own generator, which set_random_seed seeds: the orders are Keras's
            return np.random.permutation(n).astype(np.int64, copy=False)
        return self._order if len(self._order) == n else np.arange(n, dtype=np.int64)


class BatchFeed:
    """Epochs over batches that come one by one: tables of one step."""

    def __init__(self, source: BatchData, class_weight: dict[int, float] | None = None):
        self.source, self.class_weight = source, class_weight
        self._batches: Iterator[Data] | None = None
        self._first: list[Data] = []  # looked at already
        self._seen = 0  # in this pass

    def ready(self) -> bool:
        """Whether another epoch has any batch: an iterator may be at its end."""
        if not self.source.once or self._first:
            return True
        self._batches = self._batches or iter(self.source)
        found = next(self._batches, None)
        if found is not None:
            self._first.append(found)
        return found is not None

    def epoch(self, steps: int | None) -> Iterator[tuple[Data, np.ndarray]]:
        wanted = steps or self.source.steps
        self.source.begin()
        step = 0
        while wanted is None or step < wanted:
            batch = self._next()
            if batch is None:
                if wanted is not None:
                    warnings.warn(RAN_OUT, stacklevel=4)
                break
            step += 1
            yield batch, one_row(lengths(batch[0])[0])
        if self.source.steps and self._seen >= self.source.steps:
            self._batches, self._seen = None, 0
        self.source.end()
        if step == 0:
            raise DataError("the data set is empty: it yielded no batch")

    def _next(self) -> Data | None:
        if self._first:
            x, y, w = self._first.pop()
        else:
            self._batches = self._batches or iter(self.source)
            found = next(self._batches, None)
            if found is None:
                self._batches, self._seen = None, 0
                return None
            x, y, w = found
        self._seen += 1
        if self.class_weight is not None:
            if w is not None:
                raise ArgumentError("You cannot give `class_weight` and batches with sample weights at the same time")
            w = class_weights(y, self.class_weight)
        return x, y, w


@lru_cache(64)
def one_row(n: int) -> np.ndarray:
    """The table of one step that takes all of n rows."""
    table = np.arange(n, dtype=np.int64)[None]
    table.setflags(write=False)
    return table


__all__: Sequence[str] = [
    "ArrayData", "ArrayFeed", "BatchData", "BatchFeed", "Data", "adapt", "as_array", "as_arrays", "check_cardinality",
    "class_weights", "find_nan", "one_row", "pack", "rows_of", "split", "unpack",
]  # fmt: skip
