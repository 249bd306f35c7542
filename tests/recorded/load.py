"""Values recorded from Keras, read back without Keras: `load("losses")` gives what README.md lists."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent


@cache
def load(topic: str) -> Any:
    """The content of `<topic>.json`, its arrays taken from `<topic>.npz` (read-only, shared between callers)."""
    content = json.loads((FOLDER / f"{topic}.json").read_text(encoding="utf-8"))
    archive = FOLDER / f"{topic}.npz"
    if not archive.exists():
        return content
    with np.load(archive) as packed:
        pools = {dtype: packed[dtype] for dtype in packed.files}
    for pool in pools.values():
        pool.setflags(write=False)
    return _unpack(content, pools)


def _unpack(value: Any, pools: dict[str, np.ndarray]) -> Any:
    """Put arrays where their references `{"@": [dtype, offset, shape]}` stand."""
    if isinstance(value, list):
        return [_unpack(item, pools) for item in value]
    if isinstance(value, dict):
        if set(value) == {"@"}:
            dtype, offset, shape = value["@"]
            return pools[dtype][offset : offset + int(np.prod(shape, dtype=int))].reshape(shape)
        return {key: _unpack(item, pools) for key, item in value.items()}
    return value
