"""Dropout in recurrent cells: one decision per element for a whole sequence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gnomon import random
from gnomon.compiler.errors import ArgumentError
from gnomon.compiler.ops import build
from gnomon.tensor import Tensor


class DropoutCell:
    """The part of a cell that drops inputs and states out while it trains.

    dropout, recurrent_dropout   the rates, of inputs and states; a rate of 1 drops nothing, as in Keras
    masks_for_gates   how many masks inputs and states each have: one for each gate, or 1 for all

    Inside a recurrent layer the masks are drawn once for all steps (Gal, Ghahramani 2016, "A theoretically grounded
    application of dropout in recurrent neural networks", section 4). A cell that is called on its own draws new ones.
    """

    masks_for_gates = 1
    compute_dtype: str
    _drawn: tuple[list[Tensor], list[Tensor]] | None = None

    def _set_dropout(self, dropout: Any, recurrent_dropout: Any, seed: int | None) -> None:
        for name, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if isinstance(rate, bool) or not isinstance(rate, (int, float)):
                raise ArgumentError(f"{name} of {type(self).__name__} is a number from 0 to 1, got {rate!r}")
        self.dropout = min(1.0, max(0.0, dropout))
        self.recurrent_dropout = min(1.0, max(0.0, recurrent_dropout))
        self.seed = seed
        if self.dropout or self.recurrent_dropout:
            self.seed_generator = random.SeedGenerator(seed)

    @contextmanager
    def masks_drawn(self, inputs: Sequence[Any], state: Sequence[Any], training: Any) -> Iterator[None]:
        """Inside, the cell has one set of masks, for inputs and states of these shapes."""
        before = self._drawn
        self._drawn = self._draw(inputs, state) if training else ([], [])
        try:
            yield
        finally:
            self._drawn = before

    def _draw(self, inputs: Sequence[Any], state: Sequence[Any]) -> tuple[list[Tensor], list[Tensor]]:
        return self._masks(inputs, self.dropout), self._masks(state, self.recurrent_dropout)

    def _masks(self, shape: Sequence[Any], rate: float) -> list[Tensor]:
        if not 0 < rate < 1:
            return []
        ones = Tensor(build.full(tuple(shape), 1, self.compute_dtype))
        return [random.dropout(ones, rate, seed=self.seed_generator) for _ in range(self.masks_for_gates)]

    def dropout_masks(self, inputs: Tensor, state: Tensor, training: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Factors of the inputs and of the state: none, one, or one for each gate."""
        if not training:
            return [], []
        return self._drawn if self._drawn is not None else self._draw(inputs.node.shape, state.node.shape)
