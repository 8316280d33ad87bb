"""What was read of a manifest's base and adapters, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..manifests.findings.finding import Finding, Report
from ..manifests.language.schema import Policy
from ..manifests.lockfile import NEW_ADAPTER
from ..manifests.manifest import ManifestFile
from .files.facts import AdapterFacts, AdapterPlan, BaseFacts, Layout
from .sources.folder import Folder


@dataclass(frozen=True)
class Opened:
    """One adapter, as far as it could be read. ``facts`` is ``None`` if it could not be."""

    folder: Folder | None = None
    facts: AdapterFacts | None = None
    plan: AdapterPlan | None = None
    findings: tuple[Finding, ...] = ()
    layout: Layout | None = None
    """The layout that ``plan`` is for, if it is known."""

    @property
    def records_base(self) -> bool:
        """Whether its file carries the fingerprint of the base that it was saved on."""
        return self.facts is not None and self.facts.records_base


@dataclass(frozen=True)
class Resolution:
    """Everything that was found out about a manifest, and what is wrong with it."""

    file: ManifestFile
    base_folder: Folder | None
    base: BaseFacts | None
    adapters: Mapping[str, Opened]
    findings: tuple[Finding, ...]
    tokenizer_files: Mapping[str, bytes] = field(default_factory=dict)
    policies: tuple[Policy, ...] = ()
    base_wanted: bool = False
    """Whether the manifest declares a base, and no live model replaces it."""

    @property
    def complete(self) -> bool:
        """Whether everything declared could be read (without what a live model replaces)."""
        return (self.base is not None or not self.base_wanted) and all(
            one.facts is not None and one.plan is not None for one in self.adapters.values()
        )

    @property
    def base_is_here(self) -> bool:
        """Whether the base's weights are on this machine."""
        folder, base = self.base_folder, self.base
        if folder is None or base is None:
            return False
        return all(folder.local(shard) is not None for shard in base.headers)

    @property
    def ranks(self) -> dict[str, int]:
        return {n: o.plan.rank for n, o in self.adapters.items() if o.plan is not None}

    def report(self, accepted: Iterable[str] = ()) -> Report:
        """The verdict, with a line of facts for each adapter that could be read."""
        return Report(
            subject=self.file.file or "<manifest>",
            findings=self.findings,
            accepted=frozenset(accepted),
            adapters={name: describe(o) for name, o in self.adapters.items()},
        )


def describe(opened: Opened) -> dict[str, Any]:
    """One adapter's facts as plain data, for reports and for ``show``."""
    facts, plan, folder = opened.facts, opened.plan, opened.folder
    if facts is None:
        return {}
    return {
        "source": NEW_ADAPTER if folder is None else str(folder.pinned),
        "method": facts.peft_type,
        **({} if facts.origin is None else {"format": facts.origin.format}),
        "rank": plan.rank if plan else None,
        "sites": len(plan.sites) if plan else None,
        "targets": list(plan.targets) if plan else [],
        "bytes": sum(f.size for f in facts.files),
        "bytes_read": 0 if folder is None else folder.bytes_read,
    }
