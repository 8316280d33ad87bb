"""Does a base's ``config.json`` make transformers fetch files, or run code that it fetched?

Follows transformers 5.23: ``PreTrainedModel._check_and_adjust_attn_implementation`` and
``integrations/hub_kernels.py`` (an attention that is named like a repository is a kernel there),
``integrations/moe.py`` (experts), ``backbone_utils.py`` (a backbone's repository),
``dynamic_module_utils.py`` (``repository--module.Class``), and timm's ``create_model``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from ...manifests.findings import loader as codes
from ...manifests.findings.finding import Finding, Where

_IMPLEMENTATIONS = frozenset({"attn_implementation", "experts_implementation"})
_EXPERTS_OF_THE_HUB = frozenset({"deepgemm", "deepgemm_megamoe", "sonicmoe"})
_TIMM = frozenset({"timm_backbone", "timm_wrapper"})
_TIMM_ARGUMENTS = frozenset({"model_args", "backbone_kwargs"})
_TIMM_FETCHES = frozenset({"pretrained", "pretrained_cfg", "pretrained_cfg_overlay"})
_TIMM_READS = frozenset({"checkpoint_path", "cache_dir"})


def check(config: Mapping[str, Any], where: Where, *, remote_code: bool = False) -> list[Finding]:
    """A finding for each value, at any depth, that makes transformers fetch what is not pinned.
    ``remote_code``: whether the Python files that ``auto_map`` names may run."""
    return [
        codes.REMOTE_CODE_ELSEWHERE.finding(
            f"{path} in config.json makes transformers fetch files that the lock does not pin",
            where,
            found=value,
            expected="files beside the weights, or an installed package",
        )
        for path, key, value, fields in _fields(config)
        if _is_fetched(key, value, fields, path, remote_code)
    ]


def is_of_the_hub(implementation: object) -> bool:
    """Whether an attention or experts implementation is named like a repository, or transformers
    itself fetches it from one."""
    return isinstance(implementation, str) and (
        "/" in implementation or implementation in _EXPERTS_OF_THE_HUB
    )


def attentions_of(config: Mapping[str, Any]) -> list[object]:
    """The attention implementations that a ``config.json`` names, at any depth."""
    return [
        part
        for _, key, value, _ in _fields(config)
        if key.strip("_").removesuffix("_internal") == "attn_implementation"
        for part in _parts(value)
    ]


def _fields(
    config: Mapping[str, Any],
) -> Iterator[tuple[str, str, object, Mapping[str, object]]]:
    """Every field at any depth: its dotted path, its key and value, and its siblings."""
    left: list[tuple[str, object]] = [("", config)]
    while left:
        path, node = left.pop()
        if isinstance(node, list):
            left += [(f"{path}[{n}]", item) for n, item in enumerate(cast("list[object]", node))]
        if not isinstance(node, Mapping):
            continue
        fields = cast("Mapping[str, object]", node)
        for key, value in fields.items():
            inside = f"{path}.{key}" if path else str(key)
            yield inside, str(key), value, fields
            left.append((inside, value))


def _is_fetched(
    key: str, value: object, fields: Mapping[str, object], path: str, remote_code: bool
) -> bool:
    if key.strip("_").removesuffix("_internal") in _IMPLEMENTATIONS:
        return any(map(is_of_the_hub, _parts(value)))
    if key == "auto_map":
        return remote_code and any("--" in str(part) for part in _parts(value))
    if key in ("backbone", "architecture") and isinstance(value, str):
        is_timm = key == "architecture" or fields.get("model_type") in _TIMM
        return ":" in value or ("/" in value and not is_timm)
    if path.removesuffix(f".{key}").rpartition(".")[2] in _TIMM_ARGUMENTS:
        return key in _TIMM_FETCHES | _TIMM_READS and bool(value)
    return False


def _parts(value: object) -> Iterator[object]:
    """The text in a value, in a mapping's values and in a list's items."""
    if isinstance(value, Mapping):
        for part in cast("Mapping[str, object]", value).values():
            yield from _parts(part)
    elif isinstance(value, list):
        for part in cast("list[object]", value):
            yield from _parts(part)
    else:
        yield value
