"""The shape of one beat: conducted, through either bundle branch block, with hypertrophy or an infarct, or premature.

Directions are those of textbook vector loops seen through the Dower leads (Chou, Electrocardiography in Clinical
Practice, chapters on vectorcardiography, hypertrophy and bundle branch block); sizes are mV before a patient's scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from shards.simulate.heart import Beat, Floats, Vector, Wave, qrs_leads, sokolow_lyon

Conduction = Literal["narrow", "CLBBB", "CRBBB"]
Infarct = Literal["AMI", "IMI"]
QrsWave = tuple[float, float, float, Vector]
"""Onset, top and offset as fractions of the QRS duration, and the dipole at the top."""

NARROW: tuple[QrsWave, ...] = (
    (0.00, 0.18, 0.38, (-0.16, -0.06, -0.26)),
    (0.13, 0.43, 0.76, (1.40, 0.85, 0.35)),
    (0.40, 0.66, 1.00, (-0.24, -0.12, 0.72)),
)
"""Septum (to the right and front), free walls (left and down), base (back)."""

HYPERTROPHIED: tuple[QrsWave, ...] = (
    (0.00, 0.16, 0.34, (-0.12, -0.04, -0.22)),
    (0.12, 0.44, 0.78, (1.45, 0.55, 0.55)),
    (0.42, 0.67, 1.00, (-0.16, -0.12, 0.66)),
)

LEFT_BLOCK: tuple[QrsWave, ...] = (
    (0.00, 0.08, 0.22, (0.22, 0.00, -0.16)),
    (0.03, 0.32, 0.66, (1.00, 0.32, 0.55)),
    (0.36, 0.68, 1.00, (1.10, 0.28, 1.30)),
)
"""The septum is crossed from right to left: no septal q, and the free wall comes slowly after."""

RIGHT_BLOCK: tuple[QrsWave, ...] = (
    (0.00, 0.11, 0.25, (-0.16, -0.06, -0.30)),
    (0.09, 0.28, 0.47, (1.40, 0.85, 0.40)),
    (0.32, 0.44, 0.60, (-0.10, -0.12, 0.35)),
    (0.42, 0.70, 1.00, (-0.75, -0.05, -0.75)),
)
"""The left ventricle as ever, then the right one alone: slowly to the right and front."""

INFARCT_Q: dict[Infarct, Vector] = {"AMI": (-0.12, 0.0, 0.26), "IMI": (-0.08, -0.36, -0.18)}
"""First forces once the anterior or the inferior wall is silent: they point away from it."""

INFARCT_ST: dict[Infarct, Vector] = {"AMI": (0.08, -0.03, -0.23), "IMI": (-0.02, 0.23, 0.08)}
"""Injury current, which points at the injured wall; scaled to the wanted elevation."""

INFARCT_LEADS: dict[Infarct, tuple[int, ...]] = {"AMI": (7, 8), "IMI": (1, 2, 5)}
"""Rows of `LEADS` whose smallest ST elevation is the one asked for: V2 and V3, or II, III and aVF."""

REPOLARISATION: dict[str, tuple[Vector, Vector]] = {
    "narrow": ((0.020, 0.010, -0.020), (0.38, 0.22, -0.22)),
    "CRBBB": ((0.010, 0.010, 0.010), (0.34, 0.22, 0.16)),
    "CLBBB": ((-0.110, -0.030, -0.130), (-0.46, -0.12, -0.46)),
    "LVH": ((-0.100, -0.040, -0.050), (-0.34, -0.12, -0.20)),
}
"""ST and T. T follows the narrow QRS, and turns away from a late, blocked or hypertrophied one (secondary changes)."""

PREMATURE: tuple[Vector, ...] = ((0.55, 1.35, 0.95), (-0.60, -1.00, -1.20), (0.95, -0.85, 0.75))
"""Main force of a ventricular beat from the right outflow tract, the left ventricle, the right apex."""


@dataclass(frozen=True)
class Shape:
    """Everything that sets the form of a conducted beat."""

    pr_ms: int | None
    """None where there is no P wave."""
    p_ms: int
    qrs_ms: int
    qt_ms: int
    conduction: Conduction
    hypertrophy: bool
    infarct: Infarct | None
    st_mv: float
    """ST elevation of an infarct in the lowest of its leads (`INFARCT_LEADS`), mV."""
    sokolow_mv: float
    """S in V1 plus R in V5 or V6 that the narrow complex of this patient has, mV."""
    p_gain: float
    t_gain: float
    turn: Floats
    """(3, 3) rotation of the heart in the chest."""


def conducted_beat(shape: Shape) -> Beat:
    """A beat that came down the conduction system."""
    # Recovery turns less than activation does, and so does activation that comes from one side by muscle alone.
    half = 0.5 * (np.eye(3) + shape.turn)
    turned = [(wave, shape.turn) for wave in _p_waves(shape)]
    turned += [(wave, half if shape.conduction == "CLBBB" else shape.turn) for wave in _qrs_waves(shape)]
    turned += [(wave, half) for wave in _repolarisation(shape)]
    waves = [_with_vector(wave, turn @ np.array(wave.vector)) for wave, turn in turned]
    # The injured wall is a place in the chest, so its current is not turned with the heart's axis.
    return Beat([*waves, *_injury(shape)])


def premature_beat(shape: Shape, origin: int, qrs_ms: int, size: float) -> Beat:
    """A ventricular beat: no P, wide, T against QRS; `origin` picks a row of `PREMATURE`, `size` scales it."""
    main = np.array(PREMATURE[origin]) * size
    drift = np.array([main[2], main[0], main[1]]) * 0.12
    qrs_s = qrs_ms / 1000
    end_s = qrs_s + (shape.qt_ms - shape.qrs_ms) / 1000
    start = _qrs_wave((0.0, 0.36, 0.74, (0.0, 0.0, 0.0)), qrs_s)
    finish = _qrs_wave((0.38, 0.66, 1.0, (0.0, 0.0, 0.0)), qrs_s)
    st, t = _st_t(qrs_s, end_s)
    parts = ((start, 0.85 * main + drift), (finish, 0.75 * main - drift), (st, -0.10 * main), (t, -0.42 * main))
    return Beat([_with_vector(wave, vector) for wave, vector in parts])


def _p_waves(shape: Shape) -> list[Wave]:
    """Right atrium (down and to the front), then left atrium (left and to the back): P is biphasic in V1."""
    if shape.pr_ms is None:
        return []
    start, length, gain = -shape.pr_ms / 1000, shape.p_ms / 1000, shape.p_gain
    right, left = (0.04 * gain, 0.11 * gain, -0.06 * gain), (0.10 * gain, 0.08 * gain, 0.04 * gain)
    right_top, left_top = start + 0.36 * length, start + 0.64 * length
    return [
        Wave(start, right_top, right_top, start + 0.78 * length, right),
        Wave(start + 0.22 * length, left_top, left_top, start + length, left),
    ]


def _qrs_recipe(shape: Shape) -> tuple[QrsWave, ...]:
    """The QRS waves before the patient's scale, their first forces replaced where an infarct took them."""
    if shape.conduction == "CLBBB":
        return LEFT_BLOCK
    recipe = RIGHT_BLOCK if shape.conduction == "CRBBB" else HYPERTROPHIED if shape.hypertrophy else NARROW
    if shape.infarct is None:
        return recipe
    onset, top, offset, _ = recipe[0]
    return ((onset, top, offset, INFARCT_Q[shape.infarct]), *recipe[1:])


def _qrs_waves(shape: Shape) -> list[Wave]:
    gain = _voltage_gain(shape)
    waves = [_qrs_wave(part, shape.qrs_ms / 1000) for part in _qrs_recipe(shape)]
    return [_with_vector(wave, gain * np.array(wave.vector)) for wave in waves]


def _voltage_gain(shape: Shape) -> float:
    """Scale that gives this patient's narrow complex the Sokolow-Lyon sum asked for."""
    recipe = HYPERTROPHIED if shape.hypertrophy else NARROW
    waves = [_qrs_wave(part, 0.09) for part in recipe]
    plain = Beat([_with_vector(wave, shape.turn @ np.array(wave.vector)) for wave in waves])
    return shape.sokolow_mv / sokolow_lyon(qrs_leads(plain, 0.09))


def _repolarisation(shape: Shape) -> list[Wave]:
    kind = "LVH" if shape.hypertrophy else shape.conduction
    st_vector, t_vector = REPOLARISATION[kind]
    st, t = _st_t(shape.qrs_ms / 1000, shape.qt_ms / 1000)
    t = _with_vector(t, shape.t_gain * np.array(t_vector))
    return [t] if shape.infarct else [_with_vector(st, np.array(st_vector)), t]


def _injury(shape: Shape) -> list[Wave]:
    """The ST plateau of an infarct, scaled so that the lowest of its leads reaches `st_mv`."""
    if shape.infarct is None:
        return []
    st, _ = _st_t(shape.qrs_ms / 1000, shape.qt_ms / 1000)
    unit = _with_vector(st, np.array(INFARCT_ST[shape.infarct]))
    level = qrs_leads(Beat([unit]), 0.5 * (st.top + st.top_end))[list(INFARCT_LEADS[shape.infarct]), -1].min()
    return [_with_vector(unit, shape.st_mv / float(level) * np.array(unit.vector))]


def _st_t(qrs_s: float, qt_s: float) -> tuple[Wave, Wave]:
    """ST plateau and T of zero size: T rises slowly and falls faster, and its offset is the end of QT."""
    jt = qt_s - qrs_s
    t_top = qrs_s + 0.68 * jt
    nothing = (0.0, 0.0, 0.0)
    st = Wave(qrs_s - 0.020, qrs_s + 0.010, qrs_s + 0.45 * jt, qrs_s + 0.92 * jt, nothing)
    return st, Wave(qrs_s + 0.26 * jt, t_top, t_top, qt_s, nothing)


def _qrs_wave(part: QrsWave, qrs_s: float) -> Wave:
    onset, top, offset, vector = part
    return Wave(onset * qrs_s, top * qrs_s, top * qrs_s, offset * qrs_s, vector)


def _with_vector(wave: Wave, vector: Floats) -> Wave:
    x, y, z = (float(value) for value in vector)
    return Wave(wave.onset, wave.top, wave.top_end, wave.offset, (x, y, z))
