"""Small corpora in every layout that a source reads: what the cases damage.

Signals are simulated or drawn with a fixed seed, so that the cases are the same everywhere and need no recording of anybody.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import wfdb

from shards.plan import Source
from shards.record import LEADS
from shards.simulate.case import draw_case, render
from shards.simulate.ptb_xl import simulate_ptb_xl
from shards.sources.chapman_shaoxing_ningbo import ChapmanShaoxingNingbo
from shards.sources.code_15 import Code15
from shards.sources.code_full import CodeFull
from shards.sources.code_test import CodeTest
from shards.sources.cpsc2018 import Cpsc2018
from shards.sources.mimic_iv_ecg import MimicIvEcg
from shards.sources.muse_xml import MuseXml
from shards.sources.ptb_xl import PtbXl
from shards.sources.sami_trop import SamiTrop
from shards.sources.sph import Sph
from shards.sources.tnmg_json import TnmgJson
from shards.sources.wfdb_folder import WfdbFolder
from tests.shards.fuzz.lures import EXAMS, SAMPLES
from tests.shards.sources import test_chapman_shaoxing_ningbo as chapman
from tests.shards.sources import test_code_15 as code_15
from tests.shards.sources import test_code_full as code_full
from tests.shards.sources import test_cpsc2018 as cpsc
from tests.shards.sources import test_mimic_iv_ecg as mimic
from tests.shards.sources import test_sph as sph

FLAC_FORMATS = ("508", "516", "524")
FINDINGS = ("1dAVb", "RBBB", "LBBB", "SB", "AF", "ST")


@dataclass(frozen=True)
class Corpus:
    """A folder that a source reads."""

    name: str
    write: Callable[[Path], None]
    """Writes the folder, undamaged."""
    source: Callable[[Path], Source]


def _noise(samples: int = SAMPLES, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(0, 0.4, (len(LEADS), samples))


def _ptb_xl(folder: Path) -> None:
    simulate_ptb_xl(folder, records=2, seed=3, sampling_rates=(100,))
    (folder / "english.csv").write_text('ecg_id,report\n1,sinus rhythm. normal ecg\n2,"sinus rhythm, left axis"\n')


def _published_ptb_xl(folder: Path) -> None:
    """Without the mark of a simulation."""
    _ptb_xl(folder)
    (folder / "simulation.json").unlink()


def _mimic(folder: Path) -> None:
    rows = [mimic.listed("40000001"), mimic.listed("40000002", "10000002")]
    mimic.write_table(folder / "record_list.csv", mimic.LIST_COLUMNS, rows)
    columns = ["subject_id", "study_id", "cart_id", "ecg_time", *mimic.REPORTS, "bandwidth", "filtering", *mimic.NUMBERS]
    said = [
        mimic.measured("40000001", "Sinus rhythm", "Possible MI, age undetermined"),
        mimic.measured("40000002", "Atrial fibrillation", subject="10000002", p_axis=29999),
    ]
    mimic.write_table(folder / "machine_measurements.csv", columns, said)
    for number, row in enumerate(rows):
        mimic.write_record(folder, row["path"], (_noise(300, number) * 200).astype(int))


def _chapman(folder: Path) -> None:
    (folder / "ConditionNames_SNOMED-CT.csv").write_text(
        "Acronym Name,Full Name,Snomed_CT\nSB,Sinus Bradycardia,426177001\nAF,Atrial Flutter,164890007\n"
        "LBBB,left bundle branch block,164909002\nSTE,ST extension,164930006\n"
    )
    chapman.write_record(folder, comments=("#Age: 85", "#Sex: Male", "#Dx: 426177001,164890007"))
    chapman.write_record(folder, "JS00002", ("# Age: 30", "# Sex: Female", "# Dx: 164909002"), "16x1+24 1000.0(0)/mV")


def _sph(folder: Path) -> None:
    sph.write_table(folder, [sph.row("A00001", "22;23"), sph.row("A00002", "145+362", "S00002")])
    (folder / "code.csv").write_text("Category,Code,Description\nA,22,Sinus bradycardia\nA,23,Sinus arrhythmia\n")
    for number in (1, 2):
        sph.write_record(folder, f"A0000{number}", sph.some_ecg(seed=number))


def _sph_contiguous(folder: Path) -> None:
    _sph(folder)
    with h5py.File(folder / "records" / "A00001.h5", "w", libver="latest") as file:
        file["ecg"] = sph.some_ecg(seed=3)


def _sph_archive(folder: Path) -> None:
    _sph(folder)
    with tarfile.open(folder / "records.tar.gz", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(_entry("records", tarfile.DIRTYPE))
        for path in sorted((folder / "records").iterdir()):
            body = path.read_bytes()
            archive.addfile(_entry(f"records/{path.name}", tarfile.REGTYPE, len(body)), io.BytesIO(body))
    shutil.rmtree(folder / "records")


def _entry(name: str, kind: bytes, size: int = 0) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, size
    return entry


def _cpsc_structs(folder: Path) -> None:
    cpsc.write_reference(folder, "A0001,1,,", "A0002,5,2,")
    cpsc.write_struct(folder / "TrainingSet1" / "A0001.mat", cpsc.some_ecg(400))
    cpsc.write_struct(folder / "TrainingSet1" / "A0002.mat", cpsc.some_ecg(500, 1), "Female", 92, do_compression=True)
    for path in folder.rglob("*.mat"):  # the header holds the time
        path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116, b" ") + path.read_bytes()[116:])


def _cpsc_wfdb(folder: Path) -> None:
    cpsc.write_wfdb(folder / "g1" / "A0001", cpsc.some_ecg(400))
    cpsc.write_wfdb(folder / "g1" / "A0002", cpsc.some_ecg(300, 1), "164889003,59118001", "Female", "92")


def _tracings() -> dict[int, Any]:
    """Exam → (12, samples) simulated millivolts at 400 Hz."""
    return {exam: render(draw_case(5, exam), 400)[:, : 2000 + exam] for exam in EXAMS}


def _tensor(factor: float = 2.0) -> Any:
    """(exams, 4096, 12) stored values, each recording in the middle of zeros."""
    tensor = np.zeros((len(EXAMS), 4096, 12), dtype=np.float32)
    for place, values in enumerate(_tracings().values()):
        left = (4096 - values.shape[1]) // 2
        tensor[place, left : left + values.shape[1]] = values.T * factor
    return tensor


def _compressed(path: Path, name: str, values: Any, chunks: tuple[int, ...]) -> None:
    with h5py.File(path, "a") as file:
        file.create_dataset(name, data=values, chunks=chunks, compression="gzip")


def _code_15(folder: Path) -> None:
    code_15.write_table(folder, [code_15.row(exam) for exam in EXAMS])
    with h5py.File(folder / "exams_part0.hdf5", "w") as file:
        file["exam_id"] = np.array([*EXAMS, 0], dtype=np.int64)
    _compressed(
        folder / "exams_part0.hdf5", "tracings", np.concatenate((_tensor(), np.zeros((1, 4096, 12), "f4"))), (1, 1024, 3)
    )


def _code_15_contiguous(folder: Path) -> None:
    code_15.write_table(folder, [code_15.row(exam) for exam in EXAMS])
    code_15.write_part(folder, {exam: values.T * 2 for exam, values in _tracings().items()})


def _code_test(folder: Path) -> None:
    _compressed(folder / "ecg_tracings.hdf5", "tracings", _tensor().astype(np.float64), (1, 512, 3))
    (folder / "attributes.csv").write_text("age,sex\n50,M\n61,F\n")
    (folder / "annotations").mkdir()
    for name in ("gold_standard", "dnn"):
        (folder / "annotations" / f"{name}.csv").write_text(",".join(FINDINGS) + "\n0,1,0,0,0,0\n0,0,0,0,0,1\n")


def _code_full(folder: Path) -> None:
    with h5py.File(folder / "traces.hdf5", "w") as file:
        file["id_exam"] = np.array(EXAMS, dtype=np.int64)
        file.create_dataset("signal", data=_tensor(), chunks=(1, 2048, 12), compression="gzip")
    code_full.write_table(folder, [code_full.row(exam) for exam in EXAMS])
    answers = [{"id_exam": 11, "id_patient": 77, "diabetes": "True"}, {"id_exam": 22, "id_patient": 154, "diabetes": ""}]
    code_full.write_table(folder, answers, ["id_exam", "id_patient", "diabetes"], "comorbidities.csv")


def _sami_trop(folder: Path) -> None:
    (folder / "exams.csv").write_text(
        "exam_id,age,is_male,normal_ecg,death,timey\n11,55,False,True,False,2.05\n22,61,True,False,True,0.5\n"
    )
    _compressed(folder / "exams.hdf5", "tracings", _tensor().astype(np.float64), (2, 512, 3))


def _wfdb(form: str) -> Callable[[Path], None]:
    """A record in a format that `wfdb` writes, with what a clinical header says."""

    def write(folder: Path) -> None:
        leads = ["I", "II", *LEADS[6:]] if form in FLAC_FORMATS else list(LEADS)  # a FLAC file has at most 8 channels
        number = len(leads)
        wfdb.wrsamp(
            "one", 250, ["mV"] * number, leads, d_signal=(_noise(240)[:number] * 30).astype(np.int64).T, fmt=[form] * number,
            adc_gain=[30.0] * number, baseline=[0] * number, comments=["Age: 60", "Sex: F"], write_dir=str(folder),
        )  # fmt: skip

    return write


def _wfdb_by_hand(form: str, bytes_per_sample: float, more: str = "") -> Callable[[Path], None]:
    """A record in a format that only readers know, of bytes that are drawn: each is a valid signal."""

    def write(folder: Path) -> None:
        lines = [f"one.dat {form}{more} 100/mV 10 0 0 0 0 {lead}" for lead in LEADS]
        frames = int(more.removeprefix("x").split(":")[0] or 1) if more.startswith("x") else 1
        body = np.random.default_rng(7).bytes(int(240 * 12 * frames * bytes_per_sample) + 64)
        (folder / "one.dat").write_bytes(body)
        (folder / "one.hea").write_text("\n".join(["one 12 250 240", *_with_sums(folder, lines)]) + "\n")

    return write


def _with_sums(folder: Path, lines: list[str]) -> list[str]:
    """The signal lines with the checksums that `wfdb` finds."""
    (folder / "one.hea").write_text("\n".join(["one 12 250 240", *lines]) + "\n")
    signals = wfdb.rdrecord(str(folder / "one"), physical=False, smooth_frames=False, ignore_skew=True).e_d_signal
    sums = [int(np.sum(signal, dtype=np.int64)) % 65536 for signal in signals]
    return [line.replace(" 10 0 0 0 0 ", f" 10 0 0 {total} 0 ") for line, total in zip(lines, sums, strict=True)]


def _wfdb_big_endian(folder: Path) -> None:
    """Format 61: 16 bits, the first byte the higher one."""
    counts = np.random.default_rng(7).integers(-500, 500, (240, 12)).astype(">i2")
    (folder / "one.dat").write_bytes(counts.tobytes())
    sums = counts.sum(axis=0, dtype=np.int64) % 65536
    lines = [f"one.dat 61 100/mV 10 0 0 {total} 0 {lead}" for total, lead in zip(sums, LEADS, strict=True)]
    (folder / "one.hea").write_text("\n".join(["one 12 250 240", *lines]) + "\n")


def _wfdb_skewed(folder: Path) -> None:
    _wfdb_by_hand("16", 2, ":3")(folder)


def _segment(folder: Path, name: str, seed: int) -> None:
    counts = np.rint(_noise(100, seed) * 1000).astype("<i2")
    (folder / f"{name}.dat").write_bytes(counts.T.tobytes())
    sums = [int(lead.sum()) % 65536 for lead in counts]
    lines = [
        f"{name}.dat 16 1000/mV 16 0 {lead[0]} {total} 0 {label}"
        for lead, total, label in zip(counts, sums, LEADS, strict=True)
    ]
    (folder / f"{name}.hea").write_text("\n".join([f"{name} 12 100 100", *lines]) + "\n")


def _wfdb_segments(folder: Path) -> None:
    """A record of two segments with a gap between them, a layout, and a table."""
    _segment(folder, "s_1", 1)
    _segment(folder, "s_2", 2)
    layout = [f"~ 0 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS]
    (folder / "s_layout.hea").write_text("\n".join(["s_layout 12 100 0", *layout]) + "\n")
    (folder / "s.hea").write_text("s/4 12 100 250 12:00:00 01/02/2020\ns_layout 0\ns_1 100\n~ 50\ns_2 100\n")
    (folder / "table.csv").write_text(
        "record,patient_id,report,age,sex,acquired,split,label:AF\ns,p1,Sinus rhythm,50,F,2020-01-01,val,0\n"
    )


def _wfdb_windows(folder: Path) -> None:
    _segment(folder, "a", 1)
    (folder / "deep" / "er").mkdir(parents=True)
    _segment(folder / "deep" / "er", "b", 2)


def _muse(folder: Path) -> None:
    leads = "".join(_muse_lead(name, 300 * (number + 1)) for number, name in enumerate(("I", "II", *LEADS[6:])))
    (folder / "one.xml").write_text(
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<!DOCTYPE RestingECG SYSTEM "restecg.dtd">\n<RestingECG>\n'
        "<MuseInfo><MuseVersion>8.0</MuseVersion></MuseInfo>\n"
        "<PatientDemographics><PatientID>77</PatientID><PatientAge>61</PatientAge><AgeUnits>YEARS</AgeUnits><Gender>MALE</Gender>"
        "</PatientDemographics>\n<TestDemographics><AcquisitionTime>10:11:12</AcquisitionTime><AcquisitionDate>02-28-2020"
        "</AcquisitionDate></TestDemographics>\n<RestingECGMeasurements><VentricularRate>70</VentricularRate><PRInterval>160</PRInterval>"
        "<QRSDuration>90</QRSDuration><QTInterval>400</QTInterval><RAxis>30</RAxis></RestingECGMeasurements>\n<Diagnosis>"
        "<DiagnosisStatement><StmtFlag>ENDSLINE</StmtFlag><StmtText>Sinus rhythm</StmtText></DiagnosisStatement></Diagnosis>\n"
        "<Waveform><WaveformType>Median</WaveformType><SampleBase>500</SampleBase></Waveform>\n<Waveform><WaveformType>Rhythm"
        f"</WaveformType><SampleBase>500</SampleBase><SampleExponent>0</SampleExponent>\n{leads}</Waveform>\n</RestingECG>\n",
        encoding="latin-1",
    )


def _muse_lead(name: str, seed: int) -> str:
    counts = np.rint(_noise(300, seed)[0] * 200).astype("<i2")
    return (
        f"<LeadData><LeadByteCountTotal>600</LeadByteCountTotal><LeadTimeOffset>0</LeadTimeOffset><LeadSampleCountTotal>300"
        f"</LeadSampleCountTotal><LeadAmplitudeUnitsPerBit>4.88</LeadAmplitudeUnitsPerBit><LeadAmplitudeUnits>MICROVOLTS"
        f"</LeadAmplitudeUnits><LeadSampleSize>2</LeadSampleSize><LeadID>{name}</LeadID><WaveFormData>"
        f"{base64.encodebytes(counts.tobytes()).decode()}</WaveFormData></LeadData>\n"
    )


def _tnmg_json(folder: Path) -> None:
    leads = {f"D{name}": 0 for name in ("I", "II")} | dict.fromkeys(LEADS[6:], 0)
    signals = {name: ";".join(map(str, (_noise(300, place)[0] * 200).astype(int))) for place, name in enumerate(leads)}
    (folder / "one.json").write_text(json.dumps({"resolution": 4.88, "sampling": 500, **signals}))
    (folder / "table.csv").write_text(
        "record,patient_id,report,age,sex,acquired,split,label:AF\none,p1,Sinus rhythm,50,F,,,1\n"
    )


BY_HAND = (("8", 1.0), ("160", 2.0), ("310", 4 / 3), ("311", 4 / 3))

CORPORA: tuple[Corpus, ...] = (
    Corpus("ptb-xl", _ptb_xl, lambda folder: PtbXl(folder, 100)),
    Corpus("ptb-xl-translated", _published_ptb_xl, lambda folder: PtbXl(folder, 100, english=folder / "english.csv")),
    Corpus("mimic-iv-ecg", _mimic, MimicIvEcg),
    Corpus("chapman-shaoxing-ningbo", _chapman, ChapmanShaoxingNingbo),
    Corpus("sph", _sph, Sph),
    Corpus("sph-contiguous", _sph_contiguous, Sph),
    Corpus("sph-archive", _sph_archive, Sph),
    Corpus("cpsc2018", _cpsc_structs, Cpsc2018),
    Corpus("cpsc2018-wfdb", _cpsc_wfdb, Cpsc2018),
    Corpus("code-15", _code_15, Code15),
    Corpus("code-15-contiguous", _code_15_contiguous, Code15),
    Corpus("code-test", _code_test, CodeTest),
    Corpus("code", _code_full, CodeFull),
    Corpus("sami-trop", _sami_trop, SamiTrop),
    *(Corpus(f"wfdb-{form}", _wfdb(form), WfdbFolder) for form in ("16", "24", "32", "80", "212", *FLAC_FORMATS)),
    *(Corpus(f"wfdb-{form}", _wfdb_by_hand(form, size), WfdbFolder) for form, size in BY_HAND),
    Corpus("wfdb-61", _wfdb_big_endian, WfdbFolder),
    Corpus("wfdb-frames", _wfdb_by_hand("16", 2, "x2"), WfdbFolder),
    Corpus("wfdb-skew", _wfdb_skewed, WfdbFolder),
    Corpus("wfdb-segments", _wfdb_segments, lambda folder: WfdbFolder(folder, table=folder / "table.csv")),
    Corpus("wfdb-windows", _wfdb_windows, lambda folder: WfdbFolder(folder, window_s=0.3)),
    Corpus("muse-xml", _muse, MuseXml),
    Corpus("tnmg-json", _tnmg_json, lambda folder: TnmgJson(folder, table=folder / "table.csv")),
)
