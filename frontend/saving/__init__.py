"""Saving: weights in Keras's `.weights.h5`, whole models in its `.keras` files, and how objects are written to them."""

from gnomon.registry import (
    custom_object_scope,
    get_custom_objects,
    get_registered_name,
    get_registered_object,
    register_keras_serializable,
)
from gnomon.registry import deserialize_object as deserialize_keras_object
from gnomon.registry import serialize_object as serialize_keras_object
from gnomon.saving.archive import load_model, save_model
from gnomon.saving.functions import load_function, save_function
from gnomon.saving.weights import load_weights, save_weights

CustomObjectScope = custom_object_scope

__all__ = [
    "CustomObjectScope", "custom_object_scope", "deserialize_keras_object", "get_custom_objects",
    "get_registered_name", "get_registered_object", "load_function", "load_model", "load_weights",
    "register_keras_serializable", "save_function", "save_model", "save_weights", "serialize_keras_object",
]  # fmt: skip
