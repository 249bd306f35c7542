"""Layers that are applied to data: words and categories as numbers, numbers as bins, mean and variance taken out."""

from gnomon.layers.preprocessing.category_encoding import CategoryEncoding
from gnomon.layers.preprocessing.discretization import Discretization
from gnomon.layers.preprocessing.hashed_crossing import HashedCrossing
from gnomon.layers.preprocessing.hashing import Hashing
from gnomon.layers.preprocessing.integer_lookup import IntegerLookup
from gnomon.layers.preprocessing.normalization import Normalization
from gnomon.layers.preprocessing.string_lookup import StringLookup
from gnomon.layers.preprocessing.text_vectorization import TextVectorization

__all__ = [
    "CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup", "Normalization", "StringLookup",
    "TextVectorization",
]  # fmt: skip
