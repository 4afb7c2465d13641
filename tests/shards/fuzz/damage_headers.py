"""Damage of WFDB headers, field by field. Format: https://physionet.org/physiotools/wag/header-5.htm"""

from __future__ import annotations

import re
from random import Random

from tests.shards.fuzz.damage_bytes import Damage
from tests.shards.fuzz.damage_text import ODD_NUMBERS, ODD_WORDS
from tests.shards.fuzz.lures import Lures

FORMATS = (
    *(
        "0",
        "8",
        "16",
        "24",
        "32",
        "61",
        "80",
        "160",
        "212",
        "310",
        "311",
        "508",
        "516",
        "524",
        "1",
        "999",
        "-16",
        "16.5",
        "+24",
        "x4",
    ),
    *(
        "16x0",
        "16x2",
        "16x9999",
        "16x99999999",
        "8x3",
        "212x7",
        "16:1",
        "16:99999",
        "16:999999999999",
        "16+1",
        "16+24",
        "16+999999999",
    ),
    *("16+-24", "16x2:3+24", "16x1:0+0", "310x2", "524x2+5", "16:-1", "16+99999999999999999999", "9" * 300),
)
GAINS = (
    *(
        "0",
        "-1000",
        "1e-300",
        "1e300",
        "1e-12",
        "nan",
        "inf",
        "1000()/mV",
        "1000(0)",
        "1000(99999999999)/mV",
        "1000(-2147483648)/mV",
    ),
    *(
        "1000(9223372036854775807)/mV",
        "1000(" + "9" * 400 + ")/mV",
        "/mV",
        "1000/",
        "1000/uV",
        "1000/V",
        "1000/degC",
        "1000/mm Hg",
    ),
    *(
        "1000(32767)/mV",
        "0.001/mV",
        "1e9/mV",
        "1000(1e5)/mV",
        "1000(1.5)/mV",
        "-0/mV",
        "1000/" + "u" * 500,
        "1000(0)/µV",
        "1000.5.5/mV",
    ),
)
SAMPLES = ("0", "-1", "1", "11", "13", "999", "1000000", "99999999", "4000001", "999999999999", "1e3", "10.5", "9" * 60, "")
RATES = (
    "0",
    "-500",
    "1e9",
    "1e-9",
    "nan",
    "inf",
    "500/100",
    "500/0(0)",
    "500/100(5)",
    "0.001",
    "1e308",
    "999999999999",
    "250",
    "1,5",
)
COUNTS = (
    "0",
    "-1",
    "1",
    "11",
    "13",
    "24",
    "512",
    "513",
    "100000",
    "999999999999",
    "12/1",
    "12/2",
    "12/999999999",
    "1.5",
    "9" * 60,
)


def _lines(body: bytes) -> list[str]:
    return body.decode("utf-8", "replace").split("\n")


def _whole(lines: list[str]) -> bytes:
    return "\n".join(lines).encode("utf-8", "replace")


def _put(line: str, position: int, value: str) -> str:
    fields = line.split(" ")
    fields[position : position + 1] = [value]
    return " ".join(fields)


def record_line(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Name, number of signals, rate, samples, time or date of the first line."""
    lines = _lines(body)
    position = draw.randrange(6)
    odd = ((*ODD_WORDS, *lures.names()), COUNTS, RATES, SAMPLES, ("25:61:61", "x"), ("31/02/2020", "01/01/99999"))[position]
    lines[0] = _put(lines[0], position, draw.choice((*odd, *odd, draw.choice(ODD_NUMBERS))))
    return _whole(lines)


def signal_line(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A field of one signal, or of all: file, format, gain, resolution, zero, first value, checksum, block size, name."""
    lines = _lines(body)
    found = [place for place, line in enumerate(lines) if place and line and not line.startswith("#")] or [0]
    position = draw.randrange(9)
    odd = (lures.names(end=".dat"), FORMATS, GAINS)[position] if position < 3 else ODD_NUMBERS if position < 8 else ODD_WORDS
    value = draw.choice(odd)
    for place in found if draw.random() < 0.6 else [draw.choice(found)]:
        lines[place] = _put(lines[place], position, value)
    return _whole(lines)


def signals_elsewhere(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Every signal in a file outside, where each lead's sum is 0."""
    name = draw.choice(lures.names(end=".dat"))
    lines = _lines(body)
    for place, line in enumerate(lines):
        match = re.match(r"\S+ (\d+)\S* (\S+)", line)
        if place and match and not line.startswith("#"):
            lines[place] = f"{name} 16 1000/mV 16 0 0 0 0 {line.rsplit(' ', 1)[1]}"
    lines[0] = _put(lines[0], 3, "600")
    return _whole(lines)


def segments(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A record of segments that names itself, another folder, gaps, far too many parts, or parts of odd lengths."""
    name = _lines(body)[0].split(" ")[0].split("/")[0]
    part = draw.choice((name, "~", "..", *lures.within_reach(), *lures.names(), *ODD_WORDS))
    count = draw.choice((1, 2, 3, 1000, 20_000))
    length = draw.choice((*SAMPLES, "100", "600", "1000"))
    claimed = draw.choice((str(count), str(count), "0", "-1", "999999999", "2"))
    return "\n".join([f"{name}/{claimed} 12 100 {draw.choice(SAMPLES)}", *[f"{part} {length}"] * count, ""]).encode(
        "utf-8", "replace"
    )


def more_or_fewer_signals(body: bytes, draw: Random, lures: Lures) -> bytes:
    lines = _lines(body)
    signals = [line for line in lines[1:] if line and not line.startswith("#")]
    count = draw.choice((0, 1, 11, 13, 100, 600, 100_000))
    chosen = [draw.choice(signals or [""]) for _ in range(count)] if draw.random() < 0.5 else (signals or [""])[:1] * count
    return _whole([_put(lines[0], 1, str(draw.choice((count, count, 12)))), *chosen, ""])


def comments(body: bytes, draw: Random, lures: Lures) -> bytes:
    name = draw.choice(("Age", "Sex", "Dx", "<age>", "patient_id", "Patient ID", ""))
    value = draw.choice((*ODD_WORDS, *ODD_NUMBERS, "426783006," * 5000, "Male " * 3000, "Female\u0000", "164889003;59118001"))
    line = f"#{draw.choice(('', ' ', '#'))}{name}{draw.choice((':', ': ', ' '))}{value}"
    lines = _lines(body)
    lines[draw.choice((0, 1, len(lines))) : 0] = [line] * draw.choice((1, 1, 1, 2000))
    return _whole(lines)


HEADER: tuple[Damage, ...] = (
    *(
        record_line,
        record_line,
        signal_line,
        signal_line,
        signal_line,
        signals_elsewhere,
        segments,
        more_or_fewer_signals,
        comments,
    ),
)
