"""The numbered rules of a registry: read with their signatures, and set.

Rules N+1 are signed by the threshold of rules N. The signatures are written first, so rules that
are there are complete: several people set the same file one after another, and the last of them
writes it. Rules have no nonce, because all of them must sign the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import AdapterdockError, IntegrityError, PolicyError, UsageError
from ...manifests.findings.finding import Finding, Severity
from ..records.journal import now
from ..records.marks import said
from ..records.noted import Told, log_warning, noted
from ..records.series import (
    LIMIT,
    BrokenSeriesError,
    Value,
    canonical,
    check_chain,
    file_of,
    numbers_in,
    read_value,
)
from ..signatures.signatures import read_signatures
from ..signatures.signer import Signer
from ..signatures.signing import add, rules_of
from ..signatures.trust import decide, verify
from ..storages.layout import RULES
from ..storages.storage import write_once
from .catalogue import Catalogue
from .init import require_writable
from .rules import InvalidRulesError, Rules, Signers, read_rules, require


@dataclass(frozen=True)
class InForce:
    """The rules that hold now, and the file that they are from."""

    rules: Rules
    value: Value


@dataclass(frozen=True)
class Set:
    """What ``set_rules`` did. ``missing`` says which signatures are still needed before the rules
    are written."""

    number: int
    missing: Finding | None = None


def rules_in_force(catalogue: Catalogue) -> InForce | None:
    """The last rules, or ``None`` where there are none.

    Raises:
        IntegrityError: One of them cannot be used, or is not signed as those before it demand.
        UsageError: Signatures must be verified, and the libraries are missing.
    """
    storage = catalogue.storage
    paths = storage.find(RULES)
    last: InForce | None = None
    try:
        for number in numbers_in(RULES, paths):
            value = read_value(storage, RULES, number)
            check_chain(RULES, None if last is None else last.value, value)
            if last is not None and (missing := _missing(catalogue, last, value, paths)):
                raise IntegrityError(
                    _broken(catalogue, number, "they are not signed as those before demand"),
                    *missing,
                )
            last = InForce(read_rules(value.raw), value)
    except (BrokenSeriesError, FileNotFoundError) as error:
        raise IntegrityError(codes.HISTORY_BROKEN.finding(str(error), catalogue.where)) from error
    except InvalidRulesError as error:
        number = 1 if last is None else last.value.number + 1
        raise IntegrityError(_broken(catalogue, number, str(error))) from error
    return last


def set_rules(
    catalogue: Catalogue,
    rules: Rules,
    *,
    signer: Signer | None = None,
    by: str | None = None,
    dry_run: bool = False,
    told: Told = log_warning,
) -> Set | None:
    """Let these rules hold from now on; ``None`` where they do already.

    With fewer signatures than the present rules demand, the new signature is kept, and the rules
    are written when the last of the others sets the same. ``told`` gets a warning where only the
    journal's line about them cannot be written.

    Raises:
        PolicyError: The signer may not sign, nobody signs where somebody must, or somebody else
            set other rules meanwhile.
    """
    require_writable(catalogue)
    last = rules_in_force(catalogue)
    if last is not None and last.rules == rules:
        return None
    number = 1 if last is None else last.value.number + 1
    previous = None if last is None else last.value.digest
    raw = canonical({**rules.data, "previous": previous})
    if len(raw) > LIMIT:
        raise UsageError(
            codes.RULES_INVALID.finding(
                "The rules are too large",
                found=f"{len(raw)} bytes",
                expected=f"at most {LIMIT} bytes",
            )
        )
    value = Value(number, raw)
    _require_allowed(catalogue, last, signer)
    if dry_run:
        return Set(number)
    if signer is not None:
        add(catalogue.storage, rules_of(catalogue.id, value), signer)
    missing = [] if last is None else _missing(catalogue, last, value)
    if missing and signer is None:
        raise PolicyError(*missing)
    if missing:
        return Set(number, missing[-1])
    _write(catalogue, value, by, told)
    return Set(number)


def _write(catalogue: Catalogue, value: Value, by: str | None, told: Told) -> None:
    if not write_once(catalogue.storage, f"{RULES}/{file_of(value.number)}", value.raw):
        raise PolicyError(
            codes.EXISTS_ALREADY.finding(
                f"Somebody else set rules {value.number} meanwhile",
                catalogue.where,
                hint="Look at them with `adapterdock registry rules show`, and set yours again.",
            )
        )
    line: Mapping[str, object] = {"what": "rules", "serial": value.number, "value": value.digest}
    line = {**line, **said({"by": by, "at": now()})}
    noted(catalogue.storage, line, f"Rules {value.number} are set", told)


def _require_allowed(catalogue: Catalogue, last: InForce | None, signer: Signer | None) -> None:
    """Raise where the present rules have keys, and the signer's is none of them."""
    if last is None or not last.rules.keys or signer is None:
        return
    required = require(_signers(last.rules), catalogue.where)
    if signer.key not in required.keys:
        finding = decide(f"{RULES}/{file_of(last.value.number + 1)}", required, ())
        raise PolicyError(
            *(() if finding is None else (finding,)),
            codes.SIGNING_FAILED.finding(
                f"The key {signer.key.name} may not sign the next rules",
                catalogue.where,
                found=signer.key.id,
                expected=f"one of the keys of rules {last.value.number}",
                hint="Ask one of those who set the present rules.",
            ),
        )


def _signers(rules: Rules) -> Signers:
    return Signers.model_construct(keys=rules.keys, threshold=rules.threshold)


def _missing(
    catalogue: Catalogue, last: InForce, value: Value, paths: Mapping[str, int] | None = None
) -> list[Finding]:
    """What the rules before demand, and these do not have."""
    if not last.rules.keys:
        return []
    signable = rules_of(catalogue.id, value)
    if paths is None:
        paths = catalogue.storage.find(signable.folder)
    envelopes = read_signatures(catalogue.storage, signable.folder, paths)
    try:
        required = require(_signers(last.rules), catalogue.where)
    except AdapterdockError as error:  # a key or threshold that no rules should have
        if isinstance(error, UsageError) and error.code == codes.SIGNING_UNAVAILABLE.id:
            raise
        finding = _broken(catalogue, last.value.number, "its keys cannot be used")
        raise IntegrityError(finding, *error.findings) from error
    found = verify(signable.file, envelopes, [required]).findings
    return [*found] if any(one.severity is Severity.ERROR for one in found) else []


def _broken(catalogue: Catalogue, number: int, reason: str) -> Finding:
    return codes.RULES_BROKEN.finding(f"Cannot use rules {number}: {reason}", catalogue.where)
