"""What the rules of a registry ask of a promotion. Whoever promotes with adapterdock obeys them."""

from __future__ import annotations

from ...manifests.findings import registry as codes
from ...manifests.findings.finding import Finding, Severity
from ..records.metrics import parse_requirement
from ..signatures.signer import Signer
from ..signatures.signing import entry_of, envelopes_of
from ..signatures.trust import verify
from .catalogue import Catalogue, Resolved
from .rules import Gate, keys_of, require
from .rules_series import rules_in_force


def check_gates(
    catalogue: Catalogue, resolved: Resolved, alias: str, signer: Signer | None
) -> list[Finding]:
    """What a version lacks for an alias, by the rules in force.

    Raises:
        IntegrityError: The rules cannot be used.
        UsageError: The libraries that verify signatures are missing, or a key is weak.
    """
    last = rules_in_force(catalogue)
    findings: list[Finding] = []
    for gate in () if last is None else last.rules.gates(alias):
        findings += _check(catalogue, resolved, alias, gate, signer)
    return findings


def _check(
    catalogue: Catalogue, resolved: Resolved, alias: str, gate: Gate, signer: Signer | None
) -> list[Finding]:
    entry = resolved.entry
    asked = (parse_requirement(text).check(entry) for text in gate.metrics)
    findings = [one for one in asked if one is not None]
    if gate.licences is not None and entry.licence not in gate.licences:
        findings.append(
            codes.NOT_PROMOTED.finding(
                f"{entry.name}@{entry.version} has a licence that {alias} does not allow",
                catalogue.where,
                found=entry.licence or "no licence",
                expected="one of " + (", ".join(gate.licences) or "none"),
            )
        )
    if gate.signatures is not None:
        signable = entry_of(catalogue.id, entry.name, entry.version, resolved.digest)
        required = require(gate.signatures, catalogue.where)
        found = verify(signable.file, envelopes_of(catalogue.storage, signable), [required])
        if any(one.severity is Severity.ERROR for one in found.findings):
            findings += found.findings
    if gate.promoters:
        keys = keys_of(gate.promoters, catalogue.where)
        if signer is None or signer.key not in keys:
            findings.append(
                codes.PROMOTION_UNSIGNED.finding(
                    f"A promotion to {alias} must be signed by one of its promoters",
                    catalogue.where,
                    found="no signature" if signer is None else f"the key {signer.key.id[:12]}",
                    expected="one of " + ", ".join(key.id[:12] for key in keys),
                )
            )
    return findings
