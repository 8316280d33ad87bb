"""Kinds of licences, what two of them mean together, and the licence in a model card."""

from __future__ import annotations

import pytest
from adapterdock.registry.licences import KINDS, TOGETHER, Kind, card_licence, kind_of, together


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("Apache-2.0", Kind.PERMISSIVE),
        ("cc-by-4.0", Kind.PERMISSIVE),
        ("CC-BY-SA-4.0", Kind.SHARE_ALIKE),
        ("cc-by-nc-4.0", Kind.NON_COMMERCIAL),
        ("cc-by-nc-sa-4.0", Kind.NON_COMMERCIAL),
        ("cc-by-nc-nd-4.0", Kind.NO_DERIVATIVES),
        ("cc-by-nd-4.0", Kind.NO_DERIVATIVES),
        ("AGPL-3.0-only", Kind.SHARE_ALIKE),
        ("llama3.1", Kind.OWN_TERMS),
        ("gemma", Kind.OWN_TERMS),
        ("creativeml-openrail-m", Kind.OWN_TERMS),
        ("other", Kind.UNKNOWN),
        ("MIT OR Apache-2.0", Kind.UNKNOWN),
        ("cc-by-4.0 (see file)", Kind.UNKNOWN),
        ("", Kind.UNKNOWN),
        (None, Kind.UNKNOWN),
    ],
)
def test_a_licence_has_a_kind(licence: str | None, kind: Kind) -> None:
    assert kind_of(licence) is kind


def test_the_table_says_something_for_every_pair_that_is_not_harmless() -> None:
    known = [kind for kind in Kind if kind is not Kind.UNKNOWN]
    harmless = {(Kind.PERMISSIVE, Kind.PERMISSIVE), (Kind.PERMISSIVE, Kind.SHARE_ALIKE)}
    assert TOGETHER.keys() == {(a, b) for a in known for b in known} - harmless
    assert set(KINDS) == set(known)


@pytest.mark.parametrize(
    ("base", "adapter", "says"),
    [
        ("apache-2.0", "mit", None),
        ("apache-2.0", "cc-by-nc-4.0", "commercially"),
        ("cc-by-nc-4.0", "mit", "commercially"),
        ("cc-by-nc-4.0", "cc-by-nc-4.0", "commercially"),
        ("cc-by-sa-4.0", "mit", "the same one"),
        ("cc-by-sa-4.0", "CC-BY-SA-4.0", None),
        ("llama3.1", "apache-2.0", "base's own terms"),
        ("llama3.1", "llama3.1", None),
        ("llama3.1", "gemma", "all of them"),
        ("cc-by-nd-4.0", "mit", "changed base"),
        ("other", "mit", None),
        ("mit", None, None),
    ],
)
def test_two_licences_together(base: str, adapter: str | None, says: str | None) -> None:
    found = together(base, adapter)
    assert found is None if says is None else says in str(found)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- x\n---\n# Model\n", "apache-2.0"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("\ufeff---\nlicense: mit\n---", "mit"),
        ("---\nlicense: other\nlicense_name: my-terms\n---\n", "my-terms"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: [mit]\n---\n", "mit"),
        ("---\nlicense: [mit, cc-by-4.0]\n---\n", "mit AND cc-by-4.0"),
        ("---\nlicense: 3\n---\n", None),
        ("---\nlicense: [\n---\n", None),
        ("---\nlanguage: en\n---\n", None),
        ("# Model\n---\nlicense: mit\n---\n", None),
        ("---\nlicense: mit\n", None),
        ("", None),
    ],
)
def test_the_licence_in_a_card(card: str, licence: str | None) -> None:
    assert card_licence(card.encode()) == licence
