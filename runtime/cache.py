"""Compiled objects on disk: what one process compiled, the next one only loads.

An entry is one file, named by its key, the sha256 of all that its content depends on. It is written to a temporary file
and renamed, so that readers see whole entries or none and nothing is ever locked. It holds a checksum over its key and
content; an entry that fails it (truncated, tampered with, renamed) is deleted and compiled anew, never executed. The
directory must belong to the user and be writable by nobody else, or it is not used. Reading an entry sets its time, and
when the directory outgrows its limit the entries that were not read for longest go first.
No failure here is ever an error: without a usable directory everything is compiled anew.

    GNOMON_CACHE=0        no cache
    GNOMON_CACHE_DIR      the directory (default: platformdirs' user cache directory)
    GNOMON_CACHE_LIMIT    bytes that it may grow to (default 1 GiB); 512M and 2G are understood
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gnomon.compiler.errors import ArgumentError

MAGIC = b"gnomon object 1\n"
SUFFIX = ".gno"
LIMIT = 1 << 30
ABANDONED = 3600
"""Seconds after which a temporary file is taken to be left over from a process that died."""


@dataclass(frozen=True)
class Entry:
    """One file of the cache: what it holds (`name`), how large it is, when it was made and last used."""

    key: str
    name: str
    bytes: int
    made: float
    used: float


@dataclass(frozen=True)
class Info:
    """The state of the cache as a whole. `problem` says why it is not in use ('' if it is)."""

    path: Path | None
    entries: int
    bytes: int
    limit: int
    problem: str


def key(*parts: str) -> str:
    """The key of what is determined by `parts`, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode()
        digest.update(b"%d:" % len(data))  # lengths: ("ab", "c") and ("a", "bc") are different keys
        digest.update(data)
    return digest.hexdigest()


def path() -> Path | None:
    """The directory of the cache, whether it exists or not; None if the cache is switched off."""
    if os.environ.get("GNOMON_CACHE", "1").strip().lower() in ("0", "off", "no", "false"):
        return None
    chosen = os.environ.get("GNOMON_CACHE_DIR")
    if chosen:
        return Path(os.path.abspath(os.path.expanduser(chosen)))
    import platformdirs

    return Path(platformdirs.user_cache_dir("gnomon", appauthor=False))


def limit() -> int:
    """How many bytes the cache may hold. Raises ArgumentError if GNOMON_CACHE_LIMIT is not a number of bytes."""
    text = os.environ.get("GNOMON_CACHE_LIMIT", "").strip()
    if not text:
        return LIMIT
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:].upper(), 1)
    try:
        return int(float(text if unit == 1 else text[:-1]) * unit)
    except ValueError:
        raise ArgumentError(
            f"GNOMON_CACHE_LIMIT is {text!r}; it must be a number of bytes, such as 500000000, 512M or 2G."
        ) from None


def get(key: str) -> bytes | None:
    """The content stored under `key`, or None: not there, damaged, or the cache is not usable."""
    directory = _directory()
    if directory is None:
        return None
    file = directory / (key + SUFFIX)
    try:
        data = file.read_bytes()
    except OSError:
        return None
    content = _open(key, data)
    if content is None:
        with contextlib.suppress(OSError):
            file.unlink()
        return None
    with contextlib.suppress(OSError):  # a cache that can only be read still serves
        os.utime(file)
    return content[1]


def put(key: str, name: str, content: bytes) -> None:
    """Store `content`, called `name` for people, under `key`. Does nothing if that is not possible."""
    directory = _directory()
    if directory is None:
        return
    body = name.replace("\n", " ").encode() + b"\n" + content
    data = MAGIC + _checksum(key, body) + b"\n" + body
    temporary = directory / f".new-{os.getpid()}-{next(_counter)}-{os.urandom(4).hex()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        os.replace(temporary, directory / (key + SUFFIX))
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        return
    _grown(directory, len(data))


def is_empty() -> bool:
    """Whether nothing can be got from the cache: there is none, or no entry in it."""
    directory = _directory(make=False)
    if directory is None:
        return True
    try:
        with os.scandir(directory) as items:
            return not any(item.name.endswith(SUFFIX) for item in items)
    except OSError:
        return True


def list_entries() -> list[Entry]:
    """Every entry, last used first. Damaged ones are called '(damaged)'."""
    directory = _directory(make=False)
    entries = []
    for file, status in _files(directory):
        if file.name.endswith(SUFFIX):
            entry_key = file.name.removesuffix(SUFFIX)
            try:
                content = _open(entry_key, file.read_bytes())
            except OSError:
                continue
            name = "(damaged)" if content is None else content[0]
            made = getattr(status, "st_birthtime", status.st_ctime)
            entries.append(Entry(entry_key, name, status.st_size, made, status.st_mtime))
    return sorted(entries, key=lambda e: (-e.used, e.name))


def info() -> Info:
    """Where the cache is, how full it is, and whether it is in use."""
    where = path()
    files = [status for file, status in _files(_directory(make=False)) if file.name.endswith(SUFFIX)]
    return Info(where, len(files), sum(s.st_size for s in files), limit(), problem())


def clear() -> int:
    """Delete every entry. Returns how many there were."""
    count = 0
    for file, _ in _files(_directory(make=False)):
        with contextlib.suppress(OSError):
            file.unlink()
            count += file.name.endswith(SUFFIX)
    _sizes.clear()
    return count


def problem() -> str:
    """Why the cache is not in use; '' if it is."""
    where = path()
    if where is None:
        return "switched off by GNOMON_CACHE"
    _directory()
    return _checked.get(where, (None, ""))[1]


_checked: dict[Path, tuple[Path | None, str]] = {}
_sizes: dict[Path, int] = {}
_counter = itertools.count()


def _directory(make: bool = True) -> Path | None:
    """The directory if it may be used, made if it is not there. Judged once per process and directory."""
    where = path()
    if where is None:
        return None
    known = _checked.get(where)
    if known is None or (known[0] is not None and not where.is_dir()):
        if not make and not where.exists():
            return None
        trouble = _prepare(where)
        known = _checked[where] = (None if trouble else where, trouble)
    return known[0]


def _prepare(where: Path) -> str:
    """Make the directory, private to the user; what is wrong with it, or ''."""
    if not where.is_absolute():
        return f"{where} is nowhere: this user has no home directory; set GNOMON_CACHE_DIR"
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = where.stat()
    except OSError as error:
        return f"{where} cannot be made: {error.strerror or error}"
    if hasattr(os, "getuid"):
        if status.st_uid not in (os.getuid(), 0):
            return f"{where} belongs to another user, who could change what is executed"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            try:
                where.chmod(0o700)
            except OSError:
                return f"{where} is writable by other users, who could change what is executed"
    return ""


def _checksum(key: str, body: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(body)
    return digest.hexdigest().encode()


def _open(key: str, data: bytes) -> tuple[str, bytes] | None:
    """Name and content of an entry, or None if it is not exactly what was written under `key`."""
    start = len(MAGIC) + 65
    body = data[start:]
    if data[:start] != MAGIC + _checksum(key, body) + b"\n":
        return None
    head, _, content = body.partition(b"\n")
    return head.decode(errors="replace"), content


def _files(directory: Path | None) -> Iterable[tuple[Path, os.stat_result]]:
    """Our files in `directory`, entries and temporary ones, with their status."""
    if directory is None:
        return []
    found = []
    try:
        with os.scandir(directory) as items:
            for item in items:
                if item.name.endswith(SUFFIX) or item.name.startswith(".new-"):
                    with contextlib.suppress(OSError):  # another process may delete it meanwhile
                        found.append((Path(item.path), item.stat()))
    except OSError:
        return []
    return found


def _grown(directory: Path, by: int) -> None:
    """Account for `by` new bytes, and delete the least recently used entries once the limit is passed."""
    allowed = limit()
    if directory in _sizes:
        _sizes[directory] += by
    else:
        _sizes[directory] = sum(s.st_size for _, s in _files(directory))
    if _sizes[directory] <= allowed:
        return
    files: list[tuple[Path, Any]] = sorted(_files(directory), key=lambda f: f[1].st_mtime)
    total = sum(s.st_size for _, s in files)
    now = time.time()
    for file, status in files:
        temporary = file.name.startswith(".new-")
        if total <= allowed * 0.9:  # below the limit, so that the next entry does not scan again
            break
        if temporary and now - status.st_mtime < ABANDONED:
            continue
        with contextlib.suppress(OSError):
            file.unlink()
            total -= status.st_size
    _sizes[directory] = total
