"""From waves to leads: the heart as one moving dipole, seen by the twelve leads.

A wave is a smooth bump of exact onset and offset with a direction in the chest, so that every interval of a beat is
known by construction. Axes of the dipole, in mV: x to the left, y down, z to the back (Frank 1956).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Vector = tuple[float, float, float]

INDEPENDENT_LEADS = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
"""The leads that a recorder measures; the other four follow from I and II."""

DOWER: Floats = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
"""(8, 3): the independent leads of a dipole. Dower, Machado and Osborne 1980, Clin Cardiol 3:87-95."""


@dataclass(frozen=True)
class Wave:
    """A bump that rises from `onset`, is full from `top` to `top_end` and is gone at `offset`; times in s from QRS onset."""

    onset: float
    top: float
    top_end: float
    offset: float
    vector: Vector
    """Dipole at the top, mV."""


class Beat:
    """The waves of one heartbeat, in seconds from the onset of its QRS complex."""

    def __init__(self, waves: Sequence[Wave]) -> None:
        """Takes at least one wave."""
        self.times: Floats = np.array([(wave.onset, wave.top, wave.top_end, wave.offset) for wave in waves])
        """(waves, 4), s."""
        self.vectors: Floats = np.array([wave.vector for wave in waves])
        """(waves, 3), mV."""
        self.start = float(self.times[:, 0].min())
        self.end = float(self.times[:, 3].max())

    def dipole(self, seconds: Floats) -> Floats:
        """(3, n) dipole in mV at (n,) times from QRS onset: raised-cosine edges (Hann 1951), zero outside every wave."""
        onset, top, top_end, offset = self.times.T[:, :, None]
        edge = np.clip(np.minimum((seconds - onset) / (top - onset), (offset - seconds) / (offset - top_end)), 0.0, 1.0)
        dipole: Floats = self.vectors.T @ np.square(np.sin(0.5 * math.pi * edge))
        return dipole


def heart_dipole(beats: Sequence[tuple[float, Beat]], samples: int, fs_hz: float) -> Floats:
    """(3, samples) dipole in mV of beats given with the time of their QRS onset in s; what lies outside is cut."""
    dipole = np.zeros((3, samples))
    for onset, beat in beats:
        first = max(0, math.ceil((onset + beat.start) * fs_hz))
        last = min(samples, math.floor((onset + beat.end) * fs_hz) + 1)
        if first < last:
            dipole[:, first:last] += beat.dipole(np.arange(first, last) / fs_hz - onset)
    return dipole


def independent_leads(dipole: Floats) -> Floats:
    """(8, samples) leads I, II, V1..V6 in mV of a (3, samples) dipole."""
    leads: Floats = DOWER @ dipole
    return leads


def twelve_leads(independent: Floats) -> Floats:
    """(12, samples) in the order of `shards.record.LEADS` from (8, samples): Einthoven 1913 and Goldberger 1942."""
    lead_i, lead_ii = independent[0], independent[1]
    leads = np.empty((12, independent.shape[1]))
    leads[0], leads[1] = lead_i, lead_ii
    leads[2] = lead_ii - lead_i
    leads[3] = -0.5 * (lead_i + lead_ii)
    leads[4] = lead_i - 0.5 * lead_ii
    leads[5] = lead_ii - 0.5 * lead_i
    leads[6:] = independent[2:]
    return leads


def rotation(frontal: float, horizontal: float, sagittal: float) -> Floats:
    """(3, 3) turn of the heart in the chest, degrees: frontal turns the axis clockwise, as its degrees are counted."""
    about_z, about_y, about_x = (math.radians(angle) for angle in (frontal, horizontal, sagittal))
    c, s = math.cos(about_z), math.sin(about_z)
    turn_z = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    c, s = math.cos(about_y), math.sin(about_y)
    turn_y = np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])
    c, s = math.cos(about_x), math.sin(about_x)
    turn_x = np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])
    turn: Floats = turn_z @ turn_y @ turn_x
    return turn


def qrs_leads(beat: Beat, qrs_s: float) -> Floats:
    """(12, n) noise-free leads in mV at 1 kHz from QRS onset to QRS offset."""
    return twelve_leads(independent_leads(beat.dipole(np.arange(0.0, qrs_s, 0.001))))


def qrs_axis(leads: Floats) -> float:
    """Frontal QRS axis in degrees, -180 to 180, from (12, n) leads over one QRS complex.

    atan2(2 aVF, √3 I) of the net areas; 2/√3 evens out the smaller gain of the augmented leads (Novosel et al. 1999,
    Croat Med J 40:77-79).
    """
    return math.degrees(math.atan2(2.0 * float(leads[5].sum()), math.sqrt(3.0) * float(leads[0].sum())))


def sokolow_lyon(leads: Floats) -> float:
    """S in V1 plus the larger R of V5 and V6, mV, from (12, n) leads over one QRS complex (Sokolow and Lyon 1949)."""
    return float(-leads[6].min() + max(leads[10].max(), leads[11].max()))
