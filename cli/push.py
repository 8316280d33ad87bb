"""`adapterdock push`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import out, say
from .options import JsonOption, OfflineOption, PolicyOption
from .progress import shown_progress
from .promote import DryRunOption
from .registries import RegistriesOption, RegistryOption, manifest_of
from .render import counted

SCHEMA = "adapterdock.push/1"


def push(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER",
            help="REGISTRY/NAME@VERSION of a registry, or a folder: ./adapter.",
            show_default=False,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(metavar="TARGET", help="oci://HOST/REPOSITORY:TAG.", show_default=False),
    ],
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="SOURCE",
            help="Of a folder: the base (default: the manifest's, or what its config records).",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Push an adapter to an OCI registry.

    The artifact has the entry, the files and the signatures of the version, and is the same each
    time. Prints the source that pins it. A folder is validated as `publish` does; its name and its
    version are those of TARGET. The login is docker's. A tag that is a version never moves.

    Examples:

      adapterdock push team/refunds@2.1.0 oci://registry.example.com/team/refunds:2.1.0
      adapterdock push ./refunds oci://registry.example.com/team/refunds:2.1.0 --base hf://org/base
      adapterdock push team/refunds@prod oci://registry.example.com/team/refunds:prod --dry-run
    """
    from ..registry.pushing import push as send

    with shown_progress(f"Pushing {subject}") as progress:
        done = send(
            subject,
            target,
            registry=registry,
            base=base,
            manifest=manifest_of(manifest),
            policy=policy,
            offline=offline,
            dry_run=dry_run,
            progress=progress,
        )
    if as_json:
        data = {
            "target": target,
            "source": done.pinned,
            "digest": done.digest,
            "signatures": done.signatures,
            "new": done.new,
            "pushed": not dry_run,
        }
        out.as_json(SCHEMA, data)
        return
    if dry_run:
        say(f"{subject} can be pushed to {target}; nothing was sent")
    elif done.new:
        say(f"Pushed {subject} to {target}, with {counted(done.signatures, 'signature')}")
    else:
        say(f"{target} has {subject} already")
    say(done.pinned, indent=2)
