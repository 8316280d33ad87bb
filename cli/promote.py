"""`adapterdock promote` and `demote`."""

from __future__ import annotations

from typing import Annotated

import typer

from .console import err, out, say
from .key import PassphraseOption
from .options import JsonOption
from .registries import (
    ByOption,
    NameArgument,
    ReferenceArgument,
    RegistriesOption,
    RegistryOption,
    WhyOption,
    never_existed,
    opened,
    warn,
    who,
)
from .render import print_findings
from .signing import PublicKeyOption, SignOption, signer_of

SCHEMA = "adapterdock.promotion/1"

AliasArgument = Annotated[
    str,
    typer.Argument(metavar="ALIAS", help="Such as prod or staging.", show_default=False),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, and write nothing.")
]


def promote(
    version: ReferenceArgument,
    alias: AliasArgument,
    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            metavar="METRIC>=NUMBER",
            help="Refuse unless a published metric is so (repeat for more).",
        ),
    ] = None,
    why: WhyOption = None,
    by: ByOption = None,
    sign: SignOption = None,
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an alias select a version from now on.

    Manifests that use the alias get the version when their lock is upgraded. The values before
    stay in the history.

    Examples:

      adapterdock promote team/refunds@2.1.0 prod
      adapterdock promote team/refunds@2.1.0 prod --require 'accuracy>=0.9' --why 'ticket 12'
      adapterdock promote team/refunds@2.1.0 prod --sign team.key
    """
    from ..registry.catalogue.promote import promote as promote_version
    from ..registry.catalogue.reference import version_of
    from ..registry.records.metrics import parse_requirement

    requirements = [parse_requirement(text) for text in require or ()]
    signer = signer_of(sign, passphrase_file, public_key)
    catalogue, reference = opened(version, registry, manifest)
    exact = version_of(reference)
    done = promote_version(
        catalogue,
        reference.name,
        exact,
        alias,
        require=requirements,
        by=who(by),
        why=why,
        signer=signer,
        dry_run=dry_run,
        told=warn,
    )
    mark = catalogue.mark(catalogue.listing(reference.name), exact)
    warning = None if mark is None else mark.warning(reference.name, exact, catalogue.where)
    print_findings([] if warning is None else [warning], err)
    what = f"{reference.name}@{alias}"
    if as_json:
        before = None if done is None else done.before
        _print_json(
            reference.name, alias, before, exact, None if done is None else done.serial, dry_run
        )
        return
    if done is None:
        end = "nothing was written" if signer is None or dry_run else "the value is signed"
        say(f"{what} selects {exact} already; {end}")
        return
    before = f" (before: {done.before})" if done.before else ""
    verb = "would select" if dry_run else "selects"
    say(f"{what} {verb} {exact}{before}; value {done.serial}")


def demote(
    name: NameArgument,
    alias: AliasArgument,
    why: WhyOption = None,
    by: ByOption = None,
    sign: SignOption = None,
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    dry_run: DryRunOption = False,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let an alias select nothing from now on.

    The values before stay in the history.

    Examples:

      adapterdock demote team/refunds staging --why 'not used any more'
      adapterdock demote team/refunds staging --sign team.key
    """
    from ..registry.catalogue.promote import demote as demote_alias
    from ..registry.catalogue.reference import name_of

    signer = signer_of(sign, passphrase_file, public_key)
    catalogue, reference = opened(name, registry, manifest)
    done = demote_alias(
        catalogue,
        name_of(reference),
        alias,
        by=who(by),
        why=why,
        signer=signer,
        dry_run=dry_run,
        told=warn,
    )
    what = f"{reference.name}@{alias}"
    if done is None and not catalogue.listing(reference.name).alias_numbers(alias):
        raise never_existed(catalogue, reference.name, alias)
    if as_json:
        before = None if done is None else done.before
        _print_json(
            reference.name, alias, before, None, None if done is None else done.serial, dry_run
        )
        return
    if done is None:
        end = "nothing was written" if signer is None or dry_run else "the value is signed"
        say(f"{what} selects nothing already; {end}")
        return
    verb = "would select" if dry_run else "selects"
    say(f"{what} {verb} nothing (before: {done.before}); value {done.serial}")


def _print_json(
    name: str, alias: str, before: str | None, now: str | None, value: int | None, dry_run: bool
) -> None:
    """What an alias selects; ``value`` is the number of its value, or ``None`` if it stays."""
    data = {
        "name": name,
        "alias": alias,
        "before": before if value is not None else now,
        "now": now,
        "value": value,
        "changed": value is not None,
        "dry_run": dry_run,
    }
    out.as_json(SCHEMA, data)
