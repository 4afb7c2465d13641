"""The bootstrap over patients: what it draws, and what its intervals hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgchat.judging.bootstrap import (
    Measured,
    interval,
    measured_mean,
    paired_difference,
    patient_bootstrap,
    patient_resamples,
)

ROWS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 1)), min_size=1, max_size=20)


@given(ROWS, st.integers(0, 5))
def test_patients_are_drawn_whole_and_as_many_as_there_are(rows, seed):
    patients = [patient for patient, _ in rows]
    for drawn in patient_resamples(patients, resamples=5, seed=seed):
        times = np.bincount(drawn, minlength=len(patients))
        by_patient = {name: {int(times[row]) for row, other in enumerate(patients) if other == name} for name in set(patients)}
        assert all(len(count) == 1 for count in by_patient.values())
        assert sum(count.pop() for count in by_patient.values()) == len(set(patients))


@given(ROWS, st.floats(-1e6, 1e6), st.sampled_from([0.5, 0.9, 0.95]))
def test_the_interval_of_a_constant_is_the_constant(rows, constant, level):
    patients = [patient for patient, _ in rows]
    assert patient_bootstrap(lambda _: constant, patients, resamples=10, level=level) == (constant, constant)


@given(ROWS, st.integers(0, 5))
def test_the_fast_mean_is_the_bootstrap_of_the_mean(rows, seed):
    patients, values = zip(*rows, strict=True)
    numbers = np.array(values, float)
    slow = patient_bootstrap(lambda drawn: float(numbers[drawn].mean()), patients, resamples=30, seed=seed)
    fast = measured_mean(values, patients, resamples=30, seed=seed)
    assert (fast.low, fast.high) == pytest.approx(slow)
    assert fast.value == pytest.approx(numbers.mean())


def test_seeds_repeat_and_differ():
    patients = [str(i) for i in range(30)]
    values = np.arange(30) % 2
    assert measured_mean(values, patients, seed=1) == measured_mean(values, patients, seed=1)
    assert measured_mean(values, patients, seed=1) != measured_mean(values, patients, seed=2)


def test_a_difference_is_paired():
    rng = np.random.default_rng(0)
    ours = rng.integers(0, 2, 200)
    patients = [str(i) for i in range(200)]
    same = paired_difference(ours, ours, patients)
    assert same == Measured(0.0, 0.0, 0.0)
    better = paired_difference(np.ones(200), ours, patients)
    assert better.value == pytest.approx(1 - ours.mean())
    assert better.low > 0


def test_intervals_are_wider_when_the_records_are_of_fewer_patients():
    values = np.repeat([0, 1], 100)
    alone = measured_mean(values, [str(i) for i in range(200)])
    grouped = measured_mean(values, [str(i // 20) for i in range(200)])
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    patients = [str(i // 2) for i in range(120)]
    held = 0
    for seed in range(200):
        values = np.repeat(rng.random(60) < 0.3, 2)
        low, high = (lambda m: (m.low, m.high))(measured_mean(values, patients, resamples=200, seed=seed))
        held += low <= 0.3 <= high
    assert 0.88 <= held / 200 <= 0.99


def test_intervals_apart():
    assert Measured(0.9, 0.8, 1.0).above(Measured(0.5, 0.4, 0.7))
    assert not Measured(0.9, 0.6, 1.0).above(Measured(0.5, 0.4, 0.7))
    assert Measured(0.9, 0.8, 1.0).as_dict() == {"value": 0.9, "low": 0.8, "high": 1.0}


def test_nothing_to_draw_from_is_refused():
    with pytest.raises(ValueError, match="at least one record"):
        measured_mean([], [])
    with pytest.raises(ValueError, match="the patient of each value"):
        measured_mean([1.0], ["a", "b"])
    with pytest.raises(ValueError, match="at least one resample"):
        interval([])
