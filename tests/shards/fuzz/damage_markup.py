"""Damage of XML and JSON: entities, declarations, depth, counts, numbers, and signals that are not what they claim."""

from __future__ import annotations

import base64
import json
import re
from random import Random

from tests.shards.fuzz.damage_bytes import Damage
from tests.shards.fuzz.damage_text import ODD_NUMBERS, ODD_WORDS
from tests.shards.fuzz.lures import Lures


def _root(text: str) -> int:
    """Where the root element begins."""
    return max(0, text.find("<RestingECG"))


def declare(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Entities that grow, that hold a file or an address, an external subset, parameter entities, notations."""
    text = body.decode("utf-8", "replace")
    url = draw.choice((lures.beside / "elsewhere.txt", *lures.names(end=".txt")))
    grow = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    subset = draw.choice(
        (
            f'<!ENTITY e0 "aaaaaaaaaa">{grow}',
            f'<!ENTITY e11 "{"a" * 100_000}">',
            f'<!ENTITY e11 SYSTEM "{url}">',
            f'<!ENTITY e11 SYSTEM "file://{url}">',
            f'<!ENTITY % p SYSTEM "{url}"> %p;',
            f'<!ENTITY e11 PUBLIC "a" "{url}" NDATA x><!NOTATION x SYSTEM "y">',
            '<!ENTITY e11 "&e11;">',
            "<!ELEMENT RestingECG ANY><!ATTLIST RestingECG a CDATA 'b'>",
            "",
        )
    )
    doctype = draw.choice(
        (
            f"<!DOCTYPE RestingECG [{subset}]>",
            f'<!DOCTYPE RestingECG SYSTEM "{url}">',
            f'<!DOCTYPE RestingECG SYSTEM "{url}" [{subset}]>',
        )
    )
    place = _root(text)
    found = list(re.finditer(r">([^<>]+)<", text[place:]))
    if found and draw.random() < 0.8:
        match = draw.choice(found)
        start, end = place + match.start(1), place + match.end(1)
        text = text[:start] + draw.choice(("&e11;", "&e11;" * 100, "&nothing;", "&#0;", "&#x110000;")) + text[end:]
    return (text[:place] + doctype + text[place:]).encode("utf-8", "replace")


def element_text(body: bytes, draw: Random, lures: Lures) -> bytes:
    text = body.decode("utf-8", "replace")
    found = list(re.finditer(r"<(\w+)>([^<>]*)</\1>", text))
    if not found:
        return body + b"<a>"
    match = draw.choice(found)
    odd = draw.choice((*ODD_NUMBERS, *ODD_WORDS, "<b/>", "<b>1</b>", "<![CDATA[1]]>", "<!-- -->1", "<?a b?>1", "&#49;", "&lt;"))
    return (text[: match.start(2)] + odd + text[match.end(2) :]).encode("utf-8", "replace")


def elements(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Elements left out, given twice, very often, within each other, or with very many attributes."""
    text = body.decode("utf-8", "replace")
    found = list(re.finditer(r"<(\w+)>(?:(?!<\1>).)*?</\1>", text, re.DOTALL))
    match = draw.choice(found) if found else re.match("", text)
    assert match is not None
    one, before, after = match[0], text[: match.start()], text[match.end() :]
    many = max(1, 1_500_000 // max(1, len(one)))
    changed = draw.choice(
        (
            "",
            one * 2,
            one * min(many, draw.choice((50, 20_000))),
            "<a>" * 70 + one + "</a>" * 70,
            "<a>" * 50_000 + "</a>" * 50_000,
            "<a/>" * 300_000,
            "<a " + " ".join(f'b{number}="1"' for number in range(20_000)) + "/>" + one,
            one.replace("<", "<x:", 1),
            one.lower(),
            f"<!--{'-' * draw.choice((1, 100_000))}-->{one}",
            f"<{'n' * 100_000}/>{one}",
        )
    )
    return (before + changed + after).encode("utf-8", "replace")


def signal_text(body: bytes, draw: Random, lures: Lures) -> bytes:
    """Base64 that is not, is cut, or holds another number of samples; lists of counts with odd ones among them."""
    text = body.decode("utf-8", "replace")
    found = list(re.finditer(r"[A-Za-z0-9+/=\n]{200,}|(?:-?\d+;){20,}-?\d*", text))
    if not found:
        return body[: len(body) // 2]
    match = draw.choice(found)
    one = match[0]
    changed = draw.choice(
        (
            *(
                "",
                one[:-1],
                one[:-4],
                one + "=",
                one + one,
                "=" + one[1:],
                one.replace("A", "*", 3),
                one.replace("A", "é", 1),
                one[:101],
            ),
            *(
                base64.b64encode(b"\0\x80" * 300).decode(),
                base64.b64encode(bytes(2_000_000)).decode(),
                "A" * 3_000_000,
                " " * 3_000_000,
            ),
            *(
                one + ";",
                ";" + one,
                one.replace(";", ";;", 1),
                one.replace(";", ",", 2),
                one.replace(";", f";{draw.choice(ODD_NUMBERS)};", 1),
            ),
            *("1;" * 1_500_000, "99999999;-99999999;" * 100, one.replace(";", "\n;\u2003", 3)),
        )
    )
    return (text[: match.start()] + changed + text[match.end() :]).encode("utf-8", "replace")


def encoding(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A declaration that names an encoding which the bytes may or may not have."""
    text = re.sub(r"<\?xml.*?\?>\s*", "", body.decode("utf-8", "replace"))
    name = draw.choice(
        (
            "utf-8",
            "utf-16",
            "utf-7",
            "ISO-8859-1",
            "windows-1252",
            "cp037",
            "shift_jis",
            "base64",
            "rot13",
            "x" * 200,
            "utf-32",
            "punycode",
            "undefined",
        )
    )
    try:
        encoded = text.encode(draw.choice((name, "utf-8")), "replace")
    except (LookupError, UnicodeError):
        encoded = text.encode()
    return f'<?xml version="{draw.choice(("1.0", "1.1", "2"))}" encoding="{name}"?>'.encode() + encoded


XML: tuple[Damage, ...] = (declare, declare, declare, element_text, element_text, elements, elements, signal_text, encoding)

ODD_JSON = (
    *(
        "null",
        "true",
        "[]",
        "{}",
        '""',
        "0",
        "-0",
        "-1",
        "1e999",
        "-1e999",
        "NaN",
        "Infinity",
        "1e-320",
        "9" * 400,
        "9" * 5000,
        "1.5",
    ),
    *(
        '"1"',
        '"1,5"',
        '"\\ud800"',
        '"\\u0000"',
        '"a\\nb"',
        '"\\u202e"',
        "[1,2,3]",
        '["1;2"]',
        '"1;2;3"',
        '";"',
        '"' + "1;" * 900_000 + '"',
    ),
    *(
        "[" * 100_000,
        "[" * 900 + "]" * 900,
        '{"a":' * 100_000,
        '"' + "a" * 1_000_000 + '"',
        "1" + "0" * 300,
        "0.1",
        "2e5",
        "0x10",
        "'1'",
    ),
)


def json_value(body: bytes, draw: Random, lures: Lures) -> bytes:
    """The value of one key replaced, as text, so that it may be what no JSON writer writes."""
    try:
        content = json.loads(body)
    except ValueError:
        return draw.choice(ODD_JSON).encode()
    pairs = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    place = draw.randrange(len(pairs))
    pairs[place] = f"{json.dumps(list(content)[place])}: {draw.choice((*ODD_JSON, *map(json.dumps, lures.names())))}"
    return ("{" + ", ".join(pairs) + "}").encode()


def json_keys(body: bytes, draw: Random, lures: Lures) -> bytes:
    """A key renamed, twice, left out; very many keys; another value altogether."""
    content = json.loads(body)
    pairs = list(content.items())
    place = draw.randrange(len(pairs))
    change = draw.randrange(6)
    if change == 0:
        pairs[place] = (draw.choice((*ODD_WORDS, "I", "DI", "lead V1", "V" * 100)), pairs[place][1])
    elif change == 1:
        pairs.append((pairs[place][0], pairs[place][1]))
    elif change == 2:
        del pairs[place]
    elif change == 3:
        pairs += [(f"k{number}", "1;2") for number in range(50_000)]
    elif change == 4:
        pairs += [(f"{'K' * 50}\n{number}", "1;2;3") for number in range(300)]
    else:
        return draw.choice(
            (b"[" + body + b"]", json.dumps(pairs).encode(), b"[]", b"null", b"1", body + body, body + b"x", b"\0" + body)
        )
    return ("{" + ", ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in pairs) + "}").encode()


JSON: tuple[Damage, ...] = (json_value, json_value, json_value, json_keys, signal_text)
