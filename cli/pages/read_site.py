"""Reads everything that a site shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Report
from ...manifests.language.names import is_name
from ...manifests.manifest import ManifestFile
from ...registry.access.configured import configured
from ...registry.access.shared_reads import Reads
from ...registry.registries import local_name, open_named
from ...registry.sources.failures import scrub
from ...registry.validate import validate
from . import from_registry
from .facts import Adapter, Composition, Problem, Site
from .find_inputs import Found, no_such_input
from .fits import Files, KnownBase, Published, matrix, recorded_bases, with_base
from .from_manifests import open_bases, read_folders, read_manifest_file
from .heat_of import Measuring
from .places import free_name, manifest_label, place_label

TITLE = "Adapters"


def read_site(
    found: Found,
    measuring: Measuring,
    *,
    bases: Iterable[str] = (),
    title: str | None = None,
    file: ManifestFile | None = None,
    policy: Path | None = None,
) -> Site:
    """Everything that was found.

    What cannot be read is among the site's problems.

    Args:
        found: The inputs.
        measuring: Which weights are read, and the cache.
        bases: Sources of further bases, for the matrix.
        title: Of the site.
        file: The manifest that names registries.
        policy: A policy that applies to the manifests too.

    Raises:
        AdapterdockError: One of ``bases`` cannot be read, or nothing at all can be.
    """
    offline = measuring.offline
    columns: list[KnownBase] = []
    for base in open_bases(bases, offline=offline):
        columns, _ = with_base(columns, base)
    adapters: list[Adapter] = []
    rows: list[Files] = []
    published: list[Published] = []
    compositions: list[Composition] = []
    problems: list[Problem] = []
    errors: list[AdapterdockError] = []
    places: set[Path] = set()
    reads = Reads()
    taken: set[str] = set()
    """Names of what the adapters are from."""
    for path in found.manifests:
        group = free_name(manifest_label(path), taken)
        taken.add(group)
        read = read_manifest_file(
            path, group, measuring, policy, reads.of_one_manifest(), offline=offline
        )
        if read.error is not None:
            errors.append(read.error)
        label = None
        if read.base is not None:
            columns, label = with_base(columns, read.base)
        adapters += read.adapters
        rows += [replace(one, own=label) for one in read.rows]
        compositions += read.compositions
        problems += read.problems
        places |= read.places
    loose = [pair for pair in found.folders if pair[0].resolve() not in places]
    groups: dict[Path, str] = {}
    for root in dict.fromkeys(root for _, root in loose):
        groups[root] = free_name(place_label(root), taken)
        taken.add(groups[root])
    read = read_folders(loose, groups, measuring, reads, offline=offline)
    adapters += read.adapters
    rows += read.rows
    problems += read.problems
    titles: list[str] = []
    texts: list[str] = []
    for text in found.registries:
        try:
            registry = _opened(text, file, taken, offline=offline)
            found_there = from_registry.read_registry(registry, measuring.store, measuring)
        except AdapterdockError as error:
            errors.append(error)
            problems += [
                Problem(scrub(text), one.code, one.message, left_out=True) for one in error.findings
            ]
            continue
        titles.append(registry.catalogue.title or registry.name)
        adapters += found_there.adapters
        problems += found_there.problems
        texts += found_there.bases
        pairs = zip(found_there.adapters, found_there.bases, strict=True)
        published += [Published(adapter.key, base) for adapter, base in pairs]
    if errors and len(errors) == len(found.registries) + len(found.manifests) and not adapters:
        if len(errors) == 1:
            raise errors[0]
        raise AdapterdockError(*(one for error in errors for one in error.findings))
    columns += recorded_bases(texts, columns)

    def check(file: ManifestFile, reads: Reads) -> Report:
        return validate(file, policy=policy, offline=offline, reads=reads)

    only = titles[0] if len(titles) == 1 and not (found.manifests or found.folders) else TITLE
    return Site(
        title or only,
        tuple(sorted(adapters, key=lambda one: (one.name.casefold(), one.name, one.group))),
        matrix(columns, rows, published, check),
        tuple(compositions),
        tuple(problems),
    )


def _opened(
    text: str, file: ManifestFile | None, taken: set[str], *, offline: bool
) -> from_registry.Registry:
    """The registry at a URL, in a folder, or of a local name; and a local name for it."""
    name = None if Path(text).is_dir() else local_name(text)
    if name is not None:
        known = configured(file)
        if name not in known:
            raise no_such_input(text, known)
        row = known[name]
        catalogue = open_named(name, file, offline=offline)
        taken.add(name)
        return from_registry.Registry(catalogue, name, scrub(str(row.source)), None, file)
    folder = Path(text)
    local = folder.is_dir()
    place = text if not local or text.startswith((".", "/", "~")) else f"./{text}"
    catalogue = open_named(place, file, offline=offline)
    last = folder.resolve().name if local else scrub(text).rstrip("/").rpartition("/")[2]
    short = last.lower().partition(".")[0]
    made = short if local_name(short) is not None and is_name(short) else "registry"
    number = 2
    name = made
    while name in taken:
        name, number = f"{made}-{number}", number + 1
    taken.add(name)
    return from_registry.Registry(catalogue, name, scrub(place), place, None)
