"""Export transformers' architectures as the data that ``registry.base.architectures``
replays without torch.

``python -m adapterdock.loader.tables.architecture_table`` writes
``registry/architectures.json`` for the installed transformers; with ``--check`` it writes
nothing and fails if the file is not current.

The file holds:

- ``conversions``: transformers' checkpoint conversions, by class or model type;
- ``rows``: by class, ``type`` (model type), ``prefix``, ``modules`` (a tree, see
  ``registry.base.module_tree``; ``@`` is a sub-model's slot), ``tied``, ``shared``
  (modules of layers that are alike) and ``tie`` (see :func:`tie_states`), ``needs`` (modules that a
  sub-config decides), ``members`` (of lists whose members are not of one kind), ``output`` (PEFT's
  ``all-linear`` leaves it out), ``ignored`` (names in a checkpoint that the class drops) and
  ``lists`` (of modules, which are not called themselves), ``lacks`` (of :data:`INPUTS`, what its
  forward does not take), ``ids`` (embeddings for which it finds the ids of ``inputs_embeds`` again)
  and ``unsure`` (see :data:`UNSURE`);
- ``auto``: which class an auto class builds for a model type: for sub-models that may vary, and
  for the heads of tasks.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import transformers
from transformers import conversion_mapping, core_model_loading

from ...registry.files.facts import INPUTS
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
)
from .survey import survey
from .variants import missing_sub_configs

MOST_MEMBERS = 64
"""Lists longer than this are not told member by member."""

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
"""Classes of which a row says something that is not so, as ``architecture_check`` found: nothing is
said of them, or of a model that has one as a part."""

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
        out: dict[str, Any] = {"type": row.config.model_type, "modules": tree}
        if cls.base_model_prefix:
            out["prefix"] = cls.base_model_prefix
        tied, shared = _tied(row.own or row.inner)
        if tied or shared:
            out |= {"tied": tied} if tied else {}
            out |= {"shared": shared} if shared else {}
            out["tie"] = ties.setdefault(kind, tie_states(kind, row.config))
        if needs := _needs(row):
            out["needs"] = needs
        if members := _members(row):
            out["members"] = members
        every = [*row.own, *row.inner]
        if lists := {path for one in every for path in one.lists}:
            out["lists"] = sorted(".".join(path) for path in lists)
        if ids := {path for one in every for path in one.ids}:
            out["ids"] = sorted(".".join(path) for path in ids)
        if lacks := INPUTS - taken_by(cls.forward):
            out["lacks"] = sorted(lacks)
        if name in UNSURE:
            out["unsure"] = True
        if row.output:
            out["output"] = row.output
        if cls._keys_to_ignore_on_load_unexpected:
            out["ignored"] = sorted(cls._keys_to_ignore_on_load_unexpected)
        rows[name] = out
    return _complete(rows)


def _complete(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows all of whose sub-models are rows too."""
    whole = {
        name: row
        for name, row in rows.items()
        if all(slot[0] in rows for slot in _slots(row["modules"]))
    }
    return whole if len(whole) == len(rows) else _complete(whole)


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
            described.discard("C=1")  # the usual: not written
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
    """Modules that are there only where a sub-config is given (``vision_config``), or is not
    (``!backbone_config``), by their names."""
    found: dict[Path_, str] = {}
    for name in missing_sub_configs(row.config):
        given = [one.present for one in row.own if name not in one.lacking]
        without = [one.present for one in row.own if name in one.lacking]
        if not given or not without:
            continue
        always, never = frozenset.intersection(*given), frozenset.union(*without)
        found |= dict.fromkeys(always - never, name)
        always, never = frozenset.intersection(*without), frozenset.union(*given)
        found |= dict.fromkeys(always - never, f"!{name}")
    top = [path for path in found if not any(path[:n] in found for n in range(len(path)))]
    return {".".join(path): found[path] for path in sorted(top) if "*" not in path}


def _members(row: Seen) -> dict[str, dict[str, str]]:
    """Of the lists whose members are not of one kind, each member's words; by the name of the list
    with stars. Only where every instance with these very members has them alike, and where no
    member's number of groups may come from the config."""
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
    """A module that contains no other is written as its words alone."""
    return {
        key: (value.get("") if value.keys() == {""} else _short(value))
        if isinstance(value, dict)
        else value
        for key, value in tree.items()
    }


def _place(tree: dict[str, Any], path: Path_, value: Any, standard: list[Occurrence]) -> None:
    """Put ``value`` at ``path``; a piece without which some config makes what it is in is written
    ``?piece``."""
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
    """What this parent's sub-model never has (``-pooler``: it is built without) or not always
    (``?pooler``: its config decides), of the modules that its class has by default."""
    here = [one.inside[path] for one in parents if path in one.inside]
    usual = (seen[name].own or seen[name].inner)[0].present
    lacking = sorted({gone for one in here for gone in usual - one.present if "*" not in gone})
    top = [gone for gone in lacking if not any(gone[:n] in lacking for n in range(len(gone)))]
    if not top:
        return
    try:
        alone = next(occurrences(build(seen[name].cls, here[0].config)))[1].present
    except Exception:  # it cannot be built alone: nothing tells which of the two it is
        alone = frozenset()
    for gone in top:
        never = gone in alone and not any(gone in one.present for one in here)
        yield ("-" if never else "?") + ".".join(gone)


def _groups(word: str, config: Any) -> str:
    """Name the config's field where the number of groups comes from one."""
    if not word.startswith("C=") or word in ("C=*", "C=1"):
        return word
    names = [n for n, v in vars(config).items() if "group" in n and v == int(word[2:])]
    return f"C={names[0]}:{word[2:]}" if len(names) == 1 else word


def tie_states(kind: Callable[..., Any], default: Any) -> str:
    """Whether a config ties its embeddings, as nine (without a text config three) digits.

    Digit ``3 * text + own``: 0 where ``tie_word_embeddings`` is not given, 1 for false, 2 true.
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
            except Exception:  # options that cannot be given apart from others
                tied = getattr(default, "tie_word_embeddings", False)
            digits += str(int(bool(tied)))
    return digits


# --- conversions -----------------------------------------------------------------------------


def conversions() -> dict[str, Any]:
    """transformers' checkpoint conversions by class or model type; a text names another key."""
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
    """What an operation's effect on shapes depends on, in a fixed order."""
    names = ("dim", "dim0", "dim1", "check_dims", "stack_dim", "concat_dim")
    values = [getattr(operation, name) for name in names if hasattr(operation, name)]
    shards = getattr(operation, "num_shards_attribute", None)
    return [*values, shards] if shards and type(operation).__name__ == "Chunk" else values


# --- the file --------------------------------------------------------------------------------


def table(names: Collection[str] | None = None) -> dict[str, Any]:
    """The table for the installed transformers; with ``names``, of these classes alone."""
    classes = model_classes()
    chosen = {n: cls for n, cls in classes.items() if names is None or n in names}
    rows = rows_of(survey(chosen))
    return table_of(rows)


def table_of(rows: Mapping[str, Any]) -> dict[str, Any]:
    """The table whose rows are these."""
    return {
        "transformers": transformers.__version__,
        "conversions": conversions(),
        "auto": {
            auto: {kind: name for kind, name in sorted(choices.items()) if name in rows}
            for auto, choices in auto_choices({**PARTS, **TASKS}).items()
        },
        "rows": rows,
    }


def _slots(tree: Mapping[str, Any]) -> Iterator[list[Any]]:
    for key, value in tree.items():
        if key == "@":
            yield value
        elif isinstance(value, dict):
            yield from _slots(cast("Mapping[str, Any]", value))


def text_of(table: Mapping[str, Any]) -> str:
    """The file's text: JSON, with one conversion or row a line so that a diff can be read."""
    compact = partial(json.dumps, separators=(",", ":"), ensure_ascii=False)
    parts = [f'"transformers":{compact(table["transformers"])}']
    for section in ("conversions", "auto", "rows"):
        lines = (f"{compact(key)}:{compact(value)}" for key, value in table[section].items())
        parts.append(f'"{section}":{{\n' + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def differences(committed: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What of ``committed`` is not what the installed transformers says, one line each.

    A row that cannot be built here (its library is not installed) is not a difference.
    """
    out: list[str] = []
    if committed["transformers"] != current["transformers"]:
        out.append(f"transformers {committed['transformers']}, not {current['transformers']}")
    for section in ("conversions", "auto", "rows"):
        old, new = committed[section], current[section]
        out += [f"{section}: {key} is new" for key in new if key not in old]
        out += [f"{section}: {key} differs" for key in new if key in old and old[key] != new[key]]
        if section != "rows":
            out += [f"{section}: {key} is gone" for key in old if key not in new]
    return out


def main(arguments: list[str]) -> int:
    """Write the table, or with ``--check`` compare it. 0: current; 1: not; 2: wrong usage."""
    if arguments not in ([], ["--check"]):
        print(
            "usage: python -m adapterdock.loader.tables.architecture_table [--check]",
            file=sys.stderr,
        )
        return 2
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    current = table()
    if not arguments:
        TABLE.write_text(text_of(current), encoding="utf-8")
        print(
            f"{TABLE.name}: {len(current['rows'])} classes, transformers {current['transformers']}"
        )
        return 0
    found = differences(json.loads(TABLE.read_text(encoding="utf-8")), current)
    print("\n".join(found) if found else f"{TABLE.name} is current")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
