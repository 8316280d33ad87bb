"""Versions and ranges of published adapters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from adapterdock.manifests.language.versions import LONGEST, parse_range, parse_version
from hypothesis import given
from hypothesis import strategies as some

NPM = json.loads(Path(__file__).with_name("npm_ranges.json").read_text())
"""What npm's own library (``source``) says of each range: a digit for each version."""


@pytest.mark.parametrize("text", NPM["matches"])
def test_a_range_matches_the_versions_that_npm_matches(text: str) -> None:
    wanted = parse_range(text)
    assert wanted is not None
    versions = [parse_version(version) for version in NPM["versions"]]
    matches = "".join("1" if version in wanted else "0" for version in versions if version)
    assert matches == NPM["matches"][text]


@pytest.mark.parametrize("text", ["2.1.0", "0.0.1-rc.1", "10.20.30-a-b.0"])
def test_a_version_reads_as_it_is_written(text: str) -> None:
    assert str(parse_version(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "2", "2.1", "v2.1.0", "2.1.0 ", "2.1.0\n", "02.1.0", "2.1.0-01", "2.1.0-", "2.1.0+a"),
        *("2.1.0-RC1", "2.1.0-\N{ARABIC-INDIC DIGIT ONE}", f"1.0.0-{'a' * LONGEST}", "-1.0.0"),
    ],
)
def test_what_is_not_exactly_a_version_is_refused(text: str) -> None:
    assert parse_version(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "*", "x", "2.x", ">=", "^^2", "=>2", ">=2,", ",>=2", ">=2,,<3", "2 - 3", "2||3"),
        *(">=2\n", "^2.1.0+a", "^2.1-rc", "~>2", "1.0.0-01", "^" + "1" * LONGEST),
    ],
)
def test_what_is_not_exactly_a_range_is_refused(text: str) -> None:
    assert parse_range(text) is None


def test_the_best_of_a_range_is_its_highest_release() -> None:
    texts = ("2.0.0", "2.10.0", "2.9.0", "3.0.0-a", "3.0.0")
    versions = [version for text in texts if (version := parse_version(text))]
    wanted, none = parse_range(">=2,<3"), parse_range("^4")
    assert wanted is not None and none is not None
    assert str(wanted.best(versions)) == "2.10.0"
    assert none.best(versions) is None


@given(some.text(max_size=LONGEST + 2))
def test_any_text_is_a_version_or_range_or_none(text: str) -> None:
    version, found = parse_version(text), parse_range(text)
    if version is not None:
        assert str(version) == text
        assert found is not None and version in found
