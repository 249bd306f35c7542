"""Files that layers keep in a `.keras` archive besides arrays, such as vocabularies: members under `assets/`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gnomon.layers.tracking import Tracked
from gnomon.saving.tree import saved_objects

FOLDER = "assets"


def assets_of(model: Any) -> dict[str, bytes]:
    """What the layers of a model keep: "assets/layers/string_lookup/vocabulary.txt" -> the file's content."""
    found: dict[str, bytes] = {}
    for path, layer in _keepers(model):
        with TemporaryDirectory() as folder:
            layer.save_assets(folder)
            for file in sorted(Path(folder).rglob("*")):
                if file.is_file():
                    found["/".join([FOLDER, path, *file.relative_to(folder).parts])] = file.read_bytes()
    return found


def give_assets(model: Any, names: Sequence[str], read: Callable[[str], bytes]) -> None:
    """Give the layers of a model their files back: those among the members `names` of an archive, got by `read`."""
    for path, layer in _keepers(model):
        start = f"{FOLDER}/{path}/"
        parts = {name: name.removeprefix(start).split("/") for name in names if name.startswith(start)}
        own = {name: p for name, p in parts.items() if all(map(_is_plain, p))}
        if not own:
            continue
        with TemporaryDirectory() as folder:
            for name, p in own.items():
                target = Path(folder, *p)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(read(name))
            layer.load_assets(folder)


def _keepers(model: Any) -> Iterator[tuple[str, Any]]:
    """The layers that keep files, and their paths."""
    for path, found in saved_objects(model):
        if isinstance(found, Tracked) and type(found).save_assets is not Tracked.save_assets:
            yield path, found


def _is_plain(part: str) -> bool:
    """Whether a part of a path leads nowhere else."""
    return part not in ("", ".", "..") and not set(part) & set('\\:\0')


__all__ = ["assets_of", "give_assets"]
