"""Renumbering a registry in a git checkout: what two branches appended becomes one history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError, UsageError
from ...manifests.findings.finding import Finding
from ..storages.local_storage import LocalStorage
from .catalogue import Catalogue
from .git_merge import Side, find_merge
from .renumber import Move, renumber


@dataclass(frozen=True)
class Done:
    """What was renumbered: whose numbers stayed, which files got other ones, which paths were
    changed in the checkout, and a warning for each signature that signs nothing any more."""

    winner: Side
    moved: tuple[Move, ...]
    changed: tuple[str, ...]
    findings: tuple[Finding, ...]


def renumber_checkout(catalogue: Catalogue, keep: Side | None = None) -> Done:
    """Append the losing branch's files again, in the checkout and its index. Nothing is committed.

    Args:
        catalogue: A registry in a git checkout, in which two branches are being merged or were
            merged by the last commit.
        keep: The branch whose numbers stay; by default the one that is pushed.

    Raises:
        UsageError: It is not a checkout, or there is no merge.
        IntegrityError: Both branches published one version with different content, or have a file
            that cannot be read. Nothing was changed.
    """
    if not isinstance(catalogue.storage, LocalStorage):
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                "Only a registry in a git checkout can be renumbered",
                catalogue.where,
                expected="a local folder",
                hint="Name the folder in the checkout.",
            )
        )
    merge = find_merge(Path(catalogue.storage.url), keep)
    winner = merge.tree(merge.winner)
    loser = merge.tree("theirs" if merge.winner == "ours" else "ours")
    try:
        made = renumber(winner, loser)
    except ValueError as error:
        raise IntegrityError(codes.HISTORY_BROKEN.finding(str(error), catalogue.where)) from error
    if made.clashes:
        raise IntegrityError(
            *(
                codes.EXISTS_ALREADY.finding(
                    f"Both branches have {path}, with different content",
                    catalogue.where,
                    found=path,
                    hint="Publish the adapter of one branch as another version.",
                )
                for path in made.clashes
            )
        )
    gone = sorted({*winner, *loser} - set(made.files))
    changed = merge.write(dict(made.files), gone)
    findings = tuple(
        codes.SIGNATURE_INVALID.finding(
            f"The signature {path} was removed: what it signs has another number now",
            catalogue.where,
            hint="Sign it again with `adapterdock sign`.",
        )
        for path in made.unsigned
    )
    findings += tuple(
        codes.RULES_BROKEN.finding(
            f"{path} of the other branch was left out: the rules that stayed demand signatures",
            catalogue.where,
            hint="Set these rules again with `adapterdock registry rules set`.",
        )
        for path in made.unset
    )
    return Done(merge.winner, made.moved, tuple(changed), findings)
