"""MNIST handwritten digits, shipped with the package (origin and licence: data/mnist/ORIGIN.txt)."""

import zlib
from pathlib import Path

import numpy as np

from gnomon.datasets.files import read_whole

FOLDER = Path(__file__).parent / "data" / "mnist"

SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}

Arrays = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def load_data(path: str | Path = "mnist.npz") -> Arrays:
    """`(x_train, y_train), (x_test, y_test)` as Keras gives them.

    x_train: uint8[60000, 28, 28]   y_train: uint8[60000]   x_test: uint8[10000, 28, 28]   y_test: uint8[10000]
    Nothing is downloaded: "mnist.npz", the name of Keras's download, means the files in the package. Any other `path`
    is a folder that holds the four .gz files.

    Raises DataError if a file is missing or is not the original, byte for byte.
    LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".
    """
    folder = FOLDER if path == "mnist.npz" else Path(path)
    train_x, train_y, test_x, test_y = (_read(folder / name) for name in SHA256)
    return (train_x, train_y), (test_x, test_y)


def _read(path: Path) -> np.ndarray:
    """The array in an idx file: two zero bytes, the dtype (8: uint8), the rank, the shape, the values."""
    instead = f"a folder with the files {', '.join(SHA256)}"
    packed = read_whole(path, SHA256[path.name], "MNIST", instead)
    raw = zlib.decompress(packed, wbits=zlib.MAX_WBITS | 16)  # 16: a gzip header
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape.tolist())).copy()
