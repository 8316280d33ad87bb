"""The model card of an adapter on the Hub: its metadata says whose adapter it is.

The Hub shows an adapter under its base by ``base_model`` and ``base_model_relation: adapter``
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

_FENCE = "---"
_HEAD = re.compile(
    r"\ufeff?\s*---[ \t]*\r?\n(?P<head>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE
)


def card_of(
    repository: str,
    configs: Mapping[str, Mapping[str, Any]],
    base: str | None,
    tags: Iterable[str] = (),
    before: str | None = None,
) -> str:
    """The text of ``README.md`` for adapters by name, with their ``adapter_config.json``.

    ``before`` is the card that the repository has: its text and its own metadata stay, to the
    letter, and only what follows from the adapters is set. Raises :class:`ValueError` where its
    metadata is not a YAML mapping.
    """
    head, text = parts_of(before or "")
    known = _metadata(head)
    kinds = sorted({str(config.get("peft_type", "")).lower() for config in configs.values()} - {""})
    tasks = {str(config.get("task_type")) for config in configs.values()}
    said: dict[str, Any] = {"library_name": "peft"}
    if base is not None:
        said |= {"base_model": base, "base_model_relation": "adapter"}
    old = known.get("tags")
    kept = old if isinstance(old, list) else [] if old is None else [old]
    said["tags"] = list(dict.fromkeys([*map(str, kept), "adapterdock", *kinds, *tags]))
    if tasks == {"CAUSAL_LM"} and "pipeline_tag" not in known:
        said["pipeline_tag"] = "text-generation"
    new = _with(head, {key: value for key, value in said.items() if known.get(key) != value})
    return f"{_FENCE}\n{new}{_FENCE}\n{text or _text(repository, configs, base)}"


def parts_of(card: str) -> tuple[str, str]:
    """The YAML of a card's metadata, and its text."""
    found = _HEAD.match(card)
    return (found["head"], card[found.end() :]) if found else ("", card)


def _metadata(head: str) -> Mapping[str, Any]:
    try:
        known = yaml.safe_load(head)
    except yaml.YAMLError as error:
        raise ValueError("; ".join(str(error).splitlines())) from error
    if known is not None and not isinstance(known, dict):
        raise ValueError(f"a {type(known).__name__}")
    return known or {}


def _with(head: str, said: Mapping[str, Any]) -> str:
    """``head`` with these keys set, and all else as it is: YAML that is read and written again
    loses comments, and makes ``language: no`` false."""
    node = yaml.compose(head)
    if isinstance(node, yaml.MappingNode) and node.flow_style:
        return _yaml({**yaml.safe_load(head), **said})
    places = {} if node is None else {key.value: (key, value) for key, value in node.value}
    added = {key: value for key, value in said.items() if key not in places}
    for key, value in reversed(places.values()):
        if key.value in said:
            start, end = key.start_mark.index, _end(head, value)
            new = _yaml({key.value: said[key.value]}).rstrip("\n")
            head = head[:start] + new + head[end:]
    if head and not head.endswith("\n"):
        head += "\n"
    return head + (_yaml(added) if added else "")


def _end(head: str, node: yaml.Node) -> int:
    """Where the text of a value ends; PyYAML says of a block where the next key begins."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(head, last[1] if isinstance(last, tuple) else last)
    return len(head[: node.end_mark.index].rstrip())


def _yaml(said: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(said), sort_keys=False, allow_unicode=True)


def _text(repository: str, configs: Mapping[str, Mapping[str, Any]], base: str | None) -> str:
    name = repository.rpartition("/")[2]
    lines = [f"\n# {name}\n", f"{_kinds(configs)} for {f'`{base}`' if base else 'a base model'}.\n"]
    folders = [one for one in configs if one]
    if folders:
        lines += ["Adapters, each in its folder:\n", *(f"- `{one}`" for one in folders), ""]
    where = f"hf://{repository}" + (f"/{folders[0]}" if folders and "" not in configs else "")
    lines += [
        "```python",
        "from adapterdock import AdaptedModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base or "the base"}")',
        f'model = AdaptedModel.from_pretrained(base, "{where}")',
        "```\n",
    ]
    return "\n".join(lines)


def _kinds(configs: Mapping[str, Mapping[str, Any]]) -> str:
    kinds = sorted({str(config.get("peft_type", "adapter")) for config in configs.values()})
    return f"{' and '.join(kinds)} adapter{'s' if len(configs) > 1 else ''}"
