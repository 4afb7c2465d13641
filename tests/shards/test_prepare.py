"""Optional steps on a build: off by default, in one order, said in the manifest, and nothing lost where nothing is done."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from shards.build import BuildOptions, build
from shards.dataset import ShardSet
from shards.plan import Plan
from shards.prepare import Prepared, SignalSteps
from shards.record import INVALID, LEADS, EcgRecord, RecordError, quantise, to_millivolts
from shards.signal import derive_leads, remove_baseline, remove_powerline, resample
from shards.simulate.case import draw_case, render
from shards.sources.ptb_xl import PtbXl

MV_PER_LSB = [0.00488] * 12


@pytest.fixture
def record():
    """A simulated recording in counts of 4.88 µV, which no step of this project would choose."""
    ecg = np.rint(render(draw_case(seed=4, number=2), 500) / 0.00488).astype(np.int16)
    ecg[6, 100:120] = INVALID
    return EcgRecord(
        source="simulated",
        record_id="1",
        source_path="records/1",
        patient_id="1",
        split="train",
        fs_hz=500.0,
        ecg=ecg,
        mv_per_lsb=MV_PER_LSB,
    )


def test_no_step_is_the_default_and_the_record_is_the_same_object(record):
    assert SignalSteps() == SignalSteps(None, False, None, False, False)
    assert SignalSteps().apply(record) is record


@pytest.mark.parametrize("steps", [SignalSteps(measure=True), SignalSteps(derive_leads=True), SignalSteps(rate_hz=500)])
def test_counts_and_scales_stay_bit_for_bit_where_no_step_changes_the_signal(record, steps):
    after = steps.apply(record)
    np.testing.assert_array_equal(after.ecg, record.ecg)
    assert after.mv_per_lsb == MV_PER_LSB
    assert after.fs_hz == 500


def test_leads_that_are_there_keep_their_counts_when_others_are_derived(record):
    record.ecg[2] = INVALID
    after = SignalSteps(derive_leads=True).apply(record)
    np.testing.assert_array_equal(np.delete(after.ecg, 2, axis=0), np.delete(record.ecg, 2, axis=0))
    mv = to_millivolts(record.ecg, record.mv_per_lsb)
    np.testing.assert_allclose(to_millivolts(after.ecg, after.mv_per_lsb)[2], mv[1] - mv[0], atol=0.00051)


def test_the_steps_are_taken_in_their_order_and_quantised_once(record):
    record.ecg[3:6] = INVALID
    steps = SignalSteps(rate_hz=400, remove_baseline=True, powerline_hz=50, derive_leads=True)
    mv = derive_leads(to_millivolts(record.ecg, record.mv_per_lsb))
    expected = resample(remove_powerline(remove_baseline(mv, 500), 500, 50), 500, 400)
    after = steps.apply(record)
    ecg, mv_per_lsb = quantise(expected)
    np.testing.assert_array_equal(after.ecg, ecg)
    assert (after.mv_per_lsb, after.fs_hz, after.ecg.shape) == (mv_per_lsb, 400, (12, 4000))


def test_quality_is_that_of_the_final_signal(record):
    record.ecg[3] = INVALID
    assert record.quality["missing_leads"] == ["aVR"]
    assert SignalSteps(derive_leads=True).apply(record).quality["missing_leads"] == []


def test_a_step_leaves_the_record_it_was_given_as_it_was(record):
    before = record.ecg.copy()
    SignalSteps(rate_hz=100, remove_baseline=True, measure=True).apply(record)
    np.testing.assert_array_equal(record.ecg, before)
    assert (record.fs_hz, record.measurements) == (500, {})


def test_measurements_are_made_where_the_publisher_gives_none(record):
    found = SignalSteps(measure=True).apply(record).measurements
    assert abs(found["qrs"] - draw_case(seed=4, number=2).measurements.qrs_ms) <= 12
    empty = replace(record, measurements={"rr": None, "qt": None, "source": "publisher"})
    assert SignalSteps(measure=True).apply(empty).measurements == found


def test_measurements_of_the_publisher_are_kept(record):
    published = {"rr": 812.0, "pr": None, "source": "publisher"}
    assert SignalSteps(measure=True).apply(replace(record, measurements=published)).measurements == published


def test_measurements_are_made_on_the_final_signal(record):
    record.ecg[2:6] = INVALID
    assert "of 8 leads" in SignalSteps(measure=True).apply(record).measurements["source"]
    assert "of 12 leads" in SignalSteps(measure=True, derive_leads=True).apply(record).measurements["source"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rate_hz": 0.0}, "--rate 0: expected a sampling rate from 25 to 10000 Hz"),
        ({"rate_hz": -500.0}, "--rate -500: expected"),
        ({"rate_hz": 1e9}, "--rate 1e\\+09: expected"),
        ({"rate_hz": float("nan")}, "--rate nan: expected"),
        ({"powerline_hz": 0.0}, "--powerline 0: expected the frequency of the mains in Hz, 50 or 60"),
        ({"powerline_hz": float("inf")}, "--powerline inf: expected"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_its_flag(options, sentence):
    with pytest.raises(RecordError, match=sentence):
        SignalSteps(**options)


def test_a_step_that_a_record_does_not_allow_names_the_record_and_the_flag(record):
    slow = replace(record, fs_hz=100.0)
    with pytest.raises(RecordError, match="records/1: --powerline 60: at 100 Hz a record holds only what is below 50 Hz"):
        SignalSteps(powerline_hz=60).apply(slow)


def test_a_prepared_source_is_the_source_with_its_steps_in_the_provenance(ptb_xl_folder):
    source = PtbXl(ptb_xl_folder)
    prepared = Prepared(source, SignalSteps(rate_hz=400, remove_baseline=True))
    assert (prepared.name, prepared.kind, prepared.simulated) == ("ptb-xl", "ecg", False)
    assert prepared.plan() == source.plan()
    assert prepared.provenance() == {
        **source.provenance(),
        "signal": {
            "rate_hz": 400,
            "remove_baseline": True,
            "powerline_hz": None,
            "derive_leads": False,
            "measure": False,
        },
    }


def test_a_prepared_source_reads_the_same_after_it_went_to_a_worker(ptb_xl_folder):
    prepared = Prepared(PtbXl(ptb_xl_folder), SignalSteps(rate_hz=400, measure=True))
    planned = prepared.plan().records[0]
    here, there = prepared.read(planned), pickle.loads(pickle.dumps(prepared)).read(planned)
    assert here.to_members() == there.to_members()
    assert (here.fs_hz, here.ecg.shape) == (400, (12, 4000))
    assert here.measurements["source"].startswith("median beat of 12 leads, R waves by neurokit2")


def test_a_build_of_a_prepared_source_says_in_its_manifest_what_was_done(ptb_xl_folder, tmp_path):
    prepared = Prepared(PtbXl(ptb_xl_folder, 100), SignalSteps(rate_hz=50, remove_baseline=True))
    manifest = build(prepared, str(tmp_path / "set"), BuildOptions())
    assert manifest["provenance"]["signal"]["rate_hz"] == 50
    assert ShardSet.open(str(tmp_path / "set")).rates == [50]


class Dialogues:
    name, simulated, kind = "dialogues", True, "conversation"

    def plan(self):
        return Plan([], [], [])


def test_conversations_have_no_signal_to_prepare():
    with pytest.raises(RecordError, match="dialogues: --rate, --remove-baseline, .* of kind conversation; leave them away"):
        Prepared(Dialogues(), SignalSteps(rate_hz=400))


def test_every_lead_of_every_real_recording_keeps_its_place_at_another_rate(ptb_xl_folder):
    """PTB-XL's own copy at 100 Hz fits every lead, and one sample earlier or later fits it less."""
    own = {planned.record_id: planned for planned in PtbXl(ptb_xl_folder, 100).plan().records}
    prepared = Prepared(PtbXl(ptb_xl_folder), SignalSteps(rate_hz=100))
    compared = 0
    for planned in prepared.plan().records:
        if planned.record_id in own:
            ours, theirs = prepared.read(planned), PtbXl(ptb_xl_folder, 100).read(own[planned.record_id])
            for lead in range(len(LEADS)):
                likeness = [np.corrcoef(np.roll(ours.ecg[lead], shift), theirs.ecg[lead])[0, 1] for shift in (-1, 0, 1)]
                assert np.argmax(likeness) == 1
                assert likeness[1] > 0.9
            compared += 1
    assert compared == 8
