"""The short form of the campaign: some kinds of faults, others on each day, at moments that a seed repeats.

The long form is `make test-cluster`: every kind, several times.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.campaign.attempt import PROJECT
from tests.campaign.campaign import promises
from tests.campaign.faults import FAULTS, pattern
from tests.campaign.promises import Undisturbed, judge, undisturbed
from tests.campaign.scene import Site, site

SEED = "ECGCHAT_TEST_SEED"
"""Repeats the choice and the moments of a test that failed."""
KINDS = 9
seed = int(os.environ.get(SEED, random.randrange(10**6)))
always = [name for name, fault in FAULTS.items() if fault.quick]
others = [name for name, fault in FAULTS.items() if not fault.quick and not fault.slow]
chosen = [*always, *random.Random(seed).sample(others, KINDS - len(always))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    """A server and a data set for all runs."""
    with site(tmp_path_factory.mktemp("campaign")) as place:
        yield place


@pytest.fixture(scope="module")
def expected(place: Site) -> Undisturbed:
    """What the run comes to when nothing happens."""
    return undisturbed(place)


@pytest.mark.slow
@pytest.mark.parametrize("kind", chosen)
def test_a_run_keeps_what_is_promised_of_it(kind: str, place: Site, expected: Undisturbed) -> None:
    print(f"{SEED}={seed}")
    if missing := FAULTS[kind].missing():
        pytest.skip(missing)
    judge(FAULTS[kind], place, seed, expected)


def test_the_table_of_promises_is_in_the_documentation() -> None:
    """`python -m tests.campaign --promises` prints it."""
    assert promises() in (PROJECT / "docs" / "operations.md").read_text(), promises()


def test_a_sentence_is_found_with_other_values() -> None:
    found = pattern("s3://…/step-000120: 12 of 34 (…); check it")
    assert found.search("ecgchat: s3://bucket/run/step-000004: 1 of 200 (why); check it")
    assert not found.search("s3://bucket/run/step-000004: one of 200 (why); check it")
