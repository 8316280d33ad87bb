"""Changes after publishing: values of aliases, and marks. Each is one new file of a series."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError, PolicyError
from ..records.journal import now
from ..records.marks import Action, Mark, read_mark, said, text_or_none
from ..records.metrics import Requirement
from ..records.noted import Told, log_warning, noted
from ..records.series import BrokenSeriesError, Value, append, last_two
from ..signatures.envelope import Kind
from ..signatures.signer import Signer
from ..signatures.signing import Signable, SigningFirst, add_later, value_of
from ..storages.layout import alias_folder, marks_folder
from .catalogue import Catalogue, Listing
from .gates import check_gates
from .init import require_writable
from .reference import check_alias

T = TypeVar("T")


@dataclass(frozen=True)
class AliasValue:
    """One value of an alias. ``version`` is ``None`` where the alias was removed."""

    serial: int
    version: str | None
    entry: str | None
    by: str | None
    at: str | None
    why: str | None
    before: str | None
    """The version before."""


def promote(
    catalogue: Catalogue,
    name: str,
    version: str,
    alias: str,
    *,
    require: Collection[Requirement] = (),
    by: str | None = None,
    why: str | None = None,
    signer: Signer | None = None,
    dry_run: bool = False,
    told: Told = log_warning,
) -> AliasValue | None:
    """Let an alias select a version from now on; ``None`` where it does already.

    ``signer`` signs the new value, or the one that selects the version already. ``told`` gets a
    warning where only the journal's line about it cannot be written. Raises
    :class:`PolicyError` where the version does not meet a requirement, or what the registry's
    rules ask for this alias.
    """
    check_alias(alias)
    require_writable(catalogue)
    found = catalogue.entry(name, version)
    wrong = [one for one in (r.check(found.entry) for r in require) if one is not None]
    wrong += check_gates(catalogue, found, alias, signer)
    if wrong:
        raise PolicyError(*dict.fromkeys(wrong))
    return _move(catalogue, name, alias, version, found.digest, by, why, signer, dry_run, told)


def demote(
    catalogue: Catalogue,
    name: str,
    alias: str,
    *,
    by: str | None = None,
    why: str | None = None,
    signer: Signer | None = None,
    dry_run: bool = False,
    told: Told = log_warning,
) -> AliasValue | None:
    """Let an alias select nothing from now on; ``None`` where it selects nothing already.

    ``signer`` signs the new value, or the one that says so already. ``told`` is as for
    :func:`promote`.
    """
    check_alias(alias)
    require_writable(catalogue)
    return _move(catalogue, name, alias, None, None, by, why, signer, dry_run, told)


def history(catalogue: Catalogue, name: str, alias: str) -> list[AliasValue]:
    """All values of an alias, oldest first; their chain is verified."""
    check_alias(alias)
    values: list[AliasValue] = []
    for value in catalogue.alias_values(catalogue.listing(name), alias):
        values.append(_read(value, values[-1].version if values else None))
    return values


def selected(catalogue: Catalogue, listing: Listing) -> dict[str, str]:
    """The version that each alias of a name selects now."""
    found: dict[str, str] = {}
    for alias in listing.aliases:
        version = catalogue.alias_version(listing, alias)
        if version is not None:
            found[alias] = version
    return found


def mark(
    catalogue: Catalogue,
    name: str,
    version: str,
    action: Action,
    *,
    by: str | None = None,
    why: str | None = None,
    signer: Signer | None = None,
    told: Told = log_warning,
) -> Mark | None:
    """Yank, un-yank or deprecate a version; ``None`` where nothing changes.

    ``signer`` signs the new mark, or the one that says so already. ``told`` is as for
    :func:`promote`.
    """
    require_writable(catalogue)
    entry = catalogue.entry(name, version)
    folder, at = marks_folder(name, version), now()
    nonce = secrets.token_hex(8)
    seen: list[Value | None] = [None]

    def make(last: Value | None) -> Mapping[str, Any] | None:
        seen[0] = last
        before = Mark() if last is None else read_mark(folder, last)
        after = before.after(action, by, at, why)
        return None if before.same_state(after) else {**after.as_value(), "nonce": nonce}

    signing = SigningFirst(catalogue.storage, signer, _signable(catalogue, Kind.MARK, name, folder))
    written = _append(catalogue, folder, make, signing)
    if written is None:
        _sign_present(name, seen[0], signing, told)
        return None
    done = f"{name}@{version} is marked ({action})"
    line = {"what": action, "name": name, "version": version, "entry": entry.digest}
    line = said({**line, "signature": signing.path})
    _note(catalogue, line, written, by, at, why, done, told)
    return read_mark(folder, written)


def _move(
    catalogue: Catalogue,
    name: str,
    alias: str,
    version: str | None,
    entry: str | None,
    by: str | None,
    why: str | None,
    signer: Signer | None,
    dry_run: bool,
    told: Told,
) -> AliasValue | None:
    folder, at = alias_folder(name, alias), now()
    data = {"version": version, "entry": entry, "by": by, "at": at, "why": why}
    value = {**said(data), "nonce": secrets.token_hex(8)}
    before: list[Value | None] = [None]

    def make(last: Value | None) -> Mapping[str, Any] | None:
        before[0] = last
        now_selected = None if last is None else (last.data.get("version"), last.data.get("entry"))
        return None if (now_selected or (None, None)) == (version, entry) else value

    if dry_run:
        last = _last(catalogue, folder)
        if make(last) is None:
            return None
        serial = 1 if last is None else last.number + 1
        return AliasValue(serial, version, entry, by, at, why, _version(last))
    signing = SigningFirst(
        catalogue.storage, signer, _signable(catalogue, Kind.ALIAS, name, folder)
    )
    written = _append(catalogue, folder, make, signing)
    if written is None:
        _sign_present(name, before[0], signing, told)
        return None
    what = "demote" if version is None else "promote"
    done = f"{name}@{alias} selects {version or 'nothing'}"
    line = {"what": what, "name": name, "alias": alias, "version": version, "entry": entry}
    line = said({**line, "signature": signing.path})
    _note(catalogue, line, written, by, at, why, done, told)
    return _read(written, _version(before[0]))


def _note(
    catalogue: Catalogue,
    line: Mapping[str, Any],
    written: Value,
    by: str | None,
    at: str,
    why: str | None,
    done: str,
    told: Told,
) -> None:
    more = said({"by": by, "at": at, "why": why})
    line = {**line, **more, "serial": written.number, "value": written.digest}
    noted(catalogue.storage, line, done, told)


def _last(catalogue: Catalogue, folder: str) -> Value | None:
    return _guarded(
        catalogue,
        lambda: last_two(catalogue.storage, folder, catalogue.storage.find(folder))[1],
    )


def _append(
    catalogue: Catalogue,
    folder: str,
    make: Callable[[Value | None], Mapping[str, Any] | None],
    prepare: Callable[[Value], Callable[[], None]],
) -> Value | None:
    last = _last(catalogue, folder)
    return _guarded(
        catalogue, lambda: append(catalogue.storage, folder, make, last, prepare=prepare)
    )


def _signable(
    catalogue: Catalogue, kind: Kind, name: str, folder: str
) -> Callable[[Value], Signable]:
    return lambda value: value_of(catalogue.id, kind, name, folder, value.number, value.digest)


def _sign_present(name: str, value: Value | None, signing: SigningFirst, told: Told) -> None:
    if value is not None:
        add_later(signing.storage, name, signing.signable(value), signing.signer, told)


def _guarded(catalogue: Catalogue, act: Callable[[], T]) -> T:
    try:
        return act()
    except BrokenSeriesError as error:
        raise IntegrityError(codes.HISTORY_BROKEN.finding(str(error), catalogue.where)) from error


def _version(value: Value | None) -> str | None:
    return None if value is None else text_or_none(value.data.get("version"))


def _read(value: Value, before: str | None) -> AliasValue:
    texts = [text_or_none(value.data.get(k)) for k in ("version", "entry", "by", "at", "why")]
    version, entry, by, at, why = texts
    return AliasValue(value.number, version, entry, by, at, why, before)
