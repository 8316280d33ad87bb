"""Makes the entry of an adapter from what validation found out about it.

Nothing of the publisher's machine gets in: a base in a local folder is named by its fingerprint
and by the names that it has elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...manifests.language.schema import Fingerprint
from ...manifests.language.source import Source, SourceSyntaxError
from ..files.digests import folder_digest
from ..files.facts import AdapterFacts, AdapterPlan, BaseFacts, FileFact
from ..files.names import ADAPTER_CONFIG, ADAPTER_INDEX, PICKLES, TOKENIZER_FILES
from ..records.entry import FORMAT, Entry, EntryBase, EntryFile, EntryMethod, Provenance, Role

_TEMPLATES = frozenset({"chat_template.jinja", "chat_template.json"})
_CARD = "README.md"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*\Z")


@dataclass(frozen=True)
class Said:
    """What a publisher says of a version."""

    licence: str | None = None
    owner: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=Provenance)


def make_entry(
    name: str,
    version: str,
    created: str,
    facts: AdapterFacts,
    plan: AdapterPlan,
    files: Iterable[FileFact],
    base: EntryBase,
    said: Said = Said(),
) -> Entry:
    """The entry of one version.

    Args:
        name: Of the adapter.
        version: As text.
        created: UTC, ISO 8601.
        facts: Of the adapter.
        plan: On the base that it was validated against.
        files: All that are published, with their digests.
        base: See :func:`describe_base`.
        said: What the publisher says.
    """
    rows = sorted(files, key=lambda fact: fact.path)
    consumed = {fact.path for fact in facts.files}
    return Entry(
        format=FORMAT,
        name=name,
        version=version,
        created=created,
        digest=folder_digest(fact for fact in rows if fact.path in consumed),
        folder=folder_digest(rows),
        files=tuple(_file(fact, facts.headers) for fact in rows),
        method=describe_method(facts, plan),
        base=base,
        licence=said.licence,
        owner=said.owner,
        description=said.description,
        tags=said.tags,
        metrics=said.metrics,
        provenance=said.provenance,
    )


def published_files(facts: AdapterFacts, files: Mapping[str, FileFact]) -> list[FileFact]:
    """Those of an adapter folder's ``files`` that are published: what loading reads, and what lies
    beside it (tokenizer, card, licence). Not what is in further folders (checkpoints), and no
    pickles (the state of an optimizer)."""
    consumed = {fact.path: fact for fact in facts.files}
    beside = {
        path: fact for path, fact in files.items() if "/" not in path and not path.endswith(PICKLES)
    }
    return [{**beside, **consumed}[path] for path in sorted({*beside, *consumed})]


def describe_method(facts: AdapterFacts, plan: AdapterPlan) -> EntryMethod:
    """What the adapter does, from its config, its header and its plan."""
    tensors = plan.converted(facts).header.tensors
    alphas = {site.alpha for site in plan.sites}
    ranks = [site.rank for site in plan.sites]
    replaced = {**plan.saved, **plan.tuned, **{m: {"": key} for m, key in plan.embeddings.items()}}
    sizes: dict[str, int] = {}
    for info in tensors.values():
        sizes[info.dtype] = sizes.get(info.dtype, 0) + info.nbytes
    return EntryMethod(
        peft_type=facts.peft_type or "",
        rank=max(ranks, default=0),
        lowest_rank=min(ranks, default=0),
        alpha=alphas.pop() if len(alphas) == 1 else None,
        rslora=facts.config.get("use_rslora") is True,
        dora=facts.config.get("use_dora") is True,
        dtype=max(sizes, key=lambda dtype: (sizes[dtype], dtype), default=""),
        prompt_tokens=_count(facts.config.get("num_virtual_tokens")),
        targets=plan.targets,
        replaced={
            module: sum(tensors[key].nbytes for key in keys.values() if key in tensors)
            for module, keys in sorted(replaced.items())
        },
        trained_tokens=_tokens(facts.config.get("trainable_token_indices")),
        parameters=sum(math.prod(info.shape) for info in tensors.values()),
        peft_version=_text(facts.config.get("peft_version")),
    )


def describe_base(
    base: BaseFacts,
    fingerprint: Fingerprint,
    names: Collection[str] = (),
    *,
    licence: str | None = None,
    gated: bool | None = None,
) -> EntryBase:
    """The base that an adapter was validated against; ``names`` are other names of it, of which
    those that are paths are left out."""
    quantised = base.config.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, Mapping) else None
    source = base.source
    return EntryBase(
        source=None if source is None or source.is_local else str(source),
        revision=base.revision,
        aliases=tuple(sorted({name for name in names if is_name(name)})),
        fingerprints=(fingerprint,),
        quantisation=_text(method),
        licence=licence,
        gated=gated,
    )


def is_name(text: str) -> bool:
    """Whether this names a base everywhere: a name on the Hub or a remote URL, and no path."""
    if _HUB_NAME.match(text):
        return True
    try:
        source = Source.parse(text)
    except SourceSyntaxError:
        return False
    return not source.is_local and not text.startswith(("file:", "local:"))


def _file(fact: FileFact, weights: Collection[str]) -> EntryFile:
    assert fact.sha256 is not None
    return EntryFile(
        path=fact.path, size=fact.size, sha256=fact.sha256, role=_role(fact.path, weights)
    )


def _role(path: str, weights: Collection[str]) -> Role:
    if path in weights:
        return "weights"
    if path in (ADAPTER_CONFIG, ADAPTER_INDEX):
        return "config"
    if path in _TEMPLATES:
        return "template"
    if path in TOKENIZER_FILES:
        return "tokenizer"
    return "card" if path == _CARD else "other"


def _count(value: object) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _tokens(value: object) -> int:
    """Number of tokens in PEFT's ``trainable_token_indices``: a list, or a list for each module."""
    groups: Iterable[Any] = value.values() if isinstance(value, Mapping) else (value,)
    return len({token for group in groups if isinstance(group, list | tuple) for token in group})


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
