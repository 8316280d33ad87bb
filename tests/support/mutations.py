"""Strange inputs made from real ones: bytes, text and JSON, changed at random."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

LONGEST = 1 << 16
"""Bytes of an input; limits on size have tests of their own."""
_TOKENS = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1e999", b"1E400", b"-0", b"9" * 400, b"9" * 5000),
    *(b"0.1", b"1.0", b"true", b"null", b"[]", b"{}", b'""', b"[" * 40, b'{"a":' * 40),
    *(b"[" * 3000, b"]" * 40, b'"\\ud800"', b'"\\udfff\\ud800"', b"\\u0000", b"\x00", b"\xff"),
    *(b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\xaf", "\u202e".encode(), "\u0130".encode()),
    *(
        "\u0661".encode(),
        "\uff11".encode(),
        b"\n",
        b"\r\n",
        b"\t",
        b" ",
        b"/",
        b"//",
        b"..",
        b"../",
    ),
    *(b"-", b"+", b".", b"@", b":", b"^", b"~", b">=", b"<", b"=", b",", b"||", b"*", b"x"),
    *(b"sha256:", b"sha256:" + b"a" * 64, b"sha256:" + b"A" * 64, b"0" * 64, b"1.2.3", b"v1"),
    *(b"1.2.3-rc.1", b"01.2.3", b"1.2.3+a", b"con", b"aux", b"versions", b"\\", b'"', b"'"),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1e308),
    *("", " ", "a" * 70, "A", "ä", "\ud800", "\x00", "../x", "/x", "1.0.0", "1.2.3-rc.1"),
    *("sha256:" + "0" * 64, "sha256:" + "G" * 64, "not base64!", "YQ==", "format", "name"),
    *([], {}, [None], [[]], {"a": {}}, {"": ""}, [1, "a", None], {"critical": ["x"]}),
)

_NUMBERS = ("1e999", "-1e999", "NaN", "Infinity", "01", "1.", "9" * 5000, "1e-999", "-0", "0x1")


def mutated(random: Random, examples: Sequence[bytes]) -> bytes:
    """One of the examples, changed one to four times."""
    raw = random.choice(examples)
    if random.random() < 0.4:
        raw = _changed_json(random, raw)
    for _ in range(random.choice((0, 1, 1, 1, 2, 4))):
        raw = random.choice(_CHANGES)(random, raw, random.choice(examples))
    return raw[:LONGEST]


def _changed_json(random: Random, raw: bytes) -> bytes:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return raw
    for _ in range(random.choice((1, 1, 2))):
        data = _change_value(random, data)
    text = json.dumps(data, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.05:
        text = re.sub(r"(?<=[ \[])\d+(?=[,\]}])", random.choice(_NUMBERS), text, count=1)
    return text.encode(errors="surrogatepass")


def _change_value(random: Random, data: Any) -> Any:
    """Somewhere in ``data`` one value or key is another."""
    if not isinstance(data, dict | list) or not data or random.random() < 0.1:
        return random.choice(_VALUES)
    if isinstance(data, list):
        at = random.randrange(len(data))
        act = random.randrange(4)
        if act == 0:
            return [*data[:at], *data[at + 1 :]]
        if act == 1:
            return [*data, data[at]]
        return [*data[:at], _change_value(random, data[at]), *data[at + 1 :]]
    key = random.choice(list(data))
    act = random.randrange(5)
    if act == 0:
        return {k: v for k, v in data.items() if k != key}
    if act == 1:
        return {**data, str(random.choice(_VALUES))[:50]: data[key]}
    if act == 2:
        return {**data, key: random.choice(list(data.values()))}
    return {**data, key: _change_value(random, data[key])}


def _flip(random: Random, raw: bytes, _: bytes) -> bytes:
    if not raw:
        return raw
    at = random.randrange(len(raw))
    return raw[:at] + bytes([raw[at] ^ (1 << random.randrange(8))]) + raw[at + 1 :]


def _any_byte(random: Random, raw: bytes, _: bytes) -> bytes:
    at = random.randint(0, len(raw))
    return raw[:at] + bytes([random.randrange(256)]) + raw[at:]


def _cut(random: Random, raw: bytes, _: bytes) -> bytes:
    start, stop = sorted(random.randint(0, len(raw)) for _ in range(2))
    return raw[:start] + raw[stop:]


def _short_cut(random: Random, raw: bytes, _: bytes) -> bytes:
    at = random.randint(0, len(raw))
    return raw[:at] + raw[at + random.randint(1, 4) :]


def _end(random: Random, raw: bytes, _: bytes) -> bytes:
    return raw[: random.randint(0, len(raw))]


def _repeat(random: Random, raw: bytes, _: bytes) -> bytes:
    start, stop = sorted(random.randint(0, len(raw)) for _ in range(2))
    return raw[:stop] + raw[start:stop] * random.choice((1, 1, 2, 50)) + raw[stop:]


def _insert(random: Random, raw: bytes, _: bytes) -> bytes:
    at = random.randint(0, len(raw))
    return raw[:at] + random.choice(_TOKENS) + raw[at:]


def _put_over(random: Random, raw: bytes, _: bytes) -> bytes:
    at, token = random.randint(0, len(raw)), random.choice(_TOKENS)
    return raw[:at] + token + raw[at + len(token) :]


def _splice(random: Random, raw: bytes, other: bytes) -> bytes:
    return raw[: random.randint(0, len(raw))] + other[random.randint(0, len(other)) :]


def _exchange(random: Random, raw: bytes, _: bytes) -> bytes:
    if len(raw) < 2:
        return raw
    one, other = random.randrange(len(raw)), random.randrange(len(raw))
    found = bytearray(raw)
    found[one], found[other] = found[other], found[one]
    return bytes(found)


_CHANGES: tuple[Callable[[Random, bytes, bytes], bytes], ...] = (
    *(_flip, _any_byte, _cut, _short_cut, _end, _repeat),
    *(_insert, _put_over, _splice, _exchange),
)
