"""A survey of every model class of the installed transformers, for the table of architectures.

Each class is built without memory: from its default config, then again with one option of the
config changed at a time (:mod:`.variants`). Each instance is split at its sub-models, so that a
class is described without the modules of the models inside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, cast

import torch
import transformers
from torch import nn
from torch.nn.utils import parametrize

from ...registry.base.module_tree import BATCH_NORM, KINDS, UNCALLED, USUAL
from ...registry.files.facts import ModuleKind
from ..base.empty_model import build
from ..base.inputs import looked_up_again
from ..base.layout import output_modules, persistent_buffers, shape_of_module
from ..base.uncalled import CONTAINERS, uncalled_children
from .variants import default_config, first_built, sub_config_variants, variants

LETTERS = {kind: letter for letter, kind in KINDS.items()}

Path_ = tuple[str, ...]
"""A module's name in pieces, with ``*`` for every number."""

ClassSlot = tuple[str, "str | None", "str | None"]
"""A sub-model's class, where its config is in the parent's, and the auto class that chose it."""


@dataclass
class Occurrence:
    """One sub-model in one instance, without the sub-models inside it.

    ``modules`` are in the order of the model; the members of a list are merged into one entry.
    ``members`` keeps them separate, by their numbers, where they are not of one kind. ``lists`` are
    the lists of modules, ``ids`` the embeddings that ``looked_up_again`` finds, ``lacking`` the
    sub-configs that its config does not have.
    """

    modules: dict[Path_, set[str]] = field(default_factory=dict)
    slots: dict[Path_, ClassSlot] = field(default_factory=dict)
    members: dict[Path_, dict[Path_, set[str]]] = field(default_factory=dict)
    lacking: frozenset[str] = frozenset()
    lists: set[Path_] = field(default_factory=set, compare=False)
    ids: set[Path_] = field(default_factory=set, compare=False)
    inside: dict[Path_, Occurrence] = field(default_factory=dict, compare=False)
    config: Any = field(default=None, compare=False)
    tied: Mapping[str, str] | None = field(default=None, compare=False)

    @cached_property
    def present(self) -> frozenset[Path_]:
        """The modules that own or contain a parameter, a buffer or a sub-model."""
        owners = [path for path, words in self.modules.items() if words or path in self.slots]
        return frozenset(path[:n] for path in owners for n in range(len(path) + 1))


@dataclass
class Seen:
    """All occurrences of one class, alone (``own``) or inside others (``inner``)."""

    cls: type[nn.Module]
    config: Any
    output: str | None = None
    own: list[Occurrence] = field(default_factory=list)
    inner: list[Occurrence] = field(default_factory=list)


# --- which classes ---------------------------------------------------------------------------


@cache
def model_classes() -> dict[str, type[nn.Module]]:
    """Every model class that the installed transformers offers, by name."""
    found: dict[str, type[nn.Module]] = {}
    for name in sorted(dir(transformers)):
        if name.islower() or name.endswith(("PreTrainedModel", "Config", "Processor")):
            continue
        try:
            value = getattr(transformers, name)
        except (AttributeError, ImportError):  # needs a library that is not here
            continue
        if isinstance(value, type) and issubclass(value, transformers.PreTrainedModel):
            found[name] = value
    return found


PARTS = (
    "AutoModel",
    "AutoModelForCausalLM",
    "AutoModelForSeq2SeqLM",
    "AutoBackbone",
    "AutoModelForImageTextToText",
    "AutoModelForTextEncoding",
)
"""The auto classes with which composite models build their parts, most used first."""

TASKS = (
    "AutoModelForMaskedLM",
    "AutoModelForSequenceClassification",
    "AutoModelForTokenClassification",
    "AutoModelForQuestionAnswering",
    "AutoModelForMultipleChoice",
    "AutoModelForImageClassification",
    "AutoModelForSemanticSegmentation",
    "AutoModelForObjectDetection",
    "AutoModelForAudioClassification",
    "AutoModelForCTC",
    "AutoModelForSpeechSeq2Seq",
)
"""The auto classes of a task: they give the class of an adapter's head."""


def auto_choices(autos: Iterable[str]) -> dict[str, dict[str, str]]:
    """The class, by model type, that each of the auto classes builds."""
    out: dict[str, dict[str, str]] = {}
    for auto in autos:
        choices = getattr(transformers, auto)._model_mapping._model_mapping
        out[auto] = {k: v if isinstance(v, str) else v[0] for k, v in choices.items()}
    return out


# --- one instance ----------------------------------------------------------------------------


def describe(module: nn.Module) -> set[str]:
    """What a module owns, as words; ``set()`` for a container.

    ``2``: a weight of so many dimensions, of the usual kind for them (1: norm, 2: linear, 3 to
    5: convolution). ``2E``, ``2T``, ``3O``..: of another kind (a letter of ``KINDS``).
    ``C=*`` and ``C=16``: groups of a convolution (``*``: depthwise). ``+name`` a parameter that
    is not ``weight`` or ``bias``, ``-name`` a persistent buffer.
    """
    words: set[str] = set()
    shape = shape_of_module(module)
    weight = shape.parameters.get("weight")
    if weight is None and parametrize.is_parametrized(module, "weight"):
        weight = tuple(cast(torch.Tensor, module.weight).shape)
    if weight is not None:
        letter = LETTERS[shape.kind]
        words.add(f"{len(weight)}{'' if USUAL.get(len(weight)) == letter else letter}")
        if shape.groups != 1:
            depthwise = shape.groups == shape.in_features == shape.out_features
            words.add(f"C={'*' if depthwise else shape.groups}")
        elif shape.kind is ModuleKind.CONV:
            words.add("C=1")
    elif "bias" in shape.parameters:
        words.add("+bias")
    words |= {f"+{_starred(n)}" for n in shape.parameters if n not in ("weight", "bias")}
    words |= {f"-{_starred(name)}" for name in persistent_buffers(module).keys() - BATCH_NORM}
    return words


def is_mixed(words: set[str]) -> bool:
    """Whether the words give more than one kind of weight, or more than one number of groups."""
    weights = [word[0] for word in words if word[0].isdigit()]
    return len(weights) > len({*weights}) or sum(word[0] == "C" for word in words) > 1


def _starred(piece: str) -> str:
    return "*" if piece.isdigit() else piece


def occurrences(model: nn.Module) -> Iterator[tuple[nn.Module, Occurrence]]:
    """Every sub-model of ``model``, itself first, each described without those inside it."""
    pending = [(model, Occurrence())]
    for root, seen in pending:
        config = seen.config = cast(Any, root).config
        seen.tied = cast(Any, root)._tied_weights_keys
        parts = cast("Mapping[str, Any]", config.sub_configs)
        seen.lacking = frozenset(name for name in parts if getattr(config, name, None) is None)
        order: list[Path_] = []
        words: dict[Path_, set[str]] = {}
        members: dict[Path_, dict[Path_, set[str]]] = {}
        before: Path_ | None = None
        uncalled: set[Path_] = set()
        for name, module in _walk(root, ()):
            path = tuple(map(_starred, name))
            if path not in words:
                order.insert(order.index(before) + 1 if before is not None else 0, path)
                words[path] = set()
            before = path
            if isinstance(module, transformers.PreTrainedModel) and module is not root:
                seen.slots.setdefault(path, (type(module).__name__, *_config_path(root, module)))
                pending.append((module, seen.inside.setdefault(path, Occurrence())))
            else:
                own = describe(module) | ({UNCALLED} if name in uncalled else set())
                uncalled |= {(*name, child) for child in uncalled_children(module)}
                words[path] |= own
                seen.ids |= {(*path, child) for child in looked_up_again(module)}
                if isinstance(module, CONTAINERS):
                    seen.lists.add(path)
                if own and "*" in path:
                    members.setdefault(path, {})[name] = own
        seen.members = {path: m for path, m in members.items() if is_mixed(words[path])}
        seen.modules = {path: words[path] for path in order}
        yield root, seen


def _walk(module: nn.Module, path: Path_) -> Iterator[tuple[Path_, nn.Module]]:
    """Every module by its name in pieces, numbers as they are."""
    yield path, module
    for name, child in module.named_children():
        below = (*path, name)
        if isinstance(child, transformers.PreTrainedModel):
            yield below, child
        else:
            yield from _walk(child, below)


def _config_path(parent: nn.Module, child: nn.Module) -> tuple[str | None, str | None]:
    """Where the child's config is in the parent's (``""``: it is the parent's own, ``None``: not
    known), and the auto class that chose its class."""
    outer, inner = cast(Any, parent).config, cast(Any, child).config
    parts = {name: getattr(outer, name, None) for name in outer.sub_configs}
    name = next((n for n, part in parts.items() if part is inner), None)
    if name is None and inner is not outer:
        same = [n for n, part in parts.items() if type(part) is type(inner)]
        name = same[0] if len(same) == 1 else None
    if name is None:
        return ("" if type(inner) is type(outer) else None), None
    if outer.sub_configs[name] is not transformers.AutoConfig:
        return name, None
    for auto, choices in auto_choices(PARTS).items():
        if choices.get(inner.model_type) == type(child).__name__:
            return name, auto
    return name, "?"  # chosen in another way: only its default class is known


# --- many instances --------------------------------------------------------------------------


def survey(classes: Mapping[str, type[nn.Module]]) -> dict[str, Seen]:
    """All occurrences of ``classes`` and of their sub-models, by class name."""
    seen: dict[str, Seen] = {}
    for number, cls in enumerate(classes.values(), 1):
        if number % 100 == 0:
            print(f"{number} of {len(classes)} classes", file=sys.stderr, flush=True)
        try:
            config = default_config(cls)
            record(seen, build(cls, config))
        except Exception:  # it needs an option or a library that is missing here: no row
            continue
        head = is_head(seen[cls.__name__].own[0])
        for ways in sub_config_variants(cls, config) if head else variants(cls, config):
            model = first_built(cls, ways)
            if model is not None:
                record(seen, model)
    return seen


def is_head(occurrence: Occurrence) -> bool:
    """Whether a class only adds a few layers to models that are surveyed themselves."""
    inner = [name for name, *_ in occurrence.slots.values()]
    few = sum(map(bool, occurrence.modules.values())) <= 4
    return few and bool(inner) and all(name in model_classes() for name in inner)


def record(seen: dict[str, Seen], model: nn.Module) -> None:
    """Add an instance to the occurrences of its class and of those of its sub-models."""
    for module, occurrence in occurrences(model):
        name = type(module).__name__
        row = seen.setdefault(name, Seen(type(module), cast(Any, module).config))
        if row.cls is not type(module):
            raise RuntimeError(f"Two classes are named {name}")
        known = row.own if module is model else row.inner
        if occurrence not in known:
            known.append(occurrence)
        if module is model:  # the first module that PEFT's all-linear would leave out
            row.output = row.output or min(output_modules(model), default=None)
