"""The progress bar, as Keras prints it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError
from gnomon.config import is_interactive_logging_enabled

GREEN, WHITE, BOLD, END = "\x1b[32m", "\x1b[37m", "\x1b[1m", "\x1b[0m"


class Progbar:
    """Steps done out of `target`, time, and values: `bar.update(3, [("loss", 0.5)])`.

    target      number of steps, None if not known
    width       cells of the bar
    verbose     0 silent, 1 a bar that redraws itself, 2 one line at the end
    interval    least seconds between two drawings
    stateful_metrics    names whose values are shown as they are, others averaged over the steps: that is the default
    stateless_metrics   the reverse: names whose values are averaged, others shown as they are
    unit_name   what a step is called
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Iterable[str] | None = None,
        stateless_metrics: Iterable[str] | None = None,
        unit_name: str = "step",
    ):
        if stateful_metrics is not None and stateless_metrics is not None:
            raise ArgumentError("give stateful_metrics or stateless_metrics, not both: what is not named is the other")
        self.target, self.width, self.verbose, self.interval = target, width, verbose, interval
        self.unit_name = unit_name
        self._named = set(stateful_metrics or ()) if stateless_metrics is None else set(stateless_metrics)
        self._averages_named = stateless_metrics is not None
        self._values: dict[str, tuple[Any, int]] = {}  # sums, and of how many
        self._seen = 0
        self._start = time.time()
        self._first: float | None = None  # when the first step was done: its duration is no measure of the others
        self._drawn_at = 0.0
        self._drawn = 0  # characters of the last drawing

    def update(
        self, current: int, values: Sequence[tuple[str, Any]] | None = None, finalize: bool | None = None
    ) -> None:
        """Say that `current` steps are done, with the values of the last of them."""
        if finalize is None:
            finalize = self.target is not None and current >= self.target
        for name, value in values or ():
            if finalize or (name in self._named) != self._averages_named:
                self._values[name] = value, 1
            else:
                weight = max(current - self._seen, 1)
                total, count = self._values.get(name, (0.0, 0))
                self._values[name] = total + value * weight, count + weight
        self._seen = current
        now = time.time()
        each = self._seconds_each(current, now)
        if self.verbose == 1:
            if now - self._drawn_at < self.interval and not finalize:
                return
            self._draw(current, now, each, finalize)
        elif self.verbose == 2 and finalize and self.target:
            write(f"{self._count(current)} - {now - self._start:.0f}s -{self._pace(each)}{self._metrics()}\n")
        self._drawn_at = now

    def add(self, n: int, values: Sequence[tuple[str, Any]] | None = None) -> None:
        """Say that `n` more steps are done."""
        self.update(self._seen + n, values)

    def _count(self, current: int) -> str:
        return f"{current:{len(str(self.target))}d}/{self.target}"

    def _draw(self, current: int, now: float, each: float, finalize: bool) -> None:
        if self.target:
            count = self._count(current)
            done = min(int(self.width * current / self.target), self.width)
            cells = f"{GREEN}{'━' * done}{END}" if done else ""
            bar = f"{BOLD}{count}{END} {cells}{WHITE}{'━' * (self.width - done)}{END}"
            shown = len(count) + 1 + self.width
        else:
            bar = f"{current:7d}/Unknown"
            shown = len(bar)
        took = f"{now - self._start:.0f}s"
        if self.target and not finalize:
            took = _clock(each * (self.target - current))
        rest = f"{self._pace(each)}{self._metrics()}"
        shown += len(f" {took}") + len(rest)
        padding = " " * max(0, self._drawn - shown)
        ending = "\n" if finalize else ""
        write("\b" * self._drawn + f"\r{bar} {BOLD}{took}{END}{rest}{padding}{ending}")
        self._drawn = shown

    def _metrics(self) -> str:
        text = ""
        for name, (total, count) in self._values.items():
            mean = np.mean(total) / max(1, count)
            size = mean if self.verbose == 2 else abs(mean)  # Keras writes negative numbers so in its lines
            text += f" - {name}: {mean:.4f}" if size > 1e-3 else f" - {name}: {mean:.4e}"
        return text

    def _seconds_each(self, current: int, now: float) -> float:
        """Seconds a step, the first left out where there are others."""
        if not current:
            return 0.0
        if self._first is not None and current > 1:
            each = (now - self._first) / (current - 1)
        else:
            each = (now - self._start) / current
        if current == 1:
            self._first = now
        return each

    def _pace(self, seconds: float) -> str:
        if seconds >= 1 or seconds == 0:
            return f" {seconds:.0f}s/{self.unit_name}"
        number = f"{seconds * 1e3:.0f}ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f}us"
        return f" {number}/{self.unit_name}"


def write(text: str) -> None:
    """Print without a line's end, at once; in plain characters where the output has no others.

    Without interactive logging (`gnomon.config`) it is a message to the logger "gnomon".
    """
    if not is_interactive_logging_enabled():
        return logging.getLogger("gnomon").info("%s", text.strip("\b\r\n"))
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        encoding = getattr(sys.stdout, "encoding", None) or "ascii"
        sys.stdout.write(text.replace("━", "=").encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()


def _clock(seconds: float) -> str:
    whole = int(seconds)
    if seconds > 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}" if seconds > 60 else f"{whole}s"


__all__ = ["Progbar", "write"]
