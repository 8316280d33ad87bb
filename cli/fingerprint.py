"""`adapterdock fingerprint`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import ManifestError, UsageError
from ..manifests.findings.finding import Where
from .console import err, out, say, status
from .options import DEFAULT_MANIFEST, JsonOption, OfflineOption, manifest_argument

if TYPE_CHECKING:
    from ..manifests.language.schema import Fingerprint
    from ..registry.sources.folder import Folder

SCHEMA = "adapterdock.fingerprint/1"


def fingerprint(
    target: Annotated[
        str,
        typer.Argument(
            show_default=False,
            metavar="MANIFEST|SOURCE",
            help="A manifest (default: adapters.yaml), or the source of a base model such as "
            "./model or hf://org/name.",
        ),
    ] = str(DEFAULT_MANIFEST),
    write: Annotated[
        bool,
        typer.Option("--write", help="Write it into the manifest; comments and layout stay."),
    ] = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Print digests that identify a base model.

    They cover its structure, config, weights and tokenizer. In a manifest, they make sure that the
    adapters are attached to this base and no other: bases of the same shape differ in `weights` or
    `config`. Reads only a few values of each tensor, so it is quick for a remote base too.

    Examples:

      adapterdock fingerprint                # the base in adapters.yaml
      adapterdock fingerprint --write        # and write it into adapters.yaml
      adapterdock fingerprint ./finetuned
      adapterdock fingerprint hf://HuggingFaceTB/SmolLM2-135M-Instruct
    """
    from ..registry.access.access import Access, open_base_folder
    from ..registry.locks.project import open_manifest

    path = Path(target)
    is_manifest = path.suffix in (".yaml", ".yml")
    if write and not is_manifest:
        raise UsageError(
            codes.NOTHING_TO_FINGERPRINT.finding(
                "--write needs a manifest", found=target, expected="a manifest (*.yaml)"
            )
        )
    if is_manifest:
        file = open_manifest(manifest_argument(path))
        folder = open_base_folder(file, Access(offline=offline))
        remote_code = file.manifest.base.trust_remote_code
        if folder is None:
            raise UsageError(
                codes.NOTHING_TO_FINGERPRINT.finding(
                    "The manifest declares no base", file.where(("base",))
                )
            )
    else:
        folder, remote_code = _open(target, offline), False
    with status(f"Reading {folder.source}"):
        found = _read(folder, remote_code)
    data: dict[str, Any] = found.model_dump(mode="json", exclude_none=True)
    if write:
        _write(path, data)
        err.line(f"Wrote base.fingerprint into {path}")
    if as_json:
        out.as_json(SCHEMA, {"source": str(folder.source), "fingerprint": data})
    elif not write:
        import yaml

        # wide enough that YAML does not wrap a digest
        text = yaml.safe_dump({"fingerprint": data}, sort_keys=False, width=1000)
        for line in text.splitlines():
            say(line.strip(), indent=len(line) - len(line.lstrip()))


def _read(folder: Folder, remote_code: bool) -> Fingerprint:
    from ..registry.base.fingerprint import fingerprint_of
    from ..registry.read_facts import READERS, gather_base, read_tokenizer_files, reader_of

    where = Where(file=str(folder.source))
    base = gather_base(folder, where, remote_code=remote_code)
    tokens = read_tokenizer_files(folder, where)
    return fingerprint_of(base, reader_of(folder), tokens, workers=READERS).fingerprint


def _open(target: str, offline: bool) -> Folder:
    from ..manifests.language.source import Source, SourceSyntaxError
    from ..registry.sources.open import open_source

    bare = Path(target).is_dir() and not target.startswith((".", "/", "~"))
    try:
        source = Source.parse(f"./{target}" if bare else target)
    except SourceSyntaxError as error:
        raise UsageError(
            codes.NOTHING_TO_FINGERPRINT.finding(
                "The argument is neither a manifest nor a source",
                found=target,
                expected=f"a manifest (*.yaml) or a source; {error}",
            )
        ) from error
    return open_source(source, directory=Path.cwd(), offline=offline, where=Where(file=target))


def _write(path: Path, data: dict[str, Any]) -> None:
    """Replace the manifest with one that has this fingerprint, after reading that."""
    from ..manifests.edit import set_mapping
    from ..manifests.manifest import read_manifest
    from ..manifests.rewrite import rewrite

    before = path.read_bytes()
    try:
        text = set_mapping(before.decode("utf-8"), ("base", "fingerprint"), data)
    except ManifestError as error:
        here = (replace(f, where=replace(f.where, file=str(path))) for f in error.findings)
        raise ManifestError(*here) from error
    after = text.encode("utf-8")
    read_manifest(path, content=after)
    rewrite(path, before, after)
