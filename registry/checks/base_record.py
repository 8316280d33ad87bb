"""Is the base the one whose fingerprint the adapter's file records?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Severity, Where
from ..base.base_record import read
from ..base.fingerprint import Measured, compare
from ..files.facts import BASE_RECORD

_BY_NAME = frozenset(
    code.id
    for code in (
        codes.RECORDED_OTHER,
        codes.RECORDED_GONE,
        codes.RECORDED_NONE,
        codes.RECORDED_UNCONFIRMED,
        codes.RECORDED_UNCOMPARED,
    )
)


def check(
    metadata: Mapping[str, str],
    measured: Measured,
    where: Where = Where(),  # noqa: B008 - frozen
    *,
    weights: bool = True,
) -> list[Finding]:
    """How the base differs from the record in a file with this ``metadata``; no findings where
    there is no record. Without ``weights``, the base's values were not read and are not
    compared."""
    try:
        record = read(metadata)
    except ValueError as error:
        text = str(error).splitlines()[0]
        message = f"Cannot read the adapter's record of its base: {text}"
        return [codes.RECORD_UNREADABLE.finding(message, where, found=metadata[BASE_RECORD][:120])]
    if record is None:
        return []
    if not weights:
        record = record.model_copy(update={"weights": None, "head_weights": None})
    differences = compare(record, measured, where)
    errors = [f for f in differences if f.severity is Severity.ERROR]
    code, message = codes.RECORD_UNCHECKED, "Cannot verify that the adapter was saved on this base"
    shown = [f for f in differences if f.severity is Severity.UNCHECKED]
    if errors:
        code, message = codes.RECORD_OTHER_BASE, "The adapter was saved on another base"
        shown = errors[:1]
    return [
        code.finding(f"{message}: {f.message}", where, found=f.found, expected=f.expected)
        for f in shown
    ]  # not the warnings: their backbone is the same


def proven(metadata: Mapping[str, str], findings: Iterable[Finding]) -> bool:
    """Whether ``findings`` (of :func:`check`, on this ``metadata``) prove by the weights that the
    base is the recorded one."""
    if list(findings):
        return False
    record = read(metadata)
    return record is not None and record.weights is not None


def without_names(findings: Iterable[Finding]) -> list[Finding]:
    """``findings`` without those that are about the base's name only."""
    return [finding for finding in findings if finding.code not in _BY_NAME]
