"""ECGs as the Telehealth Network of Minas Gerais exports them: one JSON file a recording.

`resolution` is microvolts of one count, `sampling` the rate, and a key for each lead (`DI`, `DII`, `V1` … `V6`) holds its
counts as integers joined by `;`, so that millivolts = count / 1000 × resolution (github.com/antonior92/ecg-preprocessing,
MIT). A lead that is not there is missing: every other one keeps its place.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.record import RecordError, lead_positions, standard_lead
from shards.sources.waveform_files import WaveformFiles, in_their_places, read_limited

MOST_BYTES = 32_000_000
MOST_SAMPLES = 1_000_000
"""Of a lead; more than half an hour at 500 Hz."""
COUNT = re.compile(r"[+-]?[0-9]{1,9}")
NUMBER = re.compile(r"[0-9]{1,9}(?:[.,][0-9]{1,12})?")
HIGHEST_HZ, LARGEST_RESOLUTION = 1e5, 1e6


class TnmgJson(WaveformFiles):
    """All such files below one folder."""

    name = "tnmg-json"
    corpus = "recordings in TNMG's JSON"
    extension = ".json"

    def patient_of(self, path: Path) -> str | None:
        """None: the format has no patient; a table may name one."""
        return None

    def fields_of(self, path: Path, where: str) -> dict[str, Any]:
        """Signal, rate and dropped channels of a file.

        Raises:
            RecordError: it is no such file, or its leads differ in length.
        """
        content = _content(read_limited(path, MOST_BYTES, where), where)
        resolution = _number(content, "resolution", LARGEST_RESOLUTION, where)
        fs_hz = _number(content, "sampling", HIGHEST_HZ, where)
        names = [key for key, value in content.items() if standard_lead(key[:40]) and value not in (None, "", [])]
        positions = lead_positions([name[:40] for name in names], where)
        leads = {lead: (_counts(content[names[place]], lead, where), resolution / 1000) for lead, place in positions.items()}
        ecg, mv_per_lsb = in_their_places(leads, None, where)
        dropped = [key[:40] for key, value in content.items() if standard_lead(key[:40]) is None and _is_channel(value)]
        return {"fs_hz": fs_hz, "ecg": ecg, "mv_per_lsb": mv_per_lsb, "dropped_channels": dropped}


def _content(body: bytes, where: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            raise RecordError(f"{where}: has a key twice; keep one")
        return content

    try:
        content = json.loads(body, object_pairs_hook=unique)
    except RecordError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON ({type(error).__name__}); fetch it again") from None
    if not isinstance(content, dict):
        raise RecordError(f"{where}: expected a JSON object with resolution, sampling and leads; fetch it again")
    return content


def _number(content: dict[str, Any], key: str, most: float, where: str) -> float:
    """A positive number, written as one or as text, with a point or a comma."""
    found = content.get(key)
    number = isinstance(found, int | float) and not isinstance(found, bool)
    text = found.strip() if isinstance(found, str) else ""
    value = found if number else float(text.replace(",", ".")) if NUMBER.fullmatch(text) else math.nan
    if value is None or not 0 < value <= most:
        raise RecordError(f"{where}: {key} is no number above 0 and up to {most:g}; mend the file")
    return float(value)


def _counts(value: Any, lead: str, where: str) -> NDArray[np.int64]:
    parts = value.strip().removesuffix(";").split(";") if isinstance(value, str) else []
    if not parts or len(parts) > MOST_SAMPLES or not all(COUNT.fullmatch(part.strip()) for part in parts):
        raise RecordError(f"{where}: lead {lead}: expected up to {MOST_SAMPLES} integers joined by ';'; fetch it again")
    return np.array([int(part) for part in parts], dtype=np.int64)


def _is_channel(value: Any) -> bool:
    """Whether a value begins like a signal: with two integers joined by `;`."""
    first = value.split(";", 2)[:2] if isinstance(value, str) else []
    return len(first) == 2 and all(COUNT.fullmatch(part.strip()) for part in first)
