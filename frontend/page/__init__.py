"""One page that shows all that the compiler made of a function or model: `gnomon dump --html`.

The page is one file and needs no network: style, script and data are inside it. Data is compressed, and the browser
unpacks what is looked at; what users named never becomes part of the page's own text, but of its data, which the script
writes as text.
"""

from __future__ import annotations

import base64
import gzip
import html
import json
from importlib.resources import files
from typing import Any

from gnomon.page.data import collected

SCRIPTS = ("data.js", "list.js", "search.js", "graph.js", "stages.js", "steps.js", "details.js", "main.js")


def page(target: Any) -> str:
    """The page of a model (its training step if it is compiled, and its prediction) or of a compiled function.

    Raises StateError for a model whose inputs are not known yet.
    """
    functions = collected(target)
    blobs: list[str] = []
    for function in functions:
        function["texts"] = [_add(blobs, text) for text in function["texts"]]
    title = str(functions[0]["title"])
    head = {"title": title, "functions": [{"name": f["name"], "blob": _add(blobs, f)} for f in functions]}
    parts = {
        "TITLE": html.escape(f"{title} - gnomon"),
        "STYLE": _file("style.css"),
        "HEAD": _inert(json.dumps(head)),
        "BLOBS": "\n".join(f'<script type="application/x-blob">{blob}</script>' for blob in blobs),
        "SCRIPT": "\n".join(_file(name) for name in SCRIPTS),
    }
    text = _file("page.html")
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part, 1)
    return text


def _file(name: str) -> str:
    return files("gnomon.page").joinpath(name).read_text(encoding="utf-8")


def _add(blobs: list[str], value: Any) -> int:
    """Put a value among the compressed ones; its number."""
    packed = gzip.compress(json.dumps(value, separators=(",", ":")).encode(), 9, mtime=0)  # no time: equal pages
    blobs.append(base64.b64encode(packed).decode())
    return len(blobs) - 1


def _inert(text: str) -> str:
    """JSON that no HTML parser takes for anything but text."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


__all__ = ["page"]
