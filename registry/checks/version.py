"""Was the adapter written by a version of PEFT whose format is known?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..methods.peft_version import version_of

KNOWN_PEFT = (0, 21)
"""The newest PEFT (major, minor) whose fields are known."""


def check(config: Mapping[str, Any], where: Where) -> Iterator[Finding]:
    """``peft_version`` is newer than any known one, or invalid. Early PEFT wrote none."""
    value, written = config.get("peft_version"), version_of(config)
    if value is not None and written is None:
        found, expected = repr(value)[:80], "such as 0.21.2"
        message = f"Invalid peft_version {found}"
        yield codes.PEFT_VERSION_INVALID.finding(message, where, found=found, expected=expected)
    elif written is not None and written[:2] > KNOWN_PEFT:
        known = ".".join(map(str, KNOWN_PEFT))
        message = f"The adapter was written by PEFT {value}; the newest known version is {known}"
        yield codes.PEFT_NEWER.finding(message, where, found=value, expected=f"at most {known}")
