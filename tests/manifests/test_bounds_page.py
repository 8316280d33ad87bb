"""docs/reference/limits.md names every limit, with its value."""

from __future__ import annotations

from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests import bounds

PAGE = (Path(adapterdock.__file__).parent / "docs" / "reference" / "limits.md").read_text(
    encoding="utf-8"
)
LIMITS = {name: value for name, value in vars(bounds).items() if name.isupper() and name != "MIB"}


def spelled(value: float) -> set[str]:
    """The ways in which the page may write a limit."""
    ways = {f"{value:,.0f}", f"{value:g}"}
    if value % bounds.MIB == 0:
        ways.add(f"{value // bounds.MIB} MiB")
    if value % 1024 == 0:
        ways.add(f"{value // 1024} KiB")
    if value % 60 == 0:
        ways.add(f"{value / 60:g} minutes")
    return ways


@pytest.mark.parametrize("name", LIMITS)
def test_the_page_has_the_value_of_each_limit(name: str) -> None:
    at = PAGE.find(f"`{name}`")
    assert at >= 0
    near = PAGE[max(0, at - 300) : at + 160]
    assert any(way in near for way in spelled(LIMITS[name])), (name, LIMITS[name])


def test_every_limit_is_positive_and_has_a_reason() -> None:
    source = Path(bounds.__file__).read_text(encoding="utf-8")
    for name, value in LIMITS.items():
        assert value > 0
        line = next(n for n, text in enumerate(source.splitlines()) if text.startswith(f"{name} ="))
        assert source.splitlines()[line + 1].startswith('"""'), name
