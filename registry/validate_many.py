"""Many manifests, or one on many bases, checked in one process: each base is read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..manifests.findings.finding import Report
from .access.shared_reads import Reads
from .files.pool import each
from .verdicts import Verdict, verdicts

WORKERS = 8
"""Manifests that are checked at once: most of the time of one with remote sources is waiting."""

Check = Callable[[str, str | None, Reads], Report]
"""``check(manifest, model, reads)``: the report on one manifest, with ``model`` as its base."""


@dataclass(frozen=True)
class Checked:
    """One manifest on one base.

    Attributes:
        manifest: Its path.
        model: What replaces its base; ``None`` is the base that it declares.
        report: What was found.
    """

    manifest: str
    model: str | None
    report: Report

    @cached_property
    def verdicts(self) -> Mapping[str, Verdict]:
        """By adapter, whether it fits this base."""
        return verdicts(self.report)

    @property
    def title(self) -> str:
        """The manifest's path, and the base if that was replaced."""
        return self.manifest if self.model is None else f"{self.manifest} on {self.model}"


def validate_many(
    manifests: Sequence[str],
    check: Check,
    models: Sequence[str | None] = (None,),
    *,
    workers: int = WORKERS,
    done: Callable[[], object] = lambda: None,
) -> list[Checked]:
    """Check each of ``manifests`` on each of ``models``, ``workers`` at once, in their order.

    Bases, their fingerprints and registries are read once for all manifests that reach them in the
    same way, and adapters once for all bases. ``done`` is called after each manifest.
    """
    shared = Reads()

    def one(manifest: str) -> list[Checked]:
        reads = shared.of_one_manifest() if len(models) > 1 else shared
        found = [Checked(manifest, model, check(manifest, model, reads)) for model in models]
        done()
        return found

    return [checked for found in each(one, manifests, workers) for checked in found]


def exit_status_of(checked: Sequence[Checked]) -> int:
    """The worst of all: 1 where something is wrong, 3 where something is unchecked, else 0."""
    statuses = {one.report.exit_status for one in checked}
    return next((status for status in (1, 3) if status in statuses), 0)
