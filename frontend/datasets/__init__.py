"""Data sets, each a module with `load_data()`."""

from gnomon.datasets import mnist, polarity, sign_digits, tinyshakespeare

__all__ = ["mnist", "polarity", "sign_digits", "tinyshakespeare"]
