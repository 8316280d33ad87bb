"""`adapterdock registry rules`: set and show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .command import Command, Group
from .console import out, say
from .key import PassphraseOption
from .options import JsonOption
from .promote import DryRunOption
from .registries import ByOption, RegistriesOption, manifest_of, warn, who
from .signing import PublicKeyOption, SignOption, signer_of

if TYPE_CHECKING:
    from ..registry.catalogue.catalogue import Catalogue

SCHEMA = "adapterdock.rules/1"
SET_SCHEMA = "adapterdock.rules-set/1"

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="What a promotion to an alias needs in a registry, and who may change that.",
)

OneRegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="URL|NAME",
        help="The registry (default: the one that is configured, if it is the only one).",
    ),
]


@app.command("set", cls=Command)
def set_rules(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="The rules, as JSON.", show_default=False)
    ],
    registry: OneRegistryOption = None,
    sign: SignOption = None,
    passphrase_file: PassphraseOption = None,
    public_key: PublicKeyOption = None,
    by: ByOption = None,
    dry_run: DryRunOption = False,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Append the next rules of a registry.

    The rules before stay in its history. `promote` obeys the last ones: they say by alias which
    metrics, licences and signatures a version needs, and who signs the promotion. Where the present
    rules have keys, these must sign the next. If a threshold needs several people, each of them
    runs this command with the same file.

    Examples:

      adapterdock registry rules set rules.json
      adapterdock registry rules set rules.json --registry ./registry --sign anna.key
    """
    from ..registry.catalogue.rules import rules_in_file
    from ..registry.catalogue.rules_series import set_rules as append_rules

    rules = rules_in_file(path)
    signer = signer_of(sign, passphrase_file, public_key)
    catalogue = _opened(registry, manifest)
    done = append_rules(catalogue, rules, signer=signer, by=who(by), dry_run=dry_run, told=warn)
    if as_json:
        missing = None if done is None or done.missing is None else done.missing.as_dict()
        data = {
            "url": catalogue.storage.url,
            "number": None if done is None else done.number,
            "changed": done is not None,
            "in_force": missing is None and not dry_run,
            "missing": missing,
        }
        out.as_json(SET_SCHEMA, data)
        return
    if done is None:
        say("These rules hold already; nothing was written")
    elif done.missing is not None:
        say(f"Signed rules {done.number}; they do not hold yet")
        say(f"{done.missing.message}; expected: {done.missing.expected}", indent=2)
        say("Ask them to run this command with the same file", indent=2)
    elif dry_run:
        say(f"These can be rules {done.number}; nothing was written")
    else:
        say(f"Set rules {done.number}")


@app.command("show", cls=Command)
def show_rules(
    registry: OneRegistryOption = None,
    manifest: RegistriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the rules that hold in a registry.

    They are JSON that `rules set` reads again.

    Examples:

      adapterdock registry rules show --registry ./registry
    """
    import json

    from ..registry.catalogue.rules_series import rules_in_force

    catalogue = _opened(registry, manifest)
    last = rules_in_force(catalogue)
    rules: Any = None if last is None else last.rules.data
    if as_json:
        number = None if last is None else last.value.number
        out.as_json(SCHEMA, {"url": catalogue.storage.url, "number": number, "rules": rules})
    elif rules is None:
        say("This registry has no rules")
    else:
        say(json.dumps(rules, indent=2, ensure_ascii=False))


def _opened(registry: str | None, manifest: Path | None) -> Catalogue:
    from ..registry.registries import open_named, open_only

    file = manifest_of(manifest)
    return open_only(file) if registry is None else open_named(registry, file)
