"""Places for an adapter's tensors that are not factors: saved modules, biases, embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..files.facts import AdapterPlan, Layout, ModuleKind, SitePlan
from .naming import Naming
from .tuner_config import TunerConfig

EMBEDDING_NAMES = frozenset(
    {"embed_tokens", "lm_head", "wte", "shared", "word_embeddings", "embed_in", "embed_out"}
)
"""Usual names of input and output embeddings, for when there is no layout to ask."""

_WRAPPER = re.compile(r"\.(original_module|modules_to_save)\.")
_NAMED_WRAPPER = re.compile(r"\.(original_module|modules_to_save\.[^.]+)\.")
"""PEFT strips the adapter's name at the end of a key only: it stays before a module's parts."""


def saved_module(config: TunerConfig, name: str) -> str | None:
    """The outermost module on the path ``name`` that ``modules_to_save`` names.

    PEFT compares the end of the complete path, without regard to its dots.
    """
    return outermost(name, config.modules_to_save)


def outermost(name: str, ends: tuple[str, ...]) -> str | None:
    """The outermost module on the path ``name`` that ends in one of ``ends``."""
    if not ends:
        return None
    parts = name.split(".")
    paths = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return next((path for path in paths if path.endswith(ends)), None)


@dataclass
class Places:
    """Places for the tensors that are not factors."""

    config: TunerConfig
    layout: Layout | None
    naming: Naming
    sites: frozenset[str]
    saved: dict[str, dict[str, str]] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)
    embeddings: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)

    def put(self, name: str, key: str, others: Mapping[str, str]) -> None:
        """Find the place of one tensor among ``others``; without one it is a leftover."""
        # `bias: all` and saved embeddings include PEFT's own wrapper too: its copies of a saved
        # module, next to the plain name of the trained one
        plain = _WRAPPER.sub(".", name)
        copied = plain != name
        if copied and plain not in others:
            plain = _NAMED_WRAPPER.sub(".", name)
        module = saved_module(self.config, plain)
        if copied and (module is None or plain not in others):
            self.leftovers.append(key)
        elif copied:
            return
        elif module is not None and name != module:
            place = self.saved.setdefault(self.naming.live(module), {})
            place[name.removeprefix(f"{module}.")] = key
        elif not self._put_base(name, key, others):
            self.leftovers.append(key)

    def plan(
        self, sites: tuple[SitePlan, ...], leftovers: Iterable[str], prompt: SitePlan | None = None
    ) -> AdapterPlan:
        """The plan of these sites and of everything that was put."""
        return AdapterPlan(
            sites=sites,
            saved=self.saved,
            biases=self.biases,
            embeddings=self.embeddings,
            leftovers=(*leftovers, *self.leftovers),
            prompt=prompt,
        )

    def _put_base(self, name: str, key: str, others: Mapping[str, str]) -> bool:
        """Put a trained bias or a saved embedding of the base; false for other tensors."""
        path, _, parameter = name.rpartition(".")
        # PEFT loads the weight below an embedding with trained tokens
        live = self.naming.live(path.removesuffix(".base_layer").removesuffix(".token_adapter"))
        # a head with a bias (Phi, GPT-J) is stored with it, whatever `bias` says
        with_weight = f"{path}.weight" in others and self._is_embedding(live)
        if parameter == "bias" and (with_weight or self._bias_may_be_trained(live)):
            return self.biases.setdefault(live, key) == key
        if parameter == "weight" and self._is_embedding(live):
            return self.embeddings.setdefault(live, key) == key
        return False

    def _bias_may_be_trained(self, live: str) -> bool:
        kind = self.config.bias
        return kind == "all" or (kind.endswith("_only") and live in self.sites)

    def _is_embedding(self, live: str) -> bool:
        """Whether it is an input or output embedding: PEFT stores no other (positions, ...)."""
        if live.rpartition(".")[2] in EMBEDDING_NAMES:
            return True
        if self.layout is None or live in self.layout.output_modules:
            return self.layout is not None
        module = self.layout.modules.get(live)
        if module is None or module.kind is not ModuleKind.EMBEDDING:
            return False
        rows = (m.in_features or 0 for m in self.layout.modules.values() if m.kind is module.kind)
        return module.in_features == max(rows)
