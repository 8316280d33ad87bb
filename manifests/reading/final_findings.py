"""The findings that a person gets: each once, in the order of the files, without secrets."""

from __future__ import annotations

from collections.abc import Iterable

from ..bounds import FINDINGS
from ..findings import language as codes
from ..findings.finding import Finding, Where
from .secret_search import Secret
from .secrets import redacted

_SECRETS = frozenset({codes.SECRET.id, codes.SECRET_OPTION.id})
_VARIABLES = frozenset(
    code.id
    for code in (
        codes.VARIABLE_UNSET,
        codes.VARIABLE_MISPLACED,
        codes.VARIABLE_SYNTAX,
        codes.VARIABLE_SECRET,
    )
)


def final_findings(findings: Iterable[Finding], typed: Iterable[Secret] = ()) -> list[Finding]:
    """Of a place with a secret, or a variable that cannot be expanded, only that is reported."""
    findings = list(findings)
    hidden = {secret.text for secret in typed if len(secret.text) > 3}
    longest_first = sorted(hidden, key=len, reverse=True)
    settled = {f.where.path: f.code for f in findings if f.code in _VARIABLES and f.where.path}
    settled |= {f.where.path: "" for f in findings if f.code in _SECRETS and f.where.path}
    kept = dict.fromkeys(
        finding
        for finding in findings
        if finding.code in _SECRETS or settled.get(finding.where.path, finding.code) == finding.code
    )
    order: dict[str | None, int] = {}
    for finding in kept:
        order.setdefault(finding.where.file, len(order))
    final = sorted(
        kept, key=lambda f: (order[f.where.file], f.where.line or 0, f.where.column or 0)
    )
    clean = [redacted(finding, longest_first) for finding in final[:FINDINGS]]
    if len(final) > FINDINGS:
        message = f"There are at least {len(final) - FINDINGS} more findings"
        clean.append(codes.MORE.finding(message, Where(final[0].where.file)))
    return clean
