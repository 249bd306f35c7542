import os
import stat
import time

import pytest

from gnomon.compiler.errors import ArgumentError
from gnomon.runtime import cache

pytestmark = pytest.mark.usefixtures("fresh_cache")

CONTENT = b"some machine code\n\0" * 50


def stored(directory):
    return sorted(directory.glob("*.gno"))


def test_what_is_put_is_got():
    key = cache.key("a text", "a cpu")
    assert cache.get(key) is None
    cache.put(key, "kernel_1", CONTENT)
    assert cache.get(key) == CONTENT


def test_keys_depend_on_where_parts_end():
    assert cache.key("ab", "c") != cache.key("a", "bc")
    assert cache.key("a", "b") != cache.key("b", "a")


def test_directory_is_private(fresh_cache):
    cache.put(cache.key("x"), "x", CONTENT)
    assert stat.S_IMODE(fresh_cache.stat().st_mode) == 0o700


def test_no_temporary_file_remains(fresh_cache):
    cache.put(cache.key("x"), "x", CONTENT)
    assert [f.suffix for f in fresh_cache.iterdir()] == [".gno"]


@pytest.mark.parametrize("length", [0, 1, 16, 60, 81, 82, 200, -1])
def test_truncated_entry_is_deleted(fresh_cache, length):
    key = cache.key("x")
    cache.put(key, "x", CONTENT)
    (file,) = stored(fresh_cache)
    file.write_bytes(file.read_bytes()[:length])
    assert cache.get(key) is None
    assert not file.exists()


@pytest.mark.parametrize("position", [0, 20, 81, 85, 300, -1])
def test_tampered_entry_is_deleted(fresh_cache, position):
    key = cache.key("x")
    cache.put(key, "x", CONTENT)
    (file,) = stored(fresh_cache)
    data = bytearray(file.read_bytes())
    data[position] ^= 1
    file.write_bytes(data)
    assert cache.get(key) is None
    assert not file.exists()


def test_entry_under_another_key_is_not_read(fresh_cache):
    cache.put(cache.key("x"), "x", CONTENT)
    (file,) = stored(fresh_cache)
    file.rename(fresh_cache / (cache.key("y") + ".gno"))
    assert cache.get(cache.key("y")) is None


def test_least_recently_used_entries_go_first(fresh_cache, monkeypatch):
    monkeypatch.setenv("GNOMON_CACHE_LIMIT", "5K")
    for i in range(4):
        cache.put(cache.key(str(i)), str(i), CONTENT)
        os.utime(fresh_cache / (cache.key(str(i)) + ".gno"), (i, i))
    assert cache.get(cache.key("0")) is not None  # now the last one used
    cache.put(cache.key("4"), "4", CONTENT)
    names = {e.name for e in cache.list_entries()}
    assert {"0", "4"} <= names
    assert "1" not in names
    assert cache.info().bytes <= 5 << 10


def test_temporary_file_of_a_dead_process_is_deleted_in_the_end(fresh_cache, monkeypatch):
    monkeypatch.setenv("GNOMON_CACHE_LIMIT", "3K")
    cache.put(cache.key("x"), "x", CONTENT)
    (fresh_cache / ".new-1-0-aa").write_bytes(b"1" * 4096)
    (fresh_cache / ".new-2-0-bb").write_bytes(b"2" * 100)
    os.utime(fresh_cache / ".new-1-0-aa", (1, 1))
    for i in range(3):
        cache.put(cache.key(str(i)), str(i), CONTENT)
    assert not (fresh_cache / ".new-1-0-aa").exists()
    assert (fresh_cache / ".new-2-0-bb").exists()


def test_listing(fresh_cache):
    assert cache.list_entries() == []
    cache.put(cache.key("x"), "exp_of_x", CONTENT)
    (entry,) = cache.list_entries()
    assert (entry.name, entry.key) == ("exp_of_x", cache.key("x"))
    assert abs(entry.used - time.time()) < 100
    info = cache.info()
    assert (info.path, info.entries, info.bytes, info.problem) == (fresh_cache, 1, entry.bytes, "")


def test_clear(fresh_cache):
    for i in range(3):
        cache.put(cache.key(str(i)), str(i), CONTENT)
    (fresh_cache / "not_ours.txt").write_text("kept")
    assert cache.clear() == 3
    assert cache.list_entries() == []
    assert (fresh_cache / "not_ours.txt").exists()


def test_switched_off(fresh_cache, monkeypatch):
    monkeypatch.setenv("GNOMON_CACHE", "0")
    cache.put(cache.key("x"), "x", CONTENT)
    assert cache.get(cache.key("x")) is None
    assert cache.path() is None
    assert not fresh_cache.exists()
    assert "GNOMON_CACHE" in cache.problem()


def test_directory_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GNOMON_CACHE_DIR", str(tmp_path / "file" / "cache"))
    cache.put(cache.key("x"), "x", CONTENT)
    assert cache.get(cache.key("x")) is None
    assert cache.list_entries() == []
    assert "cannot be made" in cache.problem()


def test_user_without_a_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GNOMON_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *args, **kwargs: "~/.cache/gnomon")
    cache.put(cache.key("x"), "x", CONTENT)
    assert cache.get(cache.key("x")) is None
    assert "no home directory" in cache.problem()
    assert list(tmp_path.iterdir()) == []


def test_directory_writable_by_others_is_made_private(fresh_cache):
    fresh_cache.mkdir()
    fresh_cache.chmod(0o777)
    cache.put(cache.key("x"), "x", CONTENT)
    assert stat.S_IMODE(fresh_cache.stat().st_mode) == 0o700


def test_directory_deleted_meanwhile(fresh_cache):
    cache.put(cache.key("x"), "x", CONTENT)
    cache.clear()
    fresh_cache.rmdir()
    assert cache.get(cache.key("x")) is None
    cache.put(cache.key("x"), "x", CONTENT)
    assert cache.get(cache.key("x")) == CONTENT


@pytest.mark.parametrize(("text", "value"), [("", 1 << 30), ("1000", 1000), ("2K", 2048), ("1.5G", 3 << 29)])
def test_limit(monkeypatch, text, value):
    monkeypatch.setenv("GNOMON_CACHE_LIMIT", text)
    assert cache.limit() == value


def test_limit_that_is_no_number(monkeypatch):
    monkeypatch.setenv("GNOMON_CACHE_LIMIT", "plenty")
    with pytest.raises(ArgumentError, match="GNOMON_CACHE_LIMIT is 'plenty'"):
        cache.limit()
