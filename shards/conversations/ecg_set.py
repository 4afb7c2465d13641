"""Reading an ECG data set to make conversations of it: all descriptions in one pass, single samples by range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shards.conversations.compose import Composed
from shards.conversations.record import ConversationEcg, ConversationRecord, check_conversation
from shards.dataset import ShardSet, read_members
from shards.plan import Kind, PlannedRecord
from shards.tar import ShardFormatError, decode_json


class EcgSetSource:
    """What the sources of conversations share.

    Args:
        data: the ECG data set.

    Raises:
        DatasetError: it is no data set of ECGs.
    """

    kind: Kind = "conversation"

    def __init__(self, data: ShardSet) -> None:
        data.require_kind("ecg", "ecgchat shards conversations")
        self.name = str(data.manifest["source"])
        self.simulated = data.simulated
        self.data = data

    def __getstate__(self) -> dict[str, Any]:
        # A worker reads by range and plans nothing: manifest and index, which may be large, stay where the plan is made.
        return {**self.__dict__, "data": ShardSet(self.data.store, {}, self.data.index.slice(0, 0))}

    def ecg_set(self) -> dict[str, Any]:
        """What a manifest says of the ECG data set."""
        return {"source": self.name, "index_sha256": self.data.digest, "provenance": self.data.manifest["provenance"]}

    def descriptions(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """(index row, description) of every sample, in shard order."""
        rows = {row["key"]: row for row in self.data.index.to_pylist()}
        return ((rows[key], description) for key, description in self.data.descriptions())

    def fetch(self, planned: PlannedRecord) -> list[ConversationEcg]:
        """The ECGs of a planned conversation, one range request each.

        Raises:
            ShardFormatError: a shard is not the one that the index was made for.
        """
        return [self._fetch(place) for place in planned.row["ecgs"]]

    def record(self, planned: PlannedRecord, ecgs: Sequence[ConversationEcg], composed: Composed) -> ConversationRecord:
        """A conversation with its ECGs.

        Raises:
            RecordError: text and ECGs do not go together.
        """
        check_conversation(composed.conversations, len(ecgs))
        return ConversationRecord(
            source=self.name,
            record_id=planned.record_id,
            split=planned.split,
            ecgs=list(ecgs),
            conversations=composed.conversations,
            answers=composed.answers,
            phrasing=composed.phrasing,
        )

    def _fetch(self, place: Mapping[str, Any]) -> ConversationEcg:
        where = self.data.store.uri_of(place["shard"])
        key, members = read_members(self.data.store, place)
        if key != place["key"]:
            raise ShardFormatError(
                f"{where}: expected sample {place['key']} at byte {place['offset']}, found {key}; verify and rebuild the shards"
            )
        return ConversationEcg(bytes(members["ecg.npy"]), decode_json(members["json"]))


def place_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Where a sample lies, from its row of the index: what a worker needs to fetch it."""
    return {name: row[name] for name in ("key", "shard", "offset", "bytes")}
