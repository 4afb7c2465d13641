"""From an ECG data set to conversations: every answer is true, and the bytes depend on records and seed alone."""

import json
import pickle
import re
from collections import Counter

import numpy as np
import pytest
import webdataset

from shards.build import build
from shards.conversations.compose import Recording, compose_dialogue, generator, pairs
from shards.conversations.general import GENERAL_FACTS
from shards.conversations.names import FINDINGS, RHYTHMS
from shards.conversations.questions import NAMES
from shards.conversations.record import check_conversation
from shards.conversations.source import ComposedConversations
from shards.dataset import DatasetError, ShardSet
from shards.record import LEADS, RecordError, split_by_hash
from shards.storage import Store
from shards.tar import ShardFormatError
from shards.verify import verify
from shards.workers import in_processes, in_this_process
from tests.shards.conversations.conftest import SMALL, described, spoken


@pytest.fixture(params=["dialogues", "real_dialogues"])
def both(request):
    """(conversations, ECGs) of simulated and of real records."""
    conversations = request.getfixturevalue(request.param)
    ecgs = request.getfixturevalue({"dialogues": "ecgs", "real_dialogues": "real_ecgs"}[request.param])
    return conversations, ecgs


def test_every_answer_is_true_of_its_record(both):
    conversations, ecgs = both
    records = described(ecgs)
    judged = Counter()
    for sample in spoken(conversations):
        about = [records[one["record_id"]] for one in sample.record["records"]]
        gpt = [turn["value"] for turn in sample.record["conversations"] if turn["from"] == "gpt"]
        for answer, said in zip(gpt, sample.record["answers"], strict=True):
            TRUTH[said["kind"]](answer, said, about)
            judged[said["kind"]] += 1
    assert min(judged[kind] for kind in ("rhythm", "finding", "findings", "report", "general")) >= 3


def rhythm_is_the_only_one_stated(answer, said, records):
    [record] = records
    assert [code for code in RHYTHMS if record["labels"].get(code) == 1] == [said["expected"]]
    assert RHYTHMS[said["expected"]] in answer


def class_fits_the_rate(answer, said, records):
    rate = records[0]["measurements"].get("heart_rate")
    stated = {code for code, value in records[0]["labels"].items() if value == 1}
    if rate is None:
        assert {"slow": "SBRAD", "fast": "STACH"}[said["expected"]] in stated
    else:
        assert said["expected"] == ("slow" if rate < 60 else "fast" if rate > 100 else "normal")
    assert f" {said['expected']}" in answer


def number_is_the_measured_one(answer, said, records):
    name = {"rate": "heart_rate"}.get(said["kind"], said["kind"])
    assert said["expected"] == round(records[0]["measurements"][name])
    assert [int(number) for number in re.findall(r"\d+", answer)] == [said["expected"]]


def finding_is_labelled_so(answer, said, records):
    assert records[0]["labels"][said["about"]] == {"yes": 1, "no": 0}[said["expected"]]
    assert answer.lower().startswith(said["expected"])
    assert FINDINGS[said["about"]] in answer


def findings_are_all_there_are(answer, said, records):
    labels = {code: value for code, value in records[0]["labels"].items() if ":" not in code}
    assert None not in labels.values()
    assert said["expected"] == sorted(code for code, value in labels.items() if value == 1 and code not in ("NORM", "SR"))
    assert all(NAMES[code] in answer for code in said["expected"])


def report_is_the_records(answer, said, records):
    assert answer == said["expected"] == records[0]["report"]


def change_is_between_the_two(answer, said, records):
    earlier, later = records
    assert earlier["patient_id"] == later["patient_id"]
    assert earlier["acquired"] < later["acquired"]
    if said["about"] == "rhythm":
        stated = [next(code for code in RHYTHMS if record["labels"].get(code) == 1) for record in records]
        assert said["expected"] == ("no" if stated[0] == stated[1] else "yes")
        assert all(RHYTHMS[code] in answer for code in stated)
    else:
        first, second = (record["measurements"]["heart_rate"] for record in records)
        assert abs(first - second) >= 10
        assert said["expected"] == ("first" if first > second else "second")


def fact_is_known(answer, said, records):
    assert records == []
    assert said["expected"] is None
    assert answer in {way for fact in GENERAL_FACTS for way in fact.answers}


TRUTH = {
    "rhythm": rhythm_is_the_only_one_stated,
    "rate_class": class_fits_the_rate,
    **dict.fromkeys(("rate", "pr", "qrs", "qt", "qtc"), number_is_the_measured_one),
    "finding": finding_is_labelled_so,
    "findings": findings_are_all_there_are,
    "report": report_is_the_records,
    "change": change_is_between_the_two,
    "general": fact_is_known,
}


def test_every_sample_is_a_well_formed_conversation_with_its_ecgs(both):
    conversations, _ = both
    for sample in spoken(conversations):
        check_conversation(sample.record["conversations"], len(sample.ecgs))
        first = sample.record["conversations"][0]["value"]
        assert first.count("<ecg>") == len(sample.ecgs)
        assert not sample.ecgs or first.startswith("<ecg>\n") or first.endswith("\n<ecg>")
        assert len(sample.record["answers"]) == len(sample.record["conversations"]) // 2


def test_signals_are_copied_bit_for_bit(both):
    conversations, ecgs = both
    for sample in spoken(conversations):
        for ecg, scale, one in zip(sample.ecgs, sample.mv_per_lsb, sample.record["records"], strict=True):
            row = next(row for row in ecgs.index.to_pylist() if row["record_id"] == one["record_id"])
            _, expected, record = ecgs.sample(row["key"])
            assert np.array_equal(ecg, expected)
            assert ecg.dtype == np.int16
            assert (scale, one["source_path"]) == (record["mv_per_lsb"], record["source_path"])


def test_a_dialogue_asks_four_to_seven_things_and_the_report_last(dialogues):
    lengths = Counter()
    for sample in spoken(dialogues):
        if sample.key.endswith("-dialogue") and sample.record["split"] != "test":
            kinds = [said["kind"] for said in sample.record["answers"]]
            lengths[len(kinds)] += 1
            assert "report" not in kinds[:-1]
            named = [(said["kind"], said["about"]) for said in sample.record["answers"]]
            assert len(set(named)) == len(named)
    assert set(lengths) == {4, 5, 6, 7}


def test_held_out_records_are_asked_everything(dialogues):
    """The simulator measures all of it, and states one rhythm; PR needs P waves, and a rate class a rate off its limits."""
    for sample in spoken(dialogues):
        if sample.key.endswith("-dialogue") and sample.record["split"] == "test":
            kinds = {said["kind"] for said in sample.record["answers"]}
            assert kinds >= {"rhythm", "rate", "qrs", "qt", "qtc", "findings", "report"}


def test_present_and_absent_findings_are_asked_about_as_often(dialogues):
    answers = Counter(
        answer.split("=")[1]
        for row in dialogues.index["answers"].to_pylist()
        for answer in row
        if answer.startswith("finding:")
    )
    assert 0.35 < answers["yes"] / answers.total() < 0.65


def test_the_test_split_alone_hears_the_phrasing_of_the_evaluation(dialogues):
    heard = {"training": set(), "evaluation": set()}
    for sample in spoken(dialogues):
        assert sample.record["phrasing"] == ("evaluation" if sample.record["split"] == "test" else "training")
        turns = sample.record["conversations"][::2]
        heard[sample.record["phrasing"]] |= {turn["value"].replace("<ecg>", "").strip() for turn in turns}
    assert len(heard["evaluation"]) >= 10
    assert heard["evaluation"].isdisjoint(heard["training"])


def test_a_conversation_stays_in_the_split_of_its_ecgs(dialogues, ecgs):
    split = dict(zip(ecgs.index["record_id"].to_pylist(), ecgs.index["split"].to_pylist(), strict=True))
    for sample in spoken(dialogues):
        for one in sample.record["records"]:
            assert sample.record["split"] == split[one["record_id"]]


def test_a_share_needs_no_ecg_and_another_has_two(dialogues):
    numbers = Counter(dialogues.index["ecgs"].to_pylist())
    assert (numbers[0], numbers[1]) == (24, 120)
    assert numbers[2] >= 5
    for row in dialogues.index.to_pylist():
        assert (row["fs_hz"], row["samples"]) == ((100, 1000) if row["ecgs"] else (None, 0))
    dialogues.require_rate(100, "instruct")
    with pytest.raises(DatasetError, match=r"sampled at 100 Hz, stage instruct takes 500 Hz"):
        dialogues.require_rate(500, "instruct")


def test_the_report_task_asks_every_record_for_its_report(report_shards, ecgs):
    data = ShardSet.open(report_shards)
    assert data.index.num_rows == 120
    records = described(ecgs)
    for sample in spoken(data):
        [one] = sample.record["records"]
        [said] = sample.record["answers"]
        assert (said["kind"], said["expected"]) == ("report", records[one["record_id"]]["report"])
        assert sample.record["conversations"][1]["value"] == said["expected"]
        assert sample.key == f"simulated-ptb-xl-{one['record_id']}-report"


def test_reports_of_real_records_that_have_none_are_listed(real_ecgs, tmp_path):
    manifest = build(ComposedConversations(real_ecgs, "report"), str(tmp_path / "set"), SMALL)
    without = [row["record_id"] for row in real_ecgs.index.to_pylist() if not row["text_length"]]
    assert [row["record_id"] for row in manifest["absent"]] == without
    assert manifest["counts"]["records"] == 80 - len(without)


def test_the_manifest_says_what_it_was_made_of(dialogues, ecgs):
    manifest = dialogues.manifest
    assert (manifest["kind"], manifest["source"], manifest["simulated"]) == ("conversation", "simulated-ptb-xl", True)
    made = manifest["provenance"]
    assert made["ecg_set"]["index_sha256"] == ecgs.digest
    assert made["ecg_set"]["provenance"]["simulation"]["seed"] == 3
    assert made["conversations"] == {"task": "dialogue", "seed": 0, "text_only": 0.2, "change_share": 0.5}
    counts = manifest["counts"]
    assert counts["ecgs"] == sum(dialogues.index["ecgs"].to_pylist())
    assert counts["patients"] == ecgs.manifest["counts"]["patients"]
    assert {"rhythm", "finding", "report", "change", "general"} <= set(counts["label"])
    assert manifest["statistics"]["samples"]["min"] == 1000


def test_verify_is_content_with_conversations(dialogues, report_shards):
    assert verify(dialogues) == []
    assert verify(ShardSet.open(report_shards)) == []


def test_the_stock_webdataset_reader_reads_conversations(dialogues):
    urls = [f"{dialogues.store.uri.removeprefix('file://')}/{shard['name']}" for shard in dialogues.manifest["shards"]]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len(samples) == dialogues.index.num_rows
    for sample in samples:
        assert sum(name.startswith("ecg") for name in sample) == len(sample["json"]["records"])
        for number, scale in enumerate(sample["json"]["mv_per_lsb"]):
            ecg = sample[f"ecg{number}.npy"]
            assert (ecg.dtype, ecg.shape, len(scale)) == (np.int16, (len(LEADS), 1000), 12)


def test_builds_with_any_number_of_workers_are_byte_identical(ecgs, dialogues, tmp_path):
    contents = []
    for name, runner in (("serial", in_this_process), ("parallel", in_processes(2))):
        source = ComposedConversations(ecgs, "dialogue", text_only=0.2)
        build(source, str(tmp_path / name), SMALL, runner)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    there = Store(dialogues.store.uri)
    assert {name: there.get(name) for name in there.list()} == contents[0]


def test_another_seed_asks_other_things(ecgs):
    [record, *_] = described(ecgs).values()
    asked = ComposedConversations(ecgs).asked
    drawn = [compose_dialogue(record, asked, seed) for seed in range(8)]
    assert drawn == [compose_dialogue(record, asked, seed) for seed in range(8)]
    assert len({json.dumps(one.conversations) for one in drawn}) > 5


def test_random_numbers_belong_to_seed_and_names():
    first = generator(0, "dialogue", "corpus", "17").integers(1 << 60, size=4)
    assert np.array_equal(first, generator(0, "dialogue", "corpus", "17").integers(1 << 60, size=4))
    for other in ((1, "dialogue", "corpus", "17"), (0, "report", "corpus", "17"), (0, "dialogue", "corpus", "18")):
        assert not np.array_equal(first, generator(*other).integers(1 << 60, size=4))


def test_a_source_goes_to_a_worker_without_the_index(ecgs):
    source = ComposedConversations(ecgs, "dialogue")
    there = pickle.loads(pickle.dumps(source))
    planned = source.plan().records[0]
    assert there.read(planned).to_members() == source.read(planned).to_members()
    assert there.data.index.num_rows == 0
    assert source.data.index.num_rows == 120


def test_a_hash_splits_what_belongs_to_no_patient():
    splits = Counter(split_by_hash("corpus", str(number)) for number in range(2000))
    assert splits["train"] == pytest.approx(1600, abs=80)
    assert splits["val"] == pytest.approx(200, abs=50)
    assert split_by_hash("corpus", "1") == split_by_hash("corpus", "1")


def test_pairs_are_recordings_of_one_patient_and_split_that_follow_each_other():
    recordings = [
        Recording(f"{patient}-{number}", "train" if number < 3 else "val", str(patient), f"2020-01-0{number + 1}")
        for patient in range(40)
        for number in range(4)
    ]
    found = pairs(recordings, 0, "corpus")
    assert found == pairs(list(reversed(recordings)), 0, "corpus")
    assert 8 < len(found) < 32
    for earlier, later in found:
        assert (earlier.split("-")[0], later[-1]) == (later.split("-")[0], str(int(earlier[-1]) + 1))
        assert later[-1] != "3"


@pytest.mark.parametrize("times", [(None, None), ("2020-01-01", None), ("2020-01-01", "2020-01-01")])
def test_recordings_without_an_order_in_time_make_no_pair(times):
    pair = [Recording(str(number), "train", "8", time) for number, time in enumerate(times)]
    assert [pairs(pair, seed, "corpus") for seed in range(20)] == [[]] * 20


def test_a_record_that_says_nothing_has_no_dialogue():
    record = {"source": "s", "record_id": "17", "split": "train", "labels": {}, "measurements": {}, "report": None}
    with pytest.raises(RecordError, match="record 17: expected a report, a known label or a measurement"):
        compose_dialogue(record, {}, 0)


def test_conversations_are_made_of_ecgs_only(dialogues):
    with pytest.raises(DatasetError, match=r"kind 'conversation', .* takes kind 'ecg'; .*'ecgchat shards build'"):
        ComposedConversations(dialogues)


@pytest.mark.parametrize(("named", "complaint"), [({"task": "chat"}, "--task chat"), ({"text_only": 1.5}, "--text-only 1.5")])
def test_an_argument_out_of_range_is_named(ecgs, named, complaint):
    with pytest.raises(DatasetError, match=f"{complaint}: expected"):
        ComposedConversations(ecgs, **named)


def test_a_shard_that_is_not_the_indexs_is_named(ecgs):
    source = ComposedConversations(ecgs, "report")
    planned, other = source.plan().records[:2]
    planned.row["ecgs"][0]["key"] = other.row["ecgs"][0]["key"]
    with pytest.raises(ShardFormatError, match=r"\.tar: expected sample .* found .*; verify and rebuild the shards"):
        source.read(planned)
