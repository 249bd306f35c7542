"""What fit, evaluate and predict are given, made uniform: arrays that are held whole, or batches that come one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gnomon.compiler import dtypes
from gnomon.compiler.errors import ArgumentError, DataError
from gnomon.utils import tree


def as_array(value: Any, what: str) -> np.ndarray:
    """An array of a dtype that programs take: float64 becomes the default float, as in Keras. Raises DataError."""
    from gnomon.config import floatx

    if value is None:
        raise DataError(f"{what} is None where an array was expected")
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "USOMm":
        raise DataError(f"{what} must hold numbers, got {type(value).__name__} of dtype {array.dtype}")
    if array.dtype.kind == "f" and array.dtype.name != floatx():
        array = array.astype(floatx())
    dtypes.canonical(array.dtype)
    return array


def as_arrays(value: Any, what: str) -> Any:
    """The same structure with every leaf an array (None stays). A list of numbers is one array, as in Keras."""
    if isinstance(value, (list, tuple)) and not any(
        hasattr(v, "shape") or isinstance(v, (dict, list, tuple)) for v in value
    ):
        return as_array(value, what)
    if isinstance(value, (list, tuple)) and value and all(_is_plain(v) for v in value):
        return as_array(value, what)  # nested lists of numbers
    return tree.map_structure(lambda v: None if v is None else as_array(v, what), value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    return isinstance(value, (int, float, bool))


def samples(structure: Any) -> list[int]:
    """The length of every array in a structure."""
    return [a.shape[0] if a.ndim else -1 for a in tree.flatten(structure) if a is not None]


def check_cardinality(**data: Any) -> int:
    """The number of samples that all arrays share. Raises DataError naming each length."""
    sizes = {name: samples(value) for name, value in data.items() if value is not None}
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


def unpack(data: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of what a generator yields or validation_data holds."""
    if isinstance(data, list) and len(data) in (2, 3):
        data = tuple(data)
    if not isinstance(data, tuple):
        return data, None, None
    if len(data) > 3:
        raise DataError(f"data must be (x,), (x, y) or (x, y, sample_weight), got a tuple of {len(data)}")
    return (*data, *(None,) * (3 - len(data)))  # type: ignore[return-value]  # three in all


def class_weights(y: Any, weights: dict[int, float]) -> np.ndarray:
    """A weight for each sample from the class it is of: labels, or one-hot rows."""
    if tree.is_nested(y):
        flat = tree.flatten(y)
        if len(flat) != 1:
            raise ArgumentError("`class_weight` is only supported for models with a single output")
        (y,) = flat
    if y.ndim > 2:
        raise ArgumentError(f"`class_weight` needs labels of shape (samples,) or (samples, classes), got {y.shape}")
    classes = np.argmax(y, 1) if y.ndim == 2 and y.shape[1] > 1 else np.round(y.reshape(len(y))).astype(np.int64)
    table = np.ones(max([int(classes.max(initial=0)), *map(int, weights)]) + 1, np.float32)
    for c, w in weights.items():
        table[int(c)] = w
    return table[classes]


class ArrayData:
    """Arrays held whole: x, y and sample weights of `count` samples, taken `batch_size` at a time."""

    def __init__(self, x: Any, y: Any, sample_weight: Any, batch_size: int | None):
        self.x, self.y, self.sample_weight = x, y, sample_weight
        given = {"x": x, "y": y, "sample_weight": sample_weight}
        self.count = check_cardinality(**given)
        if self.count == 0:
            raise DataError("the data set is empty: x has no samples")
        self.batch_size = check_positive("batch_size", 32 if batch_size is None else batch_size)

    @property
    def steps(self) -> int:
        return math.ceil(self.count / self.batch_size)


class BatchData:
    """Batches that come one by one from an iterable or a sequence-like data set; `steps` None if not known."""

    def __init__(self, make: Callable[[], Iterator[Any]], steps: int | None, ends: bool, finished: Callable[[], None]):
        self.make, self.steps, self.ends, self.finished = make, steps, ends, finished

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        for item in self.make():
            x, y, w = unpack(item)
            x = as_arrays(x, "x")
            y = None if y is None else as_arrays(y, "y")
            w = None if w is None else as_arrays(w, "sample_weight")
            check_cardinality(x=x, y=y, sample_weight=w)
            yield x, y, w


def check_positive(name: str, value: Any) -> int:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
        raise ArgumentError(f"{name} must be a positive integer, got {value!r}")
    return int(value)


def is_batches(x: Any) -> bool:
    """Whether x yields batches rather than being data itself."""
    if isinstance(x, (np.ndarray, list, tuple, dict)) or hasattr(x, "__array__"):
        return False
    return hasattr(x, "__next__") or hasattr(x, "__iter__") or (hasattr(x, "__getitem__") and hasattr(x, "__len__"))


def adapt(
    x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None = None
) -> ArrayData | BatchData:
    """Arrays or batches, by what x is. Raises DataError, or ArgumentError for arguments that do not go with batches."""
    if x is None:
        raise DataError("x is None: pass arrays, or something that yields batches")
    if not is_batches(x):
        return ArrayData(
            as_arrays(x, "x"),
            None if y is None else as_arrays(y, "y"),
            None if sample_weight is None else as_arrays(sample_weight, "sample_weight"),
            batch_size,
        )
    kind = type(x).__name__
    if y is not None:
        raise ArgumentError(
            f"when x is a {kind} that yields batches, y must be part of what it yields, not an argument"
        )
    if sample_weight is not None:
        raise ArgumentError(f"when x is a {kind} that yields batches, sample_weight must be part of what it yields")
    if hasattr(x, "__getitem__") and hasattr(x, "__len__"):  # PyDataset and its like
        known = getattr(x, "num_batches", None)
        length = known if isinstance(known, int) else len(x)

        def in_order() -> Iterator[Any]:
            if hasattr(x, "on_epoch_begin"):
                x.on_epoch_begin()
            return (x[k] for k in range(length))

        return BatchData(in_order, length, True, getattr(x, "on_epoch_end", lambda: None))
    if hasattr(x, "__next__"):  # an iterator goes on where it was: an epoch needs to know its steps
        return BatchData(lambda: x, steps, False, lambda: None)
    length = len(x) if hasattr(x, "__len__") else None
    return BatchData(lambda: iter(x), length, True, lambda: None)


def split(data: ArrayData, fraction: float) -> tuple[ArrayData, tuple[Any, Any, Any]]:
    """The first samples for training and the last `fraction` of them for validation, as Keras splits."""
    if not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
        raise ArgumentError(f"validation_split must be between 0 and 1, got {fraction!r}")
    at = math.floor(data.count * (1 - fraction))
    if at == 0 or at == data.count:
        raise ArgumentError(
            f"validation_split={fraction} of {data.count} samples leaves {at} for training and {data.count - at} for validation"
        )
    take = lambda part: lambda v: None if v is None else tree.map_structure(lambda a: None if a is None else a[part], v)
    head, tail = take(slice(0, at)), take(slice(at, None))
    rest = ArrayData(head(data.x), head(data.y), head(data.sample_weight), data.batch_size)
    return rest, (tail(data.x), tail(data.y), tail(data.sample_weight))


def find_nan(name: str, structure: Any) -> None:
    """Raise DataError if a float array holds NaN: training on it would destroy the weights."""
    for k, a in enumerate(tree.flatten(structure)):
        if a is None or a.dtype.kind != "f" or not a.size:
            continue
        flat = a.reshape(-1) if a.flags.c_contiguous else a.ravel()
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = math.isnan(float(np.dot(flat, flat)))  # one quick pass; infinities may give NaN too
        if suspicious and np.isnan(flat).any():
            place = tuple(int(i) for i in np.unravel_index(int(np.isnan(flat).argmax()), a.shape))
            which = f"{name}[{k}]" if tree.is_nested(structure) else name
            raise DataError(
                f"{which} holds NaN, first at position {place} of shape {a.shape}: clean the data before training"
            )


__all__: Sequence[str] = [
    "ArrayData",
    "BatchData",
    "adapt",
    "as_array",
    "as_arrays",
    "class_weights",
    "find_nan",
    "split",
]
