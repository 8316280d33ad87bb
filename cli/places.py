"""Where a finding is, for programs that show it at the lines of a repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ..manifests.find import place_of
from ..manifests.findings.finding import Finding

WORKSPACE = "GITHUB_WORKSPACE"
"""The variable in which GitHub says where a repository was checked out."""


@dataclass(frozen=True)
class Place:
    """A place in a file. ``inside`` is whether ``path`` starts from the root of the repository;
    otherwise it is absolute. ``line`` and ``column`` count from 1."""

    path: str
    inside: bool
    line: int | None = None
    column: int | None = None

    @property
    def uri(self) -> str:
        """The path as a URI: relative to the root, or ``file:///...``."""
        return quote(os.fsencode(self.path)) if self.inside else Path(self.path).as_uri()


class Repository:
    """The repository around the current folder.

    Its root is where GitHub checked it out, if the current folder is in there; else the nearest
    folder above with ``.git``; else the current folder.
    """

    def __init__(self) -> None:
        here = Path.cwd()
        workspace = os.environ.get(WORKSPACE)
        above = [here, *here.parents]
        if workspace and Path(workspace).resolve() in above:
            self.root: Path = Path(workspace).resolve()
        else:
            self.root = next((folder for folder in above if (folder / ".git").exists()), here)

    def place_of(self, finding: Finding, manifest: str) -> Place:
        """Where ``finding`` is; at its manifest, if what it names is not a file."""
        where = finding.where
        if where.file is not None and Path(where.file).is_file():
            return self._place(where.file, where.line, where.column)
        return self.place_of_file(manifest)

    def place_of_file(self, file: str) -> Place:
        """The file without a line."""
        return self._place(file, None, None)

    def _place(self, file: str, line: int | None, column: int | None) -> Place:
        path = Path(os.path.abspath(file))  # noqa: PTH100 - keeps links as they are
        real = Path(place_of(path))
        if not path.is_relative_to(self.root) and real.is_relative_to(self.root):
            path = real  # the repository itself was named through a link
        inside = path.is_relative_to(self.root)
        shown = path.relative_to(self.root).as_posix() if inside else str(path)
        return Place(shown, inside, line, column)


def details(finding: Finding) -> str:
    """What is wrong, what was found and expected, and what to do: a line each."""
    lines = [finding.message]
    facts = (("at", finding.where.dotted), ("found", finding.found), ("expected", finding.expected))
    lines += [f"{name}: {value}" for name, value in facts if value]
    return "\n".join([*lines, *([finding.hint] if finding.hint else [])])
