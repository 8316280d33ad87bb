"""A merge or rebase in the git checkout that a registry is in, and writing its result."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import StoreError, UsageError
from ...manifests.findings.finding import Where
from ..files.disk import guarded, replace_file
from ..storages.layout import ADAPTERS, GC, IDENTITY, JOURNAL, RULES, SNAPSHOTS

Side = Literal["ours", "theirs"]
_PARTS = (ADAPTERS, RULES, JOURNAL, SNAPSHOTS, GC)
_TIMEOUT = 600.0


@dataclass(frozen=True)
class GitMerge:
    """Two commits that are merged. ``ours`` is the branch that is checked out; in a rebase, the
    one that is rebased onto.

    Attributes:
        folder: Of the registry.
        prefix: Of the registry in the repository: ``registry/``, or empty.
        ours: A commit.
        theirs: A commit.
        winner: The side whose numbers stay, because it is pushed.
    """

    folder: Path
    prefix: str
    ours: str
    theirs: str
    winner: Side

    def tree(self, side: Side) -> dict[str, bytes]:
        """The registry's files in a commit, by path, without contents."""
        commit = self.ours if side == "ours" else self.theirs
        paths = [f"{self.prefix}{part}" for part in (*_PARTS, IDENTITY)]
        listed = _git(self.folder, "ls-tree", "-r", "-z", "--full-tree", commit, "--", *paths)
        rows = [row.split(b"\t", 1) for row in listed.split(b"\0") if row]
        found = {os.fsdecode(path): meta.split()[2].decode() for meta, path in rows}
        blobs = self._blobs(sorted(set(found.values())))
        return {path.removeprefix(self.prefix): blobs[name] for path, name in found.items()}

    def _blobs(self, names: Sequence[str]) -> dict[str, bytes]:
        answer = _git(self.folder, "cat-file", "--batch", input="".join(f"{n}\n" for n in names))
        found: dict[str, bytes] = {}
        at = 0
        for name in names:
            end = answer.index(b"\n", at)
            size = int(answer[at:end].split()[-1])
            found[name] = answer[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return found

    def write(self, files: dict[str, bytes], gone: Sequence[str]) -> list[str]:
        """Put files into the checkout and its index, and remove those that are ``gone``; the paths
        that changed."""
        changed: list[str] = []
        for path, raw in files.items():
            place = self.folder / path
            with guarded(place):
                if place.is_file() and place.read_bytes() == raw:
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_file(place, raw)
            changed.append(path)
        for path in gone:
            (self.folder / path).unlink(missing_ok=True)
        if files:
            specs = "\0".join(f":(top,literal){self.prefix}{path}" for path in files)
            stage = ("--pathspec-from-file=-", "--pathspec-file-nul")
            _git(self.folder, "add", "--force", *stage, input=specs)
        if gone:
            forget = ("update-index", "--force-remove", "-z", "--stdin")
            _git(self.folder, *forget, input="".join(f"{path}\0" for path in gone))
        return changed


def find_merge(folder: Path, keep: Side | None = None) -> GitMerge:
    """The merge that is being made in the checkout of ``folder``, or that was made last.

    Args:
        folder: Of the registry.
        keep: The side whose numbers stay. By default the one that is pushed to the upstream of the
            branch, else ours.

    Raises :class:`UsageError` where there is no checkout, or no merge.
    """
    try:
        answer = _git(folder, "rev-parse", "--show-prefix").decode().rstrip("\n")
    except StoreError as error:
        raise _no_merge(folder, "This is not a git checkout") from error
    for head in ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REBASE_HEAD"):
        if head == "REBASE_HEAD" and not _is_rebasing(folder):
            continue  # git may leave it behind
        theirs = _commit(folder, head)
        if theirs is not None:
            ours = _commit(folder, "HEAD")
            break
    else:
        head = ""
        ours, theirs = _commit(folder, "HEAD^1"), _commit(folder, "HEAD^2")
        if _commit(folder, "HEAD^3") is not None:
            raise _no_merge(folder, "The last commit merges more than two branches")
    if ours is None or theirs is None:
        raise _no_merge(folder, "No merge is in progress, and the last commit is not one")
    if keep is None:
        keep = "ours" if head in ("REBASE_HEAD", "CHERRY_PICK_HEAD") else None
    return GitMerge(folder, answer, ours, theirs, keep or _pushed(folder, ours, theirs))


def _is_rebasing(folder: Path) -> bool:
    names = ("rebase-merge", "rebase-apply")
    paths = [_git(folder, "rev-parse", "--git-path", name).decode().strip() for name in names]
    return any((folder / path).exists() for path in paths)


def _pushed(folder: Path, ours: str, theirs: str) -> Side:
    upstream = _commit(folder, "@{upstream}")
    if upstream is None or _contains(folder, upstream, ours):
        return "ours"
    return "theirs" if _contains(folder, upstream, theirs) else "ours"


def _contains(folder: Path, commit: str, other: str) -> bool:
    return _run(folder, "merge-base", "--is-ancestor", other, commit).returncode == 0


def _commit(folder: Path, name: str) -> str | None:
    done = _run(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    return done.stdout.decode().strip() if done.returncode == 0 else None


def _git(folder: Path, *arguments: str, input: str = "") -> bytes:
    done = _run(folder, *arguments, input=input)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise StoreError(
            codes.NOT_A_REGISTRY.finding(
                f"git {arguments[0]} failed",
                Where(file=str(folder)),
                found=(reason or [f"exit {done.returncode}"])[-1][:300],
                hint="Run the command in a git checkout that has the registry.",
            )
        )
    return done.stdout


def _run(
    folder: Path,
    *arguments: str,
    input: str = "",
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
            input=os.fsencode(input),
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
            env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(
            codes.NOT_A_REGISTRY.finding(
                "Cannot run git", Where(file=str(folder)), found=error, hint="Install git."
            )
        ) from error


def _no_merge(folder: Path, text: str) -> UsageError:
    return UsageError(
        codes.BAD_REFERENCE.finding(
            text,
            Where(file=str(folder)),
            expected="a git checkout in which two branches are merged",
            hint="Run it in the checkout, after `git merge` or `git rebase` has stopped.",
        )
    )
