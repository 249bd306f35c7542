"""How much dust will be in the air six hours from now? A GRU reads a day of measurements.

    python examples/forecasting.py [--short]

Particles and weather of Beijing, each hour of five years, are in the package. The network reads windows of 24 hours and
says how the amount of particles will have changed 6 hours after the last. It learns from four years and is tested on
the fifth. To say "as now" (persistence) is hard to beat: it is off by 38.6 micrograms in the mean; the network by 32.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import gnomon as keras
from gnomon import layers
from gnomon.datasets import beijing_pm25

HOURS, AHEAD = 24, 6
TEST = 365 * 24  # the last year
SCALE = 100.0
"""Micrograms that are 1 for the network."""


def features(table: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """float32[hours, features], and the particles, float32[hours], where nothing was measured the last that were."""
    dust = table["pm2.5"]
    measured = ~np.isnan(dust)
    last = np.maximum.accumulate(np.where(measured, np.arange(len(dust)), 0))
    filled = np.where(np.isnan(dust[last]), np.float32(0), dust[last])
    hour = np.arange(len(dust))
    weather = [table[name] for name in ("DEWP", "TEMP", "PRES")] + [np.log(table["Iws"])]
    weather = [(w - w[:-TEST].mean()) / w[:-TEST].std() for w in weather]
    wind = [table["cbwd"] == name for name in ("NE", "NW", "SE", "cv")]
    clock = [f(2 * np.pi * hour / period) for period in (24, 24 * 365.25) for f in (np.sin, np.cos)]
    columns = [filled / SCALE, np.log1p(filled) - 4, measured, *weather, *wind, *clock]
    return np.stack(columns, axis=1).astype("float32"), filled


class Windows(keras.utils.PyDataset):
    """Batches of windows [batch, HOURS, features] that end at the given hours, and the change AHEAD of them.

    Only windows whose last hour and the hour to forecast were measured.
    """

    def __init__(self, series: np.ndarray, dust: np.ndarray, ends: np.ndarray, batch: int = 128, shuffle: bool = True):
        super().__init__()
        self.series, self.dust, self.batch, self.shuffle = series, dust, batch, shuffle
        measured = series[:, 2] > 0
        self.ends = ends[measured[ends] & measured[ends + AHEAD]]
        self.random = np.random.default_rng(1)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-len(self.ends) // self.batch)

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        ends = self.ends[k * self.batch : (k + 1) * self.batch]
        return self.series[ends[:, None] + np.arange(1 - HOURS, 1)], self.change(ends)[:, None]

    def change(self, ends: np.ndarray) -> np.ndarray:
        return (self.dust[ends + AHEAD] - self.dust[ends]) / SCALE

    def on_epoch_end(self) -> None:
        if self.shuffle:
            self.random.shuffle(self.ends)


def micrograms_off(change, forecast):
    """Mean of |change - forecast| in micrograms."""
    return SCALE * keras.ops.mean(keras.ops.abs(change - forecast), axis=-1)


def make(count: int, units: int) -> keras.Model:
    """Windows [batch, hours, count] to the change [batch, 1]."""
    day = keras.Input((None, count), name="day")
    x = layers.GRU(units)(day)
    x = layers.Dropout(0.3)(x)
    x = layers.Dense(units, activation="relu")(x)
    return keras.Model(day, layers.Dense(1)(x), name="forecast")


def main(short: bool = False) -> dict[str, float]:
    """Train and report. Returns how many micrograms forecasts of the last year are off, and those of persistence."""
    keras.utils.set_random_seed(1)
    series, dust = features(beijing_pm25.load_data())
    hours = len(dust)
    first = hours - TEST - 365 * 24 if short else HOURS
    training = Windows(series, dust, np.arange(first, hours - TEST - AHEAD))
    test = Windows(series, dust, np.arange(hours - TEST, hours - AHEAD), shuffle=False)

    epochs = 4 if short else 8
    model = make(series.shape[1], 32 if short else 64)
    rate = keras.optimizers.schedules.CosineDecay(0.002, decay_steps=epochs * len(training))
    model.compile(keras.optimizers.Adam(rate), "mae", metrics=[micrograms_off])
    model.summary()
    began = time.perf_counter()
    model.fit(training, epochs=epochs, verbose=2)
    seconds = time.perf_counter() - began

    reached = model.evaluate(test, verbose=0, return_dict=True)["micrograms_off"]
    persistence = float(SCALE * np.abs(test.change(test.ends)).mean())
    print(f"Trained in {seconds:.1f} s. {AHEAD} hours ahead, persistence is {persistence:.1f} micrograms off, ", end="")
    print(f"the network by {reached:.1f}: {100 * (1 - reached / persistence):.1f} % less")
    return {"network": reached, "persistence": persistence}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Forecasts of particles in the air of Beijing")
    parser.add_argument("--short", action="store_true", help="a few seconds, learning from one year")
    main(parser.parse_args().short)
