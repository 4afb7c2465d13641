"""What a simulated corpus promises: leads that obey the laws, findings that can be measured, files PTB-XL's readers read."""

from __future__ import annotations

import ast
import csv
import filecmp
import json
from pathlib import Path

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from shards.record import LEADS
from shards.simulate.case import Case, draw_case, render
from shards.simulate.findings import CODE_ORDER, Findings
from shards.simulate.heart import heart_dipole, independent_leads, twelve_leads
from shards.simulate.ptb_xl import EXTRA_COLUMNS, NATIVE_COLUMNS, simulate_ptb_xl
from shards.simulate.reports import REPORT_PHRASES, report

FS = 500
SEVERAL = range(1, 13)
Signal = NDArray[np.float64]


def lead(signal: Signal, name: str) -> Signal:
    row: Signal = signal[LEADS.index(name)]
    return row


def ventricular_onsets(signal: Signal) -> NDArray[np.intp]:
    """Samples at which the leads begin to move as fast as only a QRS complex does; P and T are slower."""
    speed = np.abs(np.diff(signal, axis=1)).max(axis=0) * FS
    smooth = np.convolve(speed, np.full(40, 1 / 40), mode="same")
    beating = smooth > 0.3 * np.quantile(smooth, 0.98)
    starts = np.flatnonzero(beating[1:] & ~beating[:-1])
    return starts[np.concatenate(([True], np.diff(starts) > 0.22 * FS))] if len(starts) else starts


def conducted_onsets(case: Case) -> NDArray[np.intp]:
    """Samples of the QRS onsets of conducted beats that lie in the recording with their P and T."""
    onsets = case.beats.onsets[~case.beats.premature]
    return np.rint(onsets[(onsets > 0.4) & (onsets < case.duration_s - 0.7)] * FS).astype(np.intp)


def first_beat(case: Case, signal: Signal) -> tuple[Signal, Signal]:
    """The (12, n) QRS complex and the (12, n) ST-T after it of the first whole conducted beat."""
    start = conducted_onsets(case)[0]
    j = start + case.measurements.qrs_ms * FS // 1000
    return signal[:, start:j], signal[:, j : start + case.measurements.qt_ms * FS // 1000]


def st_level(case: Case, signal: Signal, name: str) -> float:
    """mV at 60 ms after the J point."""
    return float(lead(first_beat(case, signal)[1], name)[30])


def runs(active: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First sample and length of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], active.astype(np.int8), [0]))))
    return [(int(a), int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def cases(findings: Findings, seed: int = 5) -> list[tuple[Case, Signal]]:
    """Several patients with the same findings, and their noise-free signals."""
    drawn = [draw_case(seed, number, findings=findings) for number in SEVERAL]
    return [(case, render(case, FS, noise=False)) for case in drawn]


@pytest.mark.parametrize("seed", range(25))
def test_limb_leads_obey_einthoven_and_goldberger_to_rounding(seed: int) -> None:
    counts = np.rint(1000 * render(draw_case(seed, 1 + seed % 7), FS))
    i, ii, iii, avr, avl, avf = counts[:6]
    assert np.abs(i + iii - ii).max() <= 1.5
    assert np.abs(avr + (i + ii) / 2).max() <= 1.5
    assert np.abs(avl - (i - ii / 2)).max() <= 1.5
    assert np.abs(avf - (ii - i / 2)).max() <= 1.5
    assert np.abs(counts).max() < 10_000


@pytest.mark.parametrize(("rhythm", "slowest", "fastest"), [("SR", 60, 100), ("SBRAD", 40, 60), ("STACH", 100, 145)])
def test_sinus_rhythms_are_regular_at_their_rate_and_have_p_waves(rhythm: str, slowest: float, fastest: float) -> None:
    for case, signal in cases(Findings(rhythm)):  # type: ignore[arg-type]
        rr = np.diff(ventricular_onsets(signal)) / FS
        assert slowest < 60 / rr.mean() < fastest
        assert rr.std() < 0.06 * rr.mean()
        assert 60 / rr.mean() == pytest.approx(case.measurements.heart_rate, rel=0.02)
        assert p_size(case, signal) > 0.07


def test_atrial_fibrillation_is_irregular_and_has_f_waves_instead_of_p_waves() -> None:
    for case, signal in cases(Findings("AFIB")):
        rr = np.diff(ventricular_onsets(signal)) / FS
        assert rr.std() > 0.1 * rr.mean()
        assert case.measurements.pr_ms is None
        assert case.conducted.start == 0.0, "nothing belongs to a beat before its QRS complex"
        f_waves = lead(signal - render_without_f_waves(case), "V1")
        assert 0.018 < f_waves.std() < 0.1


def p_size(case: Case, signal: Signal) -> float:
    """Height in lead II of what precedes every QRS complex by the PR interval, mV."""
    assert case.measurements.pr_ms is not None
    before = case.measurements.pr_ms * FS // 1000
    p_waves = [lead(signal, "II")[start - before : start - before + 50] for start in conducted_onsets(case)]
    return float(np.mean(p_waves, axis=0).max() - np.mean([p[0] for p in p_waves]))


def render_without_f_waves(case: Case) -> Signal:
    beats = [(float(onset), case.conducted) for onset in case.beats.onsets]
    return twelve_leads(independent_leads(heart_dipole(beats, round(case.duration_s * FS), FS)))


def test_first_degree_block_has_a_pr_interval_over_200_ms_and_others_have_not() -> None:
    assert all(case.measurements.pr_ms > 200 for case, _ in cases(Findings("SR", first_degree_block=True)))  # type: ignore[operator]
    assert all(120 <= case.measurements.pr_ms <= 200 for case, _ in cases(Findings("SR")))  # type: ignore[operator]


@pytest.mark.parametrize("first_degree", [False, True])
def test_intervals_in_the_table_are_those_of_the_signal(first_degree: bool) -> None:
    """Without noise the leads are flat but for P and for QRS-T, so both can be measured as what is not flat."""
    for case, signal in cases(Findings("SBRAD", first_degree_block=first_degree)):
        found = runs(np.abs(signal).max(axis=0) > 0.001)
        whole = [run for run in found if run[0] > 0 and sum(run) < signal.shape[1]]
        ventricles = [run for run in whole if 2 * run[1] > 0.3 * 1000]
        atria = [run for run in whole if 2 * run[1] < 0.15 * 1000]
        pairs = [(p, qrs) for p in atria for qrs in ventricles if 0 < qrs[0] - p[0] < 0.35 * FS]
        assert len(pairs) > 2
        measured = case.measurements
        assert measured.pr_ms == pytest.approx(np.mean([2 * (qrs[0] - p[0]) for p, qrs in pairs]), abs=8)
        assert measured.qt_ms == pytest.approx(np.mean([2 * qrs[1] for _, qrs in pairs]), abs=14)
        assert measured.rr_ms == pytest.approx(2 * np.mean(np.diff([qrs[0] for qrs in ventricles])), rel=0.02)
        assert measured.qtc_ms == pytest.approx(measured.qt_ms / np.sqrt(measured.rr_ms / 1000))


@pytest.mark.parametrize(
    ("findings", "shortest", "longest"),
    [
        (Findings("SR"), 65, 110),
        (Findings("SR", hypertrophy=True), 65, 115),
        (Findings("SR", conduction="CLBBB"), 130, 180),
        (Findings("SR", conduction="CRBBB"), 120, 160),
    ],
)
def test_qrs_is_as_wide_as_stated(findings: Findings, shortest: float, longest: float) -> None:
    for case, signal in cases(findings):
        start = conducted_onsets(case)[0]
        around = signal[:, start - 10 : start + 110]
        fast = np.flatnonzero(np.abs(np.diff(around, axis=1)).max(axis=0) * FS > 9)
        pause = np.flatnonzero(np.diff(fast) > 15)
        width = 2 * ((fast[pause[0]] if len(pause) else fast[-1]) - fast[0] + 1)
        assert case.measurements.qrs_ms == pytest.approx(width, abs=16)
        assert shortest <= case.measurements.qrs_ms <= longest


def test_left_bundle_branch_block_looks_it() -> None:
    for case, signal in cases(Findings("SR", conduction="CLBBB")):
        qrs, st_t = first_beat(case, signal)
        for name in ("I", "aVL", "V5", "V6"):
            assert lead(qrs, name).max() > 0.15
            assert lead(qrs, name)[:20].min() > -0.05, f"septal q in {name}"
        for name in ("I", "V5", "V6"):
            assert lead(st_t, name).min() < -0.1, f"T goes with QRS in {name}"
        assert lead(qrs, "V1").min() < -0.7
        assert lead(qrs, "V1").max() < 0.25
        assert lead(st_t, "V1").max() > 0.2


def test_right_bundle_branch_block_looks_it() -> None:
    for case, signal in cases(Findings("SR", conduction="CRBBB")):
        qrs, st_t = first_beat(case, signal)
        v1 = lead(qrs, "V1")
        s = int(v1[: len(v1) * 2 // 3].argmin())
        assert v1[:s].max() > 0.05, "r"
        assert v1[s] < -0.1, "S"
        assert v1[s:].max() > max(0.3, v1[:s].max()), "R' taller than r"
        assert lead(st_t, "V1").min() < -0.08
        for name in ("I", "V6"):
            late = lead(qrs, name)[len(v1) // 2 :]
            assert late.min() < -0.15
            assert 2 * np.count_nonzero(late < 0) >= 40, f"S in {name} at least 40 ms"


@pytest.mark.parametrize("rhythm", ["SR", "AFIB", "STACH"])
def test_premature_beats_are_early_wide_and_followed_by_a_pause(rhythm: str) -> None:
    for case, signal in cases(Findings(rhythm, premature_beats=True)):  # type: ignore[arg-type]
        early = np.flatnonzero(case.beats.premature)
        assert 1 <= len(early) <= 4
        for beat in early:
            before, after = np.diff(case.beats.onsets)[beat - 1 : beat + 1]
            assert before < 0.85 * case.measurements.rr_ms / 1000 or rhythm == "AFIB"
            assert after > 1.1 * before
            assert before + after > (1.4 if rhythm == "AFIB" else 1.85) * case.measurements.rr_ms / 1000
            start = round(case.beats.onsets[beat] * FS)
            qrs, t = signal[:, start : start + 86], signal[:, start + 90 : start + 200]
            biggest = int(np.abs(qrs).max(axis=1).argmax())
            main = qrs[biggest, np.abs(qrs[biggest]).argmax()]
            assert main * t[biggest, np.abs(t[biggest]).argmax()] < 0, "T against QRS"
        assert case.premature.start >= 0.0, "no P wave"


def test_anterior_st_elevation_is_in_v1_to_v4() -> None:
    for conduction in ("narrow", "CRBBB"):
        for case, signal in cases(Findings("SR", infarct="AMI", conduction=conduction)):
            assert min(st_level(case, signal, name) for name in ("V2", "V3")) >= 0.2
            assert min(st_level(case, signal, name) for name in ("V1", "V4")) >= 0.1
            assert max(abs(st_level(case, signal, name)) for name in ("II", "III", "aVF")) < 0.1


def test_inferior_st_elevation_is_in_ii_iii_and_avf_with_its_mirror_in_avl() -> None:
    for case, signal in cases(Findings("SR", infarct="IMI")):
        assert min(st_level(case, signal, name) for name in ("II", "III", "aVF")) >= 0.1
        assert st_level(case, signal, "aVL") <= -0.05
        assert max(abs(st_level(case, signal, name)) for name in ("V2", "V3")) < 0.2


def test_hypertrophy_meets_sokolow_lyon_with_strain_and_others_do_not() -> None:
    for hypertrophy in (True, False):
        for case, signal in cases(Findings("SR", hypertrophy=hypertrophy)):
            qrs, st_t = first_beat(case, signal)
            voltage = -lead(qrs, "V1").min() + max(lead(qrs, "V5").max(), lead(qrs, "V6").max())
            assert bool(voltage >= 3.5) is hypertrophy
            strain = all(lead(st_t, name).min() < -0.1 and st_level(case, signal, name) < 0 for name in ("V5", "V6"))
            assert strain is hypertrophy


def test_a_normal_record_is_normal_in_every_lead() -> None:
    for case, signal in cases(Findings("SR"), seed=6):
        qrs, st_t = first_beat(case, signal)
        assert -30 <= case.measurements.qrs_axis_deg <= 100
        assert min(lead(st_t, name).max() for name in ("I", "II", "V3", "V4", "V5", "V6")) > 0.03
        assert max(abs(st_level(case, signal, name)) for name in LEADS) < 0.1
        r = [lead(qrs, f"V{number}").max() for number in (1, 2, 4)]
        assert r == sorted(r), "R grows from V1 to V4"
        assert case.measurements.qtc_ms < 460


def test_axis_is_the_angle_of_the_net_areas_of_i_and_avf() -> None:
    for case, signal in cases(Findings("SR")):
        qrs, _ = first_beat(case, signal)
        angle = np.degrees(np.arctan2(2 * lead(qrs, "aVF").sum(), np.sqrt(3) * lead(qrs, "I").sum()))
        assert case.measurements.qrs_axis_deg == pytest.approx(angle, abs=3)


def test_each_finding_has_its_share() -> None:
    codes = [draw_case(0, number).findings.codes for number in range(1, 501)]
    share = {code: sum(code in found for found in codes) / len(codes) for code in CODE_ORDER}
    assert 0.25 <= share.pop("NORM") <= 0.36
    assert 0.6 <= share.pop("SR") <= 0.8
    assert share.pop("STE_") == pytest.approx(share["AMI"] + share["IMI"])
    assert {code: part for code, part in share.items() if not 0.07 <= part <= 0.14} == {}


def test_findings_that_exclude_one_another_are_refused() -> None:
    with pytest.raises(ValueError, match="P waves"):
        Findings("AFIB", first_degree_block=True)
    with pytest.raises(ValueError, match="left bundle branch block"):
        Findings("SR", conduction="CLBBB", infarct="AMI")
    with pytest.raises(ValueError, match="hypertrophy"):
        Findings("SR", conduction="CRBBB", hypertrophy=True)


def test_reports_say_every_finding_and_only_those() -> None:
    texts = set()
    for number in range(1, 301):
        case = draw_case(8, number)
        text = report(case).lower()
        codes = set(case.findings.codes)
        assert {code for code in codes if not any(phrase in text for phrase in REPORT_PHRASES[code])} == set()
        absent = set(CODE_ORDER) - codes - {"SR", "NORM"}
        assert {code for code in absent if any(phrase in text for phrase in REPORT_PHRASES[code])} == set()
        assert ("normal ecg" in text.replace("otherwise normal ecg", "")) <= ("NORM" in codes)
        assert "showing" not in text
        texts.add(text)
    assert len(texts) > 200


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    simulate_ptb_xl(folder, 30, seed=4, sampling_rates=(500, 100))
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_same_arguments_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    simulate_ptb_xl(tmp_path, 30, seed=4, sampling_rates=(100, 500))
    names = sorted(str(path.relative_to(corpus)) for path in corpus.rglob("*") if path.is_file())
    assert names == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert filecmp.cmpfiles(corpus, tmp_path, names, shallow=False)[0] == names


def test_a_longer_simulation_begins_with_the_shorter_one(corpus: Path, tmp_path: Path) -> None:
    counted: list[int] = []
    simulate_ptb_xl(tmp_path, 11, seed=4, progress=counted.append)
    assert counted == list(range(1, 12))
    assert rows(tmp_path) == rows(corpus)[:11]
    short = list(tmp_path.rglob("*_hr.*"))
    assert len(short) == 22
    assert all(path.read_bytes() == (corpus / path.relative_to(tmp_path)).read_bytes() for path in short)


def test_another_seed_gives_other_records() -> None:
    assert not np.array_equal(render(draw_case(1, 1)), render(draw_case(2, 1)))


@pytest.mark.parametrize("column", ["filename_hr", "filename_lr"])
def test_wfdb_reads_what_was_written(corpus: Path, column: str) -> None:
    for number, row in enumerate(rows(corpus), start=1):
        record = wfdb.rdrecord(str(corpus / row[column]), physical=False)
        rate = 500 if column == "filename_hr" else 100
        assert (record.fs, record.sig_len, record.units) == (rate, 10 * rate, ["mV"] * 12)
        assert tuple(record.sig_name) == tuple(name.replace("aV", "AV") for name in LEADS)
        assert record.calc_checksum() == [value % 65536 for value in record.checksum]
        assert record.init_value == record.d_signal[0].tolist()
        expected = render(draw_case(4, number), rate)
        assert np.abs(record.dac().T - expected).max() <= 0.00051


def test_the_table_has_the_native_columns_first(corpus: Path) -> None:
    header = (corpus / "ptbxl_database.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header == [*NATIVE_COLUMNS, *EXTRA_COLUMNS]
    folds: dict[str, str] = {}
    for row in rows(corpus):
        codes = ast.literal_eval(row["scp_codes"])
        assert codes
        assert set(codes) <= set(CODE_ORDER)
        assert (row["pr_ms"] == "") is ("AFIB" in codes)
        assert row["report"]
        assert row["report_language"] == "en"
        assert 18 <= float(row["age"]) <= 89 or row["age"] == "300.0"
        assert float(row["heart_rate"]) == pytest.approx(60000 / float(row["rr_ms"]), abs=0.1)
        assert folds.setdefault(row["patient_id"], row["strat_fold"]) == row["strat_fold"]
    assert len(folds) == 20
    assert {int(fold) for fold in folds.values()} == set(range(1, 11))


def test_the_statements_name_every_code_once(corpus: Path) -> None:
    with (corpus / "scp_statements.csv").open(newline="", encoding="utf-8") as file:
        statements = {row[""]: row for row in csv.DictReader(file)}
    assert set(statements) == set(CODE_ORDER)
    assert statements["1AVB"]["diagnostic_class"] == "CD"
    assert statements["1AVB"]["diagnostic_subclass"] == "_AVB"
    assert statements["PVC"]["form"] == "1.0"
    assert statements["AFIB"]["rhythm"] == "1.0"


def test_some_ages_are_the_stand_in_for_over_89() -> None:
    assert 0 < np.mean([draw_case(0, number).patient.age > 89 for number in range(1, 301)]) < 0.1


def test_a_finished_simulation_says_what_it_is_and_is_replaced(tmp_path: Path) -> None:
    simulate_ptb_xl(tmp_path, 3, seed=1)
    about = json.loads((tmp_path / "simulation.json").read_text(encoding="utf-8"))
    assert about["generator"] == "ecgchat.simulate"
    assert (about["records"], about["seed"], about["version"]) == (3, 1, 1)
    assert "person" in about["note"]
    simulate_ptb_xl(tmp_path, 2, seed=1)
    assert len(rows(tmp_path)) == 2
    assert len(list(tmp_path.rglob("*.dat"))) == 2


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "ptbxl_database.csv").write_text("somebody's", encoding="utf-8")
    with pytest.raises(FileExistsError, match="name another folder") as refusal:
        simulate_ptb_xl(tmp_path, 1, seed=1)
    assert str(tmp_path) in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ptbxl_database.csv"]
    assert (tmp_path / "ptbxl_database.csv").read_text(encoding="utf-8") == "somebody's"


@pytest.mark.parametrize(("records", "seed", "rates"), [(0, 1, (500,)), (1, -1, (500,)), (1, 1, (250,)), (1, 1, ())])
def test_arguments_out_of_range_are_refused_before_anything_is_written(
    tmp_path: Path, records: int, seed: int, rates: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="expected at least 1 record"):
        simulate_ptb_xl(tmp_path / "new", records, seed, sampling_rates=rates)
    assert not (tmp_path / "new").exists()
