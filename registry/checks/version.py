"""Was the adapter written by a PEFT whose format is known?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...manifests.codes import fit as codes
from ...manifests.findings import Finding, Where

KNOWN_PEFT = (0, 21)
"""The newest PEFT (major, minor) whose fields were read."""

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})([.\-+@]?[\w.\-+@]{0,100})?\Z", re.ASCII)


def check(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """``peft_version`` is newer than any known, or no version at all. Early PEFT wrote none."""
    value = config.get("peft_version")
    if value is None:
        return []
    match = _VERSION.match(value) if isinstance(value, str) else None
    if match is None:
        message = "peft_version is no version of PEFT"
        return [
            codes.PEFT_VERSION_INVALID.finding(
                message, where, found=repr(value)[:80], expected="such as 0.21.2"
            )
        ]
    if (int(match[1]), int(match[2])) <= KNOWN_PEFT:
        return []
    known = ".".join(map(str, KNOWN_PEFT))
    message = f"the adapter was written by PEFT {value}; the newest that is known is {known}"
    return [codes.PEFT_NEWER.finding(message, where, found=value, expected=f"at most {known}")]
