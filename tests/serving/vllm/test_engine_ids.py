"""Numbers in the engine come from digests; two digests never share one."""

from __future__ import annotations

import pytest
from adapterdock import AdapterdockError
from adapterdock.serving.vllm.engine_ids import EngineIds, engine_id

ONE = "sha256:" + "ab" * 32


def test_a_number_is_positive_has_31_bits_and_depends_on_the_digest_alone() -> None:
    assert engine_id(ONE) == engine_id(ONE) == 0x2BABABAB + 0x40000000
    assert 2**30 <= engine_id("sha256:" + "0" * 64) < 2**31
    assert 2**30 <= engine_id("sha256:" + "f" * 64) < 2**31


def test_the_same_content_has_one_number_under_two_names() -> None:
    ids = EngineIds()
    assert ids.take("refunds", ONE) == ids.take("refunds-canary", ONE)


def test_another_content_with_the_same_number_is_refused_even_after_the_first_is_gone() -> None:
    ids = EngineIds()
    other = "sha256:" + "00" + "ab" * 31
    assert engine_id(ONE) == engine_id(other)
    ids.take("billing", ONE)
    with pytest.raises(AdapterdockError, match="billing") as caught:
        ids.take("refunds", other)
    assert caught.value.code == "AD965"
    assert ids.take("billing", ONE) == engine_id(ONE)
