"""What `verify` finds in a data set whose manifest and index agree with each other and yet are wrong."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from shards.dataset import ShardSet
from shards.verify import verify
from tests.shards.rewriting import rewrite_index, rewrite_sample


@pytest.fixture
def folder(simulated_shards, tmp_path):
    """A copy of a sound data set."""
    return Path(shutil.copytree(simulated_shards, tmp_path / "set"))


def first_row(folder):
    return next(iter(ShardSet.open(str(folder)).index.to_pylist()))


def problems(folder):
    return "\n".join(verify(ShardSet.open(str(folder))))


def test_a_sound_data_set_has_no_problems(folder):
    assert problems(folder) == ""


def test_a_key_that_stands_twice_is_found(folder):
    rewrite_index(folder, lambda rows: [*rows[:-1], {**rows[-1], "key": rows[0]["key"]}])
    assert "stands 2 times in the index" in problems(folder)


def test_a_patient_in_two_splits_is_found(folder):
    def tear(rows):
        other = next(row for row in rows if row["split"] == "test")
        return [{**rows[0], "patient_hash": other["patient_hash"]}, *rows[1:]]

    rewrite_index(folder, tear)
    assert "1 patients have records in more than one split" in problems(folder)


def test_a_row_that_is_missing_is_found(folder):
    rewrite_index(folder, lambda rows: rows[1:])
    found = problems(folder)
    assert "the index has 119 rows, the manifest says 120" in found
    assert "begins at byte" in found
    assert "counts" in found


def test_a_range_that_is_wrong_is_found(folder):
    rewrite_index(folder, lambda rows: [{**rows[0], "offset": rows[0]["offset"] + 512}, *rows[1:]])
    assert "begins at byte 512, expected 0" in problems(folder)


@pytest.mark.parametrize(
    ("column", "value"), [("samples", 7), ("fs_hz", 250.0), ("peak_mv", 9.0), ("split", "val"), ("labels", [])]
)
def test_an_index_that_says_something_else_than_the_sample_is_found(folder, column, value):
    rewrite_index(folder, lambda rows: [{**rows[0], column: value}, *rows[1:]])
    assert f"sample {ShardSet.open(str(folder)).index['key'][0]}: " in problems(folder)


def test_a_signal_that_its_description_does_not_fit_is_found(folder):
    def flatten(members, size):
        body = bytearray(members["ecg.npy"])
        body[-2000:] = np.zeros(1000, np.int16).tobytes()
        return [{**members, "ecg.npy": bytes(body)}]

    rewrite_sample(folder, first_row(folder), flatten)
    assert ": quality is {'missing_leads': [], 'flat_leads': ['V6']" in problems(folder)


def test_a_member_that_cannot_be_read_is_found(folder):
    def break_json(members, size):
        return [{**members, "json": members["json"].replace(b"}", b"]")}]

    rewrite_sample(folder, first_row(folder), break_json)
    assert "cannot be read" in problems(folder)


def test_bytes_that_are_not_those_of_the_index_are_found(folder):
    rewrite_index(folder, lambda rows: [{**rows[0], "xxh3": rows[0]["xxh3"] ^ 1}, *rows[1:]])
    assert "its bytes are not those that the index was made for" in problems(folder)
