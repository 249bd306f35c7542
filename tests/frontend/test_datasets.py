"""Shipped data sets load as Keras's do, and damage is told."""

import shutil

import numpy as np
import pytest

from gnomon.compiler.errors import DataError
from gnomon.datasets import beijing_pm25, mnist, sign_digits


@pytest.fixture(scope="module")
def digits():
    return mnist.load_data()


def test_shapes_and_dtypes_are_keras(digits):
    (x_train, y_train), (x_test, y_test) = digits
    assert (x_train.shape, y_train.shape) == ((60000, 28, 28), (60000,))
    assert (x_test.shape, y_test.shape) == ((10000, 28, 28), (10000,))
    assert all(a.dtype == np.uint8 for a in (x_train, y_train, x_test, y_test))


def test_values_are_those_of_the_paper(digits):
    """Label counts and the pixel mean 0.1307 are printed in every description of the set."""
    (x_train, y_train), (_, y_test) = digits
    assert np.bincount(y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert round(float(x_train.mean()) / 255, 4) == 0.1307


def test_arrays_may_be_changed_in_place(digits):
    (x_train, _), _ = digits
    assert x_train.flags.writeable
    assert x_train.flags.c_contiguous


def test_a_folder_of_ones_own(digits, tmp_path):
    shutil.copytree(mnist.FOLDER, tmp_path / "digits")
    (_, y_train), _ = mnist.load_data(tmp_path / "digits")
    np.testing.assert_array_equal(y_train, digits[0][1])


def test_a_damaged_file_is_named(tmp_path):
    folder = shutil.copytree(mnist.FOLDER, tmp_path / "digits")
    file = folder / "train-labels-idx1-ubyte.gz"
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is damaged: its sha256 is .* Install gnomon"):
        mnist.load_data(folder)


def test_a_truncated_file_is_named(tmp_path):
    folder = shutil.copytree(mnist.FOLDER, tmp_path / "digits")
    file = folder / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte\.gz is damaged"):
        mnist.load_data(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be read \(No such file or directory\)"):
        mnist.load_data(tmp_path / "nothing")


def test_origin_and_checksums_stand_beside_the_data():
    text = (mnist.FOLDER / "ORIGIN.txt").read_text()
    assert all(f"{digest}  {name}" in text for name, digest in mnist.SHA256.items())
    assert "CC BY-SA 3.0" in text


# ---- signed digits


def test_signed_digits_are_whole():
    """About 206 photos of each digit, as their authors say (218 people, ten photos each, not all of them kept)."""
    (x_train, y_train), (x_test, y_test) = sign_digits.load_data()
    assert (x_train.shape, y_train.shape) == ((1662, 32, 32, 3), (1662,))
    assert (x_test.shape, y_test.shape) == ((400, 32, 32, 3), (400,))
    assert all(a.dtype == np.uint8 and a.flags.writeable for a in (x_train, y_train, x_test, y_test))
    counts = np.bincount(y_train) + np.bincount(y_test)
    assert counts.tolist() == [205, 206, 206, 206, 207, 207, 207, 206, 208, 204]
    assert np.bincount(y_test).min() > 25
    assert x_train.mean(axis=(0, 1, 2)).argsort().tolist() == [2, 1, 0]  # skin before a light wall


def test_damage_to_signed_digits_is_told(tmp_path):
    copy = tmp_path / "copy.npz"
    shutil.copy(sign_digits.FOLDER / sign_digits.NAME, copy)
    (x, _), _ = sign_digits.load_data(copy)
    assert len(x) == 1662
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"copy\.npz is damaged: its sha256 is .* a copy of sign_digits_32\.npz"):
        sign_digits.load_data(copy)
    with pytest.raises(DataError, match="cannot be read"):
        sign_digits.load_data(tmp_path / "nothing.npz")


def test_signed_digits_come_with_origin_and_licence():
    text = (sign_digits.FOLDER / "ORIGIN.txt").read_text(encoding="utf-8")
    assert f"{sign_digits.SHA256}  {sign_digits.NAME}" in text
    assert "Apache License 2.0" in text
    assert "Version 2.0, January 2004" in (sign_digits.FOLDER / "LICENSE.txt").read_text()


def test_air_of_beijing_hour_by_hour():
    table = beijing_pm25.load_data()
    assert {name: column.dtype.kind for name, column in table.items()} == {
        "pm2.5": "f", "DEWP": "f", "TEMP": "f", "PRES": "f", "cbwd": "U", "Iws": "f"
    }  # fmt: skip
    assert {len(column) for column in table.values()} == {(365 * 5 + 1) * 24}
    assert np.isnan(table["pm2.5"]).sum() == 2067
    assert [table[name][24] for name in table] == [129, -16, -4, 1020, "SE", np.float32(1.79)]
    assert set(table["cbwd"]) == {"NE", "NW", "SE", "cv"}


def test_another_series_is_refused(tmp_path):
    file = tmp_path / beijing_pm25.NAME
    file.write_bytes(b"pm2.5")
    with pytest.raises(DataError, match="is damaged"):
        beijing_pm25.load_data(file)
