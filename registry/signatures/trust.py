"""Whether a file of a registry is signed by enough trusted keys. Pure decisions.

Trusted keys are those of the manifest and of the platform's policy, never those that a registry
brings along. Every policy in force must be satisfied, each with its own keys and threshold.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import PolicyError
from ...manifests.findings.finding import Finding, Where
from .envelope import Envelope, InvalidEnvelopeError, SignedFile, signers_of
from .keys import PublicKey, distinct

LONGEST_LIST = 10
"""Keys that a message lists."""


@dataclass(frozen=True)
class Requirement:
    """At least ``threshold`` of these different keys. Made by :func:`requirement`."""

    keys: tuple[PublicKey, ...]
    threshold: int
    where: Where = Where()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class Verified:
    """What the signatures of one file are worth.

    Args:
        keys: Ids of the trusted keys that signed it, sorted; the lock records them.
        findings: A warning for each envelope that does not count, and an error for each
            requirement that is not satisfied.
    """

    keys: tuple[str, ...]
    findings: tuple[Finding, ...]


def requirement(
    keys: Iterable[PublicKey],
    threshold: int = 1,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Requirement:
    """A requirement; each key counts once, however often it is listed. Raises
    :class:`PolicyError` for a threshold that no signatures can reach, and for one below 1."""
    found = distinct(keys)
    if not 1 <= threshold <= len(found):
        raise PolicyError(
            codes.THRESHOLD_IMPOSSIBLE.finding(
                f"Invalid threshold {threshold}",
                where,
                found=f"{len(found)} different keys",
                expected="1 to the number of different keys",
            )
        )
    return Requirement(found, threshold, where)


def verify(
    file: SignedFile,
    envelopes: Mapping[str, Envelope | InvalidEnvelopeError],
    requirements: Sequence[Requirement],
) -> Verified:
    """Verify the envelopes of one file, and decide whether they satisfy every requirement.

    Args:
        file: What should be signed.
        envelopes: By the path of each, what :func:`read_envelope` returned or raised.
        requirements: Of the policies in force. Without any, nothing is verified.

    Raises:
        UsageError: Signatures are required, and the libraries that verify them are missing.
    """
    trusted = distinct(key for one in requirements for key in one.keys)
    signed: set[str] = set()
    findings: list[Finding] = []
    wrong: list[str] = []
    for path, envelope in envelopes.items() if trusted else ():
        try:
            if isinstance(envelope, InvalidEnvelopeError):
                raise envelope
            signed |= signers_of(envelope, file, trusted)
        except InvalidEnvelopeError as error:
            wrong.append(str(error))
            findings.append(
                codes.SIGNATURE_INVALID.finding(f"The signature {path} does not count: {error}")
            )
    missing = (decide(file.path, one, signed) for one in requirements)
    findings.extend(_with_wrong(one, wrong) for one in missing if one is not None)
    return Verified(tuple(sorted(signed)), tuple(findings))


def _with_wrong(missing: Finding, wrong: Sequence[str]) -> Finding:
    """With what is wrong with signatures that are there: a reason not to sign once more."""
    if not wrong:
        return missing
    count = "1 more does" if len(wrong) == 1 else f"{len(wrong)} more do"
    return replace(
        missing,
        found=f"{missing.found}; {count} not count: {wrong[0]}",
        hint="Find out who changed it. Sign it again only if you made the change yourself.",
    )


def decide(path: str, required: Requirement, signed: Iterable[str]) -> Finding | None:
    """What is missing for one requirement, where the keys with the ids ``signed`` signed."""
    present = {key.id for key in required.keys}.intersection(signed)
    if len(present) >= required.threshold:
        return None
    absent = [key for key in required.keys if key.id not in present]
    names = ", ".join(f"{key.name} ({key.id[:12]})" for key in absent[:LONGEST_LIST])
    return codes.SIGNATURES_MISSING.finding(
        f"{path} has {len(present)} of {required.threshold} required signatures",
        required.where,
        found=f"{len(present)} by trusted keys",
        expected=f"{required.threshold - len(present)} more of {names}",
    )
