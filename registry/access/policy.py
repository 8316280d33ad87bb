"""Whether the policies in force allow what a manifest resolves to. Pure."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from ...manifests.findings import policy as codes
from ...manifests.findings.code import Code
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import AllowedRegistry, Policy, parse_bytes
from ...manifests.language.source import Source
from ..files.facts import FileFact
from ..sources.roads import Road
from ..sources.ways import Vouches, below, origin_of

Globs = tuple[str, ...]


def lists_for(policies: Iterable[Policy], *, base: bool) -> tuple[Globs, ...]:
    """The lists that bind a base (``allow_bases``) or an adapter (``allow_sources``): each of
    them must allow it. Empty if no policy has such a list."""
    lists = (p.allow_bases if base else p.allow_sources for p in policies)
    return tuple(globs for globs in lists if globs is not None)


def check_source(
    source: Source,
    policies: Iterable[Policy],
    directory: Path,
    where: Where,
    registry: Source | None = None,
) -> list[Finding]:
    """Findings where a policy's ``allow_sources`` does not list this adapter's source.

    For an adapter in a registry, ``registry`` is the place that its local name means. It counts,
    and never the name: that is the manifest's own choice.
    """
    policies = tuple(policies)
    lists = lists_for(policies, base=False)
    if not source.is_registry:
        return _check_globs(codes.SOURCE_FORBIDDEN, source, lists, directory, where)
    if registry is None:  # an unknown name, which is an error of its own
        return []
    found = _in_registry(source, registry, directory)
    wanted = [[_above(glob, directory) for glob in globs] for globs in lists]
    findings = [
        codes.SOURCE_FORBIDDEN.finding(
            f"{source} is not allowed",
            where,
            found=found[0],
            expected="one of " + (", ".join(globs) or "nothing (an empty list allows nothing)"),
            hint=_hint(source, globs, found[0]),
        )
        for globs in wanted
        if not any(fnmatchcase(text, glob) for text in found for glob in globs)
    ]
    return findings + check_registry(registry, None, policies, directory, where)


def _in_registry(source: Source, registry: Source, directory: Path) -> tuple[str, str]:
    """An adapter in a registry, spelled below the registry's place: with what selects it, and
    without."""
    name = source.location.partition("/")[2]
    place = f"{registry.normalised(directory).rstrip('/')}/{name}"
    return (place if source.revision is None else f"{place}@{source.revision}"), place


def _hint(source: Source, globs: Iterable[str], found: str) -> str | None:
    """For a glob that names a registry by a manifest's local name."""
    spelled = (f"registry://{source.location}", str(source))
    if not any(fnmatchcase(text, glob) for text in spelled for glob in globs):
        return None
    return (
        "Write the registry's URL into allow_sources: a local name is what each manifest makes of "
        f"it. This adapter is {found}."
    )


def check_registry(
    registry: Source, id_: str | None, policies: Iterable[Policy], directory: Path, where: Where
) -> list[Finding]:
    """Findings where a policy's ``registries`` does not list the registry at this place.

    Args:
        registry: The place that a local name means.
        id_: The registry's id, once it was opened.
        policies: Those in force.
        directory: What a relative ``registry`` is relative to.
        where: The place in the manifest.
    """
    return [
        codes.REGISTRY_FORBIDDEN.finding(
            f"The registry {registry} is not allowed",
            where,
            found=place_of(registry, directory) + ("" if id_ is None else f", id {id_}"),
            expected=_listed(policy),
        )
        for policy in policies
        if policy.registries is not None
        and not allowed_registries(policy, registry, id_, directory)
    ]


def allowed_registries(
    policy: Policy, registry: Source, id_: str | None, directory: Path
) -> list[AllowedRegistry]:
    """Those of a policy's ``registries`` that are the one at this place. An ``id_`` of ``None`` is
    not known yet, and agrees with each."""
    place = place_of(registry, directory)
    return [
        one
        for one in policy.registries or ()
        if place_of(one.url, directory) == place and (id_ is None or one.id in (None, id_))
    ]


def place_of(registry: Source, directory: Path) -> str:
    """One spelling for each place of a registry; a folder is absolute."""
    if registry.is_local or registry.is_archive:
        path = Path(os.path.realpath(registry.local_path(directory))).as_posix()
        return path if registry.is_local else f"{registry.scheme}:{path}"
    return registry.normalised(directory).rstrip("/")


def _listed(policy: Policy) -> str:
    rows = [f"{one.url}" + (f" (id {one.id})" if one.id else "") for one in policy.registries or ()]
    return "one of " + ", ".join(rows) if rows else "none (an empty list allows nothing)"


def check_base(
    source: Source, policies: Iterable[Policy], directory: Path, where: Where
) -> list[Finding]:
    """The same for the base and ``allow_bases``."""
    lists = lists_for(policies, base=True)
    return _check_globs(codes.BASE_FORBIDDEN, source, lists, directory, where)


def check_road(
    road: Road, policies: Iterable[Policy], directory: Path, where: Where, *, base: bool
) -> list[Finding]:
    """Findings where a policy does not list the place that the manifest fetches a source from: its
    mirror, or the endpoint in its storage options."""
    lists = lists_for(policies, base=base)
    code = codes.BASE_FORBIDDEN if base else codes.SOURCE_FORBIDDEN
    findings: list[Finding] = []
    if road.is_mirrored_by_manifest:
        findings += _check_globs(code, road.place, lists, directory, where)
    for way in road.ways:
        url = None if way.url is None else below(way.url, road.place)
        findings += [
            code.finding(
                f"{road.place} is not allowed through {way.option}",
                where,
                found=url or way.text,
                expected="one of " + (", ".join(globs) or "nothing"),
            )
            for globs in lists
            if url is None or not permits((globs,), url)
        ]
    return findings


def check_registry_road(
    road: Road, name: str, policies: Iterable[Policy], where: Where
) -> list[Finding]:
    """Findings where storage options of an adapter in a registry lead elsewhere than to the
    registry that the policies allow. ``road`` is the registry's, ``name`` the adapter's there."""
    policies = tuple(policies)
    lists = lists_for(policies, base=False)
    findings: list[Finding] = []
    for way in road.ways:
        url = None if way.url is None else below(way.url, road.place).rstrip("/")
        findings += [
            codes.SOURCE_FORBIDDEN.finding(
                f"{road.place}/{name} is not allowed through {way.option}",
                where,
                found=url or way.text,
                expected="one of " + (", ".join(globs) or "nothing"),
            )
            for globs in lists
            if url is None or not permits((globs,), f"{url}/{name}")
        ]
        findings += [
            codes.REGISTRY_FORBIDDEN.finding(
                f"The registry {road.place} is not allowed through {way.option}",
                where,
                found=url or way.text,
                expected=_listed(policy),
            )
            for policy in policies
            if policy.registries is not None
            and url not in {place_of(one.url, Path.cwd()) for one in policy.registries}
        ]
    return findings


def vouches_for(policies: Iterable[Policy], from_environment: Collection[str]) -> Vouches:
    """Whether credentials may be sent to a place that storage options name: it is a value
    ``from_environment``, or every ``allow_credentials`` (at least one) lists it."""
    lists = [p.allow_credentials for p in policies if p.allow_credentials is not None]

    def vouches(text: str) -> bool:
        if text in from_environment:
            return True
        origin = origin_of(text)
        return (
            origin is not None
            and bool(lists)
            and all(any(fnmatchcase(origin, _origin_glob(g)) for g in globs) for globs in lists)
        )

    return vouches


def _origin_glob(glob: str) -> str:
    return glob.removesuffix("*").removesuffix("/") if glob.endswith("/*") else glob.rstrip("/")


def permits(lists: Iterable[Globs], url: str) -> bool:
    """Whether every list allows ``url``, to which a web server redirects (without its query,
    normalised)."""
    return all(any(fnmatchcase(url, glob) for glob in globs) for globs in lists)


def check_digest(
    digest: str | None, policies: Iterable[Policy], name: str, where: Where
) -> list[Finding]:
    """A finding where a policy requires a digest, and neither manifest nor lock has one."""
    if digest is None and any(p.require_digest for p in policies):
        return [codes.DIGEST_REQUIRED.finding(f"Adapter {name!r} has no digest", where)]
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
            f"Adapter {name!r} is too large",
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
