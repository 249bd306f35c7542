"""The command `gnomon`: the cache, the stages of a function or model, what this machine offers."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (those of the process if left out). Returns the exit code: 0, 1 or 2."""
    from gnomon.cli.commands import run

    return run(arguments)


__all__ = ["main"]
