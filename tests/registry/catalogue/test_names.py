"""Names of published adapters that are confused easily."""

from __future__ import annotations

import pytest
from adapterdock.registry.catalogue.names import one_edit_apart


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("refunds", "refund", True),
        ("refunds", "refunbs", True),
        ("refunds", "refnuds", True),
        ("refunds", "xrefunds", True),
        ("refunds", "refunds", False),
        ("refunds", "refundsab", False),
        ("ab", "ba", True),
        ("abcd", "badc", False),
    ],
)
def test_names_one_edit_apart_are_found(one: str, other: str, near: bool) -> None:
    assert one_edit_apart(one, other) is near
    assert one_edit_apart(other, one) is near
