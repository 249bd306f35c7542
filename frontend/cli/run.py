"""`gnomon run`: arrays in, predictions out."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gnomon.cli.options import JSON, SUBJECT
from gnomon.cli.printing import as_json


@click.command("run", short_help="Run a model on arrays from files.")
@SUBJECT
@click.argument("files", nargs=-1, required=True, metavar="ARRAYS...")
@click.option("-o", "--output", metavar="FILE", help="Write here: .npy, .npz or .csv; printed as CSV if left out.")
@click.option("--batch", type=click.IntRange(1), default=1024, show_default=True, metavar="N", help="Rows at a time.")
@JSON
def run_command(target: str, files: tuple[str, ...], output: str | None, batch: int, machine: bool) -> None:
    """Run a model, a compiled function or a .gnx file on arrays from files.

    \b
    gnomon run digits.keras images.npy -o classes.npy
    gnomon run digits.gnx images.npz               arrays by the names of the inputs
    gnomon run train.py:model left=a.npy right=b.npy --json
    gnomon run digits.keras pixels.csv             a line for each sample, printed likewise

    Files are .npy, .npz or .csv (numbers, perhaps below a line of names). Rows of a table are put into the form of the
    model's input where they have as many numbers.
    """
    from gnomon.cli.subject import read_inputs, subject

    found = subject(target)
    arrays = read_inputs(found, files)
    if output is not None:
        check_output(output)
    results = _in_parts(found, arrays, batch)
    results = {k: v.astype("float32") if v.dtype.name == "bfloat16" else v for k, v in results.items()}  # for files
    if machine and output is None:
        click.echo(as_json({name: value.tolist() for name, value in results.items()}))
    elif output is None:
        click.echo(as_csv(results), nl=False)
    else:
        write_arrays(output, results)
        if machine:
            shapes = {name: {"shape": list(v.shape), "dtype": str(v.dtype)} for name, v in results.items()}
            click.echo(as_json({"file": output, "outputs": shapes}))


def _in_parts(found: Any, arrays: list[Any], batch: int) -> dict[str, Any]:
    """The results of all rows; progress is shown on a terminal where it takes a while. Raises DataError for none."""
    import numpy as np

    from gnomon.compiler.errors import DataError

    if arrays and found.by_rows and not all(len(a) for a in arrays):
        raise DataError(f"there are no rows to run {found.name} on")
    rows = len(arrays[0]) if arrays and found.by_rows else 0
    if rows <= batch or any(len(a) != rows for a in arrays):
        return found(arrays)
    parts = []
    with click.progressbar(
        range(0, rows, batch), label="rows", file=sys.stderr, hidden=not sys.stderr.isatty()
    ) as starts:
        for at in starts:
            parts.append(found([a[at : at + batch] for a in arrays]))
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def check_output(path: str) -> None:
    """Raises ArgumentError for an ending that is not known, before any work is done."""
    from gnomon.compiler.errors import ArgumentError
    from gnomon.saving.files import to_write

    ending = Path(path).suffix
    if ending not in (".npy", ".npz", ".csv"):
        raise ArgumentError(f"{path!r}: results are written to .npy, .npz and .csv files")
    to_write(path, ending, True)


def write_arrays(path: str, arrays: Mapping[str, Any]) -> None:
    """Write arrays to a file, aside and renamed. Raises ArgumentError for several in one `.npy` file."""
    import numpy as np

    from gnomon.compiler.errors import ArgumentError
    from gnomon.saving.files import written_aside

    content = io.BytesIO()
    if path.endswith(".npz"):
        np.savez(content, **dict(arrays))
    elif path.endswith(".csv"):
        content.write(as_csv(arrays).encode())
    elif len(arrays) != 1:
        raise ArgumentError(f"{path!r} holds one array, and there are {', '.join(arrays)}: write a .npz file")
    else:
        np.save(content, next(iter(arrays.values())))
    with written_aside(Path(path)) as aside:
        aside.write_bytes(content.getvalue())


def as_csv(arrays: Mapping[str, Any]) -> str:
    """A line of names and a line for each row; numbers with all their digits."""
    import numpy as np

    arrays = {name: np.atleast_1d(a) for name, a in arrays.items()}
    tables = {name: a.reshape(len(a), int(np.prod(a.shape[1:]))) for name, a in arrays.items()}
    rows = max(len(t) for t in tables.values())
    heads = [name if t.shape[1] == 1 else f"{name}_{k}" for name, t in tables.items() for k in range(t.shape[1])]
    lines = [",".join(heads)]
    for r in range(rows):
        cells = [str(v) if r < len(t) else "" for t in tables.values() for v in (t[r] if r < len(t) else t[:1].ravel())]
        lines.append(",".join(cells))
    return "\n".join(lines) + "\n"


__all__ = ["run_command"]
