"""Sets a model up with everything that a manifest declares."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding
from ...manifests.language.names import did_you_mean
from ...manifests.language.rules import flatten
from ...manifests.language.schema import BYTE_SIZE_PATTERN, Manifest, parse_bytes
from ...manifests.manifest import ManifestFile
from ...registry.access.session import Session
from ...registry.pull import Pulled
from ...registry.resolution import Opened
from ...registry.sources.in_memory import InMemoryFolder
from ...registry.store.store import Store
from ..build.from_files import AdapterFiles
from ..build.in_memory import files_in
from ..model.deployment import Deployment, InMemory, close_with
from ..model.host import AdapterHost
from ..weights.dtypes import DTYPES
from .add_adapter import attach_new_adapter
from .attach_files import attach_files
from .choose import define

log = logging.getLogger("adapterdock")


def in_memory_folders(
    file: ManifestFile, sources: Mapping[str, InMemory] | None
) -> dict[str, InMemoryFolder]:
    """Adapters in memory as opened folders. Raises :class:`UsageError` for a name that the manifest
    does not declare."""
    adapters = file.manifest.adapters
    located = {name: one.source for name, one in adapters.items() if one.source is not None}
    unknown = sorted(set(sources or ()) - set(located))
    if unknown:
        raise UsageError(
            *(
                usage_codes.IN_MEMORY_UNDECLARED.finding(
                    f"The manifest has no adapter {name!r} with a source",
                    file.where(("adapters",)),
                    found=name,
                    expected=", ".join(located) or "none, because the manifest has none",
                    hint=did_you_mean(name, located),
                )
                for name in unknown
            )
        )
    return {
        name: InMemoryFolder(located[name], files_in(files), file.where(("adapters", name)))
        for name, files in (sources or {}).items()
    }


def set_up(
    host: AdapterHost,
    pulled: Pulled,
    session: Session,
    budget: int | None = None,
    folder: Path | None = None,
    base_notes: Iterable[Finding] = (),
) -> None:
    """Give the host every adapter, composition and rule of the manifest, all or none."""
    file = pulled.file
    manifest = file.manifest
    notes = [*pulled.notes, *file.warnings, *base_notes]
    at_once = used_at_once(manifest)
    try:
        host.adapters.set_budget(budget if budget is not None else declared_budget(manifest))
        for name, adapter in manifest.adapters.items():
            if adapter.config is not None:
                notes += attach_new_adapter(host, file, name, session.accepted)
                continue
            files = files_of(pulled, name, session)
            notes += attach_files(host, files, lazy=adapter.lazy and name not in at_once)
        define(host, file)
        hold_files(host, pulled, session.store)
    except BaseException:
        host.merging.detach()
        raise
    for note in pulled.notes:
        log.warning("%s", note)
    findings = tuple(dict.fromkeys(notes))
    pulled = replace(pulled, opened={})  # it is on the model now
    deployment = Deployment(file, pulled, session, folder, findings, budget)
    host.adapters.say(deployment=deployment)


def files_of(pulled: Pulled, name: str, session: Session) -> AdapterFiles:
    """A pulled adapter's files, and how the manifest wants them attached."""
    file = pulled.file
    adapter = file.manifest.adapters[name]
    return AdapterFiles(
        name,
        pulled.adapters[name],
        session.store.verified,
        source=adapter.source,
        base=file.manifest.base,
        directory=file.directory,
        accepted=session.accepted,
        dtype=DTYPES.get(adapter.dtype or ""),
        trainable=adapter.trainable,
        where=file.where(("adapters", name, "source")),
        opened=pulled.opened.get(name, Opened()),
    )


def used_at_once(manifest: Manifest) -> frozenset[str]:
    """Adapters that are needed at once, even if they are ``lazy``: the active ones, and those that
    compositions are computed from."""
    combined = [name for name, one in manifest.compositions.items() if one.combine != "sum"]
    active = () if manifest.active is None else manifest.active
    named = [active] if isinstance(active, str) else list(active)
    return frozenset(flatten(manifest, dict.fromkeys((*named, *combined), 1.0)))


def budget_of(residency: int | str | None) -> int | None:
    """A residency budget in bytes. Raises :class:`UsageError` for an invalid one."""
    if residency is None:
        return None
    if isinstance(residency, str) and re.match(BYTE_SIZE_PATTERN, residency):
        return parse_bytes(residency)
    if isinstance(residency, int) and not isinstance(residency, bool) and residency >= 0:
        return residency
    raise UsageError(
        usage_codes.BAD_RESIDENCY.finding(
            f"Invalid residency {residency!r}: not a number of bytes", found=residency
        )
    )


def declared_budget(manifest: Manifest) -> int | None:
    return None if manifest.residency is None else parse_bytes(manifest.residency)


def hold_files(host: AdapterHost, pulled: Pulled, store: Store) -> None:
    """Keep the adapters' files in the store as long as the model lives, if they may be read
    again."""
    lazy = any(not adapter.loaded for adapter in host.adapters.by_name.values())
    if not lazy and host.adapters.residency.budget is None:
        return
    with ExitStack() as stack:
        files = [one.fact.sha256 for found in pulled.adapters.values() for one in found.values()]
        stack.enter_context(store.hold(digest for digest in files if digest))
        close_with(host.adapters, stack)
