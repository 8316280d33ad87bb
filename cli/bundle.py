"""`adapterdock bundle` and `adapterdock unpack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import out, say
from .options import (
    JsonOption,
    ManifestArgument,
    OfflineOption,
    PolicyOption,
    check_arguments,
    manifest_argument,
)
from .progress import shown_progress
from .promote import DryRunOption
from .render import counted, human_bytes

SCHEMA = "adapterdock.bundle/1"
UNPACK_SCHEMA = "adapterdock.unpack/1"


def bundle(
    manifest: ManifestArgument,
    out_text: Annotated[
        str,
        typer.Argument(metavar="OUT", help="The archive: out.oci.tar.", show_default=False),
    ],
    with_base: Annotated[
        bool, typer.Option("--with-base", help="Pack the base model too.")
    ] = False,
    dry_run: DryRunOption = False,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Pack a manifest, its lock and all locked files into a file.

    The file is an OCI archive. It moves the set-up to a machine without a network: `unpack` writes
    the manifest and the lock, and `pull --from` takes every file from the archive, verified.
    `skopeo` copies it like an image. Equal set-ups give equal bytes.

    Examples:

      adapterdock bundle adapters.yaml out.oci.tar --with-base
      adapterdock bundle adapters.yaml out.oci.tar --dry-run
      skopeo copy oci-archive:out.oci.tar:setup docker://registry.example.com/team/setup:1
    """
    from ..registry.bundling import bundle as pack
    from ..registry.files.disk import output_path

    archive = output_path(out_text)
    manifest_argument(manifest)
    check_arguments(None, None, policy)
    with shown_progress(f"Packing {manifest}") as progress:
        done = pack(
            manifest,
            archive,
            with_base=with_base,
            policy=policy,
            offline=offline,
            dry_run=dry_run,
            progress=progress,
        )
    if as_json:
        data = {
            "archive": str(archive),
            "written": done.digest is not None,
            "files": done.files,
            "bytes": done.size,
            "base": done.has_base,
            "manifest": done.manifest,
            "digest": done.digest,
        }
        out.as_json(SCHEMA, data)
        return
    what = f"{counted(done.files, 'file')} ({human_bytes(done.size)})"
    base = "with the base" if done.has_base else "without the base"
    if done.digest is None:
        say(f"{archive} can be written: {what}, {base}; nothing was written")
        return
    say(f"Wrote {archive}: {what}, {base}")
    say(done.digest, indent=2)


def unpack(
    archive: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", help="What `bundle` wrote.", show_default=False),
    ],
    folder_text: Annotated[
        str, typer.Argument(metavar="FOLDER", help="A new or empty folder.", show_default=False)
    ],
    as_json: JsonOption = False,
) -> None:
    """Write the manifest and the lock of a bundle into a folder.

    Local adapters are written beside them. Files of other sources stay in the bundle: `pull --from`
    takes them from there. FOLDER is created on success only.

    Examples:

      adapterdock unpack out.oci.tar ./here
      adapterdock pull ./here/adapters.yaml --from out.oci.tar
    """
    from ..registry.files.disk import output_path
    from ..registry.unbundling import unpack as write

    folder = output_path(folder_text)
    with shown_progress(f"Unpacking {archive}") as progress:
        done = write(archive, folder, progress=progress)
    shown = folder / done.manifest.relative_to(done.folder)
    if as_json:
        data = {"folder": str(folder), "manifest": str(shown), "new": done.new}
        out.as_json(UNPACK_SCHEMA, {**data, "files": sorted(map(str, done.files))})
        return
    if not done.new:
        say(f"{folder} has these {counted(len(done.files), 'file')} already")
    else:
        say(f"Wrote {counted(len(done.files), 'file')} into {folder}")
    say(f"next: adapterdock pull {shown} --from {archive}", indent=2)
