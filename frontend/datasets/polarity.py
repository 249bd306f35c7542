"""Sentences from reviews of films, praising or not: not shipped, for its authors state no licence."""

import hashlib
import urllib.request
from pathlib import Path

import numpy as np

from gnomon.compiler.errors import DataError
from gnomon.datasets.files import read_whole

ADDRESS = "https://raw.githubusercontent.com/dennybritz/cnn-text-classification-tf/master/data/rt-polaritydata/"
SHA256 = {
    "rt-polarity.neg": "2d11cfbc790f1cd96d78339f41ce53ced1efa83cd22d37d6788fa3fe3d17e2fd",
    "rt-polarity.pos": "4134882974a28d0c7b5151256f0e33a6169984ee7372c279e673f1114f475d58",
}

Arrays = tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def load_data(
    path: str | Path | None = None, test_split: float = 0.1, seed: int = 113, check: bool = True
) -> Arrays:
    """`(x_train, y_train), (x_test, y_test)`: sentences as text, and 1 for those that praise, 0 for the others.

    x: text[n]   y: uint8[n]; 10,662 sentences together, half of each kind, words and marks parted by blanks
    path         a folder that holds rt-polarity.neg and rt-polarity.pos; they are fetched from the address below into
                 it if they are not there. Left out: the folder gnomon/polarity in the user's cache folder
    test_split   the share of test sentences; `seed` puts them in order
    check        False takes files with other sentences, too: a sentence a line, in UTF-8

    Raises DataError if a file cannot be fetched or, unless `check` is False, is not the original, byte for byte.
    Pang, Lee 2005, "Seeing stars: exploiting class relationships for sentiment categorization with respect to rating
    scales": sentence polarity dataset v1.0. Copies are at ADDRESS.
    """
    folder = _cache_folder() if path is None else Path(path)
    texts, labels = [], []
    for kind, name in enumerate(SHA256):
        if not (folder / name).exists():
            _fetch(name, folder)
        instead = f"a folder with the files {', '.join(SHA256)}"
        file = folder / name
        content = read_whole(file, SHA256[name], "polarity", instead) if check else file.read_bytes()
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
        texts += lines
        labels += [kind] * len(lines)
    order = np.random.default_rng(seed).permutation(len(texts))
    x, y = np.array(texts)[order], np.array(labels, np.uint8)[order]
    at = len(x) - int(len(x) * test_split)
    return (x[:at], y[:at]), (x[at:], y[at:])


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("gnomon", appauthor=False) / "polarity"


def _fetch(name: str, folder: Path) -> None:
    """Put one file into the folder, if it is the original."""
    try:
        with urllib.request.urlopen(ADDRESS + name, timeout=30) as answer:
            content = answer.read()
    except OSError as error:
        raise DataError(
            f"{name} is not in {str(folder)!r}, and cannot be fetched from {ADDRESS} ({error}). Give "
            f"load_data(path=...) a folder with the files {', '.join(SHA256)}"
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise DataError(f"what {ADDRESS} gives as {name} is not the original: its sha256 is {found}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
