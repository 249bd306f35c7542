"""Whole models in Keras 3's `.keras` files: a zip of `metadata.json`, `config.json`, `model.weights.h5`, `assets/`."""

from __future__ import annotations

import datetime
import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import gnomon
from gnomon.compiler.errors import ArgumentError, FileError, GnomonError
from gnomon.registry import deserialize_object, serialize_object, sharing_objects
from gnomon.saving.assets import assets_of, give_assets
from gnomon.saving.files import to_read, to_write, warn, written_aside
from gnomon.saving.weights import read_h5, write_h5

EXTENSION = ".keras"
KERAS_VERSION = "3.15.1"
"""The version of Keras whose form the files have."""
CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
EXPANSION, ALLOWED = 100, 256 << 20
"""A member that takes more than ALLOWED bytes and EXPANSION times its place in the archive is no model."""


def save_model(model: Any, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
    """Write a model to a `.keras` file: layers, weights, how it is compiled, the optimizer's state. Keras 3 reads it.

    The file is written aside and renamed: a reader sees the old one or the new one.
    Raises ArgumentError for another extension or for something in the model that has no configuration, FileError if the
    file cannot be written, or is there already and `overwrite` is false.
    """
    for name, value in kwargs.items():
        if value is not None and (name, value) not in (("include_optimizer", True), ("save_format", "keras")):
            raise ArgumentError(f"save() does not take {name}={value!r}: there is one form of '.keras' files")
    if zipped is False:
        raise ArgumentError("zipped=False is not supported: a model is one '.keras' file")
    path = to_write(filepath, EXTENSION, overwrite)
    if not model.built:
        warn(
            f"model {model.name!r} is saved before it is built: the file has no weights. Call the model on data, or "
            "`build(input_shape)`, first."
        )
    with sharing_objects():
        config = json.dumps(serialize_object(model))
    now = datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S")
    metadata = {"keras_version": KERAS_VERSION, "date_saved": now, "gnomon_version": gnomon.__version__}
    weights = BytesIO()
    write_h5(weights, model)
    assets = assets_of(model)
    with written_aside(path) as aside:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(METADATA, json.dumps(metadata))
            archive.writestr(CONFIG, config)
            archive.writestr(WEIGHTS, weights.getbuffer())
            for name, content in assets.items():
                archive.writestr(name, content)


def load_model(
    filepath: Any, custom_objects: Mapping[str, Any] | None = None, compile: bool = True, safe_mode: bool = True
) -> Any:
    """A model from a `.keras` file of Keras 3 or gnomon, with its weights.

    custom_objects   classes and functions by name, if they are not registered
    compile          whether to compile it as it was when it was saved
    safe_mode        True: code in files is never run, whatever is passed

    Raises FileError if the file cannot be read or is no model, ArgumentError for a class that is not known, DataError
    if its weights do not fit its layers.
    """
    path = to_read(filepath)
    if path.suffix in (".h5", ".hdf5"):
        raise FileError(
            f"{str(path)!r}: Keras's older .h5 files are not read; load it in Keras and save it as '.keras'"
            + (", or load_weights() into a model made by your code" if path.name.endswith(".weights.h5") else "")
        )
    if not safe_mode:
        warn("safe_mode=False has no effect: gnomon never runs code that a file holds")
    with reading_archive(path) as archive:
        config = archive.config()
        if not compile:
            config["compile_config"] = None
        try:
            with sharing_objects():
                model = deserialize_object(config, custom_objects)
        except GnomonError as error:
            raise type(error)(f"cannot make the model of {str(path)!r}: {error}") from error
        read_h5(BytesIO(archive.weights()), model, str(path), False, ())
        give_assets(model, archive.file.namelist(), archive.member)
    return model


class Archive:
    """The members of an open `.keras` file."""

    def __init__(self, path: Path, file: zipfile.ZipFile):
        self.path, self.file = path, file

    def member(self, name: str) -> bytes:
        """What a member holds. Raises FileError if there is none, or if it expands beyond all measure."""
        try:
            info = self.file.getinfo(name)
        except KeyError:
            found = ", ".join(map(repr, self.file.namelist()[:8])) or "nothing"
            raise FileError(f"{str(self.path)!r} is not a model of Keras 3: it has no {name!r}, but {found}") from None
        if info.file_size > ALLOWED and info.file_size > EXPANSION * info.compress_size:
            raise FileError(
                f"{str(self.path)!r}: {name!r} says that it takes {info.file_size:,} bytes, made of "
                f"{info.compress_size:,} in the file. It is not read."
            )
        try:
            return self.file.read(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise FileError(f"{str(self.path)!r} is damaged: {error}") from error

    def config(self) -> dict[str, Any]:
        try:
            config = json.loads(self.member(CONFIG))
        except ValueError as error:
            raise FileError(f"{str(self.path)!r} is damaged: its {CONFIG!r} is no JSON ({error})") from None
        if not isinstance(config, dict) or "class_name" not in config:
            raise FileError(f"{str(self.path)!r} is not a model of Keras 3: its {CONFIG!r} describes no model")
        return config

    def weights(self) -> bytes:
        return self.member(WEIGHTS)


@contextmanager
def reading_archive(path: Path) -> Iterator[Archive]:
    """The archive, open. Raises FileError if it is none."""
    try:
        file = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise FileError(f"{str(path)!r} is not a model of Keras 3 (a zip archive), or damaged") from None
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    with file:
        yield Archive(path, file)


__all__ = ["load_model", "save_model"]
