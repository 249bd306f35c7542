"""`gnomon bench`: how long a call takes."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import click

from gnomon.cli.options import JSON, SIZES, SUBJECT
from gnomon.cli.printing import as_json, as_table


def _batches(context: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    parts = value.split(",")
    if not all(p.isdecimal() and int(p) for p in parts):
        raise click.BadParameter(f"{value!r} is not a list of numbers such as 1,32,256")
    return [int(p) for p in parts]


@click.command("bench", short_help="Time calls of a model, function or .gnx file.")
@SUBJECT
@click.option("--batch", default="1,32,256", show_default=True, metavar="N,N", callback=_batches, help="Rows a call.")
@SIZES
@click.option("--seconds", default=1.0, show_default=True, type=click.FloatRange(0.01), help="For each of them.")
@JSON
def bench_command(target: str, batch: list[int], sizes: dict[str, int], seconds: float, machine: bool) -> None:
    """Time calls of a model, a compiled function or a .gnx file on made-up data.

    \b
    gnomon bench digits.keras
    gnomon bench digits.gnx --batch 1,1000
    gnomon bench train.py:model --size time=200 --json

    The first call, which compiles, is told apart. Of the others: the best, the median, and how many rows a second
    the median makes.
    """
    from gnomon.cli.subject import subject

    found = subject(target)
    rows = []
    open_batch = any(w.shape and isinstance(w.shape[0], str) for w in found.inputs)
    for count in batch if open_batch else batch[:1]:
        arrays = found.made_up(count, sizes)
        own = count if open_batch else 1
        if sys.stderr.isatty():
            click.echo(f"batch {own} ...\r", err=True, nl=False)
        began = time.perf_counter()
        found.quickly(arrays)
        first = time.perf_counter() - began
        times = _timed(partial(found.quickly, arrays), seconds)
        median = statistics.median(times)
        rows.append(
            {"batch": own, "first": first, "best": min(times), "median": median, "rows_per_second": own / median,
             "calls": len(times)}
        )  # fmt: skip
    if machine:
        click.echo(as_json({"name": found.name, "calls": rows}))
        return
    header = ("batch", "first call", "best", "median", "rows/s")
    table = [
        (str(r["batch"]), as_duration(r["first"]), as_duration(r["best"]), as_duration(r["median"]),
         f"{r['rows_per_second']:,.0f}")
        for r in rows
    ]  # fmt: skip
    click.echo(as_table(table, header, right=range(5)))


def _timed(call: Callable[[], object], seconds: float) -> list[float]:
    """Times of single calls, for about so many seconds; at least 3."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return times


def as_duration(seconds: float) -> str:
    """'2.1 us', '3.4 ms', '1.2 s'."""
    for unit, factor in (("us", 1e6), ("ms", 1e3)):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


__all__ = ["as_duration", "bench_command"]
