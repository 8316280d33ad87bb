"""Were this config and these weights saved together?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.config_record import CONFIG_RECORD, config_digest


def check(
    config: Mapping[str, Any], metadata: Mapping[str, str], where: Where
) -> Iterator[Finding]:
    """A finding where the weights' file records another config; none where it records none."""
    recorded = metadata.get(CONFIG_RECORD)
    if recorded is not None and recorded != (found := config_digest(config)):
        message = "adapter_config.json is not the config that these weights were saved with"
        yield codes.CONFIG_OF_OTHERS.finding(message, where, found=found, expected=recorded[:120])
