"""LoRA on disk (https://arxiv.org/abs/2106.09685): where each tensor of the file belongs.

Key grammar: PEFT 0.21, ``utils/save_and_load.py`` and ``tuners/lora/layer.py``. A site's roles are
PEFT's own parameter names without ``lora_``:

=================  ===========================  ==================================
role               on disk                      shape
=================  ===========================  ==================================
``A``              ``.lora_A.weight``           (r, in), conv: (r, in, *kernel)
``B``              ``.lora_B.weight``           (out, r), conv: (out, r/groups, 1, ..)
``embedding_A``    ``.lora_embedding_A``        (r, num_embeddings)
``embedding_B``    ``.lora_embedding_B``        (embedding_dim, r)
``B_bias``         ``.lora_B.bias``             (out,)
=================  ===========================  ==================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..facts import AdapterPlan, Layout, ModuleKind, SitePlan, TensorInfo
from ..patterns import Patterns, PatternTable
from .lora_config import LoraConfig
from .naming import Naming, strip_peft_prefix

ROLES: Mapping[tuple[str, str], str] = {
    ("lora_A", "weight"): "A",
    ("lora_B", "weight"): "B",
    ("lora_B", "bias"): "B_bias",
    ("lora_embedding_A", ""): "embedding_A",
    ("lora_embedding_B", ""): "embedding_B",
    ("lora_magnitude_vector", ""): "magnitude_vector",
}
"""By the last parts of a key; the second is empty where PEFT keeps a bare parameter."""
PAIRS: tuple[tuple[str, str], ...] = (("A", "B"), ("embedding_A", "embedding_B"))
"""The two factors of a delta, by role."""

EMBEDDING_NAMES = frozenset(
    {"embed_tokens", "lm_head", "wte", "shared", "word_embeddings", "embed_in", "embed_out"}
)
"""Usual names of input and output embeddings, for when there is no layout to ask."""

_WRAPPER = re.compile(r"\.(original_module|modules_to_save)\.")
_NAMED_WRAPPER = re.compile(r"\.(original_module|modules_to_save\.[^.]+)\.")
"""PEFT strips the adapter's name at the end of a key only: it stays before a module's parts."""

MAX_NAME = 512
"""Characters of a tensor's name; patterns are matched against it."""


def plan(
    config: LoraConfig,
    tensors: Mapping[str, TensorInfo],
    layout: Layout | None,
    patterns: Patterns | None = None,
) -> tuple[AdapterPlan, Naming]:
    """Where every tensor goes, and how the file's names became live ones.

    Sites are in the file's order and bear live names where there is
    a ``layout``, the file's own where there is none.

    Decides places only; whether they fit is asked elsewhere. Raises
    :class:`~adapterdock.registry.patterns.PatternError` for a pattern that is none or too slow.
    """
    patterns = patterns or Patterns()
    keys = _Keys.split(tensors)
    naming = Naming.find(keys.modules, layout)
    ranks = PatternTable(config.rank_pattern, patterns)
    alphas = PatternTable(config.alpha_pattern, patterns)
    sites: dict[str, SitePlan] = {}
    leftovers = list(keys.odd)
    for author, roles in keys.factors.items():
        live = naming.live(author)
        if live in sites:  # two names in the file for one live module
            leftovers.extend(roles.values())
            continue
        rank, alpha = ranks.get(author, config.r), alphas.get(author, config.alpha)
        sites[live] = SitePlan(live, "LORA", roles, rank, alpha, scale_of(config, rank, alpha))
    places = _Places(config, layout, naming, frozenset(sites))
    for name, key in keys.others.items():
        places.put(name, key, keys.others)
    leftovers.extend(places.leftovers)
    planned = AdapterPlan(
        sites=tuple(sites.values()),
        saved=places.saved,
        biases=places.biases,
        embeddings=places.embeddings,
        leftovers=tuple(leftovers),
    )
    return planned, naming


def scale_of(config: LoraConfig, rank: int, alpha: float) -> float:
    """``alpha / r``, or ``alpha / sqrt(r)`` for rsLoRA (https://arxiv.org/abs/2312.03732)."""
    return alpha / math.sqrt(rank) if config.rslora else alpha / rank


def saved_module(config: LoraConfig, name: str) -> str | None:
    """The outermost module on the path ``name`` that ``modules_to_save`` names.

    PEFT compares the end of the whole path, without regard to its dots.
    """
    if not config.modules_to_save:
        return None
    parts = name.split(".")
    paths = (".".join(parts[:n]) for n in range(1, len(parts) + 1))
    return next((path for path in paths if path.endswith(config.modules_to_save)), None)


@dataclass
class _Keys:
    """The file's keys, sorted out by their endings: {author module: {role: key}}, {author
    name: key} for what is no factor, and keys that cannot be names of a module at all."""

    factors: dict[str, dict[str, str]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)

    @property
    def modules(self) -> list[str]:
        """The modules that the file adapts, or else those that it stores."""
        return list(self.factors) or [name.rpartition(".")[0] for name in self.others]

    @classmethod
    def split(cls, tensors: Mapping[str, TensorInfo]) -> _Keys:
        found = cls()
        factors = found.factors
        for key in tensors:
            name = strip_peft_prefix(key)
            if len(name) > MAX_NAME or not name.isprintable():
                found.odd.append(key)
                continue
            module, role = _factor(name)
            if role is None:
                place, at = found.others, name
            else:
                roles = factors.get(module)
                place, at = factors.setdefault(module, {}) if roles is None else roles, role
            if place.setdefault(at, key) is not key:  # with PEFT's prefix, and without
                found.odd.append(key)
        return found


def _factor(name: str) -> tuple[str, str | None]:
    """(module, role) of a factor, (..., ``None``) of what is none."""
    rest, _, last = name.rpartition(".")
    if last not in ("weight", "bias"):
        return rest, ROLES.get((last, ""))
    module, _, parameter = rest.rpartition(".")
    return module, ROLES.get((parameter, last))


@dataclass
class _Places:
    """Places for the tensors that are no factors."""

    config: LoraConfig
    layout: Layout | None
    naming: Naming
    sites: frozenset[str]
    saved: dict[str, dict[str, str]] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)
    embeddings: dict[str, str] = field(default_factory=dict)
    leftovers: list[str] = field(default_factory=list)

    def put(self, name: str, key: str, others: Mapping[str, str]) -> None:
        # `bias: all` and saved embeddings catch PEFT's own wrapper too: its copies of a saved
        # module, beside the plain name that is the trained one
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

    def _put_base(self, name: str, key: str, others: Mapping[str, str]) -> bool:
        """Trained biases and whole embeddings of the base; whether it is one of them."""
        path, _, parameter = name.rpartition(".")
        live = self.naming.live(path.removesuffix(".base_layer"))
        # a head with a bias (Phi, GPT-J) is stored with it, whatever `bias` says
        beside = f"{path}.weight" in others and self._is_embedding(live)
        if parameter == "bias" and (beside or self._bias_may_be_trained(live)):
            return self.biases.setdefault(live, key) == key
        if parameter == "weight" and self._is_embedding(live):
            return self.embeddings.setdefault(live, key) == key
        return False

    def _bias_may_be_trained(self, live: str) -> bool:
        kind = self.config.bias
        return kind == "all" or (kind == "lora_only" and live in self.sites)

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
