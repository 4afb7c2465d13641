"""PTB-XL: classes of statements, reports in another language, and paths that its table gives."""

import pickle
import shutil
from pathlib import Path

import pytest

from shards.record import RecordError
from shards.sources.ptb_xl import PtbXl
from tests.shards.rewriting import edit_row
from tests.shards.sources.readings import read_all


@pytest.fixture
def tables_only(corpus, tmp_path):
    """The real tables, with the files of record 1 at 500 Hz."""
    real = corpus("ptb-xl")
    for name in ("ptbxl_database.csv", "scp_statements.csv"):
        shutil.copy(real / name, tmp_path / name)
    (tmp_path / "records500/00000").mkdir(parents=True)
    for file in (real / "records500/00000").glob("00001_hr.*"):
        shutil.copy(file, tmp_path / "records500/00000")
    return tmp_path


def first(folder, **options):
    source = PtbXl(folder, **options)
    return source.read(pickle.loads(pickle.dumps(source.plan().records[0])))


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("{'NORM': 100.0, 'SR': 0.0}", {"superclass:NORM": 1, "subclass:NORM": 1, "superclass:MI": 0, "subclass:IMI": 0}),
        ("{'IMI': 0.0, 'LAFB': 80.0}", {"superclass:MI": None, "subclass:IMI": None, "superclass:CD": 1, "superclass:NORM": 0}),
        ("{'IMI': 0.0, 'ASMI': 50.0}", {"superclass:MI": 1, "subclass:IMI": None, "subclass:AMI": 1}),
        ("{'NDT': 0.0}", {"NDT": 1, "superclass:STTC": None}),
        ("{'AFIB': 0.0}", {"AFIB": 1, "superclass:NORM": 0, "superclass:STTC": 0}),
    ],
)
def test_diagnoses_have_their_super_and_subclass_unknown_where_their_likelihood_is(tables_only, codes, expected):
    edit_row(tables_only, "1", scp_codes=codes)
    labels = first(tables_only).labels
    assert {name: labels[name] for name in expected} == expected


def test_the_vocabularies_are_the_published_ones(tables_only):
    labels = first(tables_only).labels
    assert sorted(name for name in labels if name.startswith("superclass:")) == [
        f"superclass:{name}" for name in ("CD", "HYP", "MI", "NORM", "STTC")
    ]
    assert sum(name.startswith("subclass:") for name in labels) == 23
    assert sum(":" not in name for name in labels) == 71


def test_an_english_table_gives_the_report_by_ecg_id_and_the_german_one_is_kept(tables_only, tmp_path):
    english = tmp_path / "english.csv"
    english.write_text("report,ecg_id\nnot this one,2\nsinus rhythm. peripheral  low voltage,1\n")
    record = first(tables_only, english=english)
    assert (record.report, record.report_source) == ("sinus rhythm. peripheral low voltage", "translation")
    assert record.report_original == "sinusrhythmus periphere niederspannung"
    assert first(tables_only).report_source == "made from statements"


def test_a_record_that_the_english_table_lacks_has_its_report_made_from_statements(tables_only, tmp_path):
    english = tmp_path / "english.csv"
    english.write_text("ecg_id,report\n2,another\n")
    assert first(tables_only, english=english).report_source == "made from statements"


def test_an_english_table_without_the_columns_is_refused(tables_only, tmp_path):
    english = tmp_path / "english.csv"
    english.write_text("id,text\n1,x\n")
    with pytest.raises(RecordError, match=r"english.csv: column ecg_id, report missing"):
        PtbXl(tables_only, english=english)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "records500/../../x", ""])
def test_a_path_that_leads_out_of_the_corpus_rejects_its_row(tables_only, path):
    edit_row(tables_only, "1", filename_hr=path)
    plan = PtbXl(tables_only).plan()
    assert [row.record_id for row in plan.rejected] == ["1"]
    assert "ecg_id 1, filename_hr: expected a path below" in plan.rejected[0].reason


def test_the_two_published_rates_are_the_same_recordings(corpus):
    slow, fast = (read_all(PtbXl(corpus("ptb-xl"), rate)) for rate in (100, 500))
    assert set(slow) < set(fast)
    for name, record in slow.items():
        assert record.ecg.shape[1] * 5 == fast[name].ecg.shape[1]
        assert record.labels == fast[name].labels


def test_the_statements_table_is_the_publishers(tables_only):
    Path(tables_only / "scp_statements.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RecordError, match=r"scp_statements.csv: column , description"):
        PtbXl(tables_only)
