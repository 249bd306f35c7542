"""Models: layers grouped, trained, saved and printed."""

from typing import Any

from gnomon.models.cloning import clone_model
from gnomon.models.functional import Functional
from gnomon.models.model import Model, model_from_json
from gnomon.models.sequential import Sequential

__all__ = ["Functional", "Model", "Sequential", "clone_model", "load_model", "model_from_json", "save_model"]


def __getattr__(name: str) -> Any:
    if name in ("load_model", "save_model"):  # `saving` imports this module
        from gnomon import saving

        return getattr(saving, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
