"""`adapterdock diff` of two locks, in words."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..manifests.bounds import LOCK_BYTES
from ..manifests.findings import usage as codes
from ..manifests.findings.errors import AdapterdockError, UsageError
from ..manifests.findings.finding import Where
from ..manifests.reading.bounded_file import read_at_most
from .console import out, say

if TYPE_CHECKING:
    from ..manifests.lockfile import Lock

SCHEMA = "adapterdock.lock-diff/1"
SUFFIX = ".lock"


def are_locks(first: str, second: str) -> bool:
    """Whether the arguments name locks: files that end in .lock, or one of a commit
    (``main:app.lock``). One may be /dev/null, which is a lock that does not exist, as for git, or
    what a shell makes of ``<(command)``."""
    named = [text for text in (first, second) if text != os.devnull and not _is_pipe(text)]
    return bool(named) and all(text.endswith(SUFFIX) and not Path(text).is_dir() for text in named)


def refuse_manifests(*arguments: str) -> None:
    """Raise :class:`UsageError` where an argument is a manifest: their locks can be compared."""
    from ..manifests.find import SUFFIXES

    for text in arguments:
        if text.endswith(SUFFIXES) and Path(text).is_file():
            lock = Path(text).with_suffix(SUFFIX)
            raise UsageError(
                codes.NO_SUCH_FILE.finding(
                    "This is a manifest",
                    Where(file=text),
                    expected="two locks, or two adapters",
                    hint=f"Compare locks: `adapterdock diff HEAD:./{lock} {lock}`. To compare the "
                    f"manifest with its lock, run `adapterdock plan {text}`.",
                )
            )


def diff_locks(first: str, second: str, as_json: bool) -> None:
    """Print what changed between two locks."""
    from ..registry.locks.diff import diff
    from ..registry.locks.words import in_words

    old, new = _read(first), _read(second)
    sentences = in_words(old, new)
    if as_json:
        changes = [] if new is None else diff(old, new)
        data = {
            "a": first,
            "b": second,
            "same": not sentences,
            "sentences": sentences,
            "changes": [{"path": c.path, "old": c.old, "new": c.new} for c in changes],
        }
        out.as_json(SCHEMA, data)
        return
    for sentence in sentences or ["Both pin the same"]:
        say(sentence)


def _read(text: str) -> Lock | None:
    from ..manifests.lockfile import read_lock

    if text == os.devnull:
        return None
    path = Path(text)
    if _is_pipe(text):
        return _parsed(_of_pipe(path), text)
    if not path.exists() and ":" in text:
        return _parsed(_of_commit(text), text)
    lock = read_lock(path, to_replace=True)
    if lock is None:
        raise UsageError(
            codes.NO_SUCH_FILE.finding(
                "No such lock",
                Where(file=text),
                hint="Check the path. `adapterdock lock` writes one; that of a commit is "
                f"HEAD:./{path.name}.",
            )
        )
    return lock


def _is_pipe(text: str) -> bool:
    try:
        return Path(text).is_fifo()
    except (OSError, ValueError):
        return False


def _of_pipe(path: Path) -> bytes:
    try:
        return read_at_most(path, LOCK_BYTES)
    except OSError as error:
        raise UsageError(
            codes.NO_SUCH_FILE.finding(
                "Cannot read this pipe", Where(file=str(path)), found=error.strerror or error
            )
        ) from error


def _of_commit(text: str) -> bytes:
    """The file that git names ``text``: ``main:folder/app.lock``, ``HEAD~1:./app.lock``."""
    command = ["git", "show", "--end-of-options", text]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            return done.stdout
        reason = done.stderr.decode("utf-8", errors="replace").strip()
    except OSError as error:
        reason = f"git: {error.strerror or error}"
    raise UsageError(
        codes.NO_SUCH_FILE.finding(
            "Git does not have this lock",
            Where(file=text),
            found=reason.partition("\n")[0],
            expected="COMMIT:PATH, or COMMIT:./PATH from the current folder",
            hint="Check the commit and the path, as for `git show`.",
        )
    )


def _parsed(content: bytes, text: str) -> Lock | None:
    """The lock with this content; errors name ``text``. It has no samples, which say nothing to
    people."""
    from ..manifests.lockfile import read_lock

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"read{SUFFIX}")
        path.write_bytes(content)
        try:
            return read_lock(path, to_replace=True)
        except AdapterdockError as error:
            where = [replace(f, where=replace(f.where, file=text)) for f in error.findings]
            raise type(error)(*where) from error
