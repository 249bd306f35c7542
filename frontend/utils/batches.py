"""Data sets made of arrays and folders: time series, and files sorted into a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError, DataError, MissingFileError
from gnomon.utils.numerical import to_categorical
from gnomon.utils.py_dataset import PyDataset

INTERPOLATIONS = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
CHANNELS = {"rgb": 3, "rgba": 4, "grayscale": 1}
PIL_MODES = {"rgb": "RGB", "rgba": "RGBA", "grayscale": "L"}
PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


class Batches(PyDataset):
    """Batches of samples that are told by numbers, in another order in each epoch if they are shuffled.

    samples      the numbers
    get          what makes a batch (x, or (x, y)) of an array of them; of one if `batch_size` is None
    class_names  of data sets of folders
    """

    def __init__(
        self,
        samples: np.ndarray,
        get: Callable[[Any], Any],
        batch_size: int | None,
        shuffle: bool,
        seed: int | None,
        class_names: list[str] | None = None,
    ):
        super().__init__()
        if batch_size is not None and (not isinstance(batch_size, int) or batch_size <= 0):
            raise ArgumentError(f"batch_size is a positive integer or None, got {batch_size!r}")
        self.samples, self.get, self.batch_size, self.class_names = samples, get, batch_size, class_names
        self._random = np.random.default_rng(seed) if shuffle else None

    def __len__(self) -> int:
        return -(-len(self.samples) // (self.batch_size or 1))

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        if self.batch_size is None:
            return self.get(self.samples[index])
        return self.get(self.samples[index * self.batch_size : (index + 1) * self.batch_size])

    def on_epoch_end(self) -> None:
        if self._random is not None:
            self._random.shuffle(self.samples)


# ---- time series


def timeseries_dataset_from_array(
    data: Any,
    targets: Any,
    sequence_length: int,
    sequence_stride: int = 1,
    sampling_rate: int = 1,
    batch_size: int | None = 128,
    shuffle: bool = False,
    seed: int | None = None,
    start_index: int | None = None,
    end_index: int | None = None,
    format: str = "tf",
) -> Batches:
    """Windows of a time series, a data set of (windows, targets), or of windows alone if `targets` is None.

    data             [time, ...]; the window that begins at step s has the steps s, s + sampling_rate ...
    targets          [time, ...]; that of a window is the one at its first step
    sequence_length  steps of a window   sequence_stride: steps between the beginnings of two windows
    start_index, end_index   take the steps from one (in) to the other (out) only
    format           accepted for Keras's sake
    batch: [batch_size, sequence_length, ...], or a window by itself if batch_size is None

    Raises ArgumentError for numbers that are out of range.
    """
    series = np.asarray(data)
    aims = None if targets is None else np.asarray(targets)
    count = len(series)
    for name, value in (("sampling_rate", sampling_rate), ("sequence_stride", sequence_stride)):
        if not 0 < value < count:
            raise ArgumentError(
                f"`{name}` must be higher than 0 and lower than the number of steps, {count}. Received: {name}={value}"
            )
    if sequence_length < 1:
        raise ArgumentError(f"`sequence_length` must be higher than 0. Received: sequence_length={sequence_length}")
    start = 0 if start_index is None else start_index
    end = count if end_index is None else end_index
    if not 0 <= start < count:
        raise ArgumentError(
            f"`start_index` must be 0 or greater and lower than the length of the data, {count}. Received: "
            f"start_index={start}"
        )
    if not start < end <= count:
        raise ArgumentError(
            f"`end_index` must be higher than `start_index` and not higher than the length of the data, {count}. "
            f"Received: start_index={start} and end_index={end}"
        )
    windows = end - start - (sequence_length - 1) * sampling_rate
    if aims is not None:
        windows = min(windows, len(aims) - start)
    begins = start + np.arange(0, max(windows, 0), sequence_stride)
    if shuffle:
        seed = int(np.random.default_rng().integers(1 << 31)) if seed is None else seed
        np.random.RandomState(seed).shuffle(begins)  # Keras's order of the first epoch
    steps = np.arange(sequence_length) * sampling_rate

    def get(first: Any) -> Any:
        x = series[np.asarray(first)[..., None] + steps]
        return x if aims is None else (x, aims[first])

    return Batches(begins, get, batch_size, shuffle, seed)


# ---- folders


def text_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    batch_size: int | None = 32,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """The .txt files of a folder as a data set of (texts, labels); a pair of data sets for subset='both'.

    labels       'inferred': a class for each sub-folder; a list, in the order of the files; None: none
    label_mode   'int', 'categorical' (one-hot rows), 'binary' (0 or 1 as floats), None: no labels
    class_names  the sub-folders in another order than that of their names
    max_length   bytes of each text at most
    validation_split, subset   a share of the files as 'validation', the others as 'training', or 'both'; needs a seed
                 if the files are shuffled
    The attribute `class_names` of the data set has the classes. `format` is accepted for Keras's sake.

    Raises ArgumentError for options that do not fit together, MissingFileError for a folder that is not there,
    DataError if there are no files.
    """

    def read(path: str) -> str:
        content = Path(path).read_bytes()
        return (content if max_length is None else content[:max_length]).decode("utf-8", "replace")

    files = Files(directory, labels, label_mode, class_names, (".txt",), shuffle, seed, follow_links, verbose)
    return files.datasets(
        lambda paths: np.array([read(p) for p in paths]), batch_size, validation_split, subset, "text"
    )


def image_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: int | tuple[int, int] = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    format: str = "tf",
    verbose: bool = True,
) -> Any:
    """The pictures of a folder as a data set of (pictures, labels), all of one size; needs Pillow to read them.

    color_mode   'rgb', 'rgba' or 'grayscale'   image_size: rows and columns   interpolation: as in `ops.image.resize`
    batch: float32[batch_size, rows, columns, channels], 0 to 255
    Other arguments, and errors, as in `text_dataset_from_directory`.
    """
    from gnomon import config

    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if not isinstance(size, (list, tuple)) or len(size) != 2:
        raise ArgumentError(f"Invalid `image_size` value. Expected a tuple of 2 integers. Received: {image_size!r}")
    if color_mode not in CHANNELS:
        raise ArgumentError(
            f'`color_mode` must be one of {{"rgb", "rgba", "grayscale"}}. Received: color_mode={color_mode}'
        )
    if interpolation.lower() not in INTERPOLATIONS:
        raise ArgumentError(
            f"Argument `interpolation` should be one of {INTERPOLATIONS}. Received: interpolation={interpolation}"
        )
    order = data_format or config.image_data_format()

    def read(path: str) -> np.ndarray:
        from gnomon import ops

        picture = decoded(path, color_mode).astype(np.float32)
        scaled = ops.image.resize(
            picture, tuple(size), interpolation.lower(), crop_to_aspect_ratio=crop_to_aspect_ratio,
            pad_to_aspect_ratio=pad_to_aspect_ratio, data_format="channels_last",
        )  # fmt: skip
        return np.asarray(scaled) if order == "channels_last" else np.moveaxis(np.asarray(scaled), -1, 0)

    files = Files(directory, labels, label_mode, class_names, PICTURES, shuffle, seed, follow_links, verbose)
    return files.datasets(
        lambda paths: np.stack([read(p) for p in paths]), batch_size, validation_split, subset, "image"
    )


def decoded(path: str, color_mode: str) -> np.ndarray:
    """A picture as uint8[rows, columns, channels]. Raises DataError if it cannot be read, or Pillow is missing."""
    try:
        from PIL import Image
    except ImportError:
        raise DataError(f"reading {path!r} needs Pillow, which is not installed: pip install pillow") from None
    try:
        with Image.open(path) as picture:
            array = np.asarray(picture.convert(PIL_MODES[color_mode]))
    except OSError as error:
        raise DataError(f"{path!r} cannot be read as a picture: {error}") from None
    return array if array.ndim == 3 else array[..., None]


class Files:
    """The files of a folder, their labels and the names of the classes."""

    def __init__(
        self,
        directory: Any,
        labels: Any,
        label_mode: str | None,
        class_names: Sequence[str] | None,
        endings: tuple[str, ...],
        shuffle: bool,
        seed: int | None,
        follow_links: bool,
        verbose: bool,
    ):
        folder = Path(directory)
        if labels not in ("inferred", None) and not isinstance(labels, (list, tuple)):
            raise ArgumentError(
                "`labels` argument should be a list/tuple of integer labels, of the same size as the number of files "
                "in "
                f"the target directory, 'inferred' or None. Received: labels={labels}"
            )
        if class_names and labels != "inferred":
            raise ArgumentError(
                f'You can only pass `class_names` if `labels="inferred"`. Received: labels={labels}, and '
                f"class_names={class_names}"
            )
        if label_mode not in ("int", "categorical", "binary", None):
            raise ArgumentError(
                '`label_mode` argument must be one of "int", "categorical", "binary", or None. Received: '
                f"label_mode={label_mode}"
            )
        if not folder.is_dir():
            raise MissingFileError(f"there is no folder {str(folder)!r}")
        self.folder, self.endings, self.verbose, self.seed = folder, endings, verbose, seed
        self.label_mode = None if labels is None else label_mode
        self.shuffle = shuffle
        inferred = labels == "inferred"
        kinds = [""]
        if inferred:
            kinds = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
            if class_names is not None:
                if not set(class_names) <= set(kinds):
                    raise ArgumentError(
                        "The `class_names` passed did not match the names of the subdirectories of the target "
                        f"directory. Expected: {kinds} (or a subset of it), but received: class_names={class_names}"
                    )
                kinds = list(class_names)
        found = [self._in(folder / kind, follow_links) for kind in kinds]
        paths = [path for some in found for path in some]
        if isinstance(labels, (list, tuple)):
            if len(labels) != len(paths):
                raise ArgumentError(
                    "Expected the lengths of `labels` to match the number of files in the target directory. "
                    "len(labels) "
                    f"is {len(labels)} while we found {len(paths)} files in directory {directory}."
                )
            numbers = np.array(labels, np.int32)
            self.class_names: list[str] | None = [str(label) for label in sorted(set(labels))]
        else:
            numbers = np.repeat(np.arange(len(kinds), dtype=np.int32), [len(some) for some in found])
            self.class_names = kinds if inferred and self.label_mode is not None else None
        if self.label_mode == "binary" and len(self.class_names or ()) != 2:
            raise ArgumentError(
                'When passing `label_mode="binary"`, there must be exactly 2 class_names. Received: '
                f"class_names={self.class_names}"
            )
        self.paths, self.numbers = paths, numbers
        kinds_found = "" if self.class_names is None else f" belonging to {len(self.class_names)} classes"
        self._say(f"Found {len(paths)} files{kinds_found}.")

    def _in(self, folder: Path, follow_links: bool) -> list[str]:
        """The files below a folder, in order."""
        walked = sorted(os.walk(folder, followlinks=follow_links))
        return [
            os.path.join(root, name)
            for root, _, names in walked
            for name in sorted(names)
            if name.lower().endswith(self.endings)
        ]

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text)

    def datasets(
        self, read: Callable[[list[str]], np.ndarray], batch_size: int | None, split: float | None, subset: str | None,
        kind: str,
    ) -> Any:  # fmt: skip
        """One data set, or those of training and validation. `read` makes an array of files."""
        if split and not 0 < split < 1:
            raise ArgumentError(f"`validation_split` must be between 0 and 1, received: {split}")
        if bool(split) != bool(subset):
            raise ArgumentError("If `subset` is set, `validation_split` must be set, and inversely.")
        if subset not in ("training", "validation", "both", None):
            raise ArgumentError(f'`subset` must be either "training", "validation" or "both", received: {subset}')
        if split and self.shuffle and self.seed is None:
            raise ArgumentError(
                "If using `validation_split` and shuffling the data, you must provide a `seed` argument, to make sure "
                "that there is no overlap between the training and validation subset."
            )
        order = np.arange(len(self.paths))
        if self.shuffle:
            seed = int(np.random.default_rng().integers(1 << 31)) if self.seed is None else self.seed
            np.random.RandomState(seed).shuffle(order)  # which of the files are whose, as Keras chooses
        at = len(order) - int((split or 0) * len(order))
        parts = {None: order, "training": order[:at], "validation": order[at:]}
        chosen = ["training", "validation"] if subset == "both" else [subset]
        made = []
        for name in chosen:
            if not len(parts[name]):
                which = f"{name} " if name else ""
                raise DataError(
                    f"No {which}{kind} files found in directory {str(self.folder)!r}. Allowed formats: "
                    f"{', '.join(self.endings)}"
                )
            if name is not None:
                self._say(f"Using {len(parts[name])} files for {name}.")
            shuffled = self.shuffle and not (subset == "both" and name == "validation")
            made.append(
                Batches(parts[name].copy(), self._getter(read), batch_size, shuffled, self.seed, self.class_names)
            )
        return made if subset == "both" else made[0]

    def _getter(self, read: Callable[[list[str]], np.ndarray]) -> Callable[[Any], Any]:
        def get(chosen: Any) -> Any:
            some = np.atleast_1d(chosen)
            x: Any = read([self.paths[k] for k in some])
            y: Any = self.numbers[some]
            if self.label_mode == "categorical":
                y = to_categorical(y, len(self.class_names or ())).astype(np.float32)
            elif self.label_mode == "binary":
                y = y.astype(np.float32)[:, None]
            if np.ndim(chosen) == 0:
                x, y = x[0], y[0]
            return x if self.label_mode is None else (x, y)

        return get


__all__ = ["image_dataset_from_directory", "text_dataset_from_directory", "timeseries_dataset_from_array"]
