"""Arguments and options that several commands have."""

from __future__ import annotations

import click

from gnomon.cli.finding import is_saved

JSON = click.option("--json", "machine", is_flag=True, help="For programs: JSON instead of a table.")


def check_target(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """`value` itself, if it can be the name of something to look at."""
    place, _, path = value.rpartition(":")
    if not is_saved(value) and not (place and path):
        raise click.BadParameter(
            f"{value!r} is not MODULE:ATTRIBUTE, such as train.py:model or package.train:model, nor a .keras file"
        )
    return value


TARGET = click.argument("target", metavar="MODULE:ATTRIBUTE", callback=check_target)

__all__ = ["JSON", "TARGET", "check_target"]
