"""The tokenizer's digest and facts, from files alone."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from adapterdock.loader.base.live_fingerprint import fingerprint_of_model
from adapterdock.registry.base.tokenizer import (
    chat_template_digest,
    tokenizer_digest,
    tokenizer_facts,
)
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


def build() -> Tokenizer:
    vocab = {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "c": 4}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")], unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    return tokenizer


def files(value: Any = None, **more: Any) -> dict[str, bytes]:
    content = json.loads(build().to_str()) if value is None else value
    found = {"tokenizer.json": json.dumps(content).encode()}
    return found | {name: json.dumps(v).encode() for name, v in more.items()}


def changed(**parts: Any) -> dict[str, bytes]:
    return files({**json.loads(build().to_str()), **parts})


def test_formatting_truncation_and_padding_do_not_count() -> None:
    tokenizer = build()
    plain = tokenizer_digest({"tokenizer.json": tokenizer.to_str(pretty=True).encode()})
    tokenizer.enable_truncation(12)
    tokenizer.enable_padding(length=7)
    assert tokenizer_digest({"tokenizer.json": tokenizer.to_str().encode()}) == plain
    assert (
        plain == "v1:sha256:2e45e2a8b30dccb6a8f79ac7ffc67f8812ec811a94914f83cfa3f27ec2f6c232"
    )  # of version 1: must never change


def test_the_format_of_older_files_does_not_count() -> None:
    content = json.loads(build().to_str())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    for key in ("ignore_merges", "byte_fallback", "fuse_unk", "dropout"):
        content["model"].pop(key, None)
    content["pre_tokenizer"].pop("use_regex")
    content["model"]["vocab"] = dict(reversed(content["model"]["vocab"].items()))
    assert tokenizer_digest(files(content)) == tokenizer_digest(files())


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"decoder": None},
        {"post_processor": None},
        {"added_tokens": []},
        {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}},
    ],
    ids=lambda parts: next(iter(parts)),
)
def test_fields_that_change_the_ids_count(parts: dict[str, Any]) -> None:
    assert tokenizer_digest(changed(**parts)) != tokenizer_digest(files())


def test_a_vocabulary_entry_named_like_a_default_is_kept() -> None:
    content = json.loads(build().to_str())
    content["model"]["vocab"]["split"] = 5
    one = tokenizer_digest(files(content))
    content["model"]["vocab"]["split"] = 6
    assert tokenizer_digest(files(content)) != one


def test_a_live_tokenizer_has_the_digest_of_its_file() -> None:
    import torch

    live = PreTrainedTokenizerFast(tokenizer_object=build(), unk_token="<unk>")
    live.pad_token = live.unk_token
    live.chat_template = "{{ messages }}"
    live(["a", "ab a"], padding=True, truncation=True, max_length=3)
    found = fingerprint_of_model(torch.nn.Linear(2, 2), live).fingerprint
    assert found.tokenizer == tokenizer_digest(files())
    template = {"chat_template.jinja": b"{{ messages }}"}
    assert found.chat_template == chat_template_digest(template)
    assert chat_template_digest(template) == chat_template_digest(
        {"tokenizer_config.json": b'{"chat_template": "{{ messages }}"}'}
    )
    assert chat_template_digest({}) is None


def test_rows_are_the_highest_id_and_one_more() -> None:
    facts = tokenizer_facts(files())
    assert facts is not None and facts.rows == 6 and facts.added == {"<s>": 5}
    gap = changed(added_tokens=[{"id": 99, "content": "<x>", "special": True}])
    facts = tokenizer_facts(gap)
    assert facts is not None and facts.rows == 100
    facts = tokenizer_facts(files(**{"added_tokens.json": {"<y>": 7}}))
    assert facts is not None and facts.rows == 8 and facts.added == {"<s>": 5, "<y>": 7}


def test_rows_of_a_unigram_and_of_vocabulary_files() -> None:
    unigram = changed(
        model={"type": "Unigram", "vocab": [["a", 0.0], ["b", -1.5], ["c", -2.0]]}, added_tokens=[]
    )
    facts = tokenizer_facts(unigram)
    assert facts is not None and facts.rows == 3
    facts = tokenizer_facts({"vocab.txt": b"[PAD]\r\na\r\nb\r\n"})
    assert facts is not None and facts.rows == 3
    config = {"added_tokens_decoder": {"4": {"content": "<z>"}}}
    facts = tokenizer_facts(
        {"vocab.json": b'{"a": 0, "b": 1}', "tokenizer_config.json": json.dumps(config).encode()}
    )
    assert facts is not None and facts.rows == 5 and facts.added == {"<z>": 4}
    assert tokenizer_facts({"tokenizer.model": b"\x0a"}) is None
    assert tokenizer_facts({}) is None


def test_a_tokenizer_of_vocabulary_files_has_a_digest_of_its_own() -> None:
    one = {"vocab.json": b'{"a": 0, "b": 1}', "merges.txt": b"#version: 0.2\na b\n"}
    assert tokenizer_digest(one) == tokenizer_digest({**one, "merges.txt": b"a b"})
    assert tokenizer_digest(one) != tokenizer_digest({**one, "merges.txt": b"b a"})
    assert tokenizer_digest({"tokenizer.model": b"x"}) != tokenizer_digest({"spiece.model": b"y"})
    assert tokenizer_digest({}) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"<html>", b"\xff", b"[" * 100_000])
def test_a_file_without_a_json_object_is_a_value_error(content: bytes) -> None:
    for read in (tokenizer_digest, tokenizer_facts):
        with pytest.raises(ValueError, match=r"tokenizer\.json"):
            read({"tokenizer.json": content})


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"vocab": {"a": "b"}}},
        {"model": []},
        {"model": {"vocab": {}}, "added_tokens": {"a": 1}},
        {"model": {"vocab": {}, "merges": [1]}, "added_tokens": [1]},
        {"added_tokens": [{"id": "x", "content": "y"}]},
    ],
)
def test_strange_content_is_a_value_error_or_a_result(content: dict[str, Any]) -> None:
    for read in (tokenizer_digest, tokenizer_facts):
        with contextlib.suppress(ValueError):
            read(files(content))


def test_a_post_processor_that_adds_nothing_is_none_and_another_is_not() -> None:
    """transformers puts one where the file has none."""
    plain = build()
    plain.post_processor = None
    assert plain.post_processor is None
    live = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")
    written = plain.to_str().encode()
    known = tokenizer_digest({"tokenizer.json": written})
    for template, same in (("$A", True), ("$A <s>", False)):
        other = Tokenizer.from_str(written.decode())
        other.post_processor = processors.TemplateProcessing(
            single=template, pair="$A $B:1", special_tokens=[] if same else [("<s>", 3)]
        )
        assert (tokenizer_digest({"tokenizer.json": other.to_str().encode()}) == known) is same
    found = tokenizer_digest({"tokenizer.json": live.backend_tokenizer.to_str().encode()})
    assert found == known
