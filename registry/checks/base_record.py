"""Is the base the one whose fingerprint the adapter's file records?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Severity, Where
from ..base.base_record import read
from ..base.fingerprint import Measured, compare
from ..files.facts import BASE_RECORD

_BY_NAME = frozenset(
    {codes.RECORDED_OTHER.id, codes.RECORDED_GONE.id, codes.RECORDED_NONE.id}
    | {codes.RECORDED_UNCONFIRMED.id, codes.RECORDED_UNCOMPARED.id}
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
    # a warning is not repeated: the backbone is the same
    shown = errors[:1] or [f for f in differences if f.severity is Severity.UNCHECKED]
    code, message = codes.RECORD_UNCHECKED, "Cannot verify that the adapter was saved on this base"
    if errors:
        code, message = codes.RECORD_OTHER_BASE, "The adapter was saved on another base"
    return [
        code.finding(f"{message}: {f.message}", where, found=f.found, expected=f.expected)
        for f in shown
    ]


def proven(metadata: Mapping[str, str], findings: Sequence[Finding]) -> bool:
    """Whether ``findings`` (of :func:`check`, on this ``metadata``) prove by the weights that the
    base is the recorded one."""
    record = None if findings else read(metadata)
    return record is not None and record.weights is not None


def without_names(findings: Iterable[Finding]) -> list[Finding]:
    """``findings`` without those that are about the base's name only."""
    return [finding for finding in findings if finding.code not in _BY_NAME]
