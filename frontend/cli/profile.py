"""`gnomon profile`: where the time of a call goes."""

from __future__ import annotations

import dataclasses

import click

from gnomon.cli.options import JSON, SIZES, TARGET
from gnomon.cli.printing import as_json


@click.command("profile", short_help="Print time and bytes of each kernel, with its layers.")
@TARGET
@click.option("--input", "files", multiple=True, metavar="FILE", help="Arrays (.npy, .npz, .csv); made up if left out.")
@click.option("--batch", default=32, show_default=True, type=click.IntRange(1), metavar="N", help="Rows made up.")
@SIZES
@click.option("--train", is_flag=True, help="A step of training instead of a prediction; the model must be compiled.")
@click.option("--repeat", default=10, show_default=True, type=click.IntRange(1), help="Calls; their median counts.")
@JSON
def profile_command(
    target: str, files: tuple[str, ...], batch: int, sizes: dict[str, int], train: bool, repeat: int, machine: bool
) -> None:
    """Print time, bytes and arithmetic of each kernel of a model or function, with the layers it comes from.

    \b
    gnomon profile digits.keras
    gnomon profile train.py:model --train --batch 128
    gnomon profile train.py:step --input x.npy --input y.npy
    """
    from gnomon.cli.subject import read_inputs, subject
    from gnomon.functions import Function
    from gnomon.inspecting import _labels
    from gnomon.utils import tree

    found = subject(target)
    arrays = read_inputs(found, files) if files else found.made_up(batch, sizes)
    if isinstance(found.source, Function):
        if train:
            raise click.ClickException(f"{target} is a function: only a model is trained")
        result = found.source.profile(*arrays, repeat=repeat)
    else:
        model, rows = found.source, len(arrays[0])
        graph = model._graph
        x = arrays[0] if len(arrays) == 1 else tree.pack_sequence_as(graph.input_structure, list(arrays))
        y = None
        if train:
            import numpy as np

            labels = _labels(model, model._ready("profile"))
            y = tree.map_structure(lambda a: np.zeros((rows, *a.shape[1:]), a.dtype), labels)
        result = model.profile(x, y, batch_size=rows, repeat=repeat)
    if not machine:
        click.echo(str(result))
        return
    click.echo(as_json(dataclasses.asdict(result)))


__all__ = ["profile_command"]
