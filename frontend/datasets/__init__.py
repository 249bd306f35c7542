"""Data sets, each a module with `load_data()`."""

from gnomon.datasets import mnist, sign_digits

__all__ = ["mnist", "sign_digits"]
