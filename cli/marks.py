"""`adapterdock yank`, `unyank` and `deprecate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import out, say
from .key import PassphraseOption
from .options import JsonOption
from .registries import (
    ByOption,
    ReferenceArgument,
    RegistriesOption,
    RegistryOption,
    WhyOption,
    opened,
    warn,
    who,
)
from .signing import PublicKeyOption, SignOption, signer_of

if TYPE_CHECKING:
    from ..registry.records.marks import Action
    from ..registry.signatures.signer import Signer

SCHEMA = "adapterdock.mark/1"

RequiredWhy = Annotated[
    str, typer.Option("--why", metavar="TEXT", help="The reason, shown to whoever uses it.")
]


def yank(
    version: ReferenceArgument,
    why: RequiredWhy,
    by: ByOption = None,
    sign: SignOption = None,
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark a version as wrong: ranges no longer select it.

    It still resolves by its exact version, by an alias and from a lock, with a warning.

    Examples:

      adapterdock yank team/refunds@2.0.0 --why 'trained with the wrong tokenizer'
    """
    signer = signer_of(sign, passphrase_file, public_key)
    _mark(version, "yank", why, by, signer, registry, manifest, as_json)


def unyank(
    version: ReferenceArgument,
    why: WhyOption = None,
    by: ByOption = None,
    sign: SignOption = None,
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a `yank` back.

    Examples:

      adapterdock unyank team/refunds@2.0.0 --why 'it was another version'
    """
    signer = signer_of(sign, passphrase_file, public_key)
    _mark(version, "unyank", why, by, signer, registry, manifest, as_json)


def deprecate(
    version: ReferenceArgument,
    why: RequiredWhy,
    by: ByOption = None,
    sign: SignOption = None,
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mark a version as old: whoever uses it gets a warning.

    Examples:

      adapterdock deprecate team/refunds@1.0.0 --why 'use 2.x'
    """
    signer = signer_of(sign, passphrase_file, public_key)
    _mark(version, "deprecate", why, by, signer, registry, manifest, as_json)


def _mark(
    text: str,
    action: Action,
    why: str | None,
    by: str | None,
    signer: Signer | None,
    registry: str | None,
    manifest: Path | None,
    as_json: bool,
) -> None:
    from ..registry.catalogue.promote import mark
    from ..registry.catalogue.reference import version_of

    catalogue, reference = opened(text, registry, manifest)
    version = version_of(reference)
    done = mark(
        catalogue,
        reference.name,
        version,
        action,
        by=who(by),
        why=why,
        signer=signer,
        told=warn,
    )
    what = f"{reference.name}@{version}"
    if as_json:
        now = done or catalogue.mark(catalogue.listing(reference.name), version)
        data = {
            "name": reference.name,
            "version": version,
            "changed": done is not None,
            "yanked": now is not None and now.yanked,
            "deprecated": now is not None and now.deprecated,
        }
        out.as_json(SCHEMA, data)
        return
    if done is None:
        end = "nothing was written" if signer is None else "its last mark, if any, is signed"
        say(f"{what}: nothing changes, and {end}")
        return
    states = [word for word in ("yanked", "deprecated") if getattr(done, word)]
    say(f"{what} is {' and '.join(states) or 'not yanked any more'}")
