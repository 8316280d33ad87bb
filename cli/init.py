"""`adapterdock init`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Where
from ..manifests.language.names import is_name
from ..manifests.schema_file import EDITOR_LINE
from .console import err, out, say
from .options import DEFAULT_MANIFEST, JsonOption, as_argument, model_argument
from .render import counted

SCHEMA = "adapterdock.init/1"
DEPTH = 5
"""How many folders below the manifest are searched for adapters."""
CONFIG = "adapter_config.json"
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages", "venv"})
_PLAIN = re.compile(r"(\./|(\.\./)+|hf://)?[A-Za-z][A-Za-z0-9._/-]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def init(
    manifest: Annotated[
        Path,
        typer.Argument(
            help="The manifest to write (default: adapters.yaml).",
            show_default=False,
            metavar="MANIFEST",
        ),
    ] = DEFAULT_MANIFEST,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="SOURCE",
            help="The base model: ./folder, hf://org/name, s3://bucket/folder (default: the one "
            "that all adapters record).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a manifest from the adapters found here.

    Searches the manifest's folder and the folders below it. Overwrites nothing and downloads
    nothing. The first line lets editors with the YAML language server check the manifest.

    Examples:

      adapterdock init
      adapterdock init --model hf://HuggingFaceTB/SmolLM2-135M-Instruct
      adapterdock init serving/team.yaml
    """
    where = Where(file=str(manifest))
    if manifest.is_dir():
        hint = (
            f"Name the file: `adapterdock init{as_argument(_free(manifest / DEFAULT_MANIFEST))}`."
        )
        raise UsageError(codes.EXISTS.finding("This is a folder", where, hint=hint))
    if os.path.lexists(manifest):
        hint = f"Edit it, or name another file: `adapterdock init{as_argument(_free(manifest))}`."
        raise UsageError(codes.EXISTS.finding(f"{manifest} already exists", where, hint=hint))
    if manifest.suffix not in (".yaml", ".yml"):
        named = manifest.with_name(f"{manifest.name.rstrip('.') or 'adapters'}.yaml")
        raise UsageError(
            codes.NOT_YAML.finding(
                "The manifest's name must end in .yaml",
                where,
                found=manifest.name,
                expected=named.name,
                hint=f"Give it the ending: `adapterdock init{as_argument(_free(named))}`.",
            )
        )
    folders = find_adapters(manifest.parent)
    found, left_out = named_sources(folders)
    recorded = _recorded_name(manifest.parent, found)
    base = _base_argument(model, manifest) if model else _proposed(recorded, manifest.parent)
    text = render(manifest.stem, base, found, recorded)
    alias = proposed_alias(base, recorded)
    try:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        with manifest.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            codes.UNWRITABLE.finding("Cannot write the manifest", where, found=reason)
        ) from error
    if as_json:
        data = {
            "manifest": str(manifest),
            "base": base,
            "proposed_alias": alias,
            "adapters": found,
            "left_out": left_out,
        }
        out.as_json(SCHEMA, data)
        return
    count = counted(len(found), "adapter")
    say(f"Wrote {manifest} with {count} found below {manifest.parent.absolute()}")
    for folder in left_out:
        err.line(f"Left out {folder}: its path cannot be written as a source")
    if alias is not None:
        err.line(
            f"The adapters call their base {alias}. If {base} is the same, uncomment `aliases`"
        )
    if base is None:
        err.line("Next: add the base model to it (base.model), then `adapterdock validate`")
    else:
        argument = as_argument(manifest)
        err.line(f"Next: `adapterdock validate{argument}`, then `adapterdock lock{argument}`")


def _free(manifest: Path) -> Path:
    """``manifest``, or the first of ``adapters-2.yaml``, ``adapters-3.yaml`` ... beside it that
    does not exist."""
    number, place = 1, manifest
    while os.path.lexists(place):
        number += 1
        place = manifest.with_name(f"{manifest.stem}-{number}{manifest.suffix}")
    return place


def find_adapters(folder: Path) -> list[str]:
    """Folders of adapters in and below ``folder``, relative to it; the nearest first."""
    found: list[str] = []
    for place, folders, files in os.walk(folder):
        relative = Path(place).relative_to(folder)
        if CONFIG in files:
            found.append(relative.as_posix())
        deep = len(relative.parts) >= DEPTH
        folders[:] = [] if deep else [f for f in folders if f[0] != "." and f not in _SKIPPED]
    return sorted(found, key=lambda place: (place.count("/"), _natural(place)))


def named_sources(folders: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """A name and a source for each folder, and the folders that cannot be written as a source."""
    from ..manifests.language.source import Source, SourceSyntaxError

    found: dict[str, str] = {}
    left_out: list[str] = []
    for folder in folders:
        source = "./" if folder == "." else f"./{folder}"
        try:
            Source.parse(source)
            source.encode("utf-8")
        except (SourceSyntaxError, UnicodeEncodeError):
            left_out.append(folder)
            continue
        found[_name(folder, found)] = source
    return found, left_out


def render(
    name: str, model: str | None, adapters: Mapping[str, str], recorded: str | None = None
) -> str:
    """The text of a new manifest. ``recorded`` is what all adapters call their base: only a person
    knows whether it is this one, so it is proposed as a comment."""
    said = "# An adapterdock manifest. Check it with `adapterdock validate`."
    lines = [EDITOR_LINE, said, "version: 1"]
    if is_name(name):
        lines.append(f"name: {_quoted(name)}")
    if model is None:
        lines += [
            "base: {}   # the base model is not known yet; declare it like this:",
            "# base:",
            "#   model: hf://org/name      # or ./folder, s3://bucket/folder",
            "#   dtype: auto",
        ]
    else:
        lines += ["base:", f"  model: {_quoted(model)}"]
        alias = proposed_alias(model, recorded)
        if alias is not None:
            what = "what the adapters call it: uncomment this if it is the same"
            lines.append(f"  # aliases: [{_quoted(alias)}]   # {what}")
        lines.append("  dtype: auto")
    if adapters:
        lines.append("adapters:")
        for key, source in adapters.items():
            lines += [f"  {_quoted(key)}:", f"    source: {_quoted(source)}"]
        lines.append(f"active: {_quoted(next(iter(adapters)))}   # or a list")
    else:
        lines += [
            "adapters: {}   # none were found below this folder; declare them like this:",
            "# adapters:",
            "#   tone:",
            "#     source: ./adapters/tone   # or hf://org/name@revision/folder, s3://bucket/folder",
        ]
    return "\n".join(lines) + "\n"


def proposed_alias(model: str | None, recorded: str | None) -> str | None:
    """What the adapters call the base, if that is a Hub id and not the base's own."""
    if model is None or recorded is None or recorded == model.removeprefix("hf://"):
        return None
    return recorded if _HUB_ID.fullmatch(recorded) else None


def _natural(text: str) -> list[tuple[int, str]]:
    """``checkpoint-900`` before ``checkpoint-1000``."""
    return [(int(p), "") if p.isdecimal() else (-1, p) for p in re.split(r"(\d+)", text) if p]


def _name(folder: str, taken: Mapping[str, str]) -> str:
    """The folder's name, with its parents' names if that is taken or too general."""
    parts = [p for p in (_slug(part) for part in folder.split("/")) if p]
    for depth in range(1, len(parts) + 1):
        name = "-".join(parts[-depth:])
        vague = depth < len(parts) and re.match(r"checkpoint-\d+\Z|v?\d[\d.]*\Z|default\Z", name)
        if is_name(name) and name not in taken and not vague:
            return name
    number = len(taken) + 1
    while f"adapter-{number}" in taken:
        number += 1
    return f"adapter-{number}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")


def _quoted(text: str) -> str:
    """``text`` as a YAML string: never a variable, a number or a boolean."""
    escaped = text.replace("$", "$$")
    plain = _PLAIN.fullmatch(escaped) and escaped not in _WORDS
    return escaped if plain else json.dumps(escaped, ensure_ascii=False)


def _base_argument(model: str, manifest: Path) -> str:
    """``--model``, checked. A relative folder starts at the current one, so it is rewritten for
    the manifest's folder."""
    source = model_argument(model)
    if not source.is_local or Path(source.location).expanduser().is_absolute():
        return model
    return _relative(Path(source.location), manifest.parent)


def _recorded_name(folder: Path, adapters: Mapping[str, str]) -> str | None:
    """What all adapters call their base, if it is the same name."""
    recorded: set[Any] = set()
    for source in adapters.values():
        try:
            config = json.loads((folder / source / CONFIG).read_bytes())
            recorded.add(config.get("base_model_name_or_path"))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return None
    only = recorded.pop() if len(recorded) == 1 else None
    usable = isinstance(only, str) and only and only.isprintable()
    return only if usable else None


def _proposed(recorded: str | None, folder: Path) -> str | None:
    """The base with this name: a folder that exists, or a Hub id."""
    if recorded is None:
        return None
    try:
        for place in (Path(recorded).expanduser(), folder / recorded):
            if (place / "config.json").is_file():
                return _relative(place, folder)
    except (OSError, RuntimeError, ValueError):
        return None
    return f"hf://{recorded}" if _HUB_ID.fullmatch(recorded) else None


def _relative(place: Path, folder: Path) -> str:
    """``place`` as a source of a manifest in ``folder``."""
    there = os.path.relpath(place.absolute(), folder.absolute()).replace(os.sep, "/")
    return there if there.startswith("../") else f"./{there}"
