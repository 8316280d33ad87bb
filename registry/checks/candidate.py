"""What the checks look at: one adapter, read and planned, and the base where it is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ...manifests.findings.finding import Where
from ..files.facts import (
    TARGET,
    AdapterFacts,
    AdapterPlan,
    BaseFacts,
    Layout,
    SitePlan,
    TensorInfo,
    TokenizerFacts,
)
from ..methods.method import Method
from ..methods.naming import Naming
from ..methods.patterns import Patterns
from ..methods.table import SITES
from ..methods.targets import TargetSelection
from ..methods.tuner_config import TunerConfig
from .zeros import IsZero


@dataclass(frozen=True)
class Ask:
    """What only the content of an adapter's files tells. It is asked for where the verdict depends
    on it: :data:`IsZero` about targets that the model never calls, ``tokenizer`` where nothing else
    is wrong. By default nobody can tell."""

    is_zero: IsZero = field(default=lambda name: None)
    tokenizer: Callable[[], TokenizerFacts | None] = field(default=lambda: None)


@dataclass(frozen=True)
class Subject:
    """``layout`` is the base's, or the live model's where there are no files (``base`` is then
    ``None``). ``adapter`` has today's names, ``stored`` are the tensors of its files. Only the
    types of the config's values are checked already."""

    adapter: AdapterFacts
    method: Method
    config: TunerConfig
    plan: AdapterPlan
    naming: Naming
    patterns: Patterns
    base: BaseFacts | None
    layout: Layout | None
    where: Where
    stored: Mapping[str, TensorInfo]
    ask: Ask = Ask()

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self.adapter.header.tensors

    @cached_property
    def own_sites(self) -> tuple[SitePlan, ...]:
        """The sites of the adapter's own method, without the rows of embeddings and the parameters
        that a LoRA may adapt as well."""
        return tuple(s for s in self.plan.sites if s.method == self.method.peft_type)

    @staticmethod
    def row(site: SitePlan) -> Method:
        """The method at this site."""
        return SITES[site.method]

    def pattern_name(self, site: SitePlan) -> str:
        """The name that the config's patterns have to match: the file's name of the target module,
        or of its parameter where the config names that."""
        name = self.naming.author(site.reader)
        parameter = None if TARGET in site.settings else site.settings.get("parameter")
        return f"{name}.{parameter}" if parameter else name

    @property
    def name(self) -> str:
        return self.adapter.name

    @cached_property
    def selection(self) -> TargetSelection:
        return TargetSelection(self.config, self.patterns, self.method.kinds)
