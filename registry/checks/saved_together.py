"""Is this the config that the weights were saved with?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.config_record import CONFIG_RECORD, config_digest


def check(config: Mapping[str, Any], metadata: Mapping[str, str], where: Where) -> list[Finding]:
    """The finding where the weights' file records another config; nothing where it records none."""
    recorded = metadata.get(CONFIG_RECORD)
    if recorded is None or recorded == (found := config_digest(config)):
        return []
    return [
        codes.CONFIG_OF_OTHERS.finding(
            "adapter_config.json is not the one that these weights were saved with",
            where,
            found=found,
            expected=recorded[:120],
        )
    ]
