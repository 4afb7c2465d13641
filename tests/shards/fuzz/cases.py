"""The cases: which file of which corpus is damaged how. A number always stands for the same damage."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path, PurePosixPath
from random import Random

from tests.shards.fuzz.damage_bytes import BYTES, Damage
from tests.shards.fuzz.damage_hdf5 import HDF5
from tests.shards.fuzz.damage_headers import HEADER
from tests.shards.fuzz.damage_markup import JSON, XML
from tests.shards.fuzz.damage_matlab import MATLAB
from tests.shards.fuzz.damage_tar import TAR
from tests.shards.fuzz.damage_text import CSV, TEXT
from tests.shards.fuzz.lures import FOLDER, Lures, write_lures
from tests.shards.fuzz.recordings import RECORDINGS
from tests.shards.fuzz.seeds import CORPORA, Corpus

SHARES = {
    "WFDB header": 1000,
    "WFDB signal": 500,
    "csv": 1100,
    "HDF5": 900,
    "MATLAB": 500,
    "tar": 300,
    "XML": 400,
    "JSON": 300,
}
"""Kind of file → cases, of the corpora that are made here."""
SHARES_OF_RECORDINGS = {"WFDB header": 300, "WFDB signal": 250, "csv": 150, "HDF5": 200, "MATLAB": 100}
"""The same of real recordings, where they are at hand."""
LURES = "lures"
"""Folder beside the undamaged corpora."""
CASES = sum(SHARES.values())
CI_STEP = 5
"""Every so-manieth case runs in CI."""

KINDS: dict[str, tuple[Damage, ...]] = {
    "WFDB header": BYTES[:6] + TEXT + HEADER + HEADER,
    "WFDB signal": BYTES,
    "csv": BYTES[:6] + TEXT + CSV,
    "HDF5": BYTES + HDF5,
    "MATLAB": BYTES + MATLAB,
    "tar": BYTES + TAR,
    "XML": BYTES[:8] + TEXT + XML + XML,
    "JSON": BYTES[:8] + TEXT + JSON + JSON,
}
"""Kind of file → the damage that it takes."""


@dataclass(frozen=True)
class Case:
    """One file of a corpus, and the damage that it takes."""

    number: int
    corpus: Corpus
    file: str
    """Path in the corpus."""
    kind: str
    damage: Damage

    def __str__(self) -> str:
        return f"{self.number} {self.corpus.name} {self.file} {self.kind}: {self.damage.__name__}"


def kind_of(file: str, corpus: str) -> str:
    """What a file of a corpus is."""
    path = PurePosixPath(file)
    if path.name == "records.tar.gz":
        return "tar"
    if path.suffix == ".mat":
        return "MATLAB" if corpus in ("cpsc2018", "recordings-cpsc2018") else "WFDB signal"
    kinds = {".hea": "WFDB header", ".csv": "csv", ".h5": "HDF5", ".hdf5": "HDF5", ".xml": "XML", ".json": "JSON"}
    return kinds.get(path.suffix, "WFDB signal")


def write_corpora(folder: Path, corpora: tuple[Corpus, ...]) -> None:
    """Write each undamaged corpus into a folder of its name, and the lures."""
    (folder / LURES).mkdir(parents=True)
    write_lures(folder / LURES)
    for corpus in corpora:
        (folder / corpus.name).mkdir()
        corpus.write(folder / corpus.name)


def all_cases(folder: Path) -> dict[int, Case]:
    """Number → case, for the corpora that `write_corpora` has written there: those of recordings only where they are."""
    made = _cases(folder, CORPORA, 0, SHARES)
    recorded = tuple(corpus for corpus in RECORDINGS if (folder / corpus.name).is_dir())
    return made | (_cases(folder, recorded, CASES, SHARES_OF_RECORDINGS) if recorded else {})


def _cases(folder: Path, corpora: tuple[Corpus, ...], first: int, shares: dict[str, int]) -> dict[int, Case]:
    """Each file of a kind takes each damage about as often, in an order that is drawn once; so do those that CI runs."""
    draw, pairs = Random(first), _pairs(folder, corpora)
    kinds = [kind for kind, share in shares.items() for _ in range(share)]
    draw.shuffle(kinds)
    for kind in shares:
        draw.shuffle(pairs[kind])
    following = {kind: cycle(pairs[kind]) for kind in shares}
    turns = sorted(range(len(kinds)), key=lambda number: (number % CI_STEP, number))
    return {first + number: Case(first + number, *next(following[kind])) for number, kind in zip(turns, kinds, strict=True)}


def _pairs(folder: Path, corpora: tuple[Corpus, ...]) -> dict[str, list[tuple[Corpus, str, str, Damage]]]:
    """Kind of file → every file of that kind with every damage that it takes."""
    pairs: dict[str, list[tuple[Corpus, str, str, Damage]]] = {kind: [] for kind in KINDS}
    for corpus in corpora:
        for file in _files(folder / corpus.name):
            kind = kind_of(file, corpus.name)
            pairs[kind] += [(corpus, file, kind, damage) for damage in KINDS[kind]]
    return pairs


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def digest_of(cases: dict[int, Case]) -> str:
    """Sixteen digits that stand for the cases of the corpora that are made here, and for the code that damages them."""
    listed = "\n".join(str(cases[number]) for number in range(CASES))
    code = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")) if path.name in DECISIVE)
    return hashlib.sha256((listed + code).encode()).hexdigest()[:16]


DECISIVE = {
    "cases.py",
    "seeds.py",
    "lures.py",
    "judge.py",
    "guard.py",
    *(f"damage_{kind}.py" for kind in ("bytes", "text", "headers", "hdf5", "matlab", "tar", "markup")),
}


def damaged_bytes(case: Case, undamaged: Path, beside: Path) -> bytes:
    """The bytes of the damaged file; `beside` is where the lures will lie."""
    body = (undamaged / case.corpus.name / case.file).read_bytes()
    return case.damage(body, Random(case.number), Lures(beside, case.file.count("/")))


def set_up(case: Case, undamaged: Path, room: Path) -> Path:
    """The damaged corpus of a case below `room`, with lures beside it.

    Undamaged files are links to the same bytes, which nothing changes.
    """
    folder = room / FOLDER
    for file in _files(undamaged / case.corpus.name):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if file != case.file:
            os.link(undamaged / case.corpus.name / file, folder / file)
    for lure in (undamaged / LURES).iterdir():
        os.link(lure, room / lure.name)
    (folder / case.file).write_bytes(damaged_bytes(case, undamaged, room))
    return folder
