"""Set a manifest's rules, compositions and active adapters on a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.findings.finding import Finding, Where
from ...manifests.language.rules import answering, check_active, flatten, is_made
from ...manifests.language.schema import Manifest, Rules
from ...manifests.manifest import ManifestFile
from ..adapter.adapter import Adapter
from ..model.host import AdapterHost
from ..routing.selection import Selection


@dataclass(frozen=True)
class ManifestRules:
    """A manifest's rules, as a function of the active adapters."""

    rules: Rules
    attached: Mapping[str, Adapter]
    where: Where

    def __call__(self, active: Mapping[str, float]) -> list[Finding]:
        ranks = {name: self.attached[name].rank for name in active}
        return check_active(self.rules, active, ranks, self.where)


def define(host: AdapterHost, file: ManifestFile, made: Collection[str] = ()) -> None:
    """Set the manifest's rules, compositions and active adapters. The compositions ``made`` are
    attached as adapters already."""
    manifest = file.manifest
    define_rules(host, file)
    for name, composition in manifest.compositions.items():
        weights = flatten(manifest, name)
        if name in made:
            host.compositions.remember(name, composition, weights)
            continue
        options = composition.model_dump(exclude={"combine", "of"})
        where = file.where(("compositions", name))
        host.compositions.define(name, weights, combine=composition.combine, where=where, **options)
    if manifest.active is not None:
        host.choice.set_default(_active(manifest, manifest.active))


def _active(manifest: Manifest, names: str | Sequence[str]) -> Selection:
    """The selection that ``active`` means. Weights of an adapter that occurs in several of its
    compositions add up."""
    if isinstance(names, str):
        return names
    sums = [flatten(manifest, name) for name in names if not is_made(manifest, name)]
    if len({adapter for part in sums for adapter in part}) == sum(map(len, sums)):
        return list(names)
    return answering(manifest, names)


def define_rules(host: AdapterHost, file: ManifestFile) -> None:
    """Set the manifest's rules."""
    rules = file.manifest.rules
    if rules != Rules():
        where = file.where(("rules",))
        host.choice.set_rules(ManifestRules(rules, host.adapters.by_name, where))
