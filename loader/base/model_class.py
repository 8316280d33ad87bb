"""Which class a checkpoint is loaded with, and whose code the class is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import transformers

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where
from ...registry.checks.fetching import check as check_fetching


def class_of(config: Mapping[str, Any], remote_code: bool, where: Where) -> Any:
    """The class that ``architectures`` names: transformers' own, or with ``remote_code`` first the
    auto class that finds it in the repository's Python files.

    Raises :class:`AttachError` for a checkpoint that does not name a class (it is not loaded as a
    bare backbone), for code that is not trusted, and for anything that the config would download
    unpinned from elsewhere.
    """
    names = config.get("architectures")
    name = cast("list[Any]", names)[0] if isinstance(names, list) and names else None
    declared = config.get("auto_map")
    auto_map = cast("dict[str, Any]", declared) if isinstance(declared, dict) else {}
    if elsewhere := check_fetching(config, where, remote_code=remote_code):
        raise AttachError(*elsewhere)
    if remote_code and auto_map:
        auto = _auto_class(auto_map, name)
        if auto is not None:
            return auto
    found = getattr(transformers, name, None) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    if not remote_code and _auto_class(auto_map, name) is not None:
        raise AttachError(
            codes.REMOTE_CODE_REFUSED.finding(
                f"{name} is code of the base's repository", where, found="trust_remote_code: false"
            )
        )
    raise AttachError(
        codes.BASE_CLASS_UNKNOWN.finding(
            "config.json does not name a class of transformers",
            where,
            found=f"architectures: {names}",
        )
    )


def _auto_class(auto_map: Mapping[str, Any], name: object) -> Any:
    for auto, key in auto_map.items():
        if auto.startswith("AutoModel") and str(key).rpartition(".")[2] == name:
            return getattr(transformers, auto, None)
    return None
