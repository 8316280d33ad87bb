"""What a command may name in a registry."""

from __future__ import annotations

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.catalogue.reference import name_of, parse_reference


def test_a_reference_has_a_registry_a_name_and_perhaps_a_version() -> None:
    found = parse_reference("team/support/tone@^2.1")
    assert (found.registry, found.name) == ("team", "support/tone")
    assert found.selector is not None
    assert found.selector.text == "^2.1"
    assert name_of(parse_reference("team/support/tone")) == "support/tone"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("registry://team/refunds@2.1.0", "leave out registry://"),
        ("team/refunds@2.1.0+build", "build metadata"),
        ("team/refunds@+", "is not a version"),
        ("refunds@2.1.0", "names no adapter"),
        ("team/Refunds@2.1.0", "lower-case"),
    ],
)
def test_a_wrong_reference_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        parse_reference(text)


def test_a_version_where_only_a_name_counts_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        name_of(parse_reference("team/refunds@2.1.0"))
    assert "team/refunds" in str(caught.value.findings[0].expected)
