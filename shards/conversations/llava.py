"""LLaVA's JSON files about ECGs, as ECG-Chat and its peers publish them: items read, checked and joined to records.

    [{"id": "17", "ecg": "records100/00000/00017_lr", "conversations": [{"from": "human", "value": "<ecg>\\n…"}, …]}, …]

`ecg` is a path or a record's id, or a list of those; an item without it is text only.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from shards.conversations.record import check_conversation
from shards.record import RecordError, digest

LONGEST_NAME = 48
"""Characters of an id that are kept in a key; a tar entry's name has room for 100."""

EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}")


@dataclass(frozen=True)
class Item:
    """One well-formed item of a file."""

    item_id: str
    ecgs: list[str]
    """Paths or record ids, in the order of the marks."""
    conversations: list[dict[str, str]]


class EcgLookup:
    """Finds records by their path or id.

    Args:
        records: (record id, path at the source, what `find` gives) of each record.
    """

    def __init__(self, records: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        self._by_id: dict[str, dict[str, Any]] = {}
        self._by_path: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for record_id, path, row in records:
            self._by_id[record_id] = row
            self._by_path[_bare(path)].append(row)

    def find(self, name: str) -> dict[str, Any] | None:
        """The record of a path (with or without extension and leading `./`) or an exact id; None where there is none.

        Raises:
            RecordError: several records lie in the file of that path.
        """
        if name in self._by_id:
            return self._by_id[name]
        found = self._by_path.get(_bare(name), [])
        if len(found) > 1:
            raise RecordError(f"ecg {name!r}: expected the path of one record, found {len(found)} in it; name the record's id")
        return found[0] if found else None


def read_items(path: Path) -> list[Any]:
    """The items of a file, unchecked.

    Raises:
        RecordError: it is missing or no JSON list.
    """
    try:
        items = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(f"--items {path}: cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise RecordError(
            f"--items {path}: expected a JSON list of LLaVA items, found no JSON ({error}); fetch it again"
        ) from error
    if not isinstance(items, list):
        raise RecordError(
            f"--items {path}: expected a JSON list of LLaVA items, found {type(items).__name__}; "
            "name the file that holds the conversations"
        )
    return items


def item_id(item: Any, number: int) -> str:
    """The id of an item as text; its place in the file where it has none."""
    found = item.get("id") if isinstance(item, Mapping) else None
    return str(found) if isinstance(found, str | int) and str(found).strip() else f"item {number}"


def parse_item(item: Any, number: int) -> Item:
    """One item, checked.

    Raises:
        RecordError: it has no id, its conversation or its ECGs are malformed, or they do not go together.
    """
    if not isinstance(item, Mapping):
        raise RecordError(f"item {number}: expected an object, found {type(item).__name__}; mend or drop the item")
    name = item_id(item, number)
    if item.get("id") is None or name == f"item {number}":
        raise RecordError(f"item {number}: expected an id, found {item.get('id')!r}; give it one")
    if item.get("image") is not None:
        raise RecordError(f"item {name}: expected an ECG, found an image; leave such items out")
    ecg = item.get("ecg")
    ecgs = [] if ecg is None else ecg if isinstance(ecg, list) else [ecg]
    if not all(isinstance(one, str | int) and not isinstance(one, bool) for one in ecgs):
        raise RecordError(f"item {name}: expected 'ecg' to be a path, a record's id or a list of those, found {ecg!r}; mend it")
    turns: Any = item.get("conversations")
    try:
        check_conversation(turns, len(ecgs))
    except RecordError as error:
        raise RecordError(f"item {name}: {error}") from error
    return Item(name, [str(one) for one in ecgs], [{"from": turn["from"], "value": turn["value"]} for turn in turns])


def one_split_and_rate(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an item whose ECGs do not go together.

    Raises:
        RecordError: they are in different splits, or of different sampling rates.
    """
    for what, values in (
        ("split", sorted({str(row["split"]) for row in rows})),
        ("sampling rate", sorted({f"{row['fs_hz']:g} Hz" for row in rows})),
    ):
        if len(values) > 1:
            raise RecordError(f"item {name}: expected ECGs of one {what}, found {' and '.join(values)}; leave the item out")


def distinct_names(ids: Iterable[str]) -> Iterator[str]:
    """A name for each item: its id, cut where it is long, and numbered where another one had it or would share its key."""
    taken: Counter[str] = Counter()
    for one in ids:
        name = one if len(one) <= LONGEST_NAME else f"{one[: LONGEST_NAME - 17]}-{digest(one)}"
        distinct, number = name, 1
        while taken[_in_a_key(distinct)]:
            number += 1
            distinct = f"{name}-{number}"
        taken[_in_a_key(distinct)] += 1
        yield distinct


def _in_a_key(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _bare(path: str) -> str:
    """A path without leading `./` and without the extension of its file."""
    plain = PurePosixPath(path.strip())
    return str(plain.with_suffix("")) if EXTENSION.fullmatch(plain.suffix) else str(plain)
