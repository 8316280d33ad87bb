"""Strange inputs to whatever reads what others wrote: no crash, no hang, no foreign exception.

`make fuzz-registry` does the same with a million inputs.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from adapterdock.manifests.language.versions import parse_range, parse_version
from adapterdock.registry.catalogue.publish import entry_bytes
from adapterdock.registry.oci.manifest import InvalidManifestError, read_manifest
from adapterdock.registry.records.entry import InvalidEntryError, parse_object, read_entry
from adapterdock.registry.records.series import BrokenSeriesError, read_value
from hypothesis import example, given
from hypothesis import strategies as some
from support.fuzzing import HangsError, fuzz
from support.memory_storage import MemoryStorage
from support.oci_adapters import artifact
from support.published import entry
from support.registry_readers import Reader, archive_reader, readers

SIMPLE = some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=20)
JSON = some.recursive(
    SIMPLE,
    lambda inner: (
        some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=20,
)
ENTRY = json.loads(entry_bytes(entry("1.0.0", metrics={"accuracy": 0.9})))
MANIFEST = json.loads(artifact().manifest.raw)


def test_strange_inputs_break_no_reader(tmp_path: Path) -> None:
    report = fuzz([*readers(), archive_reader(tmp_path)], 2_000, seed=20261130)
    assert not report.broken, "\n\n".join(report.broken)
    assert report.total == 2_000
    # a reader that refuses everything, or nothing, is not asked the right questions
    strict = [reader.name for reader in readers() if reader.raises]
    for name in strict:
        assert 0 < report.accepted[name] <= report.asked[name], name


@pytest.mark.parametrize("number", range(len(readers())))
def test_each_example_is_accepted_by_its_reader(number: int) -> None:
    reader = readers()[number]
    accepted = 0
    for raw in reader.examples:
        try:
            reader.read(raw)
        except reader.raises:
            continue
        accepted += 1
    assert accepted


def test_a_reader_that_crashes_or_hangs_is_found() -> None:
    def crash(raw: bytes) -> None:
        raise KeyError(raw)

    def hang(_: bytes) -> None:
        raise HangsError

    report = fuzz([Reader("a", crash, [b"1"]), Reader("b", hang, [b"1"])], 20, seed=1)
    assert sorted(text.split(":")[0] for text in report.broken) == ["a", "b"]


@given(some.sampled_from(sorted(ENTRY)), JSON)
def test_an_entry_with_any_value_of_any_field_is_read_or_refused(field: str, value: Any) -> None:
    raw = json.dumps({**ENTRY, field: value}).encode()
    try:
        found = read_entry(raw, "refunds", "1.0.0")
    except InvalidEntryError:
        return
    again = entry_bytes(found)
    assert entry_bytes(read_entry(again, "refunds", "1.0.0")) == again


@given(some.sampled_from(sorted(MANIFEST)), JSON)
def test_a_manifest_with_any_value_of_any_field_is_read_or_refused(field: str, value: Any) -> None:
    with suppress(InvalidManifestError):
        read_manifest(json.dumps({**MANIFEST, field: value}).encode())


@given(some.binary(max_size=200))
@example(b'{"why":"\\ud800"}')
@example(b'{"why":"\xed\xa0\x80"}')
@example(b'{"serial":1e999}')
@example(b'{"a":1,"a":2}')
@example('{"a":"ä"}'.encode("utf-16"))
def test_a_value_is_text_that_can_be_written_again_or_refused(raw: bytes) -> None:
    try:
        found = read_value(MemoryStorage({"s/00000001.json": raw}), "s", 1)
    except BrokenSeriesError:
        return
    json.dumps(found.data, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    "raw",
    [b'{"why":"\\ud800"}', b'{"serial":1e999}', b'{"a":1,"a":2}', b'{"a":NaN}', b'{"a":\xff}'],
)
def test_json_that_readers_understand_differently_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidEntryError):
        parse_object(raw)
    with pytest.raises(BrokenSeriesError):
        read_value(MemoryStorage({"s/00000001.json": raw}), "s", 1)


NUMBER = some.integers(0, 10**15).map(str) | some.sampled_from(["0", "1", "00", "01", "x", ""])
PRE = some.text("0123456789abcxyz.-A", max_size=8).map(lambda text: f"-{text}" if text else "")
VERSION = some.tuples(NUMBER, NUMBER, NUMBER, PRE).map(lambda p: f"{p[0]}.{p[1]}.{p[2]}{p[3]}")


@given(VERSION)
def test_a_version_has_one_spelling_or_is_refused(text: str) -> None:
    found = parse_version(text)
    assert found is None or str(found) == text


@given(some.lists(VERSION, max_size=8), VERSION, some.sampled_from(["^", "~", ">=", "<", "=", ""]))
def test_the_best_of_a_range_is_in_it_and_no_other_is_higher(
    texts: list[str], bound: str, sign: str
) -> None:
    wanted = parse_range(sign + bound)
    if wanted is None:
        return
    versions = [version for version in map(parse_version, texts) if version is not None]
    best = wanted.best(versions)
    inside = [version for version in versions if version in wanted]
    assert (best in inside) if inside else best is None
    assert not [version for version in inside if best is not None and version > best]
