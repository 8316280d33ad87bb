"""What can follow the ``@`` of a registry's source."""

from __future__ import annotations

import pytest
from adapterdock.manifests.language.selector import parse_selector

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "kind", "moves"),
    [
        ("2.1.0", "version", False),
        ("2.1.0-rc.1", "version", False),
        ("^2.1", "range", True),
        (">=2,<3", "range", True),
        ("2", "range", True),
        ("prod", "alias", True),
        ("vnext", "alias", True),
        (DIGEST, "digest", False),
    ],
)
def test_each_selector_is_of_one_kind(text: str, kind: str, moves: bool) -> None:
    found = parse_selector(text)
    assert found is not None
    given = [k for k in ("version", "range", "alias", "digest") if getattr(found, k) is not None]
    assert given == [kind]
    assert found.moves is moves


@pytest.mark.parametrize(
    "text", ["", "x", "latest ", "Prod", "sha256", "sha256:abc", DIGEST.upper(), "v2", "2.1.0+a"]
)
def test_other_text_is_refused(text: str) -> None:
    assert parse_selector(text) is None
