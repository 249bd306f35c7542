"""Files that the package ships, read only if they are whole."""

import hashlib
from pathlib import Path

from gnomon.compiler.errors import DataError


def read_whole(path: Path, sha256: str, what: str, instead: str) -> bytes:
    """The bytes of a file with this digest. `what` says in messages what it is, `instead` what else may be given.

    Raises DataError if it cannot be read or is not the original, byte for byte.
    """
    try:
        content = path.read_bytes()
    except OSError as e:
        raise DataError(
            f"The {what} file {path} cannot be read ({e.strerror}). Give load_data(path=...) {instead}, or install "
            "gnomon again: it ships what is needed."
        ) from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(
            f"The {what} file {path} is damaged: its sha256 is {found}, the original's is {sha256}. Install gnomon "
            f"again, or give load_data(path=...) {instead}."
        )
    return content
