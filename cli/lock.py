"""`adapterdock lock`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from .command import exit_with
from .console import out
from .formats import Format, FormatOption, format_of
from .lock_one import Locking, lock_one
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    JsonOption,
    ManyOption,
    ModelOption,
    OfflineOption,
    PolicyOption,
    check_arguments,
    complete_adapter,
    manifest_argument,
    open_manifest_argument,
    refuse_with,
)

SCHEMA = "adapterdock.lock/1"


def lock(
    manifests: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Manifests, folders (searched recursively) or globs (default: adapters.yaml).",
            show_default=False,
            metavar="FILE|DIR|GLOB",
        ),
    ] = None,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    offline: OfflineOption = False,
    upgrade: Annotated[
        list[str] | None,
        typer.Option(
            "--upgrade",
            metavar="NAME",
            help="Update the pin of this adapter, or of `base` (repeat for more).",
            autocompletion=complete_adapter,
        ),
    ] = None,
    upgrade_all: Annotated[bool, typer.Option("--upgrade-all", help="Update every pin.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Write nothing; exit 1 unless the lock exists and is current."
        ),
    ] = False,
    locked_only: Annotated[
        bool,
        typer.Option("--locked-only", help="With --check: leave out manifests without a lock."),
    ] = False,
    show_diff: Annotated[
        bool,
        typer.Option(
            "--diff",
            help="Write nothing; show what updating the pins (all, or those of --upgrade) changes.",
        ),
    ] = False,
    many: ManyOption = False,
    form: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pin every source to its exact bytes, in NAME.lock.

    Runs the checks of `validate` first. Downloads the adapters, because a lock holds their
    digests; of a remote base it downloads only small files. Entries that did not change keep their
    pins. Commit the lock and NAME.lock.samples beside the manifest, so that everybody loads the
    same bytes. A merge conflict in the lock is resolved: pins that both sides have alike, or only
    one side has, are kept.

    Of several manifests (or a folder, or a glob) each gets its lock, and one that cannot be locked
    does not stop the others.

    Examples:

      adapterdock lock
      adapterdock lock teams/             # every manifest in the folder
      adapterdock lock --check            # in CI
      adapterdock lock --check teams/     # every manifest in the folder
      adapterdock lock --diff             # has anything moved upstream?
      adapterdock lock --upgrade tone     # pin the new version, and review the diff
      adapterdock lock --accept AD364     # the lock records it
    """
    form = format_of(form, as_json)
    if check:
        others = {
            "--diff": show_diff,
            "--upgrade": upgrade,
            "--upgrade-all": upgrade_all,
            "--accept": accept,
        }
        refuse_with("--check", others)
    elif locked_only or form not in (Format.text, Format.json):
        option = "--locked-only" if locked_only else "--format"
        raise UsageError(
            codes.OPTIONS_CONFLICT.finding(
                f"{option} can only be used together with --check",
                found=option if locked_only else f"{option} {form.value}",
                hint=f"Add --check, or omit {option}.",
            )
        )
    if upgrade_all:
        refuse_with("--upgrade-all", {"--upgrade": upgrade})
    from ..manifests.find import names_several
    from ..manifests.lockfile import manifest_path

    inputs = [manifest_path(path) or path for path in manifests or [DEFAULT_MANIFEST]]
    as_json = form is Format.json
    several = many or len(inputs) > 1 or names_several(inputs[0])
    check_arguments(model, dtype, policy)
    if check and (several or locked_only or form not in (Format.text, Format.json)):
        from .lock_many import check_many

        check_many(
            inputs,
            form,
            many=many,
            locked_only=locked_only,
            model=model,
            dtype=dtype,
            policy=policy,
            offline=offline,
        )
    if not several:
        manifest_argument(inputs[0], several=True)
    if check:
        from ..registry.validate import check_lock

        file = open_manifest_argument(inputs[0], model, dtype, policy)
        exit_with(check_lock(file, policy=policy, offline=offline), as_json)
    wanted = Locking(
        model=model,
        dtype=dtype,
        policy=policy,
        accept=tuple(accept or ()),
        offline=offline,
        upgrade=tuple(upgrade or ()),
        upgrade_all=upgrade_all or (show_diff and not upgrade),
        write=not show_diff,
    )
    if several:
        from .lock_many import lock_many

        lock_many(inputs, wanted, many=many, as_json=as_json)
    locked = lock_one(inputs[0], wanted)
    if as_json:
        out.as_json(SCHEMA, locked.as_dict())
    else:
        locked.print()
