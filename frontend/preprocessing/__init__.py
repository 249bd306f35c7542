"""Keras's older place for what makes arrays of data."""

from gnomon.preprocessing import sequence

__all__ = ["sequence"]
