"""Models: layers grouped, trained, saved and printed."""

from gnomon.models.cloning import clone_model
from gnomon.models.functional import Functional
from gnomon.models.model import Model, model_from_json
from gnomon.models.sequential import Sequential

__all__ = ["Functional", "Model", "Sequential", "clone_model", "model_from_json"]
