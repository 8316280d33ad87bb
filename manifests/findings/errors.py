"""Every exception that adapterdock raises. Each has the findings that caused it."""

from __future__ import annotations

from .finding import Finding


class AdapterdockError(Exception):
    """The base class of every exception that adapterdock raises.

    Where another library raised an exception first, that is the ``__cause__``.

    Args:
        findings: Everything that went wrong, at least one.

    Attributes:
        findings: Everything that went wrong, not only the first.

    Raises:
        TypeError: There is no finding.
    """

    def __init__(self, *findings: Finding) -> None:
        if not findings:
            raise TypeError(f"{type(self).__name__} needs at least one finding")
        self.findings: tuple[Finding, ...] = findings
        super().__init__("\n".join(str(f) for f in findings))

    @property
    def code(self) -> str:
        """The code of the first finding, such as ``AD301``."""
        return self.findings[0].code

    def __reduce__(self) -> tuple[type[AdapterdockError], tuple[Finding, ...]]:
        return (type(self), self.findings)

    def _render_traceback_(self) -> list[str]:
        from .in_ipython import traceback_lines

        return traceback_lines(self)


class UsageError(AdapterdockError):
    """Invalid arguments of a call or a command (exit status 2 on the command line)."""


class ManifestError(AdapterdockError):
    """The manifest, or a file that it extends, is invalid."""


class SourceError(AdapterdockError):
    """A source cannot be listed or read, or has other content than it should have."""


class OfflineError(SourceError):
    """The network is needed, and it is turned off or cannot be reached."""


class FitError(AdapterdockError):
    """An adapter does not fit the base, or that could not be checked."""


class FingerprintError(AdapterdockError):
    """The base is not the one that the manifest or the lock names."""


class LockError(AdapterdockError):
    """The lock is missing, stale, partial, or disagrees with what was found."""


class StoreError(AdapterdockError):
    """The cache cannot be read or written, or contains a damaged file."""


class IntegrityError(StoreError):
    """A file does not have the digest or the size that it should have."""


class PolicyError(AdapterdockError):
    """A rule or a policy does not allow this."""


class AttachError(AdapterdockError):
    """An adapter cannot be attached to the model, which was not changed."""


class RoutingError(AdapterdockError):
    """A selection of adapters is invalid, or cannot be used for this call."""


def _name_as_exported() -> None:
    """Tracebacks and pickles name the module that users import errors from."""
    for value in globals().values():
        if isinstance(value, type) and issubclass(value, AdapterdockError):
            value.__module__ = "adapterdock"


_name_as_exported()
