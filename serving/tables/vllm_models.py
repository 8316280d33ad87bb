"""Which architectures vLLM serves LoRA on, read from its source (it is not imported).

``python -m adapterdock.serving.tables.vllm_models FOLDER ...`` prints the table that is committed
as ``serving/targets/models.json``; each FOLDER has ``vllm/`` of one version, as its wheel has it,
and is called by that version (``0.32``).
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_LISTS = (
    "_TEXT_GENERATION_MODELS",
    "_EMBEDDING_MODELS",
    "_LATE_INTERACTION_MODELS",
    "_REWARD_MODELS",
    "_TOKEN_CLASSIFICATION_MODELS",
    "_SEQUENCE_CLASSIFICATION_MODELS",
    "_MULTIMODAL_MODELS",
    "_TRANSFORMERS_SUPPORTED_MODELS",
)
"""The dicts of ``registry.py`` with architectures that a config.json may name."""


@dataclass
class _Class:
    bases: list[str]
    values: dict[str, ast.expr] = field(default_factory=dict)


_Key = tuple[str, str]


def read_models(vllm: Path) -> dict[str, Any]:
    """The table of the version in ``vllm``: architectures without LoRA, and those with it, by the
    modules beside linear ones that take it."""
    classes, models = _read_classes(vllm), _read_registry(vllm)
    without: list[str] = []
    serves: dict[str, list[str]] = {}
    for architecture, (module, name) in models.items():
        order = list(_order(classes, (module, name)))
        if not any(cls == "SupportsLoRA" for _, cls in order):
            without.append(architecture)
            continue
        value = next(
            (v for key in order if (v := classes[key].values.get("embedding_modules"))), None
        )
        modules = " ".join(_names_of(classes, value))
        serves.setdefault(modules, []).append(architecture)
    return {
        "without": sorted(without),
        "serves": {key: sorted(names) for key, names in sorted(serves.items())},
    }


def _read_classes(vllm: Path) -> dict[_Key, _Class]:
    root = vllm / "model_executor" / "models"
    found: dict[_Key, _Class] = {}
    for path in sorted(root.rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base).partition("[")[0] for base in node.bases]
                one = _Class([base.rpartition(".")[2] for base in bases])
                for line in node.body:
                    if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
                        one.values[line.targets[0].id] = line.value
                    elif (
                        isinstance(line, ast.AnnAssign)
                        and isinstance(line.target, ast.Name)
                        and line.value is not None
                    ):
                        one.values[line.target.id] = line.value
                found[module, node.name] = one
    return found


def _read_registry(vllm: Path) -> dict[str, _Key]:
    text = (vllm / "model_executor" / "models" / "registry.py").read_text(encoding="utf-8")
    found: dict[str, _Key] = {}
    for node in ast.parse(text).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        if node.targets[0].id not in _LISTS or not isinstance(node.value, ast.Dict):
            continue
        for key, value in zip(node.value.keys, node.value.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                module, name, *_ = ast.literal_eval(value)
                found[key.value] = (module, name)
    return found


def _find(classes: dict[_Key, _Class], module: str, name: str) -> _Key | None:
    if (module, name) in classes:
        return module, name
    return next((key for key in classes if key[1] == name), None)


def _order(classes: dict[_Key, _Class], key: _Key, seen: set[_Key] | None = None) -> Iterator[_Key]:
    """The class and what it inherits from, each once."""
    seen = set() if seen is None else seen
    found = _find(classes, *key)
    if found is None or found in seen:
        return
    seen.add(found)
    yield found
    for base in classes[found].bases:
        yield from _order(classes, (found[0], base), seen)


def _names_of(classes: dict[_Key, _Class], value: ast.expr | None) -> list[str]:
    """The names in a dict or list of constants, or in that of another class
    (``NemotronHForCausalLM.embedding_modules``)."""
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name):
        other = _find(classes, "", value.value.id)
        return [] if other is None else _names_of(classes, classes[other].values.get(value.attr))
    return [] if value is None else sorted(ast.literal_eval(value))


def main(folders: list[str]) -> None:
    """Print the table."""
    table = {f"vllm {Path(one).name}": read_models(Path(one) / "vllm") for one in folders}
    print(json.dumps(table, indent=1, sort_keys=True))


if __name__ == "__main__":
    main(sys.argv[1:])
