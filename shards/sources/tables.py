"""Tables as publishers ship them: csv files whose fields stay text until a source says what they mean."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv

from shards.record import RecordError

MOST_COLUMNS = 2000
"""Of a table; pyarrow takes about 10 kB for each, and ends the process where it does not get them."""

SEXES: dict[str, Literal["M", "F"]] = {"m": "M", "male": "M", "f": "F", "female": "F"}
"""How publishers write the sex, in small letters."""


@dataclass(frozen=True)
class Table:
    """A csv file with its first row as names. A million rows take little more memory than their text."""

    path: Path
    sha256: str
    _columns: dict[str, pa.Array]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in their order."""
        return tuple(self._columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values()), ()))

    def __getitem__(self, position: int) -> Row:
        return Row(self._columns, position)

    def __iter__(self) -> Iterator[Row]:
        return (Row(self._columns, position) for position in range(len(self)))

    def column(self, name: str) -> list[str]:
        """All values of one column, in the order of the rows."""
        values: list[str] = self._columns[name].to_pylist()
        return values


class Row(Mapping[str, str]):
    """One row of a table, column → text: a view, and a dictionary of its own once it is pickled."""

    __slots__ = ("_columns", "_position")

    def __init__(self, columns: dict[str, pa.Array], position: int) -> None:
        self._columns = columns
        self._position = position

    def __getitem__(self, column: str) -> str:
        value: str = self._columns[column][self._position].as_py()
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __reduce__(self) -> tuple[type[dict[str, str]], tuple[dict[str, str]]]:
        return dict, (dict(self),)


def read_table(path: Path, needed: Iterable[str], corpus: str) -> Table:
    """Read a csv table, every field as text.

    Args:
        path: the file.
        needed: columns that must be there; others are kept too.
        corpus: what the table belongs to, for the sentence of an error, such as `PTB-XL 1.0.3`.

    Raises:
        RecordError: the file is absent or no csv, or lacks a column. Never repeats what stands in a row.
    """
    if not path.is_file():
        raise RecordError(f"{path}: no such file; expected a {corpus} folder that holds {path.name}; check DIR")
    body = path.read_bytes()
    ragged: list[int] = []

    def note(row: pa.csv.InvalidRow) -> str:
        ragged.append(row.actual_columns)
        return "skip"

    first_row = body.partition(b"\n")[0]
    if first_row.count(b",") >= MOST_COLUMNS:
        raise RecordError(f"{path}: has more than {MOST_COLUMNS} columns, expected the table of {corpus}; fetch it again")
    try:
        body.decode()
        names = pa.csv.read_csv(pa.BufferReader(body[: body.find(b"\n") + 1] or body)).column_names
        data = pa.csv.read_csv(
            pa.BufferReader(body),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()),
                strings_can_be_null=False,
                quoted_strings_can_be_null=False,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not a csv table in UTF-8 with a row of names; fetch it again") from error
    if ragged:
        raise RecordError(
            f"{path}: {len(ragged)} of its rows have another number of fields than the {len(names)} columns, such as "
            f"{ragged[0]}; fetch it again"
        )
    if body.count(b'"') % 2:
        raise RecordError(f"{path}: a quotation mark is never closed; fetch it again")
    missing = [column for column in needed if column not in names]
    if missing:
        raise RecordError(f"{path}: column {', '.join(missing)} missing; expected the table of {corpus}; fetch it again")
    if len(set(names)) < len(names):
        raise RecordError(f"{path}: two columns have one name; expected the table of {corpus}; fetch it again")
    columns = {name: column.combine_chunks() for name, column in zip(names, data.columns, strict=True)}
    return Table(path, hashlib.sha256(body).hexdigest(), columns)


def number(text: str) -> float | None:
    """A finite number, or None where the text is empty or none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def age_up_to(oldest: float, text: str) -> float | None:
    """Years from 0 to `oldest`, or None where the text is no number or no age."""
    age = number(text)
    return age if age is not None and 0 <= age <= oldest else None


def truth(text: str) -> bool | None:
    """`True`/`False`, `1`/`0` in the spellings of csv writers; None where it is neither."""
    return {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}.get(text.strip().lower())
