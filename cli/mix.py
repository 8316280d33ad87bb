"""What `--adapter` selects: one name, or a weighted sum such as `pirate=0.5,salesman=1`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ..manifests.findings import loader as loader_codes
from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Finding
from ..manifests.language.names import BASE_ROW, did_you_mean

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile

Mix = str | Mapping[str, float]
"""A name, or names with weights."""


def parse_mix(text: str) -> Mix:
    """The selection that ``text`` means. Raises :class:`UsageError`."""
    if "=" not in text and "," not in text:
        return text
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number) if equals else 1.0
        except ValueError:
            raise _bad(text, f"{number!r} is not a number") from None
        if not name:
            raise _bad(text, "a name is missing")
        if not math.isfinite(weight):
            raise _bad(text, f"{number!r} is not a finite number")
        if name in weights:
            raise _bad(text, f"{name!r} is there twice")
        if name == BASE_ROW:
            raise _bad(text, f"{BASE_ROW} cannot be part of a sum")
        weights[name] = weight
    return weights


def require_names(selections: Iterable[Mix], file: ManifestFile) -> None:
    """Raise :class:`UsageError` for names that the manifest does not declare."""
    manifest = file.manifest
    known = [*manifest.adapters, *manifest.compositions, BASE_ROW]
    names = [n for one in selections for n in ([one] if isinstance(one, str) else one)]
    findings: list[Finding] = [
        loader_codes.ADAPTER_UNKNOWN.finding(
            f"The manifest declares no adapter or composition {name!r}",
            file.where(("adapters",)),
            found=name,
            expected=", ".join(known),
            hint=did_you_mean(name, known) or "Use one of these names.",
        )
        for name in dict.fromkeys(names)
        if name not in known
    ]
    if findings:
        raise UsageError(*findings)


def _bad(text: str, why: str) -> UsageError:
    message = f"Invalid weights in --adapter: {why}"
    return UsageError(codes.BAD_MIX.finding(message, found=text, expected="NAME=WEIGHT,..."))
