"""For which classes of transformers the layout from config and header equals the live model's.

``python -m adapterdock.loader.tables.architecture_check`` builds every class without memory, with
each kind of layer and each sub-config that it can have. It derives the layout from the config and
the header that saving the model would write (``registry.base.architectures``), and compares. The
verdicts are written to ``docs/reference/architectures.json``, and their page to
``docs/reference/architectures.md``. With names of classes, only these are tried, and the verdicts
of the others are kept. With ``--check`` nothing is tried: it fails if the classes are not those of
the installed transformers, or if the page does not match the verdicts.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import transformers
from torch import nn

from ...registry.base.architectures import architecture_table, layout_of
from ...registry.files.facts import Layout, ModuleKind, ModuleShape, TensorInfo
from ...registry.files.wording import some
from ..base.disk_names import live_tensors, places_on_disk
from ..base.empty_model import build
from ..base.layout import layout_of_model
from .architecture_page import page_of
from .architecture_survey import is_head, model_classes, occurrences
from .variants import (
    default_config,
    few_layers,
    first_built,
    layer_kinds,
    needed_by,
    sub_config_variants,
)

DOCS = Path(__file__).resolve().parents[2] / "docs" / "reference"
DATA = DOCS / "architectures.json"
PAGE = DOCS / "architectures.md"

CHECKED, SIZES, UNKNOWN, WRONG, UNBUILT, EMPTY = (
    "checked",
    "sizes unchecked",
    "not known",
    "wrong",
    "not built",
    "no modules",
)
WORST = (WRONG, UNKNOWN, SIZES, CHECKED)
"""A class gets the worst verdict of its configs."""


class Verdict(NamedTuple):
    """The verdict on a class, and why it is not better."""

    verdict: str
    why: str = ""


def verify(cls: type[nn.Module]) -> Verdict:
    """The worst verdict over the default config of a class and every kind of layer it can have."""
    try:
        models = [model for model in _models(cls) if model is not None]
    except Exception as error:
        return Verdict(UNBUILT, _reason(error))
    found: list[Verdict] = []
    seen: list[Layout] = []
    for model in models:
        cast(Any, model).tie_weights()
        live = layout_of_model(model)
        if live not in seen:
            seen.append(live)
            found.append(compare(live, layout_from_header(cls.__name__, model)))
    if not any(live.modules for live in seen):
        return Verdict(EMPTY)
    return min(found, key=lambda one: WORST.index(one.verdict))


def _models(cls: type[nn.Module]) -> Iterator[nn.Module | None]:
    default = default_config(cls)
    base = {**needed_by(cls), **few_layers(default)}
    first = first_built(cls, [base]) or build(cls, default)
    yield first
    for ways in sub_config_variants(cls, default):
        yield first_built(cls, ways)
    if is_head(next(occurrences(first))[1]):
        return  # the kinds of its layers are tried on the class that has the layers
    for ways in layer_kinds(cls, default):
        yield first_built(cls, [{**base, **one} for one in ways])


def layout_from_header(name: str, model: nn.Module) -> Layout | None:
    """The layout that the model's config and the header of its checkpoint give."""
    config = json.loads(cast(Any, model).config.to_json_string(use_diff=False))
    places = places_on_disk(model, live_tensors(model))
    tensors = {key: TensorInfo(place.dtype, place.shape) for key, place in places.items()}
    return layout_of({**config, "architectures": [name]}, tensors)


def compare(live: Layout, got: Layout | None) -> Verdict:
    """The verdict on a layout from a header, compared with the live model's."""
    if got is None:
        return Verdict(UNKNOWN, "its parts or its tensors are unknown")
    if missing := sorted(live.modules.keys() ^ got.modules.keys()):
        return Verdict(UNKNOWN, f"not the same modules: {some(missing, 1)}")
    other = [name for name, shape in live.modules.items() if got.modules[name] != shape]
    if wrong := [name for name in other if not _is_less(got.modules[name], live.modules[name])]:
        return Verdict(WRONG, some(wrong, 1))
    if got.tied != live.tied:
        return Verdict(UNKNOWN, "not the same tied parameters")
    if (got.output_modules, got.prefix) != (live.output_modules, live.prefix):
        return Verdict(UNKNOWN, "not the same output")
    return Verdict(SIZES, some(other, 1)) if other else Verdict(CHECKED)


def _is_less(got: ModuleShape, live: ModuleShape) -> bool:
    """Whether everything that ``got`` says of a module is true of the live one."""
    sizes = (got.in_features, got.out_features) in (
        (None, None),
        (None, live.out_features),
        (live.in_features, live.out_features),
    )
    known = {**live.parameters, **live.buffers}
    said = {**got.parameters, **got.buffers}
    kinds = got.kind in (live.kind, ModuleKind.OTHER) and got.called == live.called
    return sizes and kinds and said.items() <= known.items()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, ImportError) and " requires the " in text:
        return f"needs {text.partition(' requires the ')[2].partition(' ')[0]}"
    return f"{type(error).__name__}: {text}"[:120]


# --- the files -------------------------------------------------------------------------------


def read() -> dict[str, Verdict]:
    """The committed verdicts, by class."""
    return {name: Verdict(*row[1:]) for name, row in _data()["classes"].items()}


def write(verdicts: Mapping[str, Verdict]) -> None:
    """Write the verdicts on the classes of the installed transformers, and their page."""
    types = {n: cast(Any, cls).config_class.model_type for n, cls in model_classes().items()}
    rows = {name: [types[name], *verdicts[name]] for name in sorted(verdicts)}
    lines = (f"{json.dumps(name)}:{json.dumps(row)}" for name, row in rows.items())
    head = f'{{"transformers":{json.dumps(transformers.__version__)},"classes":{{\n'
    DATA.write_text(head + ",\n".join(lines) + "\n}}\n", encoding="utf-8")
    PAGE.write_text(page_of(_data()), encoding="utf-8")


def _data() -> dict[str, Any]:
    return json.loads(DATA.read_text(encoding="utf-8"))


def differences() -> list[str]:
    """How the page differs from the verdicts, and the verdicts from the table and, if the
    versions are the same, from the installed transformers."""
    data, verdicts, rows = _data(), read(), architecture_table()["rows"]
    known = (name for name, one in verdicts.items() if one.verdict in (CHECKED, SIZES))
    out = [f"{name} has no row in the table" for name in known if name not in rows]
    if page_of(data) != PAGE.read_text(encoding="utf-8"):
        out.append(f"{PAGE.name} does not match {DATA.name}")
    if data["transformers"] != architecture_table()["transformers"]:
        out.append(f"{DATA.name} and the table were made with different versions of transformers")
    if data["transformers"] == transformers.__version__:
        classes = model_classes()
        out += [f"{name} is new" for name in sorted(classes.keys() - verdicts.keys())]
        out += [f"{name} is gone" for name in sorted(verdicts.keys() - classes.keys())]
    return out


def main(arguments: list[str]) -> int:
    """Try classes and write the verdicts, or with ``--check`` compare. 0: current, 1: outdated."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    if arguments == ["--check"]:
        found = differences()
        print("\n".join(found) if found else f"{DATA.name} and {PAGE.name} are current")
        return 1 if found else 0
    classes = model_classes()
    chosen = arguments or list(classes)
    verdicts = {name: one for name, one in read().items() if name in classes} if arguments else {}
    for number, name in enumerate(chosen, 1):
        verdicts[name] = verify(classes[name])
        if number % 100 == 0:
            print(f"{number} of {len(chosen)} classes", file=sys.stderr, flush=True)
    write(verdicts)
    print("\n".join(f"{name}: {verdicts[name]}" for name in arguments))
    return 0


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(main(sys.argv[1:]))
