"""Options of the commands that sign, and `adapterdock sign`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from .console import out, say
from .key import PassphraseOption
from .options import JsonOption
from .registries import RegistriesOption, RegistryOption, opened, warn

if TYPE_CHECKING:
    from ..registry.signatures.signer import Signer

SIGN_SCHEMA = "adapterdock.sign/1"

SignOption = Annotated[
    str | None,
    typer.Option(
        "--sign",
        metavar="KEY",
        help="Sign it with a private key: the path of a PEM file, or awskms:..., gcpkms:..., ...",
    ),
]
PublicKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--public-key",
        metavar="FILE",
        help="The public key that belongs to it; needed for a key in a service.",
    ),
]


def signer_of(
    key: str | None, passphrase_file: Path | None, public_key: Path | None
) -> Signer | None:
    """What signs with ``--sign KEY``, if that is given."""
    if key is None:
        for option, value in (("passphrase-file", passphrase_file), ("public-key", public_key)):
            if value is not None:
                raise UsageError(
                    codes.OPTIONS_CONFLICT.finding(
                        f"--{option} has no use without --sign",
                        found=f"--{option} {value}",
                        expected="--sign KEY",
                        hint=f"Pass --sign KEY too, or leave --{option} out.",
                    )
                )
        return None
    return open_key(key, passphrase_file, public_key)


def open_key(key: str, passphrase_file: Path | None, public_key: Path | None) -> Signer:
    """What signs with this key."""
    from ..registry.signatures.keys import load_public_key
    from ..registry.signatures.signer import open_signer, read_passphrase

    public = None if public_key is None else load_public_key(str(public_key), Path.cwd())
    passphrase = None if passphrase_file is None else read_passphrase(passphrase_file)
    return open_signer(key, passphrase, public)


def sign(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY/NAME@VERSION",
            help="A version, or an alias: team/refunds@2.1.0, team/refunds@prod.",
            show_default=False,
        ),
    ],
    key: Annotated[
        str,
        typer.Option(
            "--key",
            metavar="KEY",
            help="The private key: the path of a PEM file, or awskms:..., gcpkms:..., ...",
        ),
    ],
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Sign the last mark of the version (yank, deprecate).")
    ] = False,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a signature to a published version, or to an alias.

    Of an alias, its present value is signed. A policy with `require_signature` may ask for
    signatures by several people: each of them runs this command. Signing twice with one key changes
    nothing.

    Examples:

      adapterdock sign team/refunds@2.1.0 --key team.key
      adapterdock sign team/refunds@prod --key team.key --passphrase-file passphrase.txt
      adapterdock sign team/refunds@2.0.0 --mark --key team.key
    """
    from ..registry.catalogue.reference import needs_selector
    from ..registry.catalogue.sign import sign_selected

    signer = open_key(key, passphrase_file, public_key)
    catalogue, named = opened(reference, registry, manifest)
    selector = needs_selector(named)
    done = sign_selected(catalogue, named.name, selector, signer, mark=mark, told=warn)
    if as_json:
        said = {"signed": done.what, "digest": done.digest, "key": signer.key.id, "new": done.new}
        out.as_json(SIGN_SCHEMA, said)
        return
    if not done.new:
        say(f"This key has signed {done.what} already; nothing was written")
        return
    say(f"Signed {done.what}")
    say(done.digest, indent=2)  # to compare with what the publisher saw
    say(f"key {signer.key.id}", indent=2)
