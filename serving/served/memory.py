"""What a server knows of its manifest from before a restart.

At its first look it goes on with what was served: the aliases that were followed past the lock,
and a manifest at a URL that is out of reach now. Later looks need neither.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...manifests.findings import sources as source_codes
from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding
from ...manifests.lockfile import LockedAdapter
from ...registry.locks.state import is_sound
from .last import SCHEMA, Last, read_last, write_last
from .location import Found, Location

_log = logging.getLogger("adapterdock")

FOLDER = "last"
"""In the folder of the copies."""

_AWAY = frozenset(
    code.id
    for code in (
        source_codes.UNREACHABLE,
        source_codes.OFFLINE,
        source_codes.TIMED_OUT,
        source_codes.TRUNCATED,
        source_codes.SERVER_ERROR,
        source_codes.RATE_LIMITED,
    )
)
"""Nobody answered. A refusal is an answer, and so is that there is no such file."""


class Memory:
    """Reads a manifest, and remembers what was served of it.

    Args:
        location: Of the manifest.
        engine: The name of what serves it: another engine may have refused what this one serves.
        folder: Of the copies; the file is in :data:`FOLDER` there.
    """

    def __init__(self, location: Location, engine: str, folder: Path) -> None:
        self.location = location
        key = hashlib.sha256(f"{engine}\n{location.identity}".encode()).hexdigest()
        self._path = folder / FOLDER / f"{key}.json"
        self._last: Last | None = None
        self._kept = False
        self._warned = False

    @property
    def followed(self) -> Mapping[str, LockedAdapter]:
        """The adapters that were served last with newer values of their aliases than the lock's.
        An entry that contradicts itself is none."""
        return self._known().followed

    def read(self) -> tuple[Found, tuple[Finding, ...]]:
        """The manifest and its lock. Until something was kept, those that were served before the
        restart are as good where the place is out of reach: then with the findings that say so.
        Raises what :meth:`Location.read` does."""
        try:
            return self.location.read(), ()
        except AdapterdockError as error:
            recalls = self.location.is_remote and not self._kept and is_away(error.findings)
            content = self._known().content if recalls else None
            if content is None:
                raise
            try:
                return self.location.recall(content), error.findings
            except AdapterdockError as damaged:
                _log.warning("%s is ignored: %s", self._path, damaged)
            raise

    def keep(self, found: Found, followed: Mapping[str, LockedAdapter]) -> None:
        """Remember what is served from now on. A disk that refuses is told once, in the log."""
        self._kept = True
        last = Last(schema=SCHEMA, content=found.content, followed=dict(followed))
        if last == self._known():
            return
        self._last = last
        try:
            write_last(self._path, last)
        except OSError as error:
            if not self._warned:
                _log.warning(
                    "Cannot remember what is served, for the next start: %s: %s",
                    self._path,
                    error.strerror or error,
                )
            self._warned = True

    def _known(self) -> Last:
        if self._last is None:
            last = read_last(self._path)
            sound = {name: entry for name, entry in last.followed.items() if is_sound(entry)}
            self._last = last.model_copy(update={"followed": sound})
        return self._last


def is_away(findings: Iterable[Finding]) -> bool:
    """Whether the place could not be asked."""
    return all(finding.code in _AWAY for finding in findings)
