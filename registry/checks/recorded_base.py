"""Is the manifest's base the one that the adapter records?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.source import Source
from ..files.facts import BaseFacts
from ..files.wording import shown

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}(/[A-Za-z0-9][\w.\-]{0,95})?\Z", re.ASCII)

_SIZES = (
    ("hidden_size", "n_embd", "d_model", "dim"),
    ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    ("intermediate_size", "n_inner", "d_ff", "hidden_dim"),
)
"""Config fields with the sizes of a model, by their names in model families."""


def recorded_name(config: Mapping[str, Any]) -> str | None:
    """``base_model_name_or_path``, where it is set."""
    value = config.get("base_model_name_or_path")
    return value if isinstance(value, str) and value else None


def is_hub_id(name: str) -> bool:
    """Whether a recorded name is spelled like a Hub repository (``org/name`` or ``name``)."""
    return _HUB_ID.match(name) is not None and ".." not in name and "--" not in name


def check(
    config: Mapping[str, Any],
    where: Where,
    *,
    declared: Source | None,
    aliases: Collection[str] = (),
    base: BaseFacts | None = None,
    recorded: BaseFacts | None = None,
) -> list[Finding]:
    """``declared`` is the manifest's ``base.model``, ``aliases`` are its other names (a loaded
    model's own among them), ``recorded`` is what was found where the adapter's recorded name
    points to (``None`` if it was not or could not be resolved)."""
    name = recorded_name(config)
    if name is None:
        message = "The adapter does not record the base that it was trained on"
        return [codes.RECORDED_NONE.finding(message, where)]
    if _is_same(name, declared, aliases):
        return _revision(config, where, base)
    if base is not None and recorded is not None:
        differences = _differences(base, recorded)
        if differences:
            return [
                codes.RECORDED_SHAPE.finding(
                    f"The adapter was trained on {shown(name)}, which is another model",
                    where,
                    found="; ".join(f"{what} {theirs}" for what, _, theirs in differences),
                    expected="; ".join(f"{what} {ours}" for what, ours, _ in differences),
                )
            ]
    if not is_hub_id(name):
        if recorded is not None:
            return []
        message = f"The adapter's base is the folder {shown(name)}, which does not exist here"
        return [codes.RECORDED_GONE.finding(message, where, found=shown(name))]
    ours = [declared.location] if declared is not None and declared.is_hub else []
    ours += [alias for alias in aliases if is_hub_id(_plain(alias)) and alias not in ours]
    if ours:
        return [
            codes.RECORDED_OTHER.finding(
                f"The adapter was trained on {name}, but the base is {ours[0]}",
                where,
                found=name,
                expected=f"{' or '.join(ours)}, or another name in base.aliases",
            )
        ]
    if recorded is not None:
        return []  # a folder of that name, as transformers would have read it
    message = f"Cannot verify that the base is {name}, which this adapter was trained on"
    if declared is None and not aliases:
        return [codes.RECORDED_UNCOMPARED.finding(message, where, found=name)]
    return [codes.RECORDED_UNCONFIRMED.finding(message, where, found=name)]


def _is_same(name: str, declared: Source | None, aliases: Collection[str]) -> bool:
    known = {_plain(alias) for alias in aliases}
    if declared is not None:
        known |= {_plain(str(declared)), _plain(declared.location)}
    return _plain(name) in known


def _plain(name: str) -> str:
    """A name without scheme and revision, in lower case: the Hub ignores case in its ids."""
    if name.startswith("hf://"):
        name = name.removeprefix("hf://").partition("@")[0]
    return name.rstrip("/").lower() if is_hub_id(name.rstrip("/")) else name.rstrip("/")


def _differences(ours: BaseFacts, theirs: BaseFacts) -> list[tuple[str, object, object]]:
    """(field, ours, theirs) for each of type and sizes that both configs have and that differ."""
    pairs: list[tuple[str, object, object]] = [("model_type", ours.model_type, theirs.model_type)]
    for names in _SIZES:
        for name in names:
            pairs.append((name, _size(ours, name), _size(theirs, name)))
    return [p for p in pairs if p[1] is not None and p[2] is not None and p[1] != p[2]]


def _size(facts: BaseFacts, name: str) -> object:
    inner = facts.config.get("text_config")
    text = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {}
    return text.get(name, facts.config.get(name))


def _revision(config: Mapping[str, Any], where: Where, base: BaseFacts | None) -> list[Finding]:
    wanted = config.get("revision")
    used = base.revision if base is not None else None
    if not isinstance(wanted, str) or not used or len(wanted) != 40 or wanted == used:
        return []
    message = "The adapter was trained on another revision of the base"
    return [codes.RECORDED_REVISION.finding(message, where, found=wanted, expected=used)]
