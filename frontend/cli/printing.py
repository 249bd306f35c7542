"""How the command line writes: tables, sizes, times, JSON, files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2)


def as_bytes(count: int) -> str:
    """'512 B', '1.5 KiB', '1.0 GiB'."""
    if count < 1024:
        return f"{count} B"
    size = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:.1f} {unit}"


def as_time(seconds: float) -> str:
    """A moment, in local time to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def as_table(rows: Sequence[Sequence[str]], header: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    """Columns two blanks apart; those in `right` end at one place, the last is never padded."""
    lines = [*([tuple(header)] if header else []), *rows]
    widths = [max(len(row[k]) for row in lines) for k in range(len(lines[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [c.rjust(w) if k in right else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        return "  ".join(cells).rstrip()

    return "\n".join(map(line, lines))


def write_aside(file: str, text: str) -> None:
    """Write a file under another name and rename it: who reads it sees the old one or the new one, never a part."""
    target = Path(file)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = file
        raise


__all__ = ["as_bytes", "as_json", "as_table", "as_time", "write_aside"]
