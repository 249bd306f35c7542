"""Plays of Shakespeare for models of characters, shipped with the package (origin: data/tinyshakespeare/ORIGIN.txt)."""

import zlib
from pathlib import Path

from gnomon.datasets.files import read_whole

FOLDER = Path(__file__).parent / "data" / "tinyshakespeare"
NAME = "tinyshakespeare.txt.gz"
SHA256 = "13125fe8f49092165d7d489e3944db52d1ba546e64a60080cc9523bcd0c5e46a"
TRAINING = 0.9


def load_data(path: str | Path = NAME) -> tuple[str, str]:
    """`(training, test)`: the first 90 % of the text, and the rest, as strings of 1,115,394 characters together.

    Nothing is downloaded: the file is in the package; another `path` is a copy of it.

    Raises DataError if the file is missing or is not the original, byte for byte.
    Karpathy 2015, "The unreasonable effectiveness of recurrent neural networks".
    """
    file = FOLDER / NAME if str(path) == NAME else Path(path)
    packed = read_whole(file, SHA256, "tinyshakespeare", f"a copy of {NAME}")
    text = zlib.decompress(packed, wbits=zlib.MAX_WBITS | 16).decode("ascii")  # 16: a gzip header
    at = int(len(text) * TRAINING)
    return text[:at], text[at:]
