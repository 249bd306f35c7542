"""The progress bar, as Keras prints it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

GREEN, WHITE, BOLD, END = "\x1b[32m", "\x1b[37m", "\x1b[1m", "\x1b[0m"


class Progbar:
    """Steps done out of `target`, time, and values: `bar.update(3, [("loss", 0.5)])`.

    target      number of steps, None if not known
    width       cells of the bar
    verbose     0 silent, 1 a bar that redraws itself, 2 one line at the end
    interval    least seconds between two drawings
    stateful_metrics   names whose values are shown as they are; None means all, other values are averaged over the steps
    unit_name   what a step is called
    """

    def __init__(
        self,
        target: int | None,
        width: int = 20,
        verbose: int = 1,
        interval: float = 0.05,
        stateful_metrics: Sequence[str] | None = None,
        unit_name: str = "step",
    ):
        self.target, self.width, self.verbose, self.interval, self.unit_name = (
            target,
            width,
            verbose,
            interval,
            unit_name,
        )
        self.stateful_metrics = None if stateful_metrics is None else set(stateful_metrics)
        self.redraws = sys.platform != "win32" or sys.stdout.isatty()
        self._values: dict[str, Any] = {}
        self._seen = 0
        self._start = time.time()
        self._first: tuple[int, float] | None = None  # the first update: what it took is no measure of the others
        self._drawn_at = 0.0
        self._drawn = 0

    def update(
        self, current: int, values: Sequence[tuple[str, Any]] | None = None, finalize: bool | None = None
    ) -> None:
        """Say that `current` steps are done, with the values of the last of them."""
        if finalize is None:
            finalize = self.target is not None and current >= self.target
        for name, value in values or ():
            if self.stateful_metrics is None or name in self.stateful_metrics:
                self._values[name] = value
            else:
                weight = max(current - self._seen, 1)
                total, count = self._values.get(name, (0.0, 0))
                self._values[name] = (total + value * weight, count + weight)
        self._seen = current
        now = time.time()
        each = self._seconds_each(current, now)
        if self.verbose == 1:
            if now - self._drawn_at < self.interval and not finalize:
                return
            self._draw(current, now, each, finalize)
        elif self.verbose == 2 and finalize:
            count = f"{current:{len(str(self.target))}d}/{self.target}" if self.target else f"{current}/Unknown"
            print(f"{count} - {now - self._start:.0f}s -{self._format_each(each)}{self._metrics()}", flush=True)
        self._drawn_at = now

    def add(self, n: int, values: Sequence[tuple[str, Any]] | None = None) -> None:
        """Say that `n` more steps are done."""
        self.update(self._seen + n, values)

    def _draw(self, current: int, now: float, each: float, finalize: bool) -> None:
        if self.target is not None:
            done = int(self.width * current / self.target) if self.target else self.width
            digits = len(str(self.target))
            count = f"{current:{digits}d}/{self.target}"
            bar = f"{BOLD}{count}{END} "
            if done > 0:
                bar += f"{GREEN}{'━' * done}{END}"
            bar += f"{WHITE}{'━' * (self.width - done)}{END}"
            shown = len(count) + 1 + self.width
        else:
            bar = f"{current:7d}/Unknown"
            shown = len(bar)
        remaining = self.target is not None and not finalize
        took = _clock(each * (self.target - current)) if remaining else f"{now - self._start:.0f}s"  # type: ignore[operator]
        rest = f"{self._format_each(each)}{self._metrics()}"
        shown += len(f" {took}") + len(rest)
        head = "\b" * self._drawn + "\r" if self.redraws else "\n"
        padding = " " * max(0, self._drawn - shown)
        sys.stdout.write(f"{head}{bar} {BOLD}{took}{END}{rest}{padding}" + ("\n" if finalize else ""))
        sys.stdout.flush()
        self._drawn = shown

    def _metrics(self) -> str:
        text = ""
        for name, value in self._values.items():
            if isinstance(value, tuple):
                value = value[0] / max(1, value[1])
            value = np.mean(value) if not isinstance(value, (int, float)) and np.ndim(value) else value
            if value is None:
                text += f" - {name}: None"
            else:
                number = float(value)
                text += f" - {name}: {number:.4f}" if abs(number) > 1e-3 else f" - {name}: {number:.4e}"
        return text

    def _seconds_each(self, current: int, now: float) -> float:
        """Seconds a step, the first update left out where there are others."""
        if not current:
            return 0.0
        if self._first is not None and current > self._first[0]:
            return (now - self._first[1]) / (current - self._first[0])
        if self._first is None:
            self._first = (current, now)
        return (now - self._start) / current

    def _format_each(self, seconds: float) -> str:
        if seconds >= 1 or seconds == 0:
            return f" {seconds:.0f}s/{self.unit_name}"
        return (
            f" {seconds * 1e3:.0f}ms/{self.unit_name}"
            if seconds >= 1e-3
            else f" {seconds * 1e6:.0f}us/{self.unit_name}"
        )


def _clock(seconds: float) -> str:
    whole = int(seconds)
    if whole > 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 60}:{whole % 60:02d}" if whole > 60 else f"{whole}s"
