"""Data sets, each a module with `load_data()`."""

from gnomon.datasets import beijing_pm25, mnist, polarity, sign_digits, tinyshakespeare

__all__ = ["beijing_pm25", "mnist", "polarity", "sign_digits", "tinyshakespeare"]
