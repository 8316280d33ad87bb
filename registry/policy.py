"""Whether the policies in force allow what a manifest resolves to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from ..manifests.codes import policy as codes
from ..manifests.codes.code import Code
from ..manifests.findings import Finding, Where
from ..manifests.schema import Policy, parse_bytes
from ..manifests.source import Source
from .facts import FileFact

Globs = tuple[str, ...]


def lists_for(policies: Iterable[Policy], *, base: bool) -> tuple[Globs, ...]:
    """The lists that bind a base (``allow_bases``) or an adapter (``allow_sources``): each of
    them must allow it. None where no policy says anything."""
    lists = (p.allow_bases if base else p.allow_sources for p in policies)
    return tuple(globs for globs in lists if globs is not None)


def check_source(
    source: Source, policies: Iterable[Policy], directory: Path, where: Where
) -> list[Finding]:
    """Findings where a policy's ``allow_sources`` does not list this adapter's source."""
    lists = lists_for(policies, base=False)
    return _check_globs(codes.SOURCE_FORBIDDEN, source, lists, directory, where)


def check_base(
    source: Source, policies: Iterable[Policy], directory: Path, where: Where
) -> list[Finding]:
    """The same for the base and ``allow_bases``."""
    lists = lists_for(policies, base=True)
    return _check_globs(codes.BASE_FORBIDDEN, source, lists, directory, where)


def permits(lists: Iterable[Globs], url: str) -> bool:
    """Whether every list allows ``url``, to which a web server redirects (without its query,
    normalised)."""
    return all(any(fnmatchcase(url, glob) for glob in globs) for globs in lists)


def check_digest(
    digest: str | None, policies: Iterable[Policy], name: str, where: Where
) -> list[Finding]:
    """A finding where a policy requires a digest and ``digest`` (manifest's or lock's) is none."""
    if digest is None and any(p.require_digest for p in policies):
        return [codes.DIGEST_REQUIRED.finding(f"adapter {name!r} has no digest", where)]
    return []


def check_size(
    files: Iterable[FileFact], policies: Iterable[Policy], name: str, where: Where
) -> list[Finding]:
    """A finding where the adapter's consumed files exceed ``max_adapter_bytes``."""
    limits = [p.max_adapter_bytes for p in policies if p.max_adapter_bytes is not None]
    if not limits:
        return []
    tightest = min(limits, key=parse_bytes)
    size = sum(f.size for f in files)
    if size <= parse_bytes(tightest):
        return []
    return [
        codes.TOO_LARGE.finding(
            f"adapter {name!r} is too large",
            where,
            found=f"{size} bytes",
            expected=f"at most {tightest}",
        )
    ]


def allows(globs: Sequence[str], source: Source, directory: Path | None) -> bool:
    """Whether one of ``globs`` matches the normalised source, with or without its revision."""
    spellings = {source.normalised(directory)}
    if source.is_hub:
        spellings.add(f"hf://{source.location}" + (f"/{source.path}" if source.path else ""))
    if source.is_registry:
        spellings.add(f"registry://{source.location}")
    wanted = [_above(glob, directory) for glob in globs]
    return any(fnmatchcase(text, glob) for text in spellings for glob in wanted)


def _above(glob: str, directory: Path | None) -> str:
    """A glob for places outside ``directory`` (``../*``) as sources there are spelled: absolute.
    Only its leading steps up count, so that no ``*`` leads further up."""
    if directory is None or not glob.startswith("../"):
        return glob
    folder = directory.resolve()
    while glob.startswith("../"):
        folder, glob = folder.parent, glob[3:]
    return escape(folder.as_posix().rstrip("/")) + "/" + glob


def _check_globs(
    code: Code, source: Source, lists: Iterable[Globs], directory: Path, where: Where
) -> list[Finding]:
    return [
        code.finding(
            f"{source} is not allowed",
            where,
            found=source.normalised(directory),
            expected="one of " + (", ".join(globs) or "nothing (an empty list allows nothing)"),
        )
        for globs in lists
        if not allows(globs, source, directory)
    ]
