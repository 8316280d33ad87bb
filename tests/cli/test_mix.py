"""What `--adapter` selects."""

from __future__ import annotations

import pytest
from adapterdock.cli.mix import parse_mix
from adapterdock.manifests.findings.errors import UsageError


def test_a_name_is_a_name_and_weights_are_a_sum() -> None:
    assert parse_mix("pirate") == "pirate"
    assert parse_mix("__base__") == "__base__"
    assert parse_mix("pirate=0.5,salesman=1") == {"pirate": 0.5, "salesman": 1.0}
    assert parse_mix("pirate, salesman = -2e-1") == {"pirate": 1.0, "salesman": -0.2}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pirate=half", "'half' is not a number"),
        ("pirate=", "'' is not a number"),
        ("pirate=nan,b", "'nan' is not a finite number"),
        ("pirate=1,pirate=2", "'pirate' is there twice"),
        ("pirate,,b", "a name is missing"),
        ("=1", "a name is missing"),
        ("a,__base__", "__base__ cannot be part of a sum"),
    ],
)
def test_a_sum_that_is_written_wrongly_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_mix(text)
    (finding,) = refused.value.findings
    assert (finding.code, finding.found) == ("AD927", text)
    assert finding.message == f"Invalid weights in --adapter: {why}"
