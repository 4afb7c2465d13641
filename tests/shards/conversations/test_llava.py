"""LLaVA files: joined to records by path or id, with everything that was left out named."""

import json
import pickle
import re

import pytest

from shards.build import BuildOptions, build
from shards.conversations.llava import EcgLookup, distinct_names, parse_item
from shards.conversations.loader import read_conversation
from shards.conversations.source import LlavaConversations
from shards.dataset import DatasetError, ShardSet
from shards.record import RecordError
from shards.verify import verify

TURNS = [{"from": "human", "value": "<ecg>\nIs the rhythm regular?"}, {"from": "gpt", "value": "Yes, it is."}]
TEXT = [{"from": "human", "value": "What is tachycardia?"}, {"from": "gpt", "value": "A fast heart."}]
LENIENT = BuildOptions(records_per_shard=8, max_rejected=1)


def two(first, second):
    return [{"from": "human", "value": "<ecg>\nAnd this?\n<ecg>"}, TURNS[1]] if (first, second) else []


def item(name, ecg=None, turns=TURNS):
    return {"id": name, "conversations": turns} | ({} if ecg is None else {"ecg": ecg})


@pytest.fixture
def imported(ecgs, tmp_path):
    """Build the conversations of a list of items."""

    def run(items):
        file = tmp_path / "items.json"
        file.write_text(json.dumps(items))
        manifest = build(LlavaConversations(ecgs, file), str(tmp_path / "set"), LENIENT)
        return ShardSet.open(str(tmp_path / "set")), manifest

    return run


@pytest.fixture(scope="module")
def of_split(ecgs):
    """Record ids by split."""
    rows = ecgs.index.to_pylist()
    return {split: [row["record_id"] for row in rows if row["split"] == split] for split in ("train", "val", "test")}


def path_of(ecgs, record_id):
    return ecgs.sample(f"simulated-ptb-xl-{record_id}")[2]["source_path"]


@pytest.mark.parametrize("form", ["{path}", "./{path}", "{path}.hea", "./{path}.dat", "{id}"])
def test_an_ecg_is_found_by_its_path_or_its_id(imported, ecgs, form):
    data, _ = imported([item("a", form.format(path=path_of(ecgs, "7"), id="7"))])
    sample = read_conversation(data, "simulated-ptb-xl-a")
    assert sample.record["records"] == [{"source": "simulated-ptb-xl", "record_id": "7", "source_path": path_of(ecgs, "7")}]
    assert sample.record["conversations"] == TURNS
    assert (sample.record["answers"], sample.record["phrasing"]) == ([None], None)
    assert sample.record["split"] == next(row["split"] for row in ecgs.index.to_pylist() if row["record_id"] == "7")


@pytest.mark.parametrize("name", ["07", "7 ", "records100", "00007_lr", "records100/00000/99999_lr"])
def test_what_names_no_record_is_listed_as_absent_with_its_id(imported, name):
    data, manifest = imported([item("found", "8"), item("lost", name)])
    assert data.index["record_id"].to_pylist() == ["found"]
    assert manifest["absent"] == [{"record_id": "lost", "reason": f"no record of simulated-ptb-xl has the path or id {name}"}]
    assert (manifest["counts"]["absent"], manifest["counts"]["rejected"]) == (1, 0)


def test_an_item_may_have_several_ecgs_or_none(imported, of_split):
    first, second, *_ = of_split["val"]
    data, manifest = imported([item("pair", [second, first], two(first, second)), item("text", None, TEXT)])
    pair = read_conversation(data, "simulated-ptb-xl-pair")
    assert [one["record_id"] for one in pair.record["records"]] == [second, first]
    assert (len(pair.ecgs), pair.record["split"]) == (2, "val")
    text = read_conversation(data, "simulated-ptb-xl-text")
    assert (text.ecgs, text.record["fs_hz"], text.record["patient_id"]) == ([], None, None)
    assert (manifest["counts"]["records"], manifest["counts"]["ecgs"]) == (2, 2)
    assert verify(data) == []


def test_texts_without_an_ecg_are_split_by_a_hash_of_their_id(imported):
    data, _ = imported([item(f"t{number}", None, TEXT) for number in range(60)])
    counts = data.manifest["counts"]["split"]
    assert counts["train"] > counts["val"] > 0
    assert counts["test"] > 0


MALFORMED = [
    (item("a", ["1", 2.5], two(1, 2)), "item a: expected 'ecg' to be a path, a record's id or a list of those"),
    (item("b"), "item b: conversations: a conversation without its ECG: .* found 1 for 0"),
    (item("c", "1", TEXT), "item c: .* found 0 for 1"),
    (item("d", "1", None), "item d: conversations: expected a list of turns, found None"),
    (item("e", "1", TURNS[::-1]), "item e: conversations, turn 0: expected human and gpt in turn"),
    (item("f", "1", TURNS[:1]), "item f: conversations: expected a gpt turn at the end"),
    (item("", "1"), "item 0: expected an id, found ''"),
    ({"conversations": TEXT}, "item 0: expected an id, found None"),
    (["a"], "item 0: expected an object, found list"),
    (item("g", "1") | {"image": "x.png"}, "item g: expected an ECG, found an image"),
]


@pytest.mark.parametrize(("malformed", "reason"), MALFORMED)
def test_a_malformed_item_is_rejected_with_its_id_and_the_reason(malformed, reason):
    with pytest.raises(RecordError, match=reason) as refused:
        parse_item(malformed, 0)
    assert "\n" not in str(refused.value)


def test_malformed_items_are_listed_and_the_others_built(imported):
    data, manifest = imported([item("good", "8"), *(malformed for malformed, _ in MALFORMED)])
    assert data.index["record_id"].to_pylist() == ["good"]
    rejected = {row["record_id"]: row["reason"] for row in manifest["rejected"]}
    assert {"a", "b", "c", "d", "e", "f", "g", "item 7", "item 8", "item 9"} == set(rejected)
    assert len(manifest["rejected"]) == len(MALFORMED)
    assert manifest["counts"]["planned"] == len(MALFORMED) + 1


def test_past_the_tolerance_the_import_stops_with_the_first_reasons(ecgs, tmp_path):
    (tmp_path / "items.json").write_text(json.dumps([item("good", "8"), item("bad", "1", TEXT)]))
    with pytest.raises(DatasetError, match="1 records were rejected, more than --max-rejected 0.01 allows: item bad: "):
        build(LlavaConversations(ecgs, tmp_path / "items.json"), str(tmp_path / "set"), BuildOptions())


def test_ecgs_of_two_splits_are_rejected(imported, of_split):
    mixed = [of_split["train"][0], of_split["test"][0]]
    _, manifest = imported([item("good", "8"), item("mixed", mixed, two(*mixed))])
    [rejected] = manifest["rejected"]
    assert rejected["reason"] == "item mixed: expected ECGs of one split, found test and train; leave the item out"


def test_a_path_that_holds_several_records_needs_the_id():
    lookup = EcgLookup([("1", "exams.hdf5", {"n": 1}), ("2", "exams.hdf5", {"n": 2})])
    assert lookup.find("2") == {"n": 2}
    with pytest.raises(RecordError, match="ecg 'exams.hdf5': expected the path of one record, found 2 in it"):
        lookup.find("exams.hdf5")


def test_items_that_share_an_id_have_keys_of_their_own(imported):
    data, _ = imported([item("4.5", "1"), item("4_5", "2"), item(45, "3"), item("4.5", "4"), item("x" * 300, "5")])
    keys = data.index["key"].to_pylist()
    assert len(set(keys)) == 5
    assert {"simulated-ptb-xl-4_5", "simulated-ptb-xl-4_5-2", "simulated-ptb-xl-4_5-3", "simulated-ptb-xl-45"} < set(keys)
    assert max(map(len, keys)) < 80
    assert verify(data) == []


def test_names_are_the_ids_wherever_they_are_distinct():
    assert list(distinct_names(["a", "b", "a-2", "a", "a"])) == ["a", "b", "a-2", "a-3", "a-4"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "cannot be read \\(No such file or directory\\)"),
        ("{broken", "expected a JSON list of LLaVA items, found no JSON"),
        ('{"id": 1}', "expected a JSON list of LLaVA items, found dict"),
    ],
)
def test_a_file_that_is_no_list_is_named(ecgs, tmp_path, content, complaint):
    file = tmp_path / "items.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(RecordError, match=f"--items {re.escape(str(file))}: {complaint}"):
        LlavaConversations(ecgs, file)


def test_where_no_item_has_its_ecg_the_first_is_named(imported):
    with pytest.raises(DatasetError, match=r"none of 2 conversations can be made \(the first, a: no record of .* id x\)"):
        imported([item("a", "x"), item("b", "y")])


def test_the_manifest_names_the_file_by_digest_and_no_folder(imported, ecgs, tmp_path):
    _, manifest = imported([item("a", "1")])
    made = manifest["provenance"]
    assert made["ecg_set"]["index_sha256"] == ecgs.digest
    assert (made["items"]["name"], made["items"]["count"], len(made["items"]["sha256"])) == ("items.json", 1, 64)
    assert str(tmp_path) not in json.dumps(manifest)


def test_a_worker_reads_the_same_item(ecgs, tmp_path):
    (tmp_path / "items.json").write_text(json.dumps([item("a", "1")]))
    source = LlavaConversations(ecgs, tmp_path / "items.json")
    [planned] = source.plan().records
    there = pickle.loads(pickle.dumps(source))
    assert there.read(planned).to_members() == source.read(planned).to_members()
