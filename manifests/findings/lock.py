"""Codes AD5xx: the lock, and what differs between a manifest and its lock."""

from __future__ import annotations

from .code import Code
from .finding import Severity

LOCK_UNREADABLE = Code(
    "AD501",
    "lock-unreadable",
    Severity.ERROR,
    "The lock file is not one that adapterdock wrote.",
    "Restore the lock from version control, or delete it and run `adapterdock lock`.",
)
LOCK_VERSION_UNKNOWN = Code(
    "AD502",
    "lock-version-unknown",
    Severity.ERROR,
    "The lock was written by a later adapterdock.",
    "Upgrade adapterdock, or run `adapterdock lock` again with this version.",
)
LOCK_UNWRITABLE = Code(
    "AD503",
    "lock-unwritable",
    Severity.ERROR,
    "Cannot write the lock.",
    "Copy the manifest to a folder that you can write to, then lock it there.",
)
LOCK_MISSING = Code(
    "AD504",
    "lock-missing",
    Severity.ERROR,
    "The lock is missing, and it is required.",
    "Run `adapterdock lock` and commit the lock.",
)
LOCK_STALE = Code(
    "AD505",
    "lock-stale",
    Severity.ERROR,
    "The manifest has changed since it was locked.",
    "Run `adapterdock lock` (it keeps the pins of unchanged entries) and review the diff.",
)
LOCK_PARTIAL = Code(
    "AD506",
    "lock-partial",
    Severity.ERROR,
    "A part of the manifest is not pinned.",
    "Run `adapterdock lock`, then `adapterdock pull`, and commit the lock.",
)
LOCK_MUTABLE = Code(
    "AD507",
    "mutable-adapter",
    Severity.WARNING,
    "An adapter is declared mutable, so it is not locked.",
    "Remove `mutable: true` and run `adapterdock lock` once it is finished.",
)
FROZEN_MUTABLE = Code(
    "AD508",
    "mutable-when-frozen",
    Severity.ERROR,
    "A mutable adapter cannot be used with --frozen.",
    "Remove `mutable: true` and lock it, or run without --frozen.",
)
CHANGED_UNDER_LOCK = Code(
    "AD509",
    "changed-under-lock",
    Severity.ERROR,
    "A source has changed since it was locked.",
    "Restore the old content, or accept the new one with `adapterdock lock --upgrade NAME`.",
)
UPGRADE_UNKNOWN = Code(
    "AD510",
    "upgrade-unknown",
    Severity.ERROR,
    "`--upgrade` names something that the manifest does not declare.",
    "Name a declared adapter, or `base`, or use `--upgrade-all`.",
)
DIGEST_MISMATCH = Code(
    "AD511",
    "declared-digest-mismatch",
    Severity.ERROR,
    "The adapter does not have the digest that the manifest declares.",
    "Correct the source, or check what was found and then correct the digest.",
)
NO_LOCK = Code(
    "AD512",
    "resolved-without-lock",
    Severity.WARNING,
    "There is no lock: sources are resolved for this run only.",
    "Run `adapterdock lock` and commit the lock.",
)
ACCEPT_NOT_UNCHECKED = Code(
    "AD513",
    "cannot-accept",
    Severity.ERROR,
    "Only codes of unchecked findings can be accepted.",
    "Fix what the error reports. `adapterdock explain CODE` says what a code means.",
)
STALE_LOCK_UNUSED = Code(
    "AD514",
    "stale-lock-unused",
    Severity.WARNING,
    "The lock is for an earlier version of the manifest, so changed entries were resolved again.",
    "Run `adapterdock lock` and commit the lock.",
)
BASE_OVERRIDDEN = Code(
    "AD515",
    "base-overridden",
    Severity.WARNING,
    "`--model` replaces the locked base for this run.",
    "To pin the other base as well, name it in the manifest, or run `adapterdock lock --model`.",
)
