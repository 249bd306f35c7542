"""Colour photos of hands signing the digits, shipped with the package (origin and licence: data/sign_digits)."""

from io import BytesIO
from pathlib import Path

import numpy as np

from gnomon.datasets.files import read_whole

FOLDER = Path(__file__).parent / "data" / "sign_digits"
NAME = "sign_digits_32.npz"
SHA256 = "15639087e0a573abf28db99fd232c662dae58a39240e9d6c39f059fa33b6afe2"
TRAINING = 1662

Arrays = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def load_data(path: str | Path = NAME) -> Arrays:
    """`(x_train, y_train), (x_test, y_test)`: the first 1662 photos are for training, the other 400 for testing.

    x_train: uint8[1662, 32, 32, 3]   y_train: uint8[1662]   x_test: uint8[400, 32, 32, 3]   y_test: uint8[400]
    The order is random, so that photos of one person are in both. Nothing is downloaded: the file is in the package;
    another `path` is a copy of it.

    Raises DataError if the file is missing or is not the original, byte for byte.
    Mavi 2020, "A new dataset and proposed convolutional neural network architecture for classification of American Sign
    Language digits".
    """
    file = FOLDER / NAME if str(path) == NAME else Path(path)
    with np.load(BytesIO(read_whole(file, SHA256, "sign digits", f"a copy of {NAME}"))) as arrays:
        x, y = arrays["x"], arrays["y"]
    return (x[:TRAINING].copy(), y[:TRAINING].copy()), (x[TRAINING:].copy(), y[TRAINING:].copy())
