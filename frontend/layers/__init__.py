"""Layers: the functions with state that models are made of."""

from gnomon.layers.activation import ELU, Activation, LeakyReLU, PReLU, ReLU, Softmax
from gnomon.layers.basic import ActivityRegularization, Identity, Lambda, Rescaling
from gnomon.layers.batch_normalization import BatchNormalization
from gnomon.layers.dense import Dense
from gnomon.layers.input import Input, InputLayer
from gnomon.layers.input_spec import InputSpec
from gnomon.layers.layer import Layer
from gnomon.layers.merge import (
    Add,
    Average,
    Concatenate,
    Dot,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
    add,
    average,
    concatenate,
    dot,
    maximum,
    minimum,
    multiply,
    subtract,
)
from gnomon.layers.noise import AlphaDropout, Dropout, GaussianDropout, GaussianNoise
from gnomon.layers.normalization import (
    GroupNormalization,
    LayerNormalization,
    RMSNormalization,
    UnitNormalization,
)
from gnomon.layers.policy import DTypePolicy
from gnomon.layers.reshape import Flatten, Permute, RepeatVector, Reshape

__all__ = [
    "BatchNormalization", "GroupNormalization", "LayerNormalization", "RMSNormalization", "UnitNormalization",
    "Activation", "ActivityRegularization", "Add", "AlphaDropout", "Average", "Concatenate", "DTypePolicy", "Dense",
    "Dot", "Dropout", "ELU", "Flatten", "GaussianDropout", "GaussianNoise", "Identity", "Input", "InputLayer",
    "InputSpec", "Lambda", "Layer", "LeakyReLU", "Maximum", "Minimum", "Multiply", "PReLU", "Permute", "ReLU",
    "RepeatVector", "Rescaling", "Reshape", "Softmax", "Subtract", "add", "average", "concatenate", "dot", "maximum",
    "minimum", "multiply", "subtract",
]  # fmt: skip
