"""Adding a signature to what is published already: a version, the value of an alias, or a mark."""

from __future__ import annotations

from dataclasses import dataclass

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError, SourceError, UsageError
from ...manifests.language.selector import Selector
from ..records.noted import Told, log_warning
from ..records.series import BrokenSeriesError, last_two
from ..signatures.envelope import Kind
from ..signatures.signer import Signer
from ..signatures.signing import Signable, add_later, entry_of, value_of
from ..storages.layout import alias_folder, marks_folder
from .catalogue import Catalogue
from .init import require_writable


@dataclass(frozen=True)
class Signed:
    """What was signed, in words, and the digest of its file; ``new`` is whether the key had not
    yet."""

    what: str
    digest: str
    new: bool


def sign_selected(
    catalogue: Catalogue,
    name: str,
    selector: Selector,
    signer: Signer,
    *,
    mark: bool = False,
    told: Told = log_warning,
) -> Signed:
    """Sign what a selector names: a version's entry, or with ``mark`` its last mark; or the
    present value of an alias. ``told`` gets a warning where only the journal's line about it cannot
    be written.

    Raises:
        UsageError: A range, which selects something else tomorrow; or the signer refuses.
        SourceError: Nothing is published there.
        IntegrityError: What is there cannot be used, so it should not be signed.
    """
    require_writable(catalogue)
    what, signable = _signable(catalogue, name, selector, mark)
    new = add_later(catalogue.storage, name, signable, signer, told)
    return Signed(what, signable.file.digest, new)


def _signable(
    catalogue: Catalogue, name: str, selector: Selector, mark: bool
) -> tuple[str, Signable]:
    text = f"{name}@{selector.text}"
    if selector.range is not None or (mark and selector.version is None):
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"Cannot sign {text}",
                found=selector.text,
                expected="an exact version" if mark else "an exact version, a digest or an alias",
            )
        )
    if mark:
        return f"the mark of {text}", _last_mark(catalogue, name, selector.text)
    if selector.alias is not None:
        values = catalogue.alias_values(catalogue.listing(name), selector.alias)  # they chain
        found = catalogue.resolve(name, selector)
        assert found.alias is not None
        last = values[found.alias.serial - 1]
        folder = alias_folder(name, selector.alias)
        signable = value_of(catalogue.id, Kind.ALIAS, name, folder, last.number, last.digest)
        return f"value {last.number} of {text}, which selects {found.entry.version}", signable
    found = catalogue.resolve(name, selector)
    version = found.entry.version
    return f"{name}@{version}", entry_of(catalogue.id, name, version, found.digest)


def _last_mark(catalogue: Catalogue, name: str, version: str) -> Signable:
    folder = marks_folder(name, version)
    try:
        _, last = last_two(catalogue.storage, folder, catalogue.storage.find(folder))
    except BrokenSeriesError as error:
        raise IntegrityError(codes.HISTORY_BROKEN.finding(str(error), catalogue.where)) from error
    if last is None:
        raise SourceError(
            codes.NOT_PUBLISHED.finding(f"{name}@{version} has no mark", catalogue.where)
        )
    return value_of(catalogue.id, Kind.MARK, name, folder, last.number, last.digest)
