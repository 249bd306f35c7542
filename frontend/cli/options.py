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


def check_subject(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """`value` itself, if it can be the name of something that runs."""
    return value if value.endswith(".gnx") else check_target(context, parameter, value)


def _sizes(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for value in values:
        name, equals, number = value.partition("=")
        if not (name and equals and number.isdecimal()):
            raise click.BadParameter(f"{value!r} is not NAME=N, such as time=100")
        found[name] = int(number)
    return found


TARGET = click.argument("target", metavar="MODULE:ATTRIBUTE", callback=check_target)
SUBJECT = click.argument("target", metavar="MODEL", callback=check_subject)
SIZES = click.option(
    "--size", "sizes", multiple=True, metavar="NAME=N", callback=_sizes, help="The value of another open size."
)

__all__ = ["JSON", "SIZES", "SUBJECT", "TARGET", "check_subject", "check_target"]
