"""A finding: what its hint says to run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.findings.sources import SOURCE_CHANGED


@pytest.mark.parametrize(
    ("path", "run"),
    [
        (("adapters", "tone", "source"), "lock --upgrade tone`"),
        (("base", "model"), "lock --upgrade base`"),
        (("adapters",), "lock --upgrade NAME`"),
        ((), "lock --upgrade NAME`"),
    ],
)
def test_a_hint_names_the_pin_that_the_finding_is_about(path: tuple[str, ...], run: str) -> None:
    where = Where("team.yaml", path)
    made = SOURCE_CHANGED.finding("It has changed", where)
    placed = replace(SOURCE_CHANGED.finding("It has changed"), where=where)
    assert made.hint == placed.hint
    assert run in str(made.hint)


def test_a_hint_without_a_pin_stays_as_it_is() -> None:
    where = Where("team.yaml", ("adapters", "tone"))
    assert SOURCE_CHANGED.finding("x", where, hint="Write NAME.").hint == "Write NAME."
