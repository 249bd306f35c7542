"""`gnomon compile`: a model or function as a C library."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from gnomon.cli.finding import find
from gnomon.cli.options import JSON, SIZES, TARGET
from gnomon.cli.printing import as_bytes, as_json, as_table

ENDING = {"windows": {"obj": ".obj", "static": ".lib", "shared": ".dll"}, "apple": {"shared": ".dylib"},
          "wasm": {"shared": ".wasm"}}  # fmt: skip
"""Where files are called otherwise than in FORMATS, by what is in the target's triple."""
THREADS = ("callback", "pthreads")
FORMATS = {"obj": ".o", "static": ".a", "shared": ".so", "gnx": ".gnx"}
ENDINGS = {
    ".o": "obj", ".obj": "obj", ".a": "static", ".lib": "static",
    ".so": "shared", ".dylib": "shared", ".dll": "shared", ".wasm": "shared",
    ".gnx": "gnx",
}  # fmt: skip


def _batch(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    if value == "any":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"{value!r} is neither 'any' nor a number of samples, at least 1")
    return int(value)


def _classes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[int, float]:
    found = {}
    for value in values:
        match = re.fullmatch(r"(\d+)=(\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)", value)
        if match is None:
            raise click.BadParameter(f"{value!r} is not CLASS=W, such as 3=2.5")
        found[int(match[1])] = float(match[2])
    return found


class _Command(click.Command):
    """`--threads` may stand alone, before anything: it then means the caller's own threads."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        following = zip(args, (*args[1:], ""), strict=False)
        return super().parse_args(
            ctx, ["--threads=callback" if a == "--threads" and b not in THREADS else a for a, b in following]
        )


@click.command("compile", cls=_Command, short_help="Compile a model or function to a C library.")
@TARGET
@click.option("-o", "--output", required=True, metavar="OUT", help="What to write: OUT.o, OUT.h and so on.")
@click.option("-f", "--format", "kind", type=click.Choice(list(FORMATS)), help="What form; by OUT's ending.")
@click.option("--name", metavar="PREFIX", help="What all names in C begin with; OUT's name if left out.")
@click.option("--target", "to", metavar="TARGET", help="A short name or a triple; this machine if left out.")
@click.option("--cpu", metavar="NAME", help="A processor of that kind; this machine's own, or the plainest.")
@click.option("--batch", default="any", show_default=True, metavar="N|any", callback=_batch, help="Samples of a call.")
@click.option("--max-batch", type=click.IntRange(1), metavar="N", help="The most samples, where any are allowed.")
@SIZES
@click.option("--weights", type=click.Choice(["embed", "file"]), default="embed", show_default=True,
              help="Inside the library, or in OUT.weights, which the caller loads.")
@click.option("--train", is_flag=True, help="Also what trains and evaluates it; the model must be compiled.")
@click.option("--sample-weight", "samples", is_flag=True, help="Training takes a weight for each sample, float[batch].")
@click.option("--class-weight", "classes", multiple=True, metavar="CLASS=W", callback=_classes,
              help="What a class counts in training; those not named count 1.")
@click.option("--pack/--no-pack", default=None, help="Store weights as products read them quickest; it may take more.")
@click.option("--quantize", type=click.Choice(["int8", "integers"]), help="Store weights in 8 bits, with a scale for "
              "each channel (int8), and multiply whole numbers too (integers).")
@click.option("--calibrate", metavar="FILE", help="Data for --quantize: inputs in a .npy or .npz file; y are labels.")
@click.option("--compare", metavar="FILE", help="Data on which --quantize tells what it costs; those of --calibrate.")
@click.option("--threads", type=click.Choice(THREADS), help="Functions can share their work: with threads of the "
              "caller's (callback, also if left out), or of the library's own making (pthreads).")
@JSON
def compile_command(
    target: str,
    output: str,
    kind: str | None,
    name: str | None,
    to: str | None,
    cpu: str | None,
    batch: int | None,
    max_batch: int | None,
    sizes: dict[str, int],
    weights: str,
    train: bool,
    samples: bool,
    classes: dict[int, float],
    pack: bool | None,
    quantize: str | None,
    calibrate: str | None,
    compare: str | None,
    threads: str | None,
    machine: bool,
) -> None:
    """Compile a model or function to a C library that depends on nothing.

    \b
    gnomon compile digits.keras -o digits.o              an object file, and digits.h
    gnomon compile digits.keras -o build/digits.so       a shared library
    gnomon compile digits.keras -o digits.gnx            one file that gnomon.runtime.load runs, without a compiler
    gnomon compile train.py:model -o digits.a --batch 1  for one sample at a time
    gnomon compile train.py:model -o digits.o --train    with what trains it: digits_step(...)
    gnomon compile train.py:step -o step.o --name my     a compiled function: my_run(...)

    \b
    gnomon compile digits.keras -o digits.o --target cortex-m4 --batch 1
    gnomon compile digits.keras -o digits.wasm --target wasm32
    gnomon compile digits.keras -o digits.so --target aarch64 --cpu cortex-a72
    gnomon compile digits.keras -o digits.o --target cortex-m0 --batch 1 --quantize integers --calibrate data.npz
    gnomon compile digits.keras -o digits.o --threads pthreads

    TARGET is an LLVM triple or one of: x86-64, x86-64-v2, x86-64-v3, x86-64-v4, aarch64, riscv64, riscv64-v, wasm32,
    cortex-m0, cortex-m3, cortex-m4, cortex-m7, cortex-m33, cortex-m55 and their like, windows, macos, android, ios.

    The header says how its functions are called. They allocate nothing and keep nothing; the caller gives them memory
    to work in.
    """
    from gnomon import ahead
    from gnomon.saving.files import to_write

    path = Path(output)
    if not path.name or path.is_dir():
        raise click.ClickException(f"{output!r} is a folder: name a file in it, such as {str(path / 'model.o')!r}")
    kind = kind or ENDINGS.get(path.suffix, "obj")
    base = path.with_suffix("") if path.suffix in ENDINGS else path
    prefix = name or re.sub(r"\W", "_", base.name, flags=re.ASCII)
    source = find(target)
    if not ahead.can_build(source):
        raise click.ClickException(f"{target} is of type {type(source).__name__}; compile takes a model or a function")
    goal = ahead.target_for(to, cpu)
    if (quantize is None) != (calibrate is None):
        raise click.UsageError("--quantize and --calibrate FILE go together: scales are chosen by the data in it")
    if compare is not None and quantize is None:
        raise click.UsageError("--compare FILE goes with --quantize: it tells what 8 bits cost on these data")
    if batch is not None and max_batch is not None:
        raise click.UsageError(f"--batch {batch} leaves nothing open for --max-batch {max_batch}: give one of them")
    if kind == "gnx" and threads is None:
        threads = ahead.threads_of(goal)
    if (samples or classes) and not train:
        raise click.UsageError("--sample-weight and --class-weight are for training: they go with --train")
    if samples and classes:
        raise click.UsageError("--sample-weight and --class-weight exclude each other: a sample has one weight")
    weighing = ahead.Weighing(samples, classes or None) if samples or classes else None
    system = next((found for part, found in ENDING.items() if part in goal.triple), {})
    ending = path.suffix if path.suffix in ENDINGS else system.get(kind, FORMATS[kind])
    for end in (ending,) if kind == "gnx" else (ending, ".h"):
        to_write(f"{base}{end}", end, True)  # said before the work and not after it
    small = None
    try:
        if calibrate is not None:
            progress("choosing scales")
            source = small = quantized(source, target, calibrate, compare, goal, quantize == "integers")
        library = ahead.build(
            source, prefix, goal, batch, max_batch, sizes, weights == "embed" and kind != "gnx",
            threads or False, train, weighing, pack, progress,
        )  # fmt: skip
        written = ahead.write(library, base, kind, ending, progress)
    finally:
        progress("")
    report(library, written, small and small.report, machine)


def progress(what: str) -> None:
    """Say on a terminal what is being done, in a line that the next one takes the place of."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what}" + (" ..." if what else ""), err=True, nl=False)


def quantized(source: Any, target: str, file: str, compare: str | None, goal: Any, whole: bool) -> Any:
    """The model with int8 weights, calibrated on a file of arrays, and compared with what it was on that or another."""
    from gnomon import ahead
    from gnomon.cli.subject import read_arrays, read_inputs, subject_of

    found = subject_of(source, target)

    def read(path: str) -> tuple[Any, Any]:
        labels = read_arrays(path).get("y") if path.endswith(".npz") else None
        return read_inputs(found, [path], ignored=("y",)), labels

    arrays, labels = read(file)
    return ahead.quantized(source, arrays, labels, goal, None if compare is None else read(compare), whole)


def report(library: Any, written: Any, small: Any, machine: bool) -> None:
    """Print what was written, how much memory it takes, and what quantizing cost."""
    weights, workspace = len(library.weights), library.greatest_workspace
    state = library.state_bytes if library.stateful else 0
    if machine:
        told = {"files": written.files, "code": written.code, "weights": weights, "workspace": workspace}
        told |= {"state": state, "stack": written.stack}
        if small is not None:
            told["quantized"] = {"measure": small.measure, "before": small.before, "after": small.after}
        click.echo(as_json(told))
        return
    rows = [(file, as_bytes(size)) for file, size in written.files.items()]
    rows += [("code", as_bytes(written.code)), ("weights", as_bytes(weights))]
    rows += [("state", as_bytes(state))] if state else []
    if workspace is not None:
        rows.append(("workspace", as_bytes(workspace)))
        rows.append(("flash", as_bytes(written.code + (weights if library.embed else 0))))
        rows.append(("RAM", f"{as_bytes(workspace + state)} besides inputs and outputs"))
    if written.stack is not None:
        rows.append(("stack", f"about {as_bytes(written.stack)}"))
    click.echo(as_table(rows))
    if small is not None:
        click.echo(str(small))


__all__ = ["compile_command"]
