"""The command line, in click. What takes time to import is imported by the command that needs it."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Sequence
from types import FunctionType
from typing import Any

import click

from gnomon.cli.bench import bench_command
from gnomon.cli.compile import compile_command
from gnomon.cli.finding import find
from gnomon.cli.options import JSON, TARGET
from gnomon.cli.printing import as_bytes, as_json, as_table, as_time, write_aside
from gnomon.cli.profile import profile_command
from gnomon.cli.run import run_command
from gnomon.compiler.errors import GnomonError


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; what goes wrong is one line on stderr. Returns 1 for a failure, 2 for a wrong usage."""
    try:
        result = cli.main(
            args=None if arguments is None else list(arguments), prog_name="gnomon", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        error.show()
        return 2
    except click.ClickException as error:
        return _failed(error.format_message(), error)
    except click.Abort:
        return _failed("interrupted", None)
    except GnomonError as error:
        return _failed(str(error), error)
    except BrokenPipeError:  # `gnomon dump ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _failed(f"{error.filename}: {error.strerror}" if error.filename else str(error), error)
    except Exception as error:
        return _failed(f"{type(error).__name__}: {error} (GNOMON_TRACEBACK=1 shows where)", error)


def _failed(message: str, error: BaseException | None) -> int:
    if error is not None and os.environ.get("GNOMON_TRACEBACK", "") not in ("", "0"):
        traceback.print_exception(error)
    else:
        click.echo(f"gnomon: {message}", err=True)
    return 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="gnomon", prog_name="gnomon", message="%(prog)s %(version)s")
def cli() -> None:
    """Look into what gnomon compiles, and at the machine it compiles for.

    \b
    gnomon doctor                              is everything in order here?
    gnomon summary train.py:model              the layers of a model
    gnomon dump train.py:model                 the layers with the lines that made them
    gnomon dump train.py:step --stage kernels  what a function is compiled to
    gnomon compile model.keras -o model.o      a C library of a model
    gnomon run model.keras x.npy -o y.npy      its predictions
    gnomon bench model.keras                   how long they take, and gnomon profile: where
    gnomon cache info                          how full the cache of compiled code is

    MODULE:ATTRIBUTE is a file or module and a name in it: a Model or a compiled function, or with () a function
    without arguments that makes one (train.py:make_model()). The module is imported, so a script should
    train only below `if __name__ == "__main__":`. In its place a saved model will do: model.keras.

    Exit codes: 0 all right, 1 it failed, 2 the command line is wrong. GNOMON_TRACEBACK=1 shows where it failed.
    """


# ---- dump and summary


@cli.command()
@TARGET
@click.option("-s", "--stage", help="Which stage; 'layers' of a model and 'graph' of a function if left out.")
@click.option(
    "-f", "--format", "kind", default="text", show_default=True, metavar="FORMAT", help="text, dot, json or graphml."
)
@click.option("--diff", nargs=2, metavar="A B", help="What is different in stage B from stage A.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write here instead of printing; an old file stays until it is done."
)
@click.option("--html", metavar="FILE", help="Write one page that shows all stages, for a browser; no network needed.")
@click.option("--list", "list_stages", is_flag=True, help="List the stages there are.")
def dump(
    target: str,
    stage: str | None,
    kind: str,
    diff: tuple[str, str] | None,
    output: str | None,
    html: str | None,
    list_stages: bool,
) -> None:
    """Print a stage of a function or model, each node with its layer and source line.

    \b
    Stages of a model:     layers, graph (forward), differentiated (training step), and those of the
                           training step from then on, if it is compiled
    Stages of a function:  graph, each pass by its name, simplified, rows, kernels, program, llvm, assembly

    \b
    gnomon dump train.py:model
    gnomon dump train.py:model --stage differentiated --format dot -o step.dot
    gnomon dump train.py:step --diff graph simplified
    gnomon dump train.py:step --stage assembly | less
    gnomon dump train.py:model --html model.html
    """
    from gnomon import inspecting

    found = find(target)
    is_model = _is_model(found)
    stages = inspecting.MODEL_STAGES if is_model else inspecting.STAGES
    if not is_model and not _is_function(found):
        raise click.ClickException(f"{target} is {_described(found)}; dump takes a model or a compiled function")
    if html is not None:
        if stage is not None or diff is not None or output is not None or list_stages:
            raise click.UsageError("--html shows all stages in a file of its own: it goes without other options")
        from gnomon.page import page

        write_aside(html, page(found))
        return
    if list_stages:
        text = "\n".join(stages)
    elif diff is not None:
        if stage is not None:
            raise click.UsageError("--stage and --diff exclude each other")
        text = found.show(diff[0], kind, diff=diff[1])
    else:
        text = found.show(stage or stages[0], kind)
    if output is None:
        click.echo(text)
    else:
        write_aside(output, text)


@cli.command()
@TARGET
@click.option("--expand", is_flag=True, help="Also the layers of models inside it.")
@click.option("--trainable", is_flag=True, help="Also which layers are trained.")
@JSON
def summary(target: str, expand: bool, trainable: bool, machine: bool) -> None:
    """Print a model's layers, output shapes and numbers of parameters.

    \b
    gnomon summary train.py:model
    gnomon summary "package.models:make_model()" --expand
    gnomon summary model.keras
    """
    model = find(target)
    if not _is_model(model):
        raise click.ClickException(f"{target} is {_described(model)}; summary takes a model")
    if machine:
        click.echo(as_json(_summary(model, expand)))
    else:
        model.summary(print_fn=click.echo, expand_nested=expand, show_trainable=trainable)


def _summary(model: Any, expand: bool) -> dict[str, Any]:
    """What a summary says, for programs."""
    layers = []
    for layer in model.layers:
        told = {
            "name": layer.name,
            "class": type(layer).__name__,
            "output_shape": layer._layer_state.output_shapes,
            "parameters": layer.count_params() if layer.built else None,
            "trainable": layer.trainable,
        }
        if expand and _is_model(layer):
            told |= _summary(layer, expand)
        layers.append(told)
    trained = sum(math.prod(v.buffer.shape) for v in model.trainable_variables)
    count = model.count_params() if model.built else None
    return {"name": model.name, "layers": layers, "parameters": count, "trainable_parameters": trained}


def _is_model(value: Any) -> bool:
    from gnomon.models import Model

    return isinstance(value, Model)


def _is_function(value: Any) -> bool:
    from gnomon.functions import Function

    return isinstance(value, Function)


def _described(value: Any) -> str:
    if isinstance(value, FunctionType):
        return "a Python function (write () behind it to call it)"
    return f"of type {type(value).__name__}"


# ---- cache


@cli.group()
def cache() -> None:
    """The cache of compiled code on disk.

    \b
    gnomon cache info        where it is and how full
    gnomon cache list        what is in it, last used first
    gnomon cache clear       delete it all: it is made again when needed
    cd "$(gnomon cache path)"

    \b
    GNOMON_CACHE=0           use no cache
    GNOMON_CACHE_DIR=PATH    use another directory
    GNOMON_CACHE_LIMIT=512M  how large it may grow
    """


@cache.command("path")
def cache_path() -> None:
    """Print the directory. Fails if the cache is switched off."""
    from gnomon.runtime import cache as disk

    where = disk.path()
    if where is None:
        raise click.ClickException(f"there is no cache: {disk.problem()}")
    click.echo(str(where))


@cache.command("info")
@JSON
def cache_info(machine: bool) -> None:
    """How full the cache is, and whether it is in use."""
    from gnomon.runtime import cache as disk

    info = disk.info()
    if machine:
        found = {
            "path": info.path and str(info.path),
            "entries": info.entries,
            "bytes": info.bytes,
            "limit": info.limit,
        }
        click.echo(as_json({**found, "problem": info.problem}))
        return
    rows = [
        ("path", str(info.path or "none")),
        ("entries", str(info.entries)),
        ("size", f"{as_bytes(info.bytes)} of {as_bytes(info.limit)}"),
        ("in use", "no: " + info.problem if info.problem else "yes"),
    ]
    click.echo(as_table(rows))


@cache.command("list")
@JSON
def cache_list(machine: bool) -> None:
    """List the entries, last used first."""
    from gnomon.runtime import cache as disk

    entries = disk.list_entries()
    if machine:
        click.echo(
            as_json([{"key": e.key, "name": e.name, "bytes": e.bytes, "made": e.made, "used": e.used} for e in entries])
        )
        return
    if not entries:
        click.echo("the cache is empty", err=True)
        return
    rows = [(e.key[:12], as_bytes(e.bytes), as_time(e.used), e.name) for e in entries]
    click.echo(as_table(rows, ("key", "size", "used", "name"), right=(1,)))


@cache.command("clear")
@JSON
def cache_clear(machine: bool) -> None:
    """Delete all entries."""
    from gnomon.runtime import cache as disk

    before = disk.info()
    count = disk.clear()
    if machine:
        click.echo(as_json({"entries": count, "bytes": before.bytes}))
    else:
        click.echo(f"{count} entries deleted, {as_bytes(before.bytes)}")


# ---- doctor


@cli.command()
@JSON
def doctor(machine: bool) -> int:
    """Tell versions, what the processor can do, threads, cache and GPU, and try to compile.

    Exits with 1 if gnomon cannot compile and run here.
    """
    from gnomon.cli.doctor import examine

    findings = examine()
    if machine:
        click.echo(as_json({f.name: {"value": f.value, "ok": f.ok} for f in findings}))
    else:
        click.echo(as_table([(f.name, ("" if f.ok else "! ") + f.value) for f in findings]))
    return 0 if all(f.ok for f in findings) else 1


for own in (compile_command, run_command, bench_command, profile_command):
    cli.add_command(own)

__all__ = ["cli", "run"]

if __name__ == "__main__":
    sys.exit(run())
