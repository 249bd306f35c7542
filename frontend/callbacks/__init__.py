"""Callbacks: hooks into fit, evaluate and predict."""

from gnomon.callbacks.callback import Callback, CallbackList
from gnomon.callbacks.early_stopping import EarlyStopping
from gnomon.callbacks.history import History
from gnomon.callbacks.model_checkpoint import ModelCheckpoint
from gnomon.callbacks.others import CSVLogger, LambdaCallback
from gnomon.callbacks.progbar_logger import ProgbarLogger
from gnomon.callbacks.schedules import LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
