"""`adapterdock mirror`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import UsageError
from .console import err, out, say
from .options import JsonOption, folder_argument, open_manifest_argument, refuse_with
from .progress import shown_progress
from .promote import DryRunOption
from .registries import RegistriesOption, manifest_of
from .render import counted, human_bytes, print_table

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile

SCHEMA = "adapterdock.mirror/1"
HUB_SCHEMA = "adapterdock.hub-mirror/1"


def mirror(
    registry: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY|MANIFEST",
            help="A registry: its folder (./registry, s3://bucket/folder), or its configured name. "
            "With --hub: a manifest.",
            show_default=False,
        ),
    ],
    to: Annotated[
        str,
        typer.Argument(
            metavar="DEST",
            help="The mirror's folder: ./mirror, s3://bucket/folder.",
            show_default=False,
        ),
    ],
    hub: Annotated[
        bool,
        typer.Option(
            "--hub",
            help="Copy what the lock of MANIFEST pins on the Hub, for `mirrors` of manifests.",
        ),
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="PATTERN",
            help="Copy only adapters whose names match, such as 'support/*' (repeat for more).",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a registry, or locked files of the Hub, to a mirror.

    Of a registry, what is new in it since the last time.

    Verifies every file before it is written. Nothing in the mirror is deleted or overwritten; if
    it has something that the registry does not have, nothing is copied. A run that was stopped is
    continued by the next one. A mirror has the registry's id, and refuses `publish`, `promote` and
    marks.

    With --hub, DEST gets the files of hf:// sources in the layout that `mirrors` of a manifest
    reads: org/name/COMMIT/folder. It may be on anything that fsspec writes.

    Examples:

      adapterdock mirror team s3://other-bucket/adapters
      adapterdock mirror ./registry /mnt/usb/registry --only 'support/*'
      adapterdock mirror team ./mirror --dry-run
      adapterdock mirror --hub adapters.yaml ./hf-mirror
    """
    if hub:
        refuse_with("--hub", {"--only": only, "--manifest": manifest})
        _mirror_hub(Path(registry), folder_argument(to), dry_run, as_json)
        return
    if Path(registry).suffix in (".yaml", ".yml") and Path(registry).is_file():
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"{registry} is a manifest, and not a registry",
                found=registry,
                expected="a registry: its folder, or its configured name",
                hint="Add --hub to copy what its lock pins on the Hub.",
            )
        )
    from ..registry.catalogue.mirror import mirror as copy
    from ..registry.catalogue.open_storage import open_storage
    from ..registry.registries import open_named
    from ..registry.storages.local_storage import LocalStorage

    origin = open_named(registry, manifest_of(manifest))
    storage = open_storage(folder_argument(to), directory=Path.cwd())
    with shown_progress(f"Comparing {registry} with {to}") as progress:
        done = copy(
            origin,
            storage,
            only=only or (),
            dry_run=dry_run,
            local=isinstance(storage, LocalStorage),
            progress=progress,
        )
    if as_json:
        names = {"origin": origin.storage.url, "mirror": storage.url, "dry_run": dry_run}
        data = {"id": done.id, "names": list(done.names), "files": list(done.files)}
        out.as_json(SCHEMA, {**names, **data, "bytes": done.size})
        return
    what = f"{counted(len(done.files), 'file')}, {human_bytes(done.size)}"
    if not done.files:
        say(f"{to} has everything already")
    else:
        say(f"Would copy {what}" if dry_run else f"Copied {what} to {to}")
    say(f"{counted(len(done.names), 'adapter')}; id {done.id}", indent=2)


def _mirror_hub(manifest: Path, to: str, dry_run: bool, as_json: bool) -> None:
    from ..registry.hub_mirror import PREFIX, mirror_hub

    file = open_manifest_argument(manifest, None, None, None)
    with shown_progress(f"Copying what {manifest} has on the Hub to {to}") as progress:
        done = mirror_hub(file, to, dry_run=dry_run, progress=progress)
    row = {PREFIX: mirror_target(file, done.url)}
    if as_json:
        entries = [vars(entry) for entry in done.entries]
        data = {"mirror": done.url, "dry_run": dry_run, "entries": entries}
        files = {"files": list(done.copied), "bytes": done.size}
        out.as_json(HUB_SCHEMA, {**data, **files, "others": dict(done.others), "mirrors": row})
        return
    rows = [(e.name or "base", str(e.files), e.source, e.folder) for e in done.entries]
    print_table(("name", "files", "source", "in the mirror"), rows, out)
    what = f"{counted(len(done.copied), 'file')}, {human_bytes(done.size)}"
    if not done.copied:
        err.line(f"{to} has everything already")
    else:
        err.line(f"Would copy {what}" if dry_run else f"Copied {what} to {to}")
    for name, source in done.others.items():
        err.line(f"Left out {name}: {source} is not on the Hub")
    if not dry_run:
        err.line(f'Next, in the manifest: mirrors: {{"{PREFIX}": {row[PREFIX]}}}')


def mirror_target(file: ManifestFile, url: str) -> str:
    """What `mirrors` of ``file`` says for a mirror at ``url``, which counts from this folder."""
    from ..manifests.language.source import Source

    source = Source.parse(url)
    place = Path(url).expanduser()
    if source.is_local and not place.is_absolute():
        there = os.path.relpath(place.absolute(), file.directory.absolute()).replace(os.sep, "/")
        url = there if there.startswith("../") else f"./{there}"
    return f"{url.rstrip('/')}/"
