"""Damage of files that are text: numbers and words replaced, lines moved, encodings, and csv fields."""

from __future__ import annotations

import csv
import io
import re
from random import Random

from tests.shards.fuzz.damage_bytes import Damage
from tests.shards.fuzz.lures import Lures

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
WORD = re.compile(r"[^\s,;:\"'<>=(){}\[\]]+")

ODD_NUMBERS = (
    *(
        "0",
        "-0",
        "-1",
        "1",
        "13",
        "1e308",
        "1e309",
        "-1e309",
        "1e-320",
        "0.5",
        "1e15",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "-Infinity",
    ),
    *(
        "2147483647",
        "2147483648",
        "-2147483649",
        "9223372036854775808",
        "18446744073709551616",
        "9" * 40,
        "9" * 400,
        "9" * 5000,
    ),
    *("", " ", "1,5", "1.5", "1_000", "0x10", "1e", "+", "--1", "1 2", "01", "٣", "²", "½", "𝟛", "1\u00a0", "−1"),
)
ODD_WORDS = (
    *("", " ", "\t", "0", "None", "null", "True", "[]", "{}", "()", "''", '"', "'", "\\", "/", ".", "..", "...", "~", "*", "?"),
    *("%s%n%x", "{0}", "$HOME", "`id`", "=1+1", "<ecg>", "&amp;", "a" * 300, "b" * 70_000, "é", "\u202eabc", "\ufeff", "𝄞"),
    *(
        "e\u0301",
        "\u2028",
        "\x85",
        "\x0b",
        "\x1c",
        "\x7f",
        "\x1b[31m",
        "\0",
        "a\0b",
        "a\nb",
        "a\r\nb",
        "a,b",
        "a;b",
        "CON",
        "nul",
    ),
)
LONG_WORDS = (
    *(
        " " * 50_000,
        "-" * 50_000,
        ". " * 30_000,
        "a b " * 20_000,
        "," * 30_000,
        "1;" * 30_000,
        "145+" * 20_000,
        "confirmed " * 10_000,
    ),
    *(
        "warning: " * 10_000,
        "lead(s) unsuitable for analysis: V1, " * 3000,
        "/" * 30_000,
        "../" * 10_000,
        "9." * 30_000,
        "é" * 30_000,
    ),
)
"""What takes patterns long that match by trial and error."""
ODD_EXPRESSIONS = (
    *("{'NORM': 1e999}", "{'NORM': nan}", "{'NORM': None}", "{'NORM': 'a'}", "{1: 2}", "{(): 1}", "{'a': -1e308}", "[1]", "{"),
    *("{'NORM': [1]}", "{'a\\nb': 1}", "{'\\ud800': 1}", "{'\\0': 1}", "{'.': 100}", "{'NORM': 10**9}", "{'NORM': 9**9**9}"),
    *("__import__('os').system('touch elsewhere')", "{'NORM': " + "9" * 5000 + "}", "(" * 300, "{'a':" * 500, "-" * 3000 + "1"),
    *("{'NORM': 1j}", "{'NORM': True}", "{b'NORM': 1}", "set()", "'" + "a" * 100_000 + "'"),
)
"""What stands where a mapping of code to likelihood is expected."""


def _text(body: bytes) -> str:
    return body.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _replace(pattern: re.Pattern[str], body: bytes, draw: Random, by: str) -> bytes:
    text = _text(body)
    found = list(pattern.finditer(text))
    if not found:
        return body + _bytes(by)
    match = draw.choice(found[:40] if draw.random() < 0.5 else found)
    return _bytes(text[: match.start()] + by + text[match.end() :])


def replace_number(body: bytes, draw: Random, lures: Lures) -> bytes:
    return _replace(NUMBER, body, draw, draw.choice(ODD_NUMBERS))


def replace_word(body: bytes, draw: Random, lures: Lures) -> bytes:
    return _replace(WORD, body, draw, draw.choice((*ODD_WORDS, *lures.names())))


def move_lines(body: bytes, draw: Random, lures: Lures) -> bytes:
    lines = body.splitlines(keepends=True) or [b""]
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    change = draw.randrange(6)
    if change == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif change == 1:
        del lines[first]
    elif change == 2:
        lines.insert(second, lines[first])
    elif change == 3:
        lines[first : first + 1] = lines[first : first + 1] * draw.choice((2, 30, 3000))
    elif change == 4:
        draw.shuffle(lines)
    else:
        lines[first] = lines[first].strip() + draw.choice((b"", b" ", b"\r", b"\x0b", b"\x0c", b"\x85"))
    return b"".join(lines)


def another_encoding(body: bytes, draw: Random, lures: Lures) -> bytes:
    text = _text(body)
    return draw.choice(
        (
            b"\xef\xbb\xbf" + body,
            b"\xef\xbb\xbf\xef\xbb\xbf" + body,
            text.encode("utf-16", "replace"),
            text.encode("utf-16-be", "replace"),
            text.encode("utf-32", "replace"),
            body.replace(b"\n", b"\r\n"),
            body.replace(b"\n", b"\r"),
            body.replace(b"\n", b"\n\n"),
            body.replace(b"\n", b"\x85"),
            body.replace(b" ", b"\xa0"),
            body.replace(b" ", "\u2003".encode()),
            body.replace(b"e", b"\xe9"),
            body.replace(b"1", "１".encode()),
            body.upper(),
            body.rstrip(b"\n"),
        )
    )


def odd_characters(body: bytes, draw: Random, lures: Lures) -> bytes:
    start = draw.randrange(len(body) + 1)
    odd = draw.choice(
        (b"\0", b'"', b"\x1a", b"\xff", b"\xed\xa0\x80", b"\r", b"\x1b", b"\\", b"'", b"\x00" * 5000, b"#", b"\n#")
    )
    return body[:start] + odd + body[start:]


def long_line(body: bytes, draw: Random, lures: Lures) -> bytes:
    lines = body.split(b"\n")
    where = draw.randrange(len(lines))
    lines[where] += draw.choice((b"a", b" ", b"9", b",", b"(", b" 1", b"-")) * draw.choice((300, 20_000, 1_000_000))
    return b"\n".join(lines)


TEXT: tuple[Damage, ...] = (
    *(replace_number, replace_number, replace_word, replace_word, move_lines, another_encoding, odd_characters, long_line),
)


def _rows(body: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(_text(body), newline=""))) or [[""]]


def _csv(rows: list[list[str]], **form: object) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", **form).writerows(rows)  # type: ignore[arg-type]
    return _bytes(text.getvalue())


def _cell(rows: list[list[str]], draw: Random) -> tuple[int, int]:
    row = draw.randrange(1, len(rows)) if len(rows) > 1 else 0
    return row, draw.randrange(max(1, len(rows[row])))


def replace_cell(body: bytes, draw: Random, lures: Lures) -> bytes:
    rows = _rows(body)
    row, column = _cell(rows, draw)
    rows[row][column : column + 1] = [draw.choice((*ODD_NUMBERS, *ODD_WORDS, *LONG_WORDS))]
    return _csv(rows)


def replace_id(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A cell that tells records or patients apart."""
    rows = _rows(body)
    columns = [place for place, name in enumerate(rows[0]) if re.search(r"id$|record", name, re.IGNORECASE)] or [0]
    row, column = draw.randrange(len(rows)), draw.choice(columns)
    other = rows[draw.randrange(len(rows))]
    rows[row][column : column + 1] = [
        draw.choice((*ODD_WORDS, *ODD_NUMBERS, "".join(other[column : column + 1]), "a/b", "a.b", "ä" * 120))
    ]
    return _csv(rows)


def replace_path(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A cell that names a file names a lure."""
    rows = _rows(body)
    paths = [
        (row, column)
        for row in range(1, len(rows))
        for column, cell in enumerate(rows[row])
        if re.search(r"/|\.hdf5|\.h5", cell)
    ]
    row, column = draw.choice(paths) if paths else _cell(rows, draw)
    end = draw.choice((".hdf5", ".h5")) if "." in rows[row][column] else ""
    rows[row][column] = draw.choice((*lures.names(0, end), *lures.names(0, end)[:5], *ODD_WORDS, "n" * 255, "ö" * 150))
    return _csv(rows)


def replace_expression(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A cell that holds a Python mapping, or else codes, holds another expression."""
    rows = _rows(body)
    found = [(row, column) for row in range(1, len(rows)) for column, cell in enumerate(rows[row]) if cell.startswith("{")]
    row, column = draw.choice(found) if found else _cell(rows, draw)
    rows[row][column] = draw.choice(ODD_EXPRESSIONS)
    return _csv(rows)


def replace_name(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A column is renamed, given twice, left out or moved; the rows follow or do not."""
    rows = _rows(body)
    column, change = draw.randrange(max(1, len(rows[0]))), draw.randrange(5)
    if change == 0:
        rows[0][column : column + 1] = [draw.choice(ODD_WORDS)]
    elif change == 1:
        rows[0][column : column + 1] = [draw.choice(rows[0])]
    elif change == 2:
        rows = [row[:column] + row[column + 1 :] for row in rows]
    elif change == 3:
        del rows[0][column : column + 1]
    else:
        order = draw.sample(range(len(rows[0])), len(rows[0]))
        rows = [[row[place] for place in order] if len(row) == len(order) else row for row in rows]
    return _csv(rows)


def ragged(body: bytes, draw: Random, lures: Lures) -> bytes:
    rows = _rows(body)
    row = draw.randrange(len(rows))
    rows[row] = draw.choice((rows[row][:-1], rows[row] + [""], rows[row] + rows[row], [], rows[row] * 2000, [""]))
    return _csv(rows)


def quotes(body: bytes, draw: Random, lures: Lures) -> bytes:
    return draw.choice(
        (
            _csv(_rows(body), quoting=csv.QUOTE_ALL),
            _csv(_rows(body), delimiter=";"),
            _csv(_rows(body), delimiter="\t"),
            body.replace(b",", b',"', draw.choice((1, 5))),
            body.replace(b",", b'","'),
            b'"' + body,
            body + b'"',
            body.replace(b"\n", b'"\n"', 2),
        )
    )


def repeat_rows(body: bytes, draw: Random, lures: Lures) -> bytes:
    rows = _rows(body)
    return _csv(rows[:1] + rows[1:] * draw.choice((0, 2, 3, 200)))


def with_a_byte_order_mark_or_nothing(body: bytes, draw: Random, lures: Lures) -> bytes:
    first = body.split(b"\n", 1)[0]
    return draw.choice(
        (b"\xef\xbb\xbf" + body, first, first + b"\n", first + b"\n" + b"\n" * 1000, b"," * 50_000 + b"\n" + body)
    )


CSV: tuple[Damage, ...] = (
    *(
        replace_cell,
        replace_cell,
        replace_id,
        replace_id,
        replace_id,
        replace_path,
        replace_path,
        replace_expression,
        replace_name,
        ragged,
        quotes,
    ),
    *(repeat_rows, with_a_byte_order_mark_or_nothing),
)
