"""Reads the adapters of manifests, and those in folders that no manifest names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding
from ...manifests.language.source import Source, SourceSyntaxError
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.access.access import Access
from ...registry.access.session import session_for
from ...registry.access.shared_reads import Reads
from ...registry.base.fingerprint import Measured
from ...registry.catalogue.make_entry import describe_method
from ...registry.checks.recorded_base import recorded_name
from ...registry.fits import manifest_of_base
from ...registry.locks.project import lock_of, open_manifest, policies_in_force
from ...registry.matrix import Input, alone, own_base
from ...registry.measured import LARGEST_UNASKED
from ...registry.measured import Base as OpenBase
from ...registry.records.entry import EntryFile
from ...registry.resolution import Opened, Resolution
from ...registry.resolve import measure, resolve, resolve_base
from ...registry.validate import resolve_under
from .facts import Adapter, Composition, Problem
from .fits import Files, KnownBase
from .from_registry import key_of, lines_to_copy
from .heat_of import Measuring
from .places import place_label, without_here

_OPTIONS = ("density", "majority_sign_method", "svd_rank", "svd_clamp", "seed")
"""Of a composition."""


@dataclass(frozen=True)
class Read:
    """What was read: adapters, and their rows of the matrix; the base; the compositions; and what
    is wrong. ``places`` are the local folders of the adapters. ``error``: nothing was read."""

    adapters: tuple[Adapter, ...] = ()
    rows: tuple[Files, ...] = ()
    base: KnownBase | None = None
    compositions: tuple[Composition, ...] = ()
    problems: tuple[Problem, ...] = ()
    places: frozenset[Path] = frozenset()
    error: AdapterdockError | None = None


def read_manifest_file(
    path: Path,
    group: str,
    measuring: Measuring,
    policy: Path | None,
    reads: Reads,
    *,
    offline: bool,
) -> Read:
    """The adapters of one manifest, as its lock pins them; ``group`` is what the site calls it.
    What is wrong is a problem, and does not raise."""
    try:
        file = open_manifest(path)
        lock = lock_of(file)
        policies = policies_in_force(file, policy)
        access = Access(offline=offline, policies=policies, store=measuring.store)
        resolution = resolve_under(file, lock, reads.share(access, file))
    except AdapterdockError as error:
        return Read(problems=tuple(_problems(group, error.findings, left_out=True)), error=error)
    label = None if file.manifest.base.model is None else _label(file)
    base = None if label is None else _known(label, resolution)
    opened = _open_base(resolution)
    adapters: list[Adapter] = []
    for name, one in resolution.adapters.items():
        adapter = _declared(group, file, lock, name, one, label)
        if one.folder is not None and one.facts is not None:
            heat = measuring.declared(one.folder, opened)
            adapter = replace(adapter, heat=heat)
        adapters.append(adapter)
    own = {finding for one in resolution.adapters.values() for finding in one.findings}
    rest = [finding for finding in resolution.findings if finding not in own]
    unread = [
        problem
        for name, one in resolution.adapters.items()
        if one.facts is None
        for problem in _problems(f"{group}: {name}", one.findings, left_out=True)
    ]
    return Read(
        tuple(adapters),
        (Files(group, Input(str(path), file), reads, label),),
        base,
        tuple(_compositions(group, file)),
        (*_problems(group, rest), *unread),
        frozenset(_places(file)),
    )


def read_folders(
    folders: Iterable[tuple[Path, Path]],
    groups: Mapping[Path, str],
    measuring: Measuring,
    reads: Reads,
    *,
    offline: bool,
) -> Read:
    """The adapters in folders, each with the folder that was searched; ``groups`` is what the site
    calls those."""
    adapters: list[Adapter] = []
    rows: list[Files] = []
    problems: list[Problem] = []
    for folder, root in folders:
        source = str(folder.absolute())
        try:
            Source.parse(source)
            source.encode("utf-8")
        except (SourceSyntaxError, UnicodeEncodeError) as error:
            problems.append(
                Problem(ascii(place_label(folder)), "", f"Invalid source: {error}", left_out=True)
            )
            continue
        own = reads.of_one_manifest()
        file = alone(source, source).file
        access = own.share(Access(offline=offline, store=measuring.store), file)
        (one,) = resolve(file, access).adapters.values()
        adapter = _found(folder, root, groups[root], one)
        if one.folder is not None and one.facts is not None:
            adapter = replace(adapter, heat=measuring.declared(one.folder, None))
        else:
            problems += _problems(place_label(folder), one.findings, left_out=True)
        adapters.append(adapter)
        rows.append(Files(adapter.group, Input(adapter.name, file, alone=True), own))
    return Read(tuple(adapters), tuple(rows), problems=tuple(problems))


def open_bases(texts: Iterable[str], *, offline: bool) -> Iterator[KnownBase]:
    """The bases that the user named. Raises what opening them does."""
    for text in texts:
        file = manifest_of_base(text)
        resolution = resolve_base(file, session_for(file, offline=offline).access)
        if resolution.base is None or resolution.base_folder is None:
            raise AdapterdockError(*resolution.findings)
        yield KnownBase(_label(file), _place(file), own_base(file), measure(resolution))


def _declared(
    group: str,
    file: ManifestFile,
    lock: Lock | None,
    name: str,
    opened: Opened,
    base: str | None,
) -> Adapter:
    said = file.manifest.adapters[name]
    active = file.manifest.active
    locked = None if lock is None else lock.adapters.get(name)
    source = "new (from its config)" if said.source is None else str(said.source)
    keys: dict[str, object]
    if said.source is None:
        keys = {"config": _plain(said.config)}
    else:
        keys = {"source": str(said.source)}
    if said.sha256 or (locked is not None and locked.digest):
        keys["sha256"] = said.sha256 or (None if locked is None else locked.digest)
    adapter = Adapter(
        group=group,
        name=name,
        origin="manifest",
        source=source,
        lines=lines_to_copy({"adapters": {name: keys}}),
        owner=said.owner,
        licence=said.licence,
        description=said.description,
        tags=said.tags,
        base=base,
        base_names=file.manifest.base.aliases,
        base_note=None,
        active=name == active or (isinstance(active, tuple) and name in active),
        findings=tuple(_problems(name, opened.findings)),
    )
    return _with_facts(adapter, opened)


def _found(folder: Path, root: Path, group: str, opened: Opened) -> Adapter:
    inside = folder.relative_to(root)
    name = inside.as_posix() if inside.parts else folder.resolve().name or "adapter"
    source = f"./{inside.as_posix()}" if inside.parts else "./"
    recorded = None if opened.facts is None else recorded_name(opened.facts.config)
    hidden = recorded is not None and Path(recorded).is_absolute()
    adapter = Adapter(
        group=group,
        name=name,
        origin="folder",
        source=source,
        lines=lines_to_copy({"adapters": {key_of(name): {"source": source}}}),
        base=Path(recorded).name if recorded is not None and hidden else recorded,
        findings=tuple(_problems(name, opened.findings)),
    )
    return _with_facts(adapter, opened)


def _with_facts(adapter: Adapter, opened: Opened) -> Adapter:
    """The adapter with what is in its files."""
    facts = opened.facts
    if facts is None or opened.plan is None:
        return adapter
    files = tuple(
        EntryFile.model_construct(
            path=file.path,
            size=file.size,
            sha256=file.sha256 or "",
            role="weights" if file.path in facts.headers else "config",
        )
        for file in facts.files
    )
    return replace(adapter, method=describe_method(facts, opened.plan), files=files)


def _compositions(group: str, file: ManifestFile) -> Iterator[Composition]:
    for name, said in file.manifest.compositions.items():
        members = tuple((member, weight_text(weight)) for member, weight in said.of.items())
        more = {key: getattr(said, key) for key in _OPTIONS if getattr(said, key) is not None}
        keys = {"combine": said.combine, "of": _plain(said.of), **more}
        yield Composition(
            group,
            name,
            said.combine,
            members,
            tuple((key, f"{value}") for key, value in more.items()),
            name == file.manifest.active,
            lines_to_copy({"compositions": {name: keys}}),
        )


def weight_text(weight: float | Mapping[str, float]) -> str:
    """``0.4``, or ``*.mlp.* 0.1, * 0.4`` for weights by module."""
    if isinstance(weight, Mapping):
        return ", ".join(f"{glob} {number:g}" for glob, number in weight.items())
    return f"{weight:g}"


def _known(label: str, resolution: Resolution) -> KnownBase:
    file = resolution.file
    measured: Measured | None = None
    if resolution.base is not None and resolution.base_folder is not None:
        try:
            measured = measure(resolution) if resolution.base_is_here else None
        except AdapterdockError:
            measured = None
    return KnownBase(label, _place(file), own_base(file), measured)


def _open_base(resolution: Resolution) -> OpenBase | None:
    if resolution.base is None or resolution.base_folder is None:
        return None
    return OpenBase(resolution.base, resolution.base_folder, LARGEST_UNASKED)


def _label(file: ManifestFile) -> str:
    """The name of a manifest's base: of a folder, its path below the current one, or its end."""
    model = file.manifest.base.model
    assert model is not None
    if not model.is_local:
        return str(model)
    label = place_label(model.local_path(file.directory))
    return label if "/" in label else f"./{label}"


def _place(file: ManifestFile) -> str:
    model = file.manifest.base.model
    assert model is not None
    return os.path.realpath(model.local_path(file.directory)) if model.is_local else str(model)


def _places(file: ManifestFile) -> Iterator[Path]:
    for adapter in file.manifest.adapters.values():
        if adapter.source is not None and adapter.source.is_local:
            try:
                yield adapter.source.local_path(file.directory).resolve()
            except (SourceSyntaxError, OSError, RuntimeError, ValueError):
                continue


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner) for inner in value]
    return value


def _problems(
    what: str, findings: Iterable[Finding], *, left_out: bool = False
) -> Iterator[Problem]:
    for one in findings:
        yield Problem(what, one.code, without_here(one.message), left_out)
