"""The model card of an adapter: its metadata, and what a card that is there keeps."""

from __future__ import annotations

import pytest
from adapterdock.registry.model_card import card_of
from huggingface_hub import ModelCard

TONE = {"": {"peft_type": "LORA", "task_type": "CAUSAL_LM"}}


def card(before: str | None = None, **options: object) -> str:
    return card_of("acme/tone", TONE, "acme/base-7b", before=before, **options)  # type: ignore[arg-type]


def test_a_new_card_names_the_base_and_says_that_it_is_an_adapter() -> None:
    data = ModelCard(card(tags=["support"])).data
    said = data.to_dict()
    assert (said["base_model"], said["base_model_relation"]) == ("acme/base-7b", "adapter")
    assert (said["library_name"], said["pipeline_tag"]) == ("peft", "text-generation")
    assert said["tags"] == ["adapterdock", "lora", "support"]
    assert 'from_pretrained(base, "hf://acme/tone")' in card()
    assert "base_model" not in card_of("acme/tone", TONE, None)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        ("license: mit\n", "license: mit\n"),
        ("language: no\n", "language: no\n"),
        ("# ours\nlicense: mit  # agreed\n", "# ours\nlicense: mit  # agreed\n"),
        ("tags:\n- mine\n\n# below\nlicense: mit\n", "\n\n# below\nlicense: mit\n"),
        ("tags: [mine]\nlicense: mit\n", "\nlicense: mit\n"),
        ("tags:\nlicense: mit\n", "\nlicense: mit\n"),
        ("released: 2024-01-01\nversion: 1.10\n", "released: 2024-01-01\nversion: 1.10\n"),
        ("notes: |\n  one\n\n  two\nlicense: mit\n", "notes: |\n  one\n\n  two\nlicense: mit\n"),
        ("license: mit\r\ntags:\r\n- mine\r\n", "license: mit\r\n"),
        ("{license: mit, tags: [mine]}\n", "license: mit\n"),
        ("", ""),
    ],
)
def test_metadata_that_is_there_stays_to_the_letter(head: str, kept: str) -> None:
    made = card(f"---\n{head}---\n# Mine\n\n---\n")
    assert kept in made and made.endswith("---\n# Mine\n\n---\n")
    said = ModelCard(made).data.to_dict()
    assert said["base_model"] == "acme/base-7b" and said["base_model_relation"] == "adapter"
    assert said["tags"] == [*(["mine"] if "mine" in head else []), "adapterdock", "lora"]
    assert card(made) == made


def test_another_base_and_another_pipeline_are_kept_or_set() -> None:
    made = card(
        "---\nbase_model:\n- acme/old\n- acme/older\npipeline_tag: any-to-any\n---\n# Mine\n"
    )
    said = ModelCard(made).data.to_dict()
    assert (said["base_model"], said["pipeline_tag"]) == ("acme/base-7b", "any-to-any")
    assert "older" not in made


@pytest.mark.parametrize("before", ["# Mine\n", "---\nnever closed\n", "\r\n# Mine\r\n"])
def test_a_card_without_metadata_keeps_its_text(before: str) -> None:
    assert card(before).endswith(before) and "# tone" not in card(before)


@pytest.mark.parametrize("head", ["tags: [a", "just words", "- a\n- b"])
def test_metadata_that_is_no_mapping_is_refused_and_not_lost(head: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        card(f"---\n{head}\n---\n# Mine\n")
