"""`adapterdock init`."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Where
from ..manifests.language.names import is_name
from .console import err, say
from .options import DEFAULT_MANIFEST, model_argument
from .render import counted

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
) -> None:
    """Write a manifest from the adapters found here.

    Searches the manifest's folder and the folders below it. Overwrites nothing and downloads
    nothing.

    Examples:

      adapterdock init
      adapterdock init --model hf://HuggingFaceTB/SmolLM2-135M-Instruct
      adapterdock init serving/team.yaml
    """
    where = Where(file=str(manifest))
    if manifest.is_dir():
        raise UsageError(
            codes.EXISTS.finding(
                "This is a folder", where, hint=f"Name the file: {manifest / DEFAULT_MANIFEST}"
            )
        )
    if os.path.lexists(manifest):
        raise UsageError(codes.EXISTS.finding(f"{manifest} already exists", where))
    if manifest.suffix not in (".yaml", ".yml"):
        raise UsageError(
            codes.NOT_YAML.finding(
                "The manifest's name must end in .yaml",
                where,
                found=manifest.name,
                expected=f"{manifest.name.rstrip('.')}.yaml",
            )
        )
    folders = find_adapters(manifest.parent)
    found, left_out = named_sources(folders)
    base = _base_argument(model, manifest) if model else _recorded_base(manifest.parent, found)
    text = render(manifest.stem, base, found)
    try:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        with manifest.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            codes.UNWRITABLE.finding("Cannot write the manifest", where, found=reason)
        ) from error
    count = counted(len(found), "adapter")
    say(f"Wrote {manifest} with {count} found below {manifest.parent.absolute()}")
    for folder in left_out:
        err.line(f"Left out {folder}: its path cannot be written as a source")
    if base is None:
        err.line("Next: add the base model to it (base.model), then `adapterdock validate`")
    else:
        argument = "" if manifest == DEFAULT_MANIFEST else f" {shlex.quote(str(manifest))}"
        err.line(f"Next: `adapterdock validate{argument}`, then `adapterdock lock{argument}`")


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


def render(name: str, model: str | None, adapters: Mapping[str, str]) -> str:
    """The text of a new manifest."""
    lines = ["# An adapterdock manifest. Check it with `adapterdock validate`.", "version: 1"]
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
        lines += ["base:", f"  model: {_quoted(model)}", "  dtype: auto"]
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


def _recorded_base(folder: Path, adapters: Mapping[str, str]) -> str | None:
    """The base that all adapters record, if it is the same: a Hub id, or a folder that exists."""
    recorded: set[Any] = set()
    for source in adapters.values():
        try:
            config = json.loads((folder / source / CONFIG).read_bytes())
            recorded.add(config.get("base_model_name_or_path"))
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return None
    only = recorded.pop() if len(recorded) == 1 else None
    if not isinstance(only, str) or not only:
        return None
    try:
        for place in (Path(only).expanduser(), folder / only):
            if (place / "config.json").is_file():
                return _relative(place, folder)
    except (OSError, RuntimeError, ValueError):
        return None
    return f"hf://{only}" if _HUB_ID.fullmatch(only) else None


def _relative(place: Path, folder: Path) -> str:
    """``place`` as a source of a manifest in ``folder``."""
    there = os.path.relpath(place.absolute(), folder.absolute()).replace(os.sep, "/")
    return there if there.startswith("../") else f"./{there}"
