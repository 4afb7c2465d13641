"""ECGs as GE's MUSE exports them: one XML file `<RestingECG>` a recording.

The signal is the `Waveform` whose `WaveformType` is Rhythm, wherever it stands; the other one is the median beat. Counts
are 16-bit little-endian integers in base64, with a resolution and unit for each lead. MUSE stores I, II and V1 to V6; the
four leads that follow from I and II are not in the file, and are missing. Layout: github.com/antonior92/ecg-preprocessing
(MIT), and the element names of GE's restecg.dtd.
"""

from __future__ import annotations

import base64
import binascii
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from shards.record import RecordError, lead_positions
from shards.sources.record_table import age_of
from shards.sources.tables import SEXES, number
from shards.sources.waveform_files import WaveformFiles, in_their_places, read_limited

MOST_BYTES = 16_000_000
MOST_ELEMENTS = 200_000
DEEPEST = 64
HEAD_BYTES = 65_536
"""In which the patient stands, near the beginning."""
HIGHEST_HZ, LARGEST_UNIT = 1e5, 1e6

MILLIVOLTS = {"MICROVOLTS": 1000.0, "MILLIVOLTS": 1.0}
"""Unit → how many of it are a millivolt."""
NOT_RECORDED = -32768
YEARS = {"YEARS": 1.0, "MONTHS": 1 / 12, "WEEKS": 7 / 365.25, "DAYS": 1 / 365.25}
MEASUREMENTS = {
    "heart_rate": "VentricularRate",
    "pr": "PRInterval",
    "qrs": "QRSDuration",
    "qt": "QTInterval",
    "qtc": "QTCorrected",
    "p_axis": "PAxis",
    "qrs_axis": "RAxis",
    "t_axis": "TAxis",
}
AXES = ("p_axis", "qrs_axis", "t_axis")
LONGEST_MS, LARGEST_AXIS = 10_000, 360
JOINT = "; "
PERSONS = re.compile(
    r"(electronically |over)?(confirmed|signed|reviewed|read|edited|interpreted|acquired|referred)\b.*\bby\b.*"
    r"|(technician|test ind|referring physician|location)\s*:.*",
    re.IGNORECASE,
)
"""Lines that name who read, ordered or recorded the ECG."""


class MuseXml(WaveformFiles):
    """All such files below one folder."""

    name = "muse-xml"
    corpus = "recordings in GE's MUSE XML"
    extension = ".xml"

    def patient_of(self, path: Path) -> str | None:
        """`PatientID` in the beginning of the file, or None where it gives none or cannot be read."""
        try:
            if not path.is_file():
                return None
            with path.open("rb") as file:
                return _patient(_parse(file.read(HEAD_BYTES), path.name, whole=False))
        except (OSError, RecordError):
            return None

    def fields_of(self, path: Path, where: str) -> dict[str, Any]:
        """Everything that is kept of a file.

        Raises:
            RecordError: it is no such file, or its signal is damaged.
        """
        tree = _parse(read_limited(path, MOST_BYTES, where), where)
        if tree.tag != "RestingECG":
            raise RecordError(f"{where}: is a <{tree.tag[:40]}>, expected a <RestingECG>; leave it out")
        if _patient(tree) != self.patient_of(path):
            raise RecordError(
                f"{where}: PatientID is not within the first {HEAD_BYTES} bytes, where it is looked for; leave it out"
            )
        report = JOINT.join(_statements(tree)) or None
        return {
            **_signal(_rhythm(tree, where), where),
            **_demographics(tree),
            "acquired": _acquired(tree),
            "report": report,
            "report_source": "publisher" if report else None,
            "measurements": _measurements(tree),
        }


def _parse(body: bytes, where: str, *, whole: bool = True) -> ElementTree.Element:
    """The tree of a document that declares nothing: entities are how a small file becomes a large one, or another's.

    Args:
        body: the document, or its beginning.
        where: its name, for the sentence of an error.
        whole: whether it has to be complete.

    Raises:
        RecordError: it is no XML, is too deep or has too many elements, or declares anything.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_elements: list[str] = []
    elements = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal elements
        elements += 1
        open_elements.append(tag)
        if len(open_elements) > DEEPEST or elements > MOST_ELEMENTS:
            raise RecordError(f"{where}: deeper than {DEEPEST} or more than {MOST_ELEMENTS} elements; leave it out")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        builder.end(open_elements.pop())

    def refuse(*_: Any) -> None:
        raise RecordError(f"{where}: declares entities or elements of its own, expected none; leave it out")

    def doctype(_name: str, _system: str | None, _public: str | None, has_internal_subset: bool) -> None:
        if has_internal_subset:
            refuse()

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    parser.StartDoctypeDeclHandler, parser.EntityDeclHandler = doctype, refuse
    try:
        parser.Parse(body, whole)
        for tag in reversed(open_elements):
            builder.end(tag)
        tree: ElementTree.Element | None = builder.close()
    except RecordError:
        raise
    except (expat.ExpatError, AssertionError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise RecordError(f"{where}: not an XML file ({type(error).__name__}); fetch it again") from error
    if tree is None:
        raise RecordError(f"{where}: not an XML file (nothing in it); fetch it again")
    return tree


def _text(element: ElementTree.Element, path: str) -> str:
    return " ".join((element.findtext(path) or "").split())


def _patient(tree: ElementTree.Element) -> str | None:
    return _text(tree, "PatientDemographics/PatientID") or None


def _rhythm(tree: ElementTree.Element, where: str) -> ElementTree.Element:
    found = [waveform for waveform in tree.iterfind("Waveform") if _text(waveform, "WaveformType").lower() == "rhythm"]
    if len(found) != 1:
        raise RecordError(f"{where}: expected one Waveform of WaveformType Rhythm, found {len(found)}; leave it out")
    return found[0]


def _signal(waveform: ElementTree.Element, where: str) -> dict[str, Any]:
    """Leads, scales and rate."""
    channels = list(waveform.iterfind("LeadData"))
    names = [_text(channel, "LeadID")[:40] for channel in channels]
    positions = lead_positions(names, where)
    leads = {lead: _counts(channels[place], f"{where}: lead {lead}") for lead, place in positions.items()}
    ecg, mv_per_lsb = in_their_places(leads, NOT_RECORDED, where)
    dropped = [name for place, name in enumerate(names) if place not in positions.values()]
    return {"fs_hz": _rate(waveform, where), "ecg": ecg, "mv_per_lsb": mv_per_lsb, "dropped_channels": dropped}


def _rate(waveform: ElementTree.Element, where: str) -> float:
    base, exponent = number(_text(waveform, "SampleBase")), number(_text(waveform, "SampleExponent") or "0")
    if base is None or exponent is None or not -9 <= exponent <= 9 or not 0 < base * 10**exponent <= HIGHEST_HZ:
        raise RecordError(
            f"{where}: SampleBase and SampleExponent give no sampling rate up to {HIGHEST_HZ:g} Hz; fetch it again"
        )
    return float(base * 10**exponent)


def _counts(channel: ElementTree.Element, where: str) -> tuple[NDArray[np.int64], float]:
    """Samples of a lead, and millivolts of one count."""
    unit = _text(channel, "LeadAmplitudeUnits").upper()
    size = number(_text(channel, "LeadAmplitudeUnitsPerBit").replace(",", "."))
    if unit not in MILLIVOLTS:
        raise RecordError(f"{where}: LeadAmplitudeUnits is {unit[:40]!r}, expected MICROVOLTS or MILLIVOLTS; mend the file")
    if size is None or not 1 / LARGEST_UNIT <= size <= LARGEST_UNIT:
        raise RecordError(f"{where}: LeadAmplitudeUnitsPerBit is no number above 0 and up to {LARGEST_UNIT:g}; mend the file")
    if _text(channel, "LeadSampleSize") not in ("", "2") or number(_text(channel, "LeadTimeOffset") or "0") != 0:
        raise RecordError(f"{where}: expected samples of 2 bytes from time 0 on, found others; leave it out")
    try:
        body = base64.b64decode("".join((channel.findtext("WaveFormData") or "").split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RecordError(f"{where}: WaveFormData is not base64; fetch it again") from error
    expected = number(_text(channel, "LeadSampleCountTotal"))
    if expected is None or len(body) != 2 * expected:
        raise RecordError(
            f"{where}: WaveFormData has {len(body)} bytes, expected 2 for each of LeadSampleCountTotal {expected or 0:g}; "
            "fetch it again"
        )
    return np.frombuffer(body, dtype="<i2").astype(np.int64), size / MILLIVOLTS[unit]


def _demographics(tree: ElementTree.Element) -> dict[str, Any]:
    age = age_of(_text(tree, "PatientDemographics/PatientAge"))
    years = YEARS.get(_text(tree, "PatientDemographics/AgeUnits").upper() or "YEARS")
    return {
        "age": round(age * years, 3) if age is not None and years is not None else None,
        "sex": SEXES.get(_text(tree, "PatientDemographics/Gender").lower()),
    }


def _acquired(tree: ElementTree.Element) -> str | None:
    """Date (month-day-year) and time of the test; None where either is absent."""
    text = f"{_text(tree, 'TestDemographics/AcquisitionDate')} {_text(tree, 'TestDemographics/AcquisitionTime')}"
    try:
        return datetime.strptime(text, "%m-%d-%Y %H:%M:%S").isoformat(sep=" ")
    except ValueError:
        return None


def _statements(tree: ElementTree.Element) -> Iterator[str]:
    """Lines of the diagnosis: a line goes on until a statement is flagged ENDSLINE. Lines that name people are left out."""
    line: list[str] = []
    statements = list(tree.iterfind("Diagnosis/DiagnosisStatement"))
    for statement in statements:
        line.append(_text(statement, "StmtText"))
        flags = {(flag.text or "").strip().upper() for flag in statement.iterfind("StmtFlag")}
        if "ENDSLINE" in flags or statement is statements[-1]:
            text = " ".join(" ".join(line).split())
            line = []
            if text and not PERSONS.fullmatch(text):
                yield text


def _measurements(tree: ElementTree.Element) -> dict[str, Any]:
    """The cart's own; what is no interval and no angle stands for what it could not measure."""
    values = {name: number(_text(tree, f"RestingECGMeasurements/{tag}")) for name, tag in MEASUREMENTS.items()}
    plausible = {
        name: value if value is not None and (abs(value) <= LARGEST_AXIS if name in AXES else 0 < value <= LONGEST_MS) else None
        for name, value in values.items()
    }
    return {**plausible, "source": "publisher"} if any(value is not None for value in plausible.values()) else {}
