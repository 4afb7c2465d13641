"""Damaged corpora end in records or in one clear rejection each; and what runs the cases notices when they do not."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

import h5py
import numpy as np
import pytest

from shards.plan import AbsentRecord, Plan, PlannedRecord
from shards.record import LEADS, EcgRecord, RecordError
from tests.shards.fuzz.cases import CASES, CI_STEP, KINDS, Case, all_cases, damaged_bytes, digest_of, write_corpora
from tests.shards.fuzz.judge import judge
from tests.shards.fuzz.lures import FOLDER, LEVEL_MV, is_lure, write_lures
from tests.shards.fuzz.outcome import FAULTS, RESULT, run, write_result
from tests.shards.fuzz.seeds import CORPORA, Corpus
from tests.shards.fuzz.workers import run_cases


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "undamaged"
    write_corpora(folder, CORPORA)
    return folder


# The cases


@pytest.mark.slow
def test_every_damaged_corpus_gives_records_or_clear_rejections_within_limits_and_from_its_own_folder(request):
    everything = request.config.getoption("--fuzz-all", default=False)
    outcome = run(1 if everything else CI_STEP, processes=2)
    assert outcome["failures"] == []
    assert outcome["cases"] - outcome["cases_of_recordings"] == CASES // (1 if everything else CI_STEP)
    if everything:
        write_result(outcome)


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_every_undamaged_corpus_gives_its_records_and_nothing_else(corpus, undamaged):
    outcome = judge(corpus.source, undamaged / corpus.name)
    assert outcome.records
    assert (outcome.rejected, outcome.problems) == (0, [])


def test_the_committed_result_is_of_these_cases_and_has_no_failure(undamaged):
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    assert result["digest"] == digest_of(all_cases(undamaged)), "run `python -m tests.shards.fuzz --all` and commit result.json"
    assert result["cases"] - result["cases_of_recordings"] == CASES
    assert result["faults"] == dict.fromkeys(FAULTS, 0)
    assert result["failures"] == []


def test_a_fifth_of_the_cases_has_every_kind_of_file_in_every_source_and_all_its_damage(undamaged):
    chosen = [case for number, case in all_cases(undamaged).items() if number < CASES and number % CI_STEP == 0]
    assert {case.corpus.name for case in chosen} == {corpus.name for corpus in CORPORA}
    for kind, damage in KINDS.items():
        assert {case.damage for case in chosen if case.kind == kind} == set(damage), kind


def test_a_number_stands_for_the_same_damage_everywhere(undamaged, tmp_path):
    for number, case in list(all_cases(undamaged).items())[:200]:
        again = all_cases(undamaged)[number]
        assert damaged_bytes(case, undamaged, tmp_path) == damaged_bytes(again, undamaged, tmp_path), case


def test_nearly_every_case_changes_its_file(undamaged, tmp_path):
    cases = [case for number, case in all_cases(undamaged).items() if number < 1000]
    same = [
        case
        for case in cases
        if damaged_bytes(case, undamaged, tmp_path) == (undamaged / case.corpus.name / case.file).read_bytes()
    ]
    assert len(same) < 0.03 * len(cases), [str(case) for case in same]


# What is noticed: each source here does one thing that no source may do


class Misbehaving:
    """A source that does something instead of reading, or returns it."""

    name, simulated, kind = "misbehaving", False, "ecg"

    def __init__(self, folder):
        self.folder = folder

    def provenance(self):
        return {}

    def plan(self):
        return Plan([PlannedRecord("one", "train", {})], [], [])

    def read(self, planned):
        return EcgRecord("misbehaving", "one", "one", "one", "train", 100.0, self.ecg(), [0.001] * 12)

    def ecg(self):
        return np.ones((12, 50), dtype=np.int16)


class Honest(Misbehaving):
    pass


class OpensWhatLiesOutside(Misbehaving):
    def ecg(self):
        (self.folder.parent / "elsewhere.dat").read_bytes()


class ListsWhatLiesOutside(Misbehaving):
    def ecg(self):
        return os.listdir(self.folder.parent)


class FollowsALinkThatLeadsOutside(Misbehaving):
    def ecg(self):
        return (self.folder / "link").read_bytes()


class Writes(Misbehaving):
    def ecg(self):
        (self.folder / "new").write_bytes(b"")


class Connects(Misbehaving):
    def ecg(self):
        socket.create_connection(("127.0.0.1", 9), timeout=0.1)


class StartsAProgram(Misbehaving):
    def ecg(self):
        os.system("true")


class TrespassesAndCallsItARejection(Misbehaving):
    def ecg(self):
        try:
            (self.folder.parent / "elsewhere.dat").read_bytes()
        except OSError as error:
            raise RecordError("one.dat: cannot be read; fetch it again") from error


class TakesALureThroughHdf5(Misbehaving):
    """The HDF5 library opens files itself."""

    def ecg(self):
        with h5py.File(self.folder.parent / "elsewhere.h5") as file:
            return np.rint(file["ecg"][:].astype(float) * 1000).astype(np.int16)


class RaisesAnotherError(Misbehaving):
    def ecg(self):
        raise ValueError("not ours")


class RejectsInTwoLines(Misbehaving):
    def ecg(self):
        raise RecordError("one.hea: bad\nand worse; fetch it again")


class RejectsAtLength(Misbehaving):
    def ecg(self):
        raise RecordError("one.hea: " + "bad " * 200)


class RejectsWithoutSayingWhat(Misbehaving):
    def ecg(self):
        raise RecordError("bad")


class CallsWantOfMemoryARejection(Misbehaving):
    def ecg(self):
        raise RecordError("one.hea: cannot be decoded (MemoryError); fetch it again")


class HasNoSamples(Misbehaving):
    def ecg(self):
        return np.ones((12, 0), dtype=np.int16)


class HasFloats(Misbehaving):
    def ecg(self):
        return np.ones((12, 50))


class HasElevenLeads(Misbehaving):
    def ecg(self):
        return np.ones((11, 50), dtype=np.int16)


class HasNoScale(Misbehaving):
    def read(self, planned):
        return EcgRecord("misbehaving", "one", "one", "one", "train", 100.0, self.ecg(), [0.001] * 11 + [float("inf")])


class SaysNotANumber(Misbehaving):
    def read(self, planned):
        return EcgRecord("misbehaving", "one", "one", "one", "train", 100.0, self.ecg(), [0.001] * 12, age=float("nan"))


class HasAKeyThatNoTarTakes(Misbehaving):
    def read(self, planned):
        return EcgRecord("misbehaving", "n" * 300, "one", "one", "train", 100.0, self.ecg(), [0.001] * 12)


class NamesAnIdOfManyLines(Misbehaving):
    def plan(self):
        return Plan([], [AbsentRecord("a\nb", "a.dat: not in corpus; fetch it")], [])


class Crashes(Misbehaving):
    def ecg(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class Hangs(Misbehaving):
    def ecg(self):
        time.sleep(60)


class TakesTooMuchMemory(Misbehaving):
    def ecg(self):
        return np.ones(2**31, dtype=np.int16)


@pytest.fixture
def room(tmp_path):
    """A folder with a corpus, and lures beside it."""
    write_lures(tmp_path)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "link").symlink_to(tmp_path / "elsewhere.dat")
    return tmp_path / FOLDER


def test_a_source_that_does_nothing_wrong_is_not_blamed(room):
    outcome = judge(Honest, room)
    assert (outcome.records, outcome.rejected, outcome.problems) == (1, 0, [])


@pytest.mark.parametrize(
    "source",
    [OpensWhatLiesOutside, ListsWhatLiesOutside, FollowsALinkThatLeadsOutside, Writes, Connects, StartsAProgram],
)
def test_what_goes_beyond_the_folder_is_refused(room, source):
    with pytest.raises(PermissionError, match="refused by the guard"):
        judge(source, room)
    assert not (room / "new").exists()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (TrespassesAndCallsItARejection, "elsewhere.dat"),
        (TakesALureThroughHdf5, "lies outside of the corpus"),
        (RejectsInTwoLines, "not one line"),
        (RejectsAtLength, "characters"),
        (RejectsWithoutSayingWhat, "names no file or field"),
        (CallsWantOfMemoryARejection, "about memory"),
        (HasNoSamples, "its signal is int16 (12, 0)"),
        (HasFloats, "its signal is float64"),
        (HasElevenLeads, "its signal is int16 (11, 50)"),
        (HasNoScale, "its scales are"),
        (NamesAnIdOfManyLines, "an id is not printable"),
    ],
)
def test_what_a_source_gives_is_looked_at(room, source, problem):
    assert any(problem in found for found in judge(source, room).problems)


@pytest.mark.parametrize(
    ("source", "message"),
    [(RaisesAnotherError, "not ours"), (SaysNotANumber, "not JSON compliant"), (HasAKeyThatNoTarTakes, "name is too long")],
)
def test_an_error_that_is_no_rejection_passes_through(room, source, message):
    with pytest.raises(ValueError, match=message):
        judge(source, room)


def test_the_signal_of_a_lure_is_known_in_both_scales(room):
    for factor in (1.0, 0.5):
        ecg = np.zeros((12, 100), dtype=np.int16)
        ecg[LEADS.index("V1")] = np.where(np.arange(100) % 2, -1, 1) * LEVEL_MV * factor * 1000
        record = EcgRecord("sph", "one", "one", "one", "train", 100.0, ecg, [0.001] * 12)
        assert is_lure(record)
    assert not is_lure(Honest(room).read(None))


def misbehaving_cases(folder):
    sources = (Honest, Crashes, Hangs, TakesTooMuchMemory, RaisesAnotherError, Honest)
    return {
        number: Case(number, Corpus(CORPORA[0].name, CORPORA[0].write, source), "ptbxl_database.csv", "csv", unchanged)
        for number, source in enumerate(sources)
    }


def unchanged(body, draw, lures):
    return body


@pytest.mark.slow
def test_a_case_that_ends_its_process_is_named_and_the_others_go_on(undamaged, tmp_path):
    results = {result.number: result for result in run_cases(range(6), undamaged, tmp_path, 2, misbehaving_cases, seconds=2)}
    faults = [results[number].fault for number in range(6)]
    assert faults == [None, "crash", "hang", "memory", "wrong", None]
    assert "SIGSEGV" in results[1].problems[0]
    assert "ValueError: not ours" in results[4].problems[0]
