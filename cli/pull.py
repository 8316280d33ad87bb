"""`adapterdock pull`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import err, out, say
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    FrozenOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    accepted_codes,
    check_arguments,
    manifest_argument,
)
from .progress import shown_progress
from .render import human_bytes, print_findings, print_table

if TYPE_CHECKING:
    from ..registry.store.store import Store


def pull(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
    base: Annotated[
        bool, typer.Option("--base/--no-base", help="Whether to fetch the base model too.")
    ] = True,
) -> None:
    """Bring what the lock pins onto this machine, verified.

    Files come in parallel, and what fails leaves nothing behind. Afterwards the manifest loads
    with --offline. Without a lock it is resolved as `lock` would, for this once. Files of local
    folders and of the Hub's cache are verified where they are.

    Examples:

      adapterdock pull
      adapterdock pull --frozen     # in an image build: exactly the locked bytes
      adapterdock pull --no-base    # the adapters only
    """
    from ..registry.pull import pull as pull_manifest
    from ..registry.store.store import Store

    path = manifest_argument(manifest)
    check_arguments(model, dtype, policy)
    accepted = accepted_codes(accept)
    with shown_progress(f"pulling {path}") as progress:
        pulled = pull_manifest(
            path,
            model=model,
            dtype=dtype,
            policy=policy,
            accept=accepted,
            frozen=frozen,
            offline=offline,
            with_base=base,
            progress=progress,
        )
    print_findings(pulled.notes, err)
    store = Store.default()
    everything = {**({"base": pulled.base} if pulled.base else {}), **pulled.adapters}
    rows = [
        (
            name,
            str(len(files)),
            human_bytes(sum(f.fact.size for f in files.values())),
            ", ".join(dict.fromkeys(_place(f.path, store) for f in files.values())),
        )
        for name, files in everything.items()
    ]
    if not rows:
        say("nothing to pull: the manifest declares no adapters and no base")
        return
    print_table(("name", "files", "size", "where"), rows, out)
    err.line("everything is here and verified")


def _place(path: Path, store: Store) -> str:
    """The folder of a file as a person knows it: of what the cache keeps by content, the cache."""
    return str(store.root if path.is_relative_to(store.objects) else path.parent)
