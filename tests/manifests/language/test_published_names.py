"""Names of published adapters and of aliases."""

from __future__ import annotations

import pytest
from adapterdock.manifests.language.published_names import LONGEST, wrong_alias, wrong_name


@pytest.mark.parametrize("name", ["refunds", "team/refunds", "org/team/a1", "a.b/c_d/e-f", "x"])
def test_a_name_has_one_to_three_segments(name: str) -> None:
    assert wrong_name(name) is None


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/b/c/d",
            "A",
            "a b",
            "a..b",
            "a--b",
            "-a",
            "a-",
            "1a",
            "ä",
        ),
        *("..", "a/..", "a\n", "a@1", "a:1", "a\\b", "a" * (LONGEST + 1), "con", "a/versions"),
        *("nul.txt", "lpt9/a", "gc", "journal/a", "a/signatures"),
    ],
)
def test_a_name_that_is_no_safe_path_is_refused(name: str) -> None:
    assert wrong_name(name) is not None


@pytest.mark.parametrize("alias", ["prod", "stage-2", "v", "vnext", "xy"])
def test_an_alias_is_a_word(alias: str) -> None:
    assert wrong_alias(alias) is None


@pytest.mark.parametrize(
    "alias", ["", "x", "v2", "v2x", "sha256", "2", "Prod", "a.b", "a_b", "a\n"]
)
def test_an_alias_never_looks_like_a_version(alias: str) -> None:
    assert wrong_alias(alias) is not None
