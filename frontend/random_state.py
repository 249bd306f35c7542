"""The global seed: where initializers, dropout and shuffling take their own seeds from when none is given.

`set_random_seed(s)` makes all that follows repeatable: Python's and NumPy's generators, and the seeds drawn here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from gnomon.compiler.errors import ArgumentError

_seeds = random.Random()
global_state: dict[str, Any] = {}
"""What is made from the global seed once and kept: `gnomon.random`'s generator. Empty after `set_random_seed`."""


_steps: ContextVar[tuple[Any, ...]] = ContextVar("steps", default=())


@contextmanager
def steps_around(counter: Any) -> Iterator[None]:
    """Inside, numbers are drawn in a step of a loop: `counter`, a node, tells which step it is."""
    token = _steps.set((*_steps.get(), counter))
    try:
        yield
    finally:
        _steps.reset(token)


def steps() -> tuple[Any, ...]:
    """The counters of the loops that are being written, the outermost first."""
    return _steps.get()


def set_random_seed(seed: int) -> None:
    """Seed Python's `random`, `numpy.random` and gnomon. Raises ArgumentError unless 0 <= seed < 2**32."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**32:
        raise ArgumentError(f"set_random_seed needs an integer from 0 to 2**32 - 1, got {seed!r}")
    random.seed(int(seed))
    np.random.seed(int(seed))
    _seeds.seed(int(seed))
    global_state.clear()


def make_default_seed() -> int:
    """A new seed from the global state: different at each call, the same sequence after `set_random_seed`."""
    return _seeds.randint(1, 10**9)


def generator(seed: Any = None) -> np.random.Generator:
    """A NumPy generator of its own. `seed` is an integer, None (drawn from the global state), or an object with
    `next()`, such as SeedGenerator, whose state moves on."""
    if seed is None:
        seed = make_default_seed()
    elif hasattr(seed, "next"):
        seed = [int(part) for part in np.asarray(seed.next()).ravel()]
    return np.random.Generator(np.random.PCG64(seed))
