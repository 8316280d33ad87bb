"""Every exception adapterdock raises. Each carries the findings that caused it."""

from __future__ import annotations

from collections.abc import Iterable

from .finding import Finding


class AdapterdockError(Exception):
    """The root of all our exceptions.

    ``findings`` says what went wrong, all of it and not only the first; ``code`` is the code of
    the first finding. A library's exception, where there was one, is the ``__cause__``.
    """

    def __init__(self, *findings: Finding) -> None:
        if not findings:
            raise TypeError(f"{type(self).__name__} needs at least one finding")
        self.findings: tuple[Finding, ...] = findings
        super().__init__("\n".join(str(f) for f in findings))

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> AdapterdockError:
        """The same from any iterable."""
        return cls(*findings)

    @property
    def code(self) -> str:
        return self.findings[0].code

    def __reduce__(self) -> tuple[type[AdapterdockError], tuple[Finding, ...]]:
        return (type(self), self.findings)


class UsageError(AdapterdockError):
    """Called in a way that cannot mean anything (exit status 2 on the command line)."""


class ManifestError(AdapterdockError):
    """The manifest, or a file it extends, is not what the language allows."""


class SourceError(AdapterdockError):
    """A source could not be listed or read, or is not what it should be."""


class OfflineError(SourceError):
    """Something is needed from the network and the network is off or unreachable."""


class FitError(AdapterdockError):
    """An adapter does not fit the base, or whether it does could not be told."""


class FingerprintError(AdapterdockError):
    """The base is not the one that the manifest or lock means."""


class LockError(AdapterdockError):
    """The lock is missing, stale, partial, or disagrees with what was found."""


class StoreError(AdapterdockError):
    """The cache could not be read or written, or holds something damaged."""


class IntegrityError(StoreError):
    """Bytes differ from their digest or size."""


class PolicyError(AdapterdockError):
    """A rule or a policy forbids it."""


class AttachError(AdapterdockError):
    """An adapter could not be attached to the live model; the model is as it was."""


class RoutingError(AdapterdockError):
    """A name, set or composition cannot be made active this way."""
