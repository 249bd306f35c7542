"""Sequences of unequal lengths as one array: what `gnomon.utils` has."""

from gnomon.utils.sequence import pad_sequences

__all__ = ["pad_sequences"]
