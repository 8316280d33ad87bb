"""What the checks look at: one adapter, read and planned, and the base where it is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ...manifests.findings.finding import Where
from ..files.facts import AdapterFacts, AdapterPlan, BaseFacts, Layout, SitePlan, TensorInfo
from ..methods.naming import Naming
from ..methods.patterns import Patterns
from ..methods.table import SITES, Method
from ..methods.targets import Selection
from ..methods.tuner_config import TunerConfig


@dataclass(frozen=True)
class Subject:
    """``layout`` is the base's, or the live model's where there are no files (``base`` is then
    ``None``). Nothing here was checked yet but the kinds of the config's values."""

    adapter: AdapterFacts
    method: Method
    config: TunerConfig
    plan: AdapterPlan
    naming: Naming
    patterns: Patterns
    base: BaseFacts | None
    layout: Layout | None
    where: Where

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self.adapter.header.tensors

    @cached_property
    def own_sites(self) -> tuple[SitePlan, ...]:
        """The sites of the adapter's method itself: not the rows of embeddings and the parameters
        that a LoRA may adapt as well."""
        return tuple(s for s in self.plan.sites if s.method == self.method.peft_type)

    @staticmethod
    def row(site: SitePlan) -> Method:
        """What is known of the method at this site."""
        return SITES[site.method]

    @property
    def name(self) -> str:
        return self.adapter.name

    @cached_property
    def selection(self) -> Selection:
        return Selection(self.config, self.patterns, self.method.kinds)


def some(names: Iterable[str], most: int = 3) -> str:
    """``a, b, c and 117 more``: a finding names a few of many alike."""
    found = [shown(name) for name in names]
    text = ", ".join(found[:most])
    return text if len(found) <= most else f"{text} and {len(found) - most} more"


def shown(text: str, most: int = 200) -> str:
    """A stranger's text, fit for a terminal: cut, and quoted where it holds what is not printed."""
    cut = text if len(text) <= most else f"{text[: most - 3]}..."
    return cut if cut.isprintable() else repr(cut)


def count(number: int, noun: str) -> str:
    """``1 module``, ``3 modules``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
