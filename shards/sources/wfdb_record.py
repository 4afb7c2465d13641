"""Read one WFDB record of a 12-lead corpus: the fast way where it is plain, else the way that reads everything."""

from __future__ import annotations

from pathlib import Path

from shards.sources.wfdb_decoder import WfdbSignal, decode_wfdb
from shards.sources.wfdb_plain import read_plain


def read_wfdb(path: Path) -> WfdbSignal:
    """Read the record `path` (without extension), which has all twelve leads.

    Raises:
        RecordError: the header or a signal file is absent, cut, damaged or without the twelve leads.
    """
    return read_plain(path) or decode_wfdb(path, every_lead=True)
