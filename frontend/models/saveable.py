"""Saveable: what a model inherits to be written to files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gnomon.registry import deserialize_object, serialize_object


class Saveable:
    """`save`, `save_weights`, `load_weights` of a model, and how it is compiled as a configuration."""

    def save(self, filepath: Any, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any) -> None:
        """Write the model to a `.keras` file: layers, weights, how it is compiled, the optimizer's state.

        See `gnomon.saving.save_model`.
        """
        from gnomon.saving.archive import save_model

        save_model(self, filepath, overwrite, zipped, **kwargs)

    def save_weights(self, filepath: Any, overwrite: bool = True, max_shard_size: float | None = None) -> None:
        """Write the weights, the optimizer's state and the random streams to a `.weights.h5` file.

        See `gnomon.saving.save_weights`.
        """
        from gnomon.saving.weights import save_weights

        save_weights(self, filepath, overwrite, max_shard_size)

    def load_weights(
        self, filepath: Any, skip_mismatch: bool = False, objects_to_skip: Sequence[Any] | None = None
    ) -> None:
        """Read what `save_weights`, of gnomon or Keras, wrote; all of it or, if it does not fit, nothing.

        See `gnomon.saving.load_weights`.
        """
        from gnomon.saving.weights import load_weights

        load_weights(self, filepath, skip_mismatch, objects_to_skip)

    def get_compile_config(self) -> dict[str, Any] | None:
        """The arguments of `compile` as plain values, None before it.

        Raises ArgumentError for a function without a name, such as a lambda.
        """
        if not self.compiled:  # type: ignore[attr-defined]  # Trainer's
            return None
        given = dict(self._trainer_state().arguments)  # type: ignore[attr-defined]  # Trainer's
        given["optimizer"] = self.optimizer  # type: ignore[attr-defined]  # as it is now: the learning rate may have changed
        given["jit_compile"] = bool(given["jit_compile"])  # "auto" means that it is compiled
        return serialize_object(given)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as `get_compile_config` said."""
        self.compile(**deserialize_object(config))  # type: ignore[attr-defined]  # Trainer's


__all__ = ["Saveable"]
