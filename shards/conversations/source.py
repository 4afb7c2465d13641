"""Conversations as sources of a build: planned from an ECG data set, read from it by range.

build(ComposedConversations(ShardSet.open("s3://ecg/ptb-xl"), "dialogue", seed=0), "s3://ecg/ptb-xl-dialogue", BuildOptions())
build(LlavaConversations(ShardSet.open("s3://ecg/ptb-xl"), Path("instruct.json")), "s3://ecg/instruct", BuildOptions())
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shards.conversations.compose import (
    CHANGE_SHARE,
    TASKS,
    Composed,
    Recording,
    Task,
    compose_change,
    compose_dialogue,
    compose_general,
    compose_report,
    pairs,
)
from shards.conversations.ecg_set import EcgSetSource, place_of
from shards.conversations.facts import changes, facts_of, occurring
from shards.conversations.llava import EcgLookup, Item, distinct_names, item_id, one_split_and_rate, parse_item, read_items
from shards.conversations.names import RHYTHMS
from shards.conversations.record import ConversationRecord
from shards.dataset import DatasetError, ShardSet
from shards.plan import AbsentRecord, Plan, PlannedRecord, RejectedRecord
from shards.record import RecordError, split_by_hash

TEXT_ONLY = 0.05
"""Conversations without an ECG, as a share of the ECG samples."""


class ComposedConversations(EcgSetSource):
    """Conversations made from what the records of an ECG data set say.

    Args:
        data: the ECG data set.
        task: `report` or `dialogue`; `shards.conversations.compose` says what they ask.
        seed: of every draw.
        text_only: conversations without an ECG, as a share of the ECG samples; of `dialogue` only.

    Raises:
        DatasetError: the data set is of another kind, or an argument is out of range.
    """

    def __init__(self, data: ShardSet, task: Task = "dialogue", seed: int = 0, text_only: float = TEXT_ONLY) -> None:
        super().__init__(data)
        if task not in TASKS:
            raise DatasetError(f"--task {task}: expected {' or '.join(TASKS)}")
        if not 0 <= text_only <= 1:
            raise DatasetError(f"--text-only {text_only:g}: expected a fraction from 0 to 1, such as {TEXT_ONLY:g}")
        self.task, self.seed = task, seed
        self.text_only = text_only if task == "dialogue" else 0.0
        self.asked = occurring(data.index["labels"].to_pylist())

    def provenance(self) -> dict[str, Any]:
        """The ECG data set by digest, and what decided the conversations."""
        made: dict[str, Any] = {"task": self.task, "seed": self.seed}
        if self.task == "dialogue":
            made |= {"text_only": self.text_only, "change_share": CHANGE_SHARE}
        return {"ecg_set": self.ecg_set(), "conversations": made}

    def plan(self) -> Plan:
        """A conversation for each record that can be asked for something, those about pairs, and those without an ECG."""
        return self._plan_reports() if self.task == "report" else self._plan_dialogues()

    def read(self, planned: PlannedRecord) -> ConversationRecord:
        """Fetch the ECGs of a conversation and put it together.

        Raises:
            RecordError: the records do not say what the conversation needs.
        """
        ecgs = self.fetch(planned)
        return self.record(planned, ecgs, self._compose(planned, [ecg.description for ecg in ecgs]))

    def _compose(self, planned: PlannedRecord, records: list[dict[str, Any]]) -> Composed:
        match planned.row["about"]:
            case "report":
                return compose_report(records[0], self.seed)
            case "dialogue":
                return compose_dialogue(records[0], self.asked, self.seed)
            case "change":
                return compose_change(records[0], records[1], self.seed)
            case _:
                return compose_general(planned.record_id, planned.split, self.name, self.seed)

    def _plan_reports(self) -> Plan:
        rows = self.data.index.to_pylist()
        absent = [AbsentRecord(row["record_id"], "it has no report in English") for row in rows if not row["text_length"]]
        return Plan([_planned("report", row) for row in rows if row["text_length"]], absent, [])

    def _plan_dialogues(self) -> Plan:
        plan = Plan([], [], [])
        rows: dict[str, dict[str, Any]] = {}
        said: dict[str, dict[str, Any]] = {}
        recordings: list[Recording] = []
        for row, record in self.descriptions():
            if not facts_of(record, self.asked, np.random.default_rng(0)):
                plan.absent.append(AbsentRecord(row["record_id"], "it says nothing that can be asked for"))
                continue
            plan.records.append(_planned("dialogue", row))
            name = row["record_id"]
            rows[name], said[name] = row, _comparable(record)
            recordings.append(Recording(name, row["split"], str(record["patient_id"]), record["acquired"]))
        for earlier, later in pairs(recordings, self.seed, self.name):
            if changes(said[earlier], said[later]):
                plan.records.append(_planned("change", rows[earlier], rows[later]))
        plan.records.extend(self._plan_general())
        return plan

    def _plan_general(self) -> Iterator[PlannedRecord]:
        for number in range(round(self.text_only * self.data.index.num_rows)):
            name = f"general-{number}"
            yield PlannedRecord(name, split_by_hash(self.name, name), {"about": "general", "ecgs": []})


class LlavaConversations(EcgSetSource):
    """The conversations of a LLaVA file, joined to the records of an ECG data set.

    Args:
        data: the ECG data set.
        file: a JSON list of items.

    Raises:
        DatasetError: the data set is of another kind.
        RecordError: the file is missing or no JSON list.
    """

    def __init__(self, data: ShardSet, file: Path) -> None:
        super().__init__(data)
        self._items: list[Any] = read_items(file)
        self._file = {"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_items": []}

    def provenance(self) -> dict[str, Any]:
        """The ECG data set by digest, and the file."""
        return {"ecg_set": self.ecg_set(), "items": {**self._file, "count": len(self._items)}}

    def plan(self) -> Plan:
        """Every item: those to read, those whose ECG is not in the data set, those that are malformed."""
        plan = Plan([], [], [])
        lookup = EcgLookup((row["record_id"], record["source_path"], row) for row, record in self.descriptions())
        ids = [item_id(item, number) for number, item in enumerate(self._items)]
        for number, (raw, name) in enumerate(zip(self._items, distinct_names(ids), strict=True)):
            try:
                item = parse_item(raw, number)
                rows = [lookup.find(ecg) for ecg in item.ecgs]
                found = [row for row in rows if row is not None]
                missing = [ecg for ecg, row in zip(item.ecgs, rows, strict=True) if row is None]
                if missing:
                    reason = f"no record of {self.name} has the path or id {', '.join(missing)}"
                    plan.absent.append(AbsentRecord(item.item_id, reason))
                else:
                    plan.records.append(_planned_item(item, name, found))
            except RecordError as error:
                plan.rejected.append(RejectedRecord(ids[number], str(error)))
        return plan

    def read(self, planned: PlannedRecord) -> ConversationRecord:
        """Fetch the ECGs of an item."""
        return self.record(planned, self.fetch(planned), planned.row["text"])


def _planned_item(item: Item, name: str, rows: list[dict[str, Any]]) -> PlannedRecord:
    one_split_and_rate(item.item_id, rows)
    split = rows[0]["split"] if rows else split_by_hash(item.item_id)
    text = Composed(item.conversations, [None] * (len(item.conversations) // 2), None)
    return PlannedRecord(name, split, {"text": text, "ecgs": [place_of(row) for row in rows]})


def _planned(about: str, *rows: dict[str, Any]) -> PlannedRecord:
    name = "-and-".join(row["record_id"] for row in rows)
    return PlannedRecord(f"{name}-{about}", rows[0]["split"], {"about": about, "ecgs": [place_of(row) for row in rows]})


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a description that says whether two records differ."""
    labels = {code: value for code, value in record["labels"].items() if code in RHYTHMS}
    return {"labels": labels, "measurements": {"heart_rate": record["measurements"].get("heart_rate")}}
