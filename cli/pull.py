"""`adapterdock pull`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    FrozenOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    open_manifest_argument,
)
from .progress import shown_progress
from .render import human_bytes, print_findings, print_table

if TYPE_CHECKING:
    from ..registry.sources.fetch import Fetched
    from ..registry.store.store import Store

SCHEMA = "adapterdock.pull/1"


def pull(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    base: Annotated[
        bool, typer.Option("--base/--no-base", help="Whether to download the base model too.")
    ] = True,
    archive: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="Take the files from an archive that `bundle` wrote, without the network.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download what the lock pins, and verify it.

    Files are downloaded in parallel; a failed download leaves nothing behind. After a pull, the
    manifest loads with --offline. Without a lock, sources are resolved for this run only. Files of
    local folders and of the Hub's cache are verified in place.

    Examples:

      adapterdock pull
      adapterdock pull --frozen     # in an image build: exactly the locked bytes
      adapterdock pull --no-base    # the adapters only
      adapterdock pull --from out.oci.tar
    """
    from ..registry.access.session import session_for
    from ..registry.pull import pull_file, pull_from

    file = open_manifest_argument(manifest, model, dtype, policy)
    with shown_progress(f"Pulling {manifest}") as progress:
        session = session_for(
            file,
            policy=policy,
            accept=accept or (),
            frozen=frozen,
            offline=offline,
            progress=progress,
        )
        if archive is None:
            pulled = pull_file(file, session, with_base=base)
        else:
            pulled = pull_from(file, archive, session, with_base=base)
    everything = {**({"base": pulled.base} if pulled.base else {}), **pulled.adapters}
    if as_json:
        data = {
            "base": _files(pulled.base) if pulled.base else None,
            "adapters": {name: _files(files) for name, files in pulled.adapters.items()},
            "findings": [finding.as_dict() for finding in pulled.notes],
        }
        out.as_json(SCHEMA, data)
        return
    print_findings(pulled.notes, err)
    rows = [
        (
            name,
            str(len(files)),
            human_bytes(sum(f.fact.size for f in files.values())),
            ", ".join(dict.fromkeys(_place(f.path, session.store) for f in files.values())),
        )
        for name, files in everything.items()
    ]
    if not rows:
        say("Nothing to pull: the manifest declares no adapters and no base")
        return
    print_table(("name", "files", "size", "where"), rows, out)
    err.line("All files are here and verified")


def _files(files: Mapping[str, Fetched]) -> list[dict[str, Any]]:
    return [
        {"path": path, "size": one.fact.size, "sha256": one.fact.sha256, "at": str(one.path)}
        for path, one in sorted(files.items())
    ]


def _place(path: Path, store: Store) -> str:
    """The folder of a file as a person knows it: the cache's own folder for cached files."""
    return str(store.root if path.is_relative_to(store.objects) else path.parent)
