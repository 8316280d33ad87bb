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
    """What of the record in a file with this ``metadata`` the base is not; nothing where there is
    no record. Without ``weights``, the base's values were not read and are not compared."""
    try:
        record = read(metadata)
    except ValueError as error:
        text = str(error).splitlines()[0]
        message = f"the adapter's record of its base cannot be read: {text}"
        return [codes.RECORD_UNREADABLE.finding(message, where, found=metadata[BASE_RECORD][:120])]
    if record is None:
        return []
    if not weights:
        record = record.model_copy(update={"weights": None, "head_weights": None})
    differences = compare(record, measured, where)
    for one in differences:
        if one.severity is Severity.ERROR:  # one is enough: it is another base
            message = f"the adapter was saved on another base: {one.message}"
            return [
                codes.RECORD_OTHER_BASE.finding(
                    message, where, found=one.found, expected=one.expected
                )
            ]
    return [
        codes.RECORD_UNCHECKED.finding(
            f"whether the adapter was saved on this base: {one.message}",
            where,
            found=one.found,
            expected=one.expected,
        )
        for one in differences
        if one.severity is Severity.UNCHECKED  # a warning is of the same backbone
    ]


def proven(metadata: Mapping[str, str], findings: Iterable[Finding]) -> bool:
    """Whether ``findings`` (of :func:`check`, of this ``metadata``) leave no doubt that the base is
    the recorded one, by its weights."""
    if any(True for _ in findings):
        return False
    record = read(metadata)
    return record is not None and record.weights is not None


def without_names(findings: Iterable[Finding]) -> list[Finding]:
    """``findings`` less those that only go by the base's name."""
    return [finding for finding in findings if finding.code not in _BY_NAME]
