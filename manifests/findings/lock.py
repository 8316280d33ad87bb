"""Codes AD5xx: the lock, and what stands between a manifest and its lock."""

from __future__ import annotations

from .code import Code
from .finding import Severity

LOCK_UNREADABLE = Code(
    "AD501",
    "lock-unreadable",
    Severity.ERROR,
    "The lock file is not one that adapterdock wrote.",
    "A lock is written by `adapterdock lock` and read back strictly, since everything that is "
    "loaded is verified against it. A lock that was edited by hand, cut off or merged with "
    "conflict markers is refused whole.",
    "adapters.lock with `<<<<<<< HEAD` in it after a merge.",
    "restore the lock from version control, or delete it and run `adapterdock lock`",
)
LOCK_VERSION_UNKNOWN = Code(
    "AD502",
    "lock-version-unknown",
    Severity.ERROR,
    "The lock was written by a later adapterdock.",
    "The lock's `version` names the shape of the file. This release reads version 1 only.",
    "version: 2",
    "upgrade adapterdock, or run `adapterdock lock` again with this one",
)
LOCK_UNWRITABLE = Code(
    "AD503",
    "lock-unwritable",
    Severity.ERROR,
    "The lock cannot be written.",
    "The lock is written beside the manifest through a temporary file in the same folder, which "
    "must be writable.",
    "a manifest on a read-only mount",
    "copy the manifest to a folder that you can write to, then lock it there",
)
LOCK_MISSING = Code(
    "AD504",
    "lock-missing",
    Severity.ERROR,
    "A lock is required and there is none.",
    "`--frozen` (and `lock --check`) promise that exactly the locked bytes are used, so they "
    "refuse to resolve anything anew.",
    "adapterdock pull --frozen adapters.yaml   # with no adapters.lock",
    "run `adapterdock lock` and commit the lock",
)
LOCK_STALE = Code(
    "AD505",
    "lock-stale",
    Severity.ERROR,
    "The manifest has changed since it was locked.",
    "The lock keeps a digest of everything that resolution depends on: the base's source, each "
    "adapter's source, storage options and declared digest, compositions and registries, after "
    "variables are expanded. A comment, a description, a dtype or a rule does not count.",
    "an adapter's source was edited from ...@v1 to ...@v2 and `adapterdock lock` was not run",
    "run `adapterdock lock` (it keeps the pins of unchanged entries) and review the diff",
)
LOCK_PARTIAL = Code(
    "AD506",
    "lock-partial",
    Severity.ERROR,
    "Something that the manifest declares is not pinned.",
    "The base and every adapter must be in the lock with the sha256 of each of their files, and "
    "every composition with the digest of its recipe. A large base on object storage may be pinned "
    "by version until the first pull; `--frozen` and `lock --check` refuse that too.",
    "a base on S3, locked but never pulled, then `load --frozen`",
    "run `adapterdock lock`, then `adapterdock pull`, and commit the lock",
)
LOCK_MUTABLE = Code(
    "AD507",
    "mutable-adapter",
    Severity.WARNING,
    "An adapter is declared mutable, so it is not locked.",
    "`mutable: true` is for a local adapter that is still changing, such as one being trained. "
    "What it holds can differ from one run to the next, and nothing pins it.",
    "adapters: {draft: {source: ./draft, mutable: true}}",
    "remove `mutable: true` and run `adapterdock lock` once it is finished",
)
FROZEN_MUTABLE = Code(
    "AD508",
    "mutable-when-frozen",
    Severity.ERROR,
    "A mutable adapter cannot be used frozen.",
    "`--frozen` promises the same bytes every time, which a mutable adapter cannot keep.",
    "adapterdock run --frozen adapters.yaml   # with a `mutable: true` adapter",
    "remove `mutable: true` and lock it, or run without --frozen",
)
CHANGED_UNDER_LOCK = Code(
    "AD509",
    "changed-under-lock",
    Severity.ERROR,
    "A source no longer holds what the lock pinned.",
    "A small file that was read to check fit has another digest than the lock: someone changed a "
    "local folder, or what is behind a URL. adapter_config.json counts as much as the weights: "
    "alpha stands in it. Nothing of it was used.",
    "lora_alpha edited in ./adapters/tone/adapter_config.json after `adapterdock lock`",
    "restore the old content, or accept the new one with `adapterdock lock --upgrade NAME`",
)
UPGRADE_UNKNOWN = Code(
    "AD510",
    "upgrade-unknown",
    Severity.ERROR,
    "`--upgrade` names something that the manifest does not declare.",
    "`lock --upgrade NAME` moves the pin of one adapter, or of the base with the name `base`.",
    "adapterdock lock --upgrade tnoe",
    "name a declared adapter, or `base`, or use `--upgrade-all`",
)
DIGEST_MISMATCH = Code(
    "AD511",
    "declared-digest-mismatch",
    Severity.ERROR,
    "The adapter is not the one whose digest the manifest declares.",
    "`sha256:` in the manifest is the digest of the adapter's folder: of the sorted lines "
    "`sha256 size path` of its consumed files, adapter_config.json included.",
    "adapters: {tone: {source: ./tone, sha256: 'sha256:0000...'}}",
    "correct the source, or the digest after looking at what was found",
)
NO_LOCK = Code(
    "AD512",
    "resolved-without-lock",
    Severity.WARNING,
    "There is no lock, so the manifest was resolved as `lock` would, for this run only.",
    "Without a lock, a branch or a bucket may give other bytes on the next run.",
    "adapterdock run adapters.yaml   # with no adapters.lock",
    "run `adapterdock lock` and commit the lock",
)
ACCEPT_NOT_UNCHECKED = Code(
    "AD513",
    "cannot-accept",
    Severity.ERROR,
    "Only codes of unchecked findings can be accepted.",
    "`--accept CODE` says that a person takes responsibility for something that could not be "
    "checked. An error is known to be wrong and cannot be accepted; a warning needs no accepting.",
    "adapterdock lock --accept AD505",
    "fix what the error says; `adapterdock explain CODE` tells what a code means",
)
STALE_LOCK_UNUSED = Code(
    "AD514",
    "stale-lock-unused",
    Severity.WARNING,
    "The lock is for an earlier state of the manifest, so what changed was resolved anew.",
    "`validate` and `show` tell what `adapterdock lock` would find: entries that did not change "
    "keep their pins, the others are resolved as they are now. Loading refuses a stale lock.",
    "adapterdock validate   # after an adapter was added, before `adapterdock lock`",
    "run `adapterdock lock` and commit the lock",
)
BASE_OVERRIDDEN = Code(
    "AD515",
    "base-overridden",
    Severity.WARNING,
    "`--model` replaces the locked base for this run.",
    "The lock pins the base that the manifest declares. The one named by --model was resolved and "
    "checked as `lock` would, for this run only; the adapters are those of the lock. `--frozen` "
    "refuses it.",
    "adapterdock run --model ./my-copy -p Hello   # with an adapters.lock",
    "to pin the other base as well, name it in the manifest, or run `adapterdock lock --model`",
)
