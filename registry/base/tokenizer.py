"""A base's tokenizer from its files: its number of ids, and its behaviour as one digest.

Two tokenizers are the same if they turn the same text into the same ids and back: the model
(vocabulary, merges or scores), normalizer, pre-tokenizer, post-processor, decoder and added
tokens of ``tokenizer.json`` count; formatting, truncation and padding, which are set per call, do
not. Added tokens that are in the vocabulary anyway do not count either: loading a tokenizer marks
its unknown, end and padding tokens so, even if the file does not. Fields with a default value that
newer versions of ``tokenizers`` write out are left out, so that a file that was saved again stays
the same; so is a post-processor that adds nothing, which transformers adds where there is none.

Digest, version 1: ``v1:sha256:`` and the SHA-256 of ``adapterdock tokenizer v1\\n`` and the
canonical tokenizer as JSON (sorted keys, no spaces, UTF-8). A tokenizer without tokenizer.json is
digested by its vocabulary files instead (``vocab.json`` and ``merges.txt``, or ``vocab.txt``, or a
SentencePiece model's bytes). The digest of a chat template is that of its text after
``adapterdock chat template v1\\n``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from ..files.digests import versioned_digest
from ..files.facts import TokenizerFacts
from ..files.header import LFS_POINTER
from .remembered import remembered

_PIECES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_PARTS = ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder")
_DEFAULTS: Mapping[str, Any] = {"use_regex": True, "split": True}
_FIRST = {"Sequence": {"id": "A", "type_id": 0}}
_ADDS_NOTHING: Mapping[str, Any] = {
    "type": "TemplateProcessing",
    "single": [_FIRST],
    "pair": [_FIRST, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}
_LONG = ("vocab", "merges")
"""Fields of the model that contain no defaults."""
_ADDED = ("id", "content", "lstrip", "normalized", "rstrip", "single_word", "special")

Json = dict[str, Any]


@remembered
def tokenizer_digest(files: Mapping[str, bytes]) -> str | None:
    """The digest of the tokenizer in these files, ``None`` where there is none. Raises
    ``ValueError`` for an invalid file."""
    if "tokenizer.json" in files:
        return digest_of_json(_object(files, "tokenizer.json"))
    vocabulary = _vocabulary(files)
    if vocabulary is not None:
        merges = files.get("merges.txt", b"").decode("utf-8", "replace").split("\n")
        pairs = [line for line in merges if line and not line.startswith("#version")]
        return _digest({"vocab": vocabulary, "merges": pairs, "added": _added(files)})
    for name in _PIECES:
        if name in files:
            digest = hashlib.sha256(files[name]).hexdigest()
            return _digest({"pieces": digest, "added": _added(files)})
    return None


def digest_of_json(tokenizer: Mapping[str, Any]) -> str:
    """The digest of a parsed tokenizer.json."""
    parts = {name: _canonical(tokenizer.get(name)) for name in _PARTS}
    if tokenizer.get("post_processor") == _ADDS_NOTHING:
        parts["post_processor"] = None
    model = parts["model"]
    if isinstance(model, dict):
        merges = cast(Json, model).get("merges")
        if isinstance(merges, list):  # "a b" in older files, ["a", "b"] in newer ones
            cast(Json, model)["merges"] = [
                m.split(" ", 1) if isinstance(m, str) else m for m in merges
            ]
    ids = _ids(tokenizer)
    added = [
        {key: token.get(key, False) for key in _ADDED}
        for token in _tokens(tokenizer)
        if ids.get(str(token.get("content"))) != token.get("id", -1)
    ]
    added.sort(key=lambda token: (str(token["id"]), str(token["content"])))
    return _digest({**parts, "added_tokens": added})


def chat_template_digest(files: Mapping[str, bytes]) -> str | None:
    """The digest of the chat template (``chat_template.jinja`` or the tokenizer's config)."""
    if "chat_template.jinja" in files:
        return digest_of_template(files["chat_template.jinja"].decode("utf-8", "replace"))
    if "tokenizer_config.json" not in files:
        return None
    return digest_of_template(_object(files, "tokenizer_config.json").get("chat_template"))


def digest_of_template(template: Any) -> str | None:
    """The digest of a template's text, or of several by name."""
    if not template:
        return None
    if not isinstance(template, str):
        template = json.dumps(template, sort_keys=True, ensure_ascii=False)
    return versioned_digest("chat template", template.encode())


@remembered
def tokenizer_facts(files: Mapping[str, bytes]) -> TokenizerFacts | None:
    """How many ids the tokenizer has (highest id + 1) and which were added, ``None`` where the
    files do not say so (no files, or only a SentencePiece model). Raises ``ValueError``."""
    added = _added(files)
    if "tokenizer.json" in files:
        tokenizer = _object(files, "tokenizer.json")
        ids = _ids(tokenizer)
        for token in _tokens(tokenizer):
            added.setdefault(str(token.get("content")), token.get("id", -1))
    elif (ids := _vocabulary(files)) is None:
        return None
    every: list[Any] = [*ids.values(), *added.values()]
    if not all(isinstance(i, int) for i in every):
        raise ValueError("The id of a token is not a number")
    return TokenizerFacts(max(every, default=-1) + 1, added)


def _ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """The vocabulary of the model in a tokenizer.json, without added tokens."""
    model = tokenizer.get("model")
    vocabulary = cast(Json, model).get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        return cast("dict[str, int]", vocabulary)
    if isinstance(vocabulary, list):  # Unigram: [piece, score] in the order of ids
        rows = cast("list[Any]", vocabulary)
        return {
            str(row[0] if row and isinstance(row, list) else row): i for i, row in enumerate(rows)
        }
    return {}


def _tokens(tokenizer: Mapping[str, Any]) -> list[Json]:
    tokens = tokenizer.get("added_tokens") or []
    if not isinstance(tokens, list) or not all(
        isinstance(t, dict) for t in cast("list[Any]", tokens)
    ):
        raise ValueError("tokenizer.json: added_tokens is not a list of tokens")
    return cast("list[Json]", tokens)


def _vocabulary(files: Mapping[str, bytes]) -> dict[str, int] | None:
    if "vocab.json" in files:
        return cast("dict[str, int]", _object(files, "vocab.json"))
    if "vocab.txt" in files:
        lines = files["vocab.txt"].decode("utf-8", "replace").split("\n")
        if lines and not lines[-1]:
            lines.pop()
        return {line.rstrip("\r"): i for i, line in enumerate(lines)}
    return None


def _added(files: Mapping[str, bytes]) -> dict[str, int]:
    """``added_tokens.json``, and ``added_tokens_decoder`` of the tokenizer's config."""
    added: dict[str, int] = {}
    if "added_tokens.json" in files:
        added |= cast("dict[str, int]", _object(files, "added_tokens.json"))
    if "tokenizer_config.json" in files:
        decoder = _object(files, "tokenizer_config.json").get("added_tokens_decoder") or {}
        try:
            for key, token in cast("dict[str, Json]", decoder).items():
                added.setdefault(str(token.get("content")), int(key))
        except AttributeError as error:
            raise ValueError("tokenizer_config.json: added_tokens_decoder is not a map") from error
    return added


def _object(files: Mapping[str, bytes], name: str) -> Json:
    if files[name].startswith(LFS_POINTER):
        raise ValueError(f"{name} is a Git LFS pointer: fetch the file with `git lfs pull`")
    try:
        value = json.loads(files[name])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a JSON object")
    return cast(Json, value)


def _canonical(value: Any) -> Any:
    """Without absent and false fields, and defaults that newer versions write out."""
    if isinstance(value, list):
        return [_canonical(item) for item in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    old = cast(Json, value)
    if old.get("type") == "Metaspace":
        scheme = "always" if old.get("add_prefix_space", True) else "never"
        kept = {k: v for k, v in old.items() if k not in ("add_prefix_space", "str_rep")}
        old = {"prepend_scheme": scheme, **kept}
    return {
        key: inner if key in _LONG else _canonical(inner)
        for key, inner in old.items()
        if key in _LONG or not (inner is None or inner is False or _DEFAULTS.get(key) is inner)
    }


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return versioned_digest("tokenizer", text.encode("utf-8", "surrogatepass"))
