"""Each test of the runtime has a cache of its own, and the programs written by hand at hand."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def suite_cache(tmp_path_factory):
    """Nothing is read from or written to the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNOMON_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """An empty directory that is the cache, on."""
    monkeypatch.setenv("GNOMON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("GNOMON_CACHE", raising=False)
    monkeypatch.delenv("GNOMON_CACHE_LIMIT", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def programs():
    """The module `programs.py` beside this file."""
    spec = importlib.util.spec_from_file_location("runtime_programs", Path(__file__).with_name("programs.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
