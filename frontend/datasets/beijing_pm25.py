"""Particles in the air of Beijing and the weather, hour by hour (origin and licence: data/beijing_pm25/ORIGIN.txt)."""

import zlib
from pathlib import Path

import numpy as np

from gnomon.datasets.files import read_whole

FOLDER = Path(__file__).parent / "data" / "beijing_pm25"
NAME = "beijing_pm25.csv.gz"
SHA256 = "9b43f4eba76357b4e2d50e6682926bc6bb3f8ff79ad7b99b258c8b216257fe12"


def load_data(path: str | Path = NAME) -> dict[str, np.ndarray]:
    """Columns by name, each with 43,824 hours from 2010-01-01 0:00 on; none is left out.

    pm2.5   float32: micrograms of particles in a cubic metre; NaN for 2,067 hours without a measurement
    DEWP, TEMP, PRES   float32: dew point and temperature in degrees Celsius, pressure in hectopascals
    cbwd    text: where the wind comes from, NE, NW, SE (with the south), or cv for calm and changing winds
    Iws     float32: the wind's speed in metres a second, summed since it comes from there
    Nothing is downloaded: the file is in the package; another `path` is a copy of it.

    Raises DataError if the file is missing or is not the original, byte for byte.
    Liang et al. 2015, "Assessing Beijing's PM2.5 pollution: severity, weather impact, APEC and winter heating".
    """
    file = FOLDER / NAME if str(path) == NAME else Path(path)
    packed = read_whole(file, SHA256, "Beijing PM2.5", f"a copy of {NAME}")
    lines = zlib.decompress(packed, wbits=zlib.MAX_WBITS | 16).decode("ascii").split()  # 16: a gzip header
    names, *rows = (line.split(",") for line in lines)
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    number = {"NA": "nan"}
    return {
        name: np.array(values) if name == "cbwd" else np.array([number.get(v, v) for v in values], "float32")
        for name, values in columns.items()
    }
