"""Data sets, each a module with `load_data()`."""

from gnomon.datasets import mnist

__all__ = ["mnist"]
