"""The ways of combining: the list that the schema reads, and the table."""

from __future__ import annotations

from typing import get_args

from adapterdock.manifests.language.combine_methods import COMBINE_METHODS, Combine


def test_every_name_of_the_schema_has_a_row_and_every_row_a_name() -> None:
    assert get_args(Combine) == tuple(COMBINE_METHODS)
