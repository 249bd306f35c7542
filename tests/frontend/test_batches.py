"""Data sets of series and folders: Keras's batches, the same files in each part."""

import numpy as np
import pytest

import gnomon
from gnomon import layers, utils
from gnomon.compiler.errors import ArgumentError, DataError, MissingFileError
from gnomon.utils import batches
from tests.recorded.load import load

RECORDED = load("preprocessing")


@pytest.mark.parametrize("case", RECORDED["series"], ids=lambda c: str(c["options"]))
def test_series_are_keras_s(case):
    made = utils.timeseries_dataset_from_array(case["data"], case["targets"], **case["options"])
    assert len(made) == len(case["batches"])
    for found, wanted in zip(made, case["batches"], strict=True):
        for a, b in zip(found if case["targets"] is not None else [found], wanted, strict=True):
            np.testing.assert_array_equal(a, b)
            assert np.shape(a) == np.shape(b)


def test_series_are_shuffled_anew_in_each_epoch():
    data = np.arange(50.0)
    made = utils.timeseries_dataset_from_array(data, data, 3, batch_size=10, shuffle=True, seed=4)
    first = np.concatenate([y for _, y in made])
    made.on_epoch_end()
    second = np.concatenate([y for _, y in made])
    assert (first != second).any()
    np.testing.assert_array_equal(np.sort(first), np.arange(48))
    np.testing.assert_array_equal(np.sort(second), np.arange(48))
    again = utils.timeseries_dataset_from_array(data, data, 3, batch_size=10, shuffle=True, seed=4)
    np.testing.assert_array_equal(np.concatenate([y for _, y in again]), first)
    with pytest.raises(IndexError):
        made[5]


def test_a_model_learns_from_a_series():
    gnomon.utils.set_random_seed(0)
    data = np.sin(np.arange(400) / 5).astype("float32")[:, None]
    made = utils.timeseries_dataset_from_array(data[:-8], data[8:], 8, batch_size=32, shuffle=True, seed=1)
    model = gnomon.Sequential([layers.Input((8, 1)), layers.Flatten(), layers.Dense(1)])
    model.compile(gnomon.optimizers.Adam(0.05), "mse")
    losses = model.fit(made, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < 0.01
    alone = utils.timeseries_dataset_from_array(data, None, 8, batch_size=50)
    assert model.predict(alone, verbose=0).shape == (393, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    for name in [*RECORDED["folders"][0]["names"], "good/readme.md"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.mark.parametrize("case", RECORDED["folders"][1:], ids=lambda c: str(c["options"]))
def test_folders_of_texts_are_keras_s(case, folder):
    made = utils.text_dataset_from_directory(folder, batch_size=5, verbose=False, **case["options"])
    assert made.class_names == case["class_names"]
    labelled = case["options"].get("labels", "inferred") is not None
    found = [(t, y) for x, y in made for t, y in zip(x, y.tolist(), strict=True)] if labelled else None
    texts = [t for x in made for t in x] if found is None else [t for t, _ in found]
    if "seed" in case["options"]:
        found.sort()
        texts.sort()
    assert texts == case["texts"]
    if found is not None:
        assert [y for _, y in found] == case["labels"]


def test_both_parts_at_once(folder, capsys):
    training, validation = utils.text_dataset_from_directory(folder, validation_split=0.3, subset="both", seed=7)
    assert "Found 13 files belonging to 3 classes.\nUsing 10 files for training." in capsys.readouterr().out
    parts = [sorted(t for x, _ in part for t in x) for part in (training, validation)]
    wanted = [c["texts"] for c in RECORDED["folders"][-2:]]
    assert parts == wanted


def test_what_cannot_be_is_refused(folder):
    data = np.arange(10)
    for arguments in ({"sampling_rate": 0}, {"sequence_stride": 10}, {"start_index": 10}, {"end_index": 11},
                      {"start_index": 5, "end_index": 5}, {"sequence_length": 0}, {"batch_size": 0}):  # fmt: skip
        with pytest.raises(ArgumentError):
            utils.timeseries_dataset_from_array(data, None, **{"sequence_length": 3, **arguments})
    for arguments in ({"labels": "x"}, {"label_mode": "x"}, {"class_names": ["good", "new"]}, {"subset": "training"},
                      {"labels": [1, 2]}, {"label_mode": "binary"}, {"validation_split": 2.0, "subset": "both"},
                      {"validation_split": 0.2, "subset": "both"}, {"labels": None, "class_names": ["good"]},
                      {"validation_split": 0.2, "subset": "test", "seed": 1}):  # fmt: skip
        with pytest.raises(ArgumentError):
            utils.text_dataset_from_directory(folder, verbose=False, **arguments)
    with pytest.raises(MissingFileError, match="no folder"):
        utils.text_dataset_from_directory(folder / "none")
    with pytest.raises(DataError, match="No image files"):
        utils.image_dataset_from_directory(folder, verbose=False)
    for arguments in ({"color_mode": "cmyk"}, {"image_size": (1, 2, 3)}, {"interpolation": "x"}):
        with pytest.raises(ArgumentError):
            utils.image_dataset_from_directory(folder, **arguments)


def test_pictures_of_a_folder(tmp_path, monkeypatch):
    """With a reader in Pillow's place, which need not be installed."""
    for k in range(4):
        path = tmp_path / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    def reader(path, color_mode):
        assert color_mode == "rgb"
        return np.full((4 + int(path[-5]), 6, 3), 10 * int(path[-5]), np.uint8)

    monkeypatch.setattr(batches, "decoded", reader)
    made = utils.image_dataset_from_directory(tmp_path, image_size=(5, 3), batch_size=3, shuffle=False, verbose=False)
    x, y = made[0]
    assert (x.shape, x.dtype, y.tolist()) == ((3, 5, 3, 3), np.float32, [0, 0, 1])
    np.testing.assert_allclose(x[:, 0, 0, 0], [0, 20, 10])
    first = utils.image_dataset_from_directory(
        tmp_path, image_size=5, data_format="channels_first", shuffle=False, crop_to_aspect_ratio=True, verbose=False
    )
    assert first[0][0].shape == (4, 3, 5, 5)


def test_pictures_need_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(DataError, match="pip install pillow"):
        batches.decoded(str(tmp_path / "x.png"), "rgb")
