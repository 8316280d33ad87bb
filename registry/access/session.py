"""The options of one command or call: made once where it enters, and passed down."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ...manifests.findings import lock as codes
from ...manifests.findings.catalogue import find_code
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding, Severity
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ..files.progress import Progress
from ..locks.project import policies_in_force
from ..store.store import Store
from .access import Access


@dataclass(frozen=True)
class Session:
    """The options of one command or call.

    ``access`` says how sources are reached (policies, offline, adapters in memory), ``accepted``
    are the codes of unchecked findings that a person accepts, and ``frozen`` refuses whatever the
    lock does not pin.
    """

    access: Access = field(default_factory=Access)
    accepted: frozenset[str] = frozenset()
    frozen: bool = False
    store: Store = field(default_factory=Store.default)
    progress: Progress | None = None

    def after(self, lock: Lock) -> Session:
        """The session under ``lock``: the codes that it accepts count too, and nothing of a live
        model or of adapters in memory is left in ``access``."""
        return replace(
            self,
            access=Access(offline=self.access.offline, policies=self.access.policies),
            accepted=self.accepted | frozenset(lock.accepted),
        )


def session_for(
    file: ManifestFile,
    *,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
    **access: Any,
) -> Session:
    """The session of a call with these options. ``access`` are further fields of ``Access``.

    Raises:
        UsageError: A code in ``accept`` is not the code of an unchecked finding.
        ManifestError: The policy file is invalid.
    """
    accepted = accepted_codes(accept)
    policies = policies_in_force(file, policy)
    return Session(
        Access(offline=offline, policies=policies, **access),
        accepted,
        frozen,
        store or Store.default(),
        progress,
    )


def accepted_codes(accept: Iterable[str]) -> frozenset[str]:
    """The ids of codes that a person accepts, by id or name.

    Raises:
        UsageError: One is not the code of an unchecked finding.
    """
    accepted: set[str] = set()
    wrong: list[Finding] = []
    for text in accept:
        code = find_code(text)
        if code is not None and code.severity is Severity.UNCHECKED:
            accepted.add(code.id)
            continue
        wrong.append(
            codes.ACCEPT_NOT_UNCHECKED.finding(
                f"Code {text} cannot be accepted",
                found="an unknown code" if code is None else f"a code of severity {code.severity}",
                expected="the code of an unchecked finding",
            )
        )
    if wrong:
        raise UsageError(*wrong)
    return frozenset(accepted)
