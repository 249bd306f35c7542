"""Data sets of text: what is shipped, and what is fetched only if it is the original."""

import hashlib
import io
import urllib.request

import pytest

from gnomon.compiler.errors import DataError
from gnomon.datasets import polarity, tinyshakespeare


def test_tinyshakespeare_is_the_whole_text():
    training, test = tinyshakespeare.load_data()
    assert (len(training), len(test)) == (1003854, 111540)
    assert training.startswith("First Citizen:\nBefore we proceed any further, hear me speak.")
    assert len(set(training + test)) == 65
    assert hashlib.sha256((training + test).encode()).hexdigest().startswith("86c4e6aa9db7")
    assert tinyshakespeare.load_data(tinyshakespeare.FOLDER / tinyshakespeare.NAME) == (training, test)


def test_another_text_is_refused(tmp_path):
    file = tmp_path / "text.gz"
    file.write_bytes(b"To be")
    with pytest.raises(DataError, match="is damaged"):
        tinyshakespeare.load_data(file)


@pytest.fixture
def sentences(monkeypatch):
    """Files like the originals, with their digests."""
    files = {
        "rt-polarity.neg": "".join(f"it bores {k} times .\n" for k in range(30)),
        "rt-polarity.pos": "".join(f"naïve , and lovely {k} .\n" for k in range(30)),
    }
    contents = {name: text.encode("utf-8") for name, text in files.items()}
    monkeypatch.setattr(polarity, "SHA256", {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()})
    return contents


def test_polarity_from_a_folder(sentences, tmp_path):
    for name, content in sentences.items():
        (tmp_path / name).write_bytes(content)
    (x, y), (x_test, y_test) = polarity.load_data(tmp_path)
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == ((54,), (54,), (6,), (6,))
    assert all(("lovely" in sentence) == label for sentence, label in zip(x, y, strict=True))
    assert 0.3 < y.mean() < 0.7
    again = polarity.load_data(tmp_path, seed=113)[0][0]
    assert (again == x).all()


def test_polarity_of_other_sentences(tmp_path):
    for kind in ("neg", "pos"):
        (tmp_path / f"rt-polarity.{kind}").write_text(f"{kind} 1\n{kind} 2\n")
    with pytest.raises(DataError, match="is damaged"):
        polarity.load_data(tmp_path)
    (x, y), (x_test, _) = polarity.load_data(tmp_path, test_split=0.5, check=False)
    assert len(x) == len(x_test) == 2
    assert all(("pos" in sentence) == label for sentence, label in zip(x, y, strict=True))


def test_polarity_is_fetched_once(sentences, tmp_path, monkeypatch):
    asked = []

    def answer(address, timeout):
        asked.append(address)
        return io.BytesIO(sentences[address.removeprefix(polarity.ADDRESS)])

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    for _ in range(2):
        polarity.load_data(tmp_path / "new")
    assert [a.rpartition("/")[2] for a in asked] == list(sentences)
    monkeypatch.setattr(polarity, "SHA256", {name: "0" * 64 for name in sentences})
    with pytest.raises(DataError, match="is not the original"):
        polarity.load_data(tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_polarity_without_a_net(tmp_path, monkeypatch):
    def nothing(address, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", nothing)
    with pytest.raises(DataError, match=r"rt-polarity.neg is not in .*no route to host.*Give load_data\(path=...\)"):
        polarity.load_data(tmp_path)
