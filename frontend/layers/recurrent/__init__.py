"""Layers that go through sequences step by step."""

from gnomon.layers.recurrent.bidirectional import Bidirectional
from gnomon.layers.recurrent.gru import GRU, GRUCell
from gnomon.layers.recurrent.lstm import LSTM, LSTMCell
from gnomon.layers.recurrent.rnn import RNN
from gnomon.layers.recurrent.simple_rnn import SimpleRNN, SimpleRNNCell
from gnomon.layers.recurrent.stacked import StackedRNNCells

__all__ = [
    "GRU", "LSTM", "RNN", "Bidirectional", "GRUCell", "LSTMCell", "SimpleRNN", "SimpleRNNCell", "StackedRNNCells",
]  # fmt: skip
