"""`adapterdock fingerprint`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..manifests.codes import usage as codes
from ..manifests.errors import UsageError
from ..manifests.findings import Where
from .console import say, status
from .options import DEFAULT_MANIFEST, JsonOption, OfflineOption

if TYPE_CHECKING:
    from ..manifests.schema import Fingerprint
    from ..registry.sources.folder import Folder


def fingerprint(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MANIFEST|SOURCE",
            help="A manifest, or a base model's source such as ./model or hf://org/name.",
        ),
    ] = str(DEFAULT_MANIFEST),
    write: Annotated[
        bool,
        typer.Option("--write", help="Put it into the manifest, whose comments stay as they are."),
    ] = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print which base this is, at every level: structure, config, weights, tokenizer.

    The weights' digests come from a few values of every tensor (range reads), so this is quick
    for a remote base too. Two bases of one shape differ in `weights` or in `config`.

    Examples:

      adapterdock fingerprint --write

      adapterdock fingerprint hf://HuggingFaceTB/SmolLM2-135M-Instruct
    """
    from ..registry.project import open_manifest
    from ..registry.resolve import Access, open_base_folder

    path = Path(target)
    is_manifest = path.suffix in (".yaml", ".yml")
    if write and not is_manifest:
        raise UsageError(
            codes.NOTHING_TO_FINGERPRINT.finding("--write needs a manifest", found=target)
        )
    if is_manifest:
        file = open_manifest(path)
        folder = open_base_folder(file, Access(offline=offline))
        remote_code = file.manifest.base.trust_remote_code
    else:
        folder, remote_code = _open(target, offline), False
    if folder is None:
        raise UsageError(
            codes.NOTHING_TO_FINGERPRINT.finding(
                "the manifest declares no base", Where(file=target, path=("base",))
            )
        )
    with status(f"reading {folder.source}"):
        found = _read(folder, remote_code)
    data: dict[str, Any] = found.model_dump(mode="json", exclude_none=True)
    if write:
        from ..manifests.edit import set_mapping

        text = path.read_bytes().decode("utf-8")
        path.write_bytes(set_mapping(text, ("base", "fingerprint"), data).encode("utf-8"))
        open_manifest(path)
        say(f"wrote base.fingerprint into {path}")
    elif as_json:
        say(json.dumps({"schema": "adapterdock.fingerprint/1", **data}, indent=2))
    else:
        import yaml

        say(yaml.safe_dump({"fingerprint": data}, sort_keys=False, width=1000).rstrip())


def _read(folder: Folder, remote_code: bool) -> Fingerprint:
    from ..registry.fingerprint import fingerprint_of
    from ..registry.gather import READERS, gather_base, read_tokenizer_files, reader_of

    where = Where(file=str(folder.source))
    base = gather_base(folder, where, remote_code=remote_code)
    tokens = read_tokenizer_files(folder, where)
    return fingerprint_of(base, reader_of(folder), tokens, workers=READERS).fingerprint


def _open(target: str, offline: bool) -> Folder:
    from ..manifests.source import Source, SourceSyntaxError
    from ..registry.sources.open import open_source

    text = (
        f"./{target}"
        if Path(target).is_dir() and not target.startswith((".", "/", "~"))
        else target
    )
    try:
        source = Source.parse(text)
    except SourceSyntaxError as error:
        raise UsageError(
            codes.NOTHING_TO_FINGERPRINT.finding(
                str(error), found=target, expected="a manifest (*.yaml) or a source"
            )
        ) from error
    return open_source(source, directory=Path.cwd(), offline=offline, where=Where(file=target))
