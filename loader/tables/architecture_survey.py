"""Every model class of the installed transformers, built without memory and described.

The data behind ``loader.tables.architecture_table``: an instance on the ``meta`` device is
split at its sub-models, so that what a class owns is known apart from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, cast

import torch
import transformers
from torch import nn
from torch.nn.utils import parametrize
from transformers.models.auto import modeling_auto

from ...registry.base.module_tree import BATCH_NORM, KINDS, UNCALLED, USUAL
from ...registry.files.facts import ModuleKind
from ..base.inputs import looked_up_again
from ..base.layout import output_modules, shape_of_module
from ..base.uncalled import CONTAINERS, uncalled_children

LETTERS = {kind: letter for letter, kind in KINDS.items()}

Path_ = tuple[str, ...]
"""A module's name in pieces, with ``*`` for every number."""


ClassSlot = tuple[str, "str | None", "str | None"]
"""A sub-model's class, where its config lies in the parent's, and the auto class that chose it."""


@dataclass
class Occurrence:
    """One sub-model as it was seen in one instance, without the sub-models inside it.

    ``modules`` are in the order of the model; those of a list's members are merged into it.
    ``members`` holds them apart, by their numbers, where they are not of one kind. ``lists`` are
    the lists of modules, ``ids`` what ``looked_up_again`` says.
    ``lacking`` are the sub-configs that its config does without.
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
    """All that was seen of one class, alone (``own``) or inside others (``inner``)."""

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


PARTS = {
    "AutoModel": "MODEL_MAPPING_NAMES",
    "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "AutoBackbone": "MODEL_FOR_BACKBONE_MAPPING_NAMES",
    "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "AutoModelForTextEncoding": "MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES",
}
"""The auto classes with which composite models build their parts, most used first."""

TASKS = {
    "AutoModelForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "AutoModelForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "AutoModelForMultipleChoice": "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
    "AutoModelForImageClassification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForSemanticSegmentation": "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
    "AutoModelForObjectDetection": "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES",
    "AutoModelForAudioClassification": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "AutoModelForCTC": "MODEL_FOR_CTC_MAPPING_NAMES",
    "AutoModelForSpeechSeq2Seq": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
}
"""The auto classes of a task, by which the class of an adapter's head is told."""


def auto_choices(autos: Mapping[str, str] = PARTS) -> dict[str, dict[str, str]]:
    """The class, by model type, that each of ``autos`` builds."""
    out: dict[str, dict[str, str]] = {}
    for auto, name in autos.items():
        choices = cast("Mapping[str, str | tuple[str, ...]]", vars(modeling_auto)[name])
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
    passing = cast("set[str]", getattr(module, "_non_persistent_buffers_set"))  # noqa: B009
    buffers = {name for name, _ in module.named_buffers(recurse=False)} - passing - BATCH_NORM
    words |= {f"-{_starred(name)}" for name in buffers}
    return words


def is_mixed(words: set[str]) -> bool:
    """Whether the words tell no single kind and groups for a weight of some dimensions."""
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
    """Where in the parent's config the child's lies, and the auto class that chose its class.

    ``""`` is the parent's own; ``None`` that it is not known.
    """
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
    for auto, choices in auto_choices().items():
        if choices.get(inner.model_type) == type(child).__name__:
            return name, auto
    return name, "?"  # by another way: only its default class is known


# --- many instances --------------------------------------------------------------------------


def record(seen: dict[str, Seen], model: nn.Module) -> None:
    """Add an instance to what was seen of its class and of those of its sub-models."""
    for module, occurrence in occurrences(model):
        name = type(module).__name__
        row = seen.setdefault(name, Seen(type(module), cast(Any, module).config))
        if row.cls is not type(module):
            raise RuntimeError(f"two classes are named {name}")
        known = row.own if module is model else row.inner
        if occurrence not in known:
            known.append(occurrence)
        if module is model:
            row.output = row.output or output_of(model)


def output_of(model: nn.Module) -> str | None:
    """The first module that PEFT's ``all-linear`` would leave out."""
    return min(output_modules(model), default=None)
