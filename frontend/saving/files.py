"""Paths that users give, and files that are whole or not there at all."""

from __future__ import annotations

import os
import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gnomon.compiler.errors import ArgumentError, FileError, MissingFileError
from gnomon.compiler.graph import user_line


def as_path(given: Any, what: str = "filepath") -> Path:
    """A path from a string or path-like object. Raises ArgumentError for anything else."""
    if not isinstance(given, (str, os.PathLike)):
        raise ArgumentError(f"{what} is a string or a path, got {given!r:.80} of type {type(given).__name__}")
    return Path(os.fsdecode(os.fspath(given)))


def to_write(given: Any, extension: str, overwrite: bool) -> Path:
    """The path of a file to be written. Raises before anything is written:

    ArgumentError for another extension, FileError for a file that is there and must not be replaced or for a folder of
    that name, MissingFileError for a folder that is not there.
    """
    path = as_path(given)
    if not path.name.endswith(extension):
        raise ArgumentError(f"the name of the file must end in {extension!r}, got {str(path)!r}")
    if path.is_dir():
        raise FileError(f"cannot write {str(path)!r}: it is a folder")
    if not path.parent.is_dir():
        raise MissingFileError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if not overwrite and path.exists():
        raise FileError(f"{str(path)!r} exists already: pass overwrite=True to replace it, or another name")
    return path


def to_read(given: Any) -> Path:
    """The path of a file to be read. Raises MissingFileError if it is not there, FileError if it is a folder."""
    path = as_path(given)
    if path.is_dir():
        raise FileError(f"cannot read {str(path)!r}: it is a folder, a file was expected")
    if not path.exists():
        ending = "".join(path.suffixes[-2:])
        near = sorted(p.name for p in path.parent.iterdir() if p.name.endswith(ending)) if path.parent.is_dir() else []
        hint = f" In that folder are {', '.join(map(repr, near[:5]))}." if near else ""
        raise MissingFileError(f"there is no file {str(path)!r}.{hint}")
    return path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary file in the same folder that becomes `path` at the end, or vanishes if something goes wrong.

    Whoever reads `path` meanwhile sees the old file. Raises FileError if the folder cannot be written to.
    """
    target = Path(os.path.realpath(path))  # behind a link, so that the link stays one
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield aside
        with open(aside, "rb") as file:
            os.fsync(file.fileno())  # or the name might be on the disk before what it names
        os.replace(aside, target)
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def warn(message: str) -> None:
    """Warn at the user's own line."""
    file, line = user_line()
    warnings.warn_explicit(message, UserWarning, file or "<unknown>", line)
