"""`adapterdock publish`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Where
from .console import err, out, say
from .key import PassphraseOption
from .options import JsonOption, OfflineOption, PolicyOption
from .progress import shown_progress
from .promote import DryRunOption
from .registries import ReferenceArgument, RegistriesOption, RegistryOption, manifest_of
from .render import counted, print_findings
from .signing import PublicKeyOption, SignOption, signer_of

SCHEMA = "adapterdock.publish/1"


def publish(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The adapter.", show_default=False)
    ],
    version: ReferenceArgument,
    base: Annotated[
        str | None,
        typer.Option(
            "--base",
            metavar="SOURCE",
            help="The base (default: the manifest's, or what the adapter's config records).",
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", metavar="ID", help="Of the adapter: Apache-2.0.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option("--owner", metavar="WHO", help="Who answers questions.")
    ] = None,
    description: Annotated[
        str | None, typer.Option("--description", metavar="TEXT", help="For people.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="WORD", help="For search (repeat).")
    ] = None,
    metrics: Annotated[
        Path | None,
        typer.Option("--metrics", metavar="FILE", help='JSON: {"accuracy": 0.91}.'),
    ] = None,
    provenance: Annotated[
        Path | None,
        typer.Option(
            "--provenance",
            metavar="FILE",
            help='JSON: {"data": [...], "code": COMMIT, "date": DATE, "parents": [...]}.',
        ),
    ] = None,
    new_name: Annotated[
        bool, typer.Option("--new-name", help="Allow a new name that is nearly another one.")
    ] = False,
    sign: SignOption = None,
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    dry_run: DryRunOption = False,
    policy: PolicyOption = None,
    offline: OfflineOption = False,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish an adapter to a registry as one version, for good.

    Validates it against its base first, and reads its weights once: an adapter that does not fit,
    could not be checked, or has NaN, infinite or only zero values is not published. Publishing the
    same content again succeeds; other content needs another version.

    Examples:

      adapterdock publish ./refunds team/refunds@2.1.0
      adapterdock publish ./refunds team/refunds@2.1.0 --base hf://org/base --registry ./registry
      adapterdock publish ./refunds team/refunds@2.1.0 --metrics metrics.json --dry-run
      adapterdock publish ./refunds team/refunds@2.1.0 --sign team.key
    """
    from ..registry.publishing import publish as publish_adapter
    from ..registry.records.entry import Provenance

    signer = signer_of(sign, passphrase_file, public_key)
    with shown_progress(f"Publishing {folder}") as progress:
        done = publish_adapter(
            folder,
            version,
            registry=registry,
            base=base,
            manifest=manifest_of(manifest),
            licence=licence,
            owner=owner,
            description=description,
            tags=tag or (),
            metrics=_metrics(metrics),
            provenance=_model(Provenance, provenance),
            policy=policy,
            new_name=new_name,
            dry_run=dry_run,
            sign=signer,
            offline=offline,
            progress=progress,
        )
    if as_json:
        resolved = None if done is None else done.resolved
        data = {
            "reference": version,
            "published": resolved is not None,
            "new": done is not None and done.new,
            "entry": None if resolved is None else resolved.digest,
            "digest": None if resolved is None else resolved.entry.digest,
            "uploaded": [] if done is None else list(done.uploaded),
            "problems": [] if done is None else [one.as_dict() for one in done.problems],
        }
        out.as_json(SCHEMA, data)
    elif done is None:
        say(f"{version} can be published; nothing was written")
    elif not done.new:
        say(f"{version} is published already, with the same content")
    else:
        say(f"Published {version}: {counted(len(done.uploaded), 'new file')}")
        say(f"entry {done.resolved.digest}", indent=2)
        print_findings(done.problems, err)


def _metrics(path: Path | None) -> dict[str, float]:
    """Names and finite numbers."""
    if path is None:
        return {}
    data = _object(path)
    wrong = [key for key, value in data.items() if type(value) not in (int, float)]
    if wrong:
        raise _invalid(path, f"{wrong[0][:80]!r} is not a number")
    return {key: float(value) for key, value in data.items()}


def _model(kind: Any, path: Path | None) -> Any:
    from pydantic import ValidationError

    from ..manifests.reading.complaints import first_problem

    try:
        return kind.model_validate_json("{}" if path is None else json.dumps(_object(path)))
    except ValidationError as error:
        raise _invalid(Path(str(path)), first_problem(error, "provenance")) from error


def _object(path: Path) -> Mapping[str, Any]:
    from ..manifests.reading.bounded_file import read_at_most
    from ..registry.records.entry import LIMIT, InvalidEntryError, parse_object

    try:
        return parse_object(read_at_most(path, LIMIT))
    except InvalidEntryError as error:
        raise _invalid(path, str(error)) from error
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from error


def _invalid(path: Path, reason: str) -> UsageError:
    return UsageError(
        codes.BAD_REFERENCE.finding(
            f"Cannot use {path}: {reason}", Where(file=str(path)), hint="Correct the file."
        )
    )
