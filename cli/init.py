"""`adapterdock init`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..manifests.codes import usage as codes
from ..manifests.errors import UsageError
from ..manifests.findings import Where
from ..manifests.names import is_name
from .console import say
from .options import DEFAULT_MANIFEST, ManifestArgument

DEPTH = 4
"""How deep below the manifest adapters are looked for."""


def init(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: Annotated[
        str | None, typer.Option("--model", metavar="URL", help="The base model's source.")
    ] = None,
) -> None:
    """Write a manifest to start from, with the adapters that are found below its folder.

    Examples:

      adapterdock init --model hf://HuggingFaceTB/SmolLM2-135M-Instruct

      adapterdock init serving/team.yaml
    """
    where = Where(file=str(manifest))
    if manifest.exists():
        raise UsageError(codes.EXISTS.finding(f"{manifest} is there already", where))
    found = find_adapters(manifest.parent)
    text = render(manifest.stem, model or _recorded_base(manifest.parent, found), found)
    try:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        with manifest.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise UsageError(
            codes.UNWRITABLE.finding("the manifest cannot be written", where, found=error.strerror)
        ) from error
    from ..manifests.manifest import read_manifest

    read_manifest(manifest)
    say(f"wrote {manifest} with {len(found)} adapters found below {manifest.parent.resolve()}")
    say(f"next: edit it, then `adapterdock validate {manifest}`")


def find_adapters(folder: Path) -> dict[str, str]:
    """Names and sources of the adapter folders below ``folder``, nearest first."""
    found: dict[str, str] = {}
    patterns = ["/".join(["*"] * depth + ["adapter_config.json"]) for depth in range(1, DEPTH + 1)]
    for pattern in patterns:
        for config in sorted(folder.glob(pattern)):
            place = config.parent.relative_to(folder)
            if any(part.startswith(".") for part in place.parts):
                continue
            name = re.sub(r"[^a-z0-9._-]+", "-", place.name.lower()).strip("-._")
            if not is_name(name) or name in found:
                name = f"adapter-{len(found) + 1}"
            found[name] = f"./{place.as_posix()}"
    return found


def render(name: str, model: str | None, adapters: dict[str, str]) -> str:
    """The text of a new manifest."""
    lines = ["# An adapterdock manifest; the README tells the keys.", "version: 1"]
    if is_name(name):
        lines.append(f"name: {name}")
    if model is None:
        lines += [
            "base: {}",
            "  # model: hf://org/name@<commit>   # or ./folder, s3://bucket/folder; {} means that",
            "  # dtype: bfloat16                 # the caller brings a loaded model (attach)",
        ]
    else:
        lines += ["base:", f"  model: {json.dumps(model)}", "  dtype: auto"]
    if adapters:
        lines.append("adapters:")
        for key, source in adapters.items():
            lines += [f"  {key}:", f"    source: {json.dumps(source)}"]
        lines.append(f"active: {next(iter(adapters))}")
    else:
        lines += [
            "adapters: {}",
            "  # tone:",
            "  #   source: ./adapters/tone       # or hf://org/name@rev/folder, s3://bucket/folder",
        ]
    return "\n".join(lines) + "\n"


def _recorded_base(folder: Path, adapters: dict[str, str]) -> str | None:
    """The Hub id of the base, where every adapter found records the same one."""
    recorded: set[Any] = set()
    for source in adapters.values():
        try:
            config = json.loads((folder / source / "adapter_config.json").read_bytes())
            recorded.add(config.get("base_model_name_or_path"))
        except (OSError, ValueError, AttributeError, RecursionError):
            return None
    only = recorded.pop() if len(recorded) == 1 else None
    if isinstance(only, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", only):
        return f"hf://{only}"
    return None
