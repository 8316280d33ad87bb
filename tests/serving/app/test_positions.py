"""How long a row, and a batch of rows, may become on bases of several kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from adapterdock.serving.app.limits import Limits
from adapterdock.serving.app.positions import Positions, positions_of
from support.served import at_once, completion, said, served, write_served
from support.tiny_models import tiny_model

GATHER = Limits(wait_seconds=0.3)
DECODER = {"target_modules": ["c_attn"]}


def endless(base: Any) -> Any:
    """No answer ends before its last token."""
    base.config.eos_token_id = None
    base.generation_config.eos_token_id = 63
    return base


def longrope() -> Any:
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
        "original_max_position_embeddings": 32,
    }
    config = Phi3Config(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        original_max_position_embeddings=32,
        rope_parameters=rope,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=60,
        initializer_range=0.3,
    )
    return Phi3ForCausalLM(config).eval()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama", Positions(64, None)),
        ("gemma3 text", Positions(64, None)),  # a rotation for each kind of layer
        ("gpt2", Positions(64, 64)),
        ("bert", Positions(64, 64)),
        ("roberta", Positions(63, 63)),  # counts from the entry after the padding's
        ("bart", Positions(64, 64)),
        ("t5", Positions()),
        ("bloom", Positions()),
        ("vit", Positions()),
    ],
)
def test_positions_of_bases(name: str, expected: Positions) -> None:
    assert positions_of(tiny_model(name)) == expected


def test_a_base_whose_rotation_depends_on_the_longest_row_has_short_batches() -> None:
    assert positions_of(longrope()) == Positions(128, 32)


def test_a_long_prompt_never_fails_a_long_answer_beside_it(tmp_path: Path) -> None:
    manifest = write_served(tmp_path, endless(tiny_model("gpt2")), {"a": DECODER, "b": DECODER})
    bodies = [
        completion("a", [5] * 58, max_tokens=4),
        completion("b", [7] * 3, max_tokens=40, temperature=1, seed=1),
        completion("b", [9] * 5, max_tokens=4),
    ]
    with served(manifest, limits=GATHER) as client:
        alone = [said(client, one) for one in bodies]
        assert at_once(client, bodies) == alone
        text = client.get("/v1/adapterdock/metrics").text
    assert "adapterdock_batch_rows_sum 6.0" in text
    assert "adapterdock_batch_rows_count 5.0" in text  # the two that fit together ran together


def test_a_short_row_beside_one_past_the_first_length_stays_as_it_is(tmp_path: Path) -> None:
    manifest = write_served(tmp_path, longrope(), {"a": {"target_modules": ["qkv_proj"]}})
    bodies = [
        completion("a", list(range(5, 55)), max_tokens=4),
        completion("a", list(range(5, 15)), max_tokens=10),
        completion("__base__", list(range(5, 20)), max_tokens=12),
    ]
    with served(manifest, limits=GATHER) as client:
        alone = [said(client, one) for one in bodies]
        assert at_once(client, bodies) == alone


def test_virtual_tokens_take_room_of_the_prompt(tmp_path: Path) -> None:
    from peft import PromptTuningConfig

    prompt = {"kind": PromptTuningConfig, "task_type": "CAUSAL_LM", "num_virtual_tokens": 10}
    manifest = write_served(tmp_path, endless(tiny_model("gpt2")), {"v": prompt})
    with served(manifest) as client:
        answer = client.post("/v1/completions", json=completion("v", [5] * 50, max_tokens=None))
        assert answer.json()["usage"]["completion_tokens"] <= 4, answer.text
        refused = client.post("/v1/completions", json=completion("v", [5] * 54, max_tokens=None))
        assert refused.status_code == 400
        assert "54 tokens, and 1 new ones, and 10 virtual ones of 'v'" in refused.text
        full = client.post("/v1/completions", json=completion("__base__", [5] * 60, max_tokens=4))
        assert full.status_code == 200


def test_an_answer_of_a_decoder_apart_has_room_of_its_own(tmp_path: Path) -> None:
    lora = {"target_modules": ["q_proj"], "task_type": "SEQ_2_SEQ_LM"}
    manifest = write_served(tmp_path, endless(tiny_model("bart")), {"a": lora})
    with served(manifest) as client:
        hot = completion("a", [5] * 60, temperature=1.5, seed=1, max_tokens=None)
        answer = client.post("/v1/completions", json=hot)
        assert answer.status_code == 200, answer.text
        assert answer.json()["usage"]["completion_tokens"] == 64
        refused = client.post("/v1/completions", json=completion("a", [5], max_tokens=65))
        assert (refused.status_code, "at most 64" in refused.text) == (400, True)


def test_an_input_that_fills_an_encoder_is_answered_and_one_more_is_refused(
    tmp_path: Path,
) -> None:
    from transformers import RobertaModel

    torch.manual_seed(0)
    config: Any = tiny_model("roberta").config
    base = RobertaModel(config).eval()
    lora = {"target_modules": ["query"], "task_type": "FEATURE_EXTRACTION"}
    manifest = write_served(tmp_path, base, {"a": lora})
    with served(manifest) as client:
        answers = [
            client.post("/v1/embeddings", json={"model": "a", "input": [5] * n}) for n in (63, 64)
        ]
    assert [one.status_code for one in answers] == [200, 400]
    assert "at most 63 tokens" in answers[1].text
