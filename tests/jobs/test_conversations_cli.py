"""`ecgchat shards conversations`, and the other tools on what it makes."""

import json

import pytest

from shards.dataset import ShardSet
from tests.jobs.test_cli import assert_one_sentence

TURNS = [{"from": "human", "value": "<ecg>\nIs the rhythm regular?"}, {"from": "gpt", "value": "Yes, it is."}]


def make(ecgchat, shards, out, *options):
    words = ("--records-per-shard", 32, "--workers", 1)
    return ecgchat("shards", "conversations", shards, "--out", out, *words, *options)


def written(folder, items):
    (folder / "items.json").write_text(json.dumps(items))
    return folder / "items.json"


def test_the_help_names_its_arguments(ecgchat):
    said = ecgchat("shards", "conversations", "--help")
    assert said.status == 0
    arguments = "URI --out --task --items --seed --text-only --records-per-shard --max-rejected --workers"
    assert [argument for argument in arguments.split() if argument not in said.out] == []


def test_dialogues_are_the_default_and_the_counts_are_printed(ecgchat, simulated_shards, tmp_path):
    said = make(ecgchat, simulated_shards, tmp_path / "set", "--text-only", 0.1)
    assert said.status == 0, said.err
    data = ShardSet.open(str(tmp_path / "set"))
    assert data.index["ecgs"].to_pylist().count(0) == 12
    assert said.text.startswith(f"{data.index.num_rows} conversations about {sum(data.index['ecgs'].to_pylist())} ECGs of ")
    assert "0 absent, 0 rejected" in said.text
    assert f"report {data.manifest['counts']['label']['report']}" in said.text


def test_reports_are_made_with_their_task(ecgchat, simulated_shards, tmp_path):
    said = make(ecgchat, simulated_shards, tmp_path / "set", "--task", "report")
    assert said.text.startswith("120 conversations about 120 ECGs of ")
    verified = ecgchat("shards", "verify", tmp_path / "set")
    assert verified.status == 0
    assert verified.text.startswith("120 conversations in ")


def test_items_without_their_ecg_are_listed(ecgchat, simulated_shards, tmp_path):
    items = [{"id": str(number), "ecg": str(number), "conversations": TURNS} for number in range(100, 145)]
    said = make(ecgchat, simulated_shards, tmp_path / "set", "--items", written(tmp_path, items))
    assert said.status == 0, said.err
    assert said.text.startswith("21 conversations about 21 ECGs")
    assert "24 absent" in said.text
    listed = said.text.partition("items whose ECG is not in ")[2]
    assert ": 121, 122, 123" in listed
    assert "140 and 4 more, listed in manifest.json" in listed
    assert "141" not in listed


def test_malformed_items_stop_the_import_unless_they_are_tolerated(ecgchat, simulated_shards, tmp_path):
    items = [{"id": "a", "ecg": "1", "conversations": TURNS}, {"id": "b", "conversations": TURNS}]
    file = written(tmp_path, items)
    assert_one_sentence(make(ecgchat, simulated_shards, tmp_path / "set", "--items", file), "item b: ", "--max-rejected")
    said = make(ecgchat, simulated_shards, tmp_path / "set", "--items", file, "--max-rejected", 0.5)
    assert said.status == 0
    assert "1 rejected" in said.text


@pytest.mark.parametrize("option", [("--task", "report"), ("--text-only", 0.1)])
def test_items_are_taken_as_they_are(ecgchat, simulated_shards, tmp_path, option):
    said = make(ecgchat, simulated_shards, tmp_path / "set", "--items", tmp_path / "items.json", *option)
    assert_one_sentence(said, "--items: its conversations are taken as they are")


def test_only_dialogues_ask_without_an_ecg(ecgchat, simulated_shards, tmp_path):
    said = make(ecgchat, simulated_shards, tmp_path / "set", "--task", "report", "--text-only", 0.1)
    assert_one_sentence(said, "--text-only: only --task dialogue")


@pytest.mark.parametrize("option", [("--text-only", "2"), ("--workers", "-1"), ("--max-rejected", "7")])
def test_an_option_out_of_range_is_refused(ecgchat, simulated_shards, tmp_path, option):
    assert_one_sentence(make(ecgchat, simulated_shards, tmp_path / "set", *option), option[0], "expected")
    assert not (tmp_path / "set").exists()


def test_a_file_that_is_absent_is_named(ecgchat, simulated_shards, tmp_path):
    said = make(ecgchat, simulated_shards, tmp_path / "set", "--items", tmp_path / "none.json")
    assert_one_sentence(said, "none.json: cannot be read", "check the path")


def test_conversations_are_not_made_of_conversations(ecgchat, dialogue_shards, tmp_path):
    assert_one_sentence(make(ecgchat, dialogue_shards, tmp_path / "set"), "kind 'conversation'", "ecgchat shards build")


def test_inspect_says_what_is_asked_for(ecgchat, dialogue_shards):
    said = ecgchat("shards", "inspect", dialogue_shards)
    assert said.status == 0
    for fact in ("conversations", "100 Hz", "24 without an ECG", "asked for", "rate_class", "%"):
        assert fact in said.text


def test_show_draws_the_first_ecg_under_the_conversation(ecgchat, dialogue_shards, tmp_path):
    key = "simulated-ptb-xl-3-dialogue"
    said = ecgchat("shards", "show", dialogue_shards, key)
    assert said.text.startswith(f"{key} Q: ")
    assert "<ecg>" in said.out
    assert " A: " in said.text
    assert "mV" in said.out
    drawn = ecgchat("shards", "show", dialogue_shards, key, "--out", tmp_path / "ecg.png")
    assert drawn.status == 0
    assert (tmp_path / "ecg.png").read_bytes().startswith(b"\x89PNG")


def test_show_prints_a_conversation_without_an_ecg(ecgchat, dialogue_shards, tmp_path):
    key = "simulated-ptb-xl-general-0"
    said = ecgchat("shards", "show", dialogue_shards, key)
    assert said.text.startswith(f"{key} Q: ")
    assert "mV " not in said.out
    refused = ecgchat("shards", "show", dialogue_shards, key, "--out", tmp_path / "ecg.png")
    assert_one_sentence(refused, f"{key} has no ECG to draw")
    assert not (tmp_path / "ecg.png").exists()
