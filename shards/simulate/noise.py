"""What electrodes, muscles and the mains add to the eight independent leads."""

from __future__ import annotations

import numpy as np

from shards.simulate.heart import Floats

LEADS_MEASURED = 8


def electrode_noise(seed: list[int], samples: int, fs_hz: int) -> Floats:
    """(8, samples) noise in mV: baseline wander (to about 0.15), muscle (5-30 µV RMS), 50 Hz hum (0-15 µV).

    Wander and hum are functions of time, so that one seed gives them alike at every sampling rate.
    """
    rng = np.random.default_rng(seed)
    seconds = np.arange(samples) / fs_hz
    wander = _wander(rng, seconds)
    muscle_mv = 0.005 * 6.0 ** (rng.random() ** 1.5)
    hum_mv = rng.uniform(0, 0.015) * rng.uniform(0.3, 1.0, LEADS_MEASURED)
    phase = rng.uniform(0, 2 * np.pi)
    noise: Floats = wander + muscle_mv * rng.standard_normal((LEADS_MEASURED, samples), dtype=np.float32)
    if fs_hz > 100:
        # At 100 Hz the recorder's anti-alias filter has taken the mains out.
        noise += np.outer(hum_mv, np.sin(2 * np.pi * 50.0 * seconds + phase))
    return noise


def _wander(rng: np.random.Generator, seconds: Floats) -> Floats:
    """Breathing and electrode drift: three slow sinusoids, at 0.05 to 0.5 Hz, of other size in every lead."""
    slow_hz = rng.uniform((0.05, 0.10, 0.18), (0.10, 0.20, 0.50))
    phases = rng.uniform(0, 2 * np.pi, 3)
    sizes = rng.uniform(0.005, 0.05) * rng.uniform(-1.0, 1.0, (LEADS_MEASURED, 3))
    wander: Floats = sizes @ np.sin(2 * np.pi * np.outer(slow_hz, seconds) + phases[:, None])
    return wander
