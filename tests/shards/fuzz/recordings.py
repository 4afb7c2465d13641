"""Corpora of real recordings, a few of each layout, where they are at hand: what real files look like, format by format."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

from shards.sources.chapman_shaoxing_ningbo import ChapmanShaoxingNingbo
from shards.sources.code_15 import Code15
from shards.sources.code_test import CodeTest
from shards.sources.cpsc2018 import Cpsc2018
from shards.sources.mimic_iv_ecg import MimicIvEcg
from shards.sources.ptb_xl import PtbXl
from shards.sources.sami_trop import SamiTrop
from shards.sources.sph import Sph
from shards.sources.wfdb_folder import WfdbFolder
from tests.conftest import SHARED
from tests.shards.fuzz.seeds import Corpus

HERE = SHARED / "ecg"


def _copy(corpus: str, *patterns: str) -> Callable[[Path], None]:
    """Writes the files of a folder of recordings that fit the patterns."""

    def write(folder: Path) -> None:
        for path in sorted({path for pattern in patterns for path in (HERE / corpus).glob(pattern) if path.is_file()}):
            place = folder / path.relative_to(HERE / corpus)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)

    return write


def _first_rows(table: str, count: int, write: Callable[[Path], None]) -> Callable[[Path], None]:
    """As `write`, with the first rows of a table only."""

    def shortened(folder: Path) -> None:
        write(folder)
        with (folder / table).open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[: count + 1]
        with (folder / table).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)

    return shortened


def _mimic(folder: Path) -> None:
    with (HERE / "mimic-iv-ecg" / "record_list.csv").open(newline="", encoding="utf-8") as file:
        path = next(csv.DictReader(file))["path"]
    _first_rows("record_list.csv", 1, _copy("mimic-iv-ecg", "record_list.csv", "machine_measurements.csv", f"{path}.*"))(folder)


FORMATS = (
    "binformats",
    "flacformats",
    "mixedsignals",
    "310derive_2",
    "311derive_4",
    "3000003_0003",
    "s0010_re",
    "test01_00s",
    "a103l",
)
SEGMENTS = ("041s", "p000878", "s25047")

RECORDINGS: tuple[Corpus, ...] = (
    Corpus(
        "recordings-ptb-xl",
        _first_rows("ptbxl_database.csv", 1, _copy("ptb-xl", "*.csv", "records500/00000/00001_hr.*")),
        PtbXl,
    ),
    Corpus("recordings-mimic-iv-ecg", _mimic, MimicIvEcg),
    Corpus(
        "recordings-chapman",
        _copy("chapman-shaoxing-ningbo", "*.csv", "WFDBRecords/01/010/JS0000[12].*"),
        ChapmanShaoxingNingbo,
    ),
    Corpus("recordings-sph", _first_rows("metadata.csv", 2, _copy("sph", "*.csv", "records/A0000[12].h5")), Sph),
    Corpus("recordings-cpsc2018", _copy("cpsc2018", "*.csv", "*/A1980.mat"), Cpsc2018),
    Corpus("recordings-cpsc2018-wfdb", _copy("cpsc2018-wfdb", "A0002.*"), Cpsc2018),
    Corpus("recordings-code-15", _copy("code-15", "*.csv", "exams_part0.hdf5", "exams_part1.hdf5"), Code15),
    Corpus("recordings-code-15-wfdb", _copy("code-15-wfdb", "1000010.*", "edge/*"), WfdbFolder),
    Corpus("recordings-code-test", _copy("code-test/one-exam", "**/*"), CodeTest),
    Corpus("recordings-sami-trop", _copy("sami-trop", "*"), SamiTrop),
    *(
        Corpus(f"recordings-wfdb-{name}", _copy("wfdb-formats", f"{name}.*", f"{name}_[epr].dat"), WfdbFolder)
        for name in FORMATS
    ),
    *(Corpus(f"recordings-wfdb-{name}", _copy(f"wfdb-formats/multi-segment/{name}", "*"), WfdbFolder) for name in SEGMENTS),
)
