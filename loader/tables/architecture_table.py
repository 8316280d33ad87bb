"""Export transformers' architectures, for ``registry.base.architectures`` to read without torch.

``python -m adapterdock.loader.tables.architecture_table`` writes ``registry/architectures.json``
for the installed transformers:

- ``conversions``: transformers' checkpoint conversions, by class or model type;
- ``rows``: by class, ``type`` (model type), ``prefix``, ``modules`` (a tree, see
  ``registry.base.module_tree``; ``@`` is a sub-model's slot), ``tied``, ``shared`` (modules that
  layers of one kind share) and ``tie`` (see :func:`tie_states`), ``needs`` (modules that depend on
  a sub-config), ``members`` (of lists whose members are not of one kind), ``output`` (PEFT's
  ``all-linear`` leaves it out), ``ignored`` (names in a checkpoint that the class drops), ``lists``
  (of modules, which are not called themselves), ``lacks`` (the :data:`INPUTS` that neither it nor
  its backbone through it takes), ``decodes`` (it takes ``decoder_input_ids``), ``ids`` (embeddings
  for which it recovers the ids from ``inputs_embeds``) and ``unsure`` (see :data:`UNSURE`);
- ``auto``: which class an auto class builds for a model type, for sub-models that may vary and for
  the heads of tasks.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import transformers
from torch import nn
from transformers import conversion_mapping, core_model_loading

from ...registry.files.facts import DECODED, INPUTS
from ..base.empty_model import build
from ..base.inputs import taken_by
from .architecture_survey import (
    PARTS,
    TASKS,
    ClassSlot,
    Occurrence,
    Path_,
    Seen,
    auto_choices,
    model_classes,
    occurrences,
    survey,
)
from .variants import missing_sub_configs

MOST_MEMBERS = 64
"""Longer lists are not described member by member."""

UNSURE = frozenset(
    {
        "BeitForMaskedImageModeling",  # its norm has the name of one of the backbone's
        "DFineModel",  # these freeze the norms of a backbone that has them trainable alone
        "Deimv2Model",
        "PPDocLayoutV2Model",
        "PPDocLayoutV3Model",
        "PPDocLayoutV4Model",
        "RTDetrModel",
        "RTDetrV2Model",
        "PPDocLayoutV2ForObjectDetection",
        "Ovis2ForConditionalGeneration",  # more rows in the head than in the checkpoint
        "SpeechT5ForSpeechToText",  # its class decides which prenets there are
        "SpeechT5ForTextToSpeech",
        "SpeechT5ForSpeechToSpeech",
    }
)
"""Classes whose rows are not all true, as ``architecture_check`` found. They count as unknown, and
so does a model that has one as a part."""

TABLE = Path(__file__).resolve().parents[2] / "registry" / "architectures.json"


# --- rows ------------------------------------------------------------------------------------


def rows_of(seen: Mapping[str, Seen]) -> dict[str, dict[str, Any]]:
    """The table's rows, by class name."""
    ties: dict[type, str] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(seen):
        row = seen[name]
        cls, kind = cast(Any, row.cls), type(row.config)
        tree = _tree(row, seen)
        if tree is None:
            continue
        every = [*row.own, *row.inner]
        out: dict[str, Any] = {"prefix": cls.base_model_prefix}
        out["tied"], out["shared"] = _tied(row.own or row.inner)
        if out["tied"] or out["shared"]:
            out["tie"] = ties.setdefault(kind, tie_states(kind, row.config))
        out["needs"] = _needs(row)
        out["members"] = _members(row)
        out["lists"] = sorted({".".join(path) for one in every for path in one.lists})
        out["ids"] = sorted({".".join(path) for one in every for path in one.ids})
        taken = taken_by(cls, _backbone(row, seen))
        out["lacks"] = sorted(INPUTS - {DECODED} - taken)
        out["decodes"] = DECODED in taken
        out["unsure"] = name in UNSURE
        out["output"] = row.output
        out["ignored"] = sorted(cls._keys_to_ignore_on_load_unexpected or ())
        said = {key: value for key, value in out.items() if value}
        rows[name] = {"type": row.config.model_type, "modules": tree, **said}
    return _complete(rows)


def _backbone(row: Seen, seen: Mapping[str, Seen]) -> type[nn.Module] | None:
    """The model that a head has inside it, by transformers' ``base_model_prefix``."""
    path = (cast(Any, row.cls).base_model_prefix,)
    names = {one.slots[path][0] for one in (*row.own, *row.inner) if path in one.slots}
    return seen[names.pop()].cls if len(names) == 1 else None


def _complete(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows whose sub-models all have rows."""
    complete = {
        name: row
        for name, row in rows.items()
        if all(slot[0] in rows for slot in _slots(row["modules"]))
    }
    return complete if len(complete) == len(rows) else _complete(complete)


def _tree(row: Seen, seen: Mapping[str, Seen]) -> dict[str, Any] | None:
    """A class's modules; ``None`` for one that has models and other modules in the same list."""
    every = [*row.own, *row.inner]
    standard = row.own or row.inner
    words: dict[Path_, set[str]] = {}
    slots: dict[Path_, ClassSlot] = {}
    order: list[Path_] = []
    for one in every:
        before = -1
        for path, described in one.modules.items():
            if path not in words:
                order.insert(before + 1, path)
            before = order.index(path)
            words.setdefault(path, set()).update(described)
        for path, slot in one.slots.items():
            slots.setdefault(path, slot)
    for described in words.values():
        if {word for word in described if word[0] == "C"} == {"C=1"}:
            described.discard("C=1")  # the default is not written
    tree: dict[str, Any] = {}
    for path in order:
        if path in slots and words[path]:
            return None
        if path in slots:
            value: Any = [*slots[path], *_absent(path, slots[path][0], every, seen)]
        else:
            value = " ".join(sorted(_groups(word, row.config) for word in words[path]))
        if value:
            _place(tree, path, value, standard)
    return _short(tree)


def _tied(standard: list[Occurrence]) -> tuple[dict[str, str], list[str]]:
    """The tied parameters of a class by name; and the modules that layers of one kind share, whose
    numbers the config decides, with a star for the number (``layers.*.shared_transf``)."""
    tied: dict[str, str] = {}
    shared: set[str] = set()
    for one in standard:
        for target, source in (one.tied or {}).items():
            layer = re.sub(r"\.\d+\.", ".*.", source)
            if layer.count("*") == 1 and layer == re.sub(
                r"\.(\(\?!.*\)\\d\+|\d+)\.", ".*.", target
            ):
                shared.add(layer)
            elif one is standard[0]:
                tied[target] = source
    return tied, sorted(shared)


def _needs(row: Seen) -> dict[str, str]:
    """Modules that exist only with a sub-config (``vision_config``) or only without it
    (``!backbone_config``), by their names."""
    found: dict[Path_, str] = {}
    for name in missing_sub_configs(row.config):
        present = [one.present for one in row.own if name not in one.lacking]
        absent = [one.present for one in row.own if name in one.lacking]
        if not present or not absent:
            continue
        for always, never, key in ((present, absent, name), (absent, present, f"!{name}")):
            only = frozenset.intersection(*always) - frozenset.union(*never)
            found |= dict.fromkeys(only, key)
    top = [path for path in found if not any(path[:n] in found for n in range(len(path)))]
    return {".".join(path): found[path] for path in sorted(top) if "*" not in path}


def _members(row: Seen) -> dict[str, dict[str, str]]:
    """The words of each member of the lists whose members differ, by the list's name with stars.
    Only where all instances with these members agree, and where no number of groups may come from
    the config."""
    out: dict[str, dict[str, str]] = {}
    every = [*row.own, *row.inner]
    for path in sorted({path for one in every for path in one.members}):
        alike = [one.members[path] for one in every if path in one.members]
        first = alike[0]
        same = all(one == first for one in alike if one.keys() == first.keys())
        numbers = any(re.match(r"C=\d", w) and w != "C=1" for own in first.values() for w in own)
        if same and not numbers and len(first) <= MOST_MEMBERS:
            out[".".join(path)] = {
                ".".join(name): " ".join(sorted(own - {"C=1"})) for name, own in first.items()
            }
    return out


def _short(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with only the words for each module that contains no other."""
    return {
        key: (value.get("") if value.keys() == {""} else _short(value))
        if isinstance(value, dict)
        else value
        for key, value in tree.items()
    }


def _place(tree: dict[str, Any], path: Path_, value: Any, standard: list[Occurrence]) -> None:
    """Put ``value`` at ``path``; a piece that some configs leave out is written ``?piece``."""
    node = tree
    for depth, piece in enumerate(path, 1):
        above = path[:depth]
        beside = [one.present for one in standard if above[:-1] in one.present]
        always = bool(beside) and all(above in present for present in beside)
        optional = "*" not in above and not always
        node = node.setdefault(f"?{piece}" if optional else piece, {})
    if isinstance(value, list):
        node["@"] = value
    else:
        node[""] = value


def _absent(
    path: Path_, name: str, parents: list[Occurrence], seen: Mapping[str, Seen]
) -> Iterator[str]:
    """The default modules of a sub-model's class that it never has in this parent (``-pooler``: it
    is built without) or not always (``?pooler``: its config decides)."""
    here = [one.inside[path] for one in parents if path in one.inside]
    usual = (seen[name].own or seen[name].inner)[0].present
    lacking = sorted({gone for one in here for gone in usual - one.present if "*" not in gone})
    top = [gone for gone in lacking if not any(gone[:n] in lacking for n in range(len(gone)))]
    if not top:
        return
    try:
        alone = next(occurrences(build(seen[name].cls, here[0].config)))[1].present
    except Exception:  # it cannot be built alone: both are possible
        alone = frozenset()
    for gone in top:
        never = gone in alone and not any(gone in one.present for one in here)
        yield ("-" if never else "?") + ".".join(gone)


def _groups(word: str, config: Any) -> str:
    """The word with the config's field that gives the number of groups, where there is one."""
    if not word.startswith("C=") or word in ("C=*", "C=1"):
        return word
    names = [n for n, v in vars(config).items() if "group" in n and v == int(word[2:])]
    return f"C={names[0]}:{word[2:]}" if len(names) == 1 else word


def tie_states(kind: Callable[..., Any], default: Any) -> str:
    """Whether a config ties its embeddings, as nine (without a text config three) digits.

    Digit ``3 * text + own``: 0 where ``tie_word_embeddings`` is not set, 1 for false, 2 for true.
    """
    text = getattr(default, "text_config", None) if "text_config" in default.sub_configs else None
    digits = ""
    for inner in (None, False, True) if text is not None else (None,):
        for own in (None, False, True):
            options: dict[str, Any] = {} if own is None else {"tie_word_embeddings": own}
            if inner is not None:
                options["text_config"] = {
                    "model_type": cast(Any, text).model_type,
                    "tie_word_embeddings": inner,
                }
            try:
                tied = getattr(kind(**options), "tie_word_embeddings", False)
            except Exception:  # these options are valid only together with others
                tied = getattr(default, "tie_word_embeddings", False)
            digits += str(int(bool(tied)))
    return digits


# --- conversions -----------------------------------------------------------------------------


def conversions() -> dict[str, Any]:
    """transformers' checkpoint conversions by class or model type; a string names another key."""
    table = conversion_mapping._build_checkpoint_conversion_mapping()  # pyright: ignore[reportPrivateUsage]
    out: dict[str, Any] = {}
    first: dict[str, str] = {}
    for key in sorted(table):
        value = [transform(one) for one in table[key]]
        source = first.setdefault(json.dumps(value), key)
        out[key] = value if source == key else source
    return out


def transform(one: Any) -> list[Any] | dict[str, Any]:
    """A plain renaming as ``[regex, replacement]``, any other as a mapping."""
    match = one.compiled_sources.pattern
    if isinstance(one, core_model_loading.GroupWeightRename):
        return {"match": match, "to": list(one.target_patterns), "guarded": True}
    if isinstance(one, core_model_loading.Inkling2IndexOffsetWeightRename):
        return {"match": match, "to": [one.target_patterns[0]], "offset": one.offset}
    if isinstance(one, core_model_loading.WeightConverter):
        return {
            "match": match,
            "from": list(one.source_patterns),
            "to": list(one.target_patterns),
            "do": [[type(op).__name__, *_arguments(op)] for op in one.operations],
        }
    return [match, one.target_patterns[0]]


def _arguments(operation: Any) -> list[Any]:
    """The arguments of an operation that change shapes, in a fixed order."""
    names = ("dim", "dim0", "dim1", "check_dims", "stack_dim", "concat_dim")
    values = [getattr(operation, name) for name in names if hasattr(operation, name)]
    shards = getattr(operation, "num_shards_attribute", None)
    return [*values, shards] if shards and type(operation).__name__ == "Chunk" else values


# --- the file --------------------------------------------------------------------------------


def table(names: Collection[str] | None = None) -> dict[str, Any]:
    """The table for the installed transformers; with ``names``, of these classes only."""
    classes = model_classes()
    rows = rows_of(survey({n: cls for n, cls in classes.items() if names is None or n in names}))
    return {
        "transformers": transformers.__version__,
        "conversions": conversions(),
        "auto": {
            auto: {kind: name for kind, name in sorted(choices.items()) if name in rows}
            for auto, choices in auto_choices((*PARTS, *TASKS)).items()
        },
        "rows": rows,
    }


def _slots(tree: Mapping[str, Any]) -> Iterator[list[Any]]:
    for key, value in tree.items():
        if key == "@":
            yield value
        elif isinstance(value, dict):
            yield from _slots(cast("Mapping[str, Any]", value))


def text_of(table: Mapping[str, Any], *sections: str) -> str:
    """The file's text: JSON, with one entry of a section per line so that a diff can be read."""
    compact = partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
    parts = [f'"transformers":{compact(table["transformers"])}']
    for section in sections:
        lines = (f"{compact(key)}:{compact(value)}" for key, value in table[section].items())
        parts.append(f'"{section}":{{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


SECTIONS = ("conversions", "auto", "rows")

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    TABLE.write_text(text_of(table(), *SECTIONS), encoding="utf-8")
