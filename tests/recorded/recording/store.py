# mypy: disable-error-code="import-not-found"
# (Keras is not installed where mypy runs)
"""Write a topic: a JSON file of cases, and an .npz holding all its arrays, one flat pool per dtype."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent.parent


def random_of(name: str) -> np.random.Generator:
    """A generator that depends on the case's name alone, so that adding a case changes no other."""
    return np.random.default_rng(zlib.crc32(name.encode()))


def plain(value: Any) -> Any:
    """A config as JSON can hold it: objects serialized, tuples as lists, without the addresses that Keras puts in."""
    import keras

    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if key != "shared_object_id"}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return plain(keras.saving.serialize_keras_object(value))


def save(topic: str, content: dict[str, Any]) -> None:
    """Write `content` (dicts, lists, scalars, arrays): the arrays go to the .npz, each distinct one once."""
    pools: dict[str, list[np.ndarray]] = {}
    known: dict[tuple[str, bytes], int] = {}
    content = _pack(content, pools, known)
    text = "{" + ",\n".join(f"{_json(key)}: {_text(item)}" for key, item in content.items()) + "}\n"
    (FOLDER / f"{topic}.json").write_text(text, encoding="utf-8")
    if pools:
        arrays = {dtype: np.concatenate(parts) for dtype, parts in sorted(pools.items())}
        np.savez_compressed(FOLDER / f"{topic}.npz", **arrays)  # type: ignore[arg-type]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _text(value: Any) -> str:
    """JSON with one line for each item of the outer list or dict, so that a difference can be read."""
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(map(_json, value)) + "\n]"
    if isinstance(value, dict) and value:
        return "{\n" + ",\n".join(f"{_json(key)}: {_json(item)}" for key, item in value.items()) + "\n}"
    return _json(value)


def _pack(value: Any, pools: dict[str, list[np.ndarray]], known: dict[tuple[str, bytes], int]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.bool_ | np.integer | np.floating):
        return value.item()
    if isinstance(value, dict):
        return {str(key): _pack(item, pools, known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(item, pools, known) for item in value]
    array = np.ascontiguousarray(value)
    if array.shape != np.shape(value):  # ascontiguousarray makes a scalar one-dimensional
        array = array.reshape(np.shape(value))
    parts = pools.setdefault(array.dtype.name, [])
    key = (array.dtype.name, array.tobytes())
    if key not in known:
        known[key] = sum(len(part) for part in parts)
        parts.append(array.ravel())
    return {"@": [array.dtype.name, known[key], list(array.shape)]}
