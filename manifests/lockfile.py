"""The lock of a manifest: its format, and reading and writing it.

``NAME.lock`` is beside ``NAME.yaml``: sorted YAML that is easy to read in a diff.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from .bounds import LOCK_BYTES, LOCK_VALUES
from .findings import lock as codes
from .findings.catalogue import find_code
from .findings.errors import LockError, ManifestError
from .findings.finding import Where
from .language.schema import Digest, Fingerprint, Model, Name
from .owner import left_beside, made_beside
from .reading.bounded_file import read_at_most
from .reading.conform import conform, shape_of
from .reading.document import Bounds, read_document

LOCK_VERSION = 1
BOUNDS = Bounds(LOCK_BYTES, LOCK_VALUES)
"""A lock is written by adapterdock, and is many times as large as its manifest."""


class LockedFile(Model):
    """One file in use. A base's large remote files have a ``version`` (S3 VersionId, ETag or
    similar) until the first pull adds their ``sha256``."""

    size: int = Field(ge=0, description="bytes")
    sha256: Digest | None = None
    version: str | None = None


class LoadedAs(Model):
    """How a base is loaded, if that differs from its own config.json."""

    architecture: str | None = Field(default=None, description="class of transformers")
    num_labels: int | None = None
    id2label: Mapping[str, str] = Field(default_factory=dict)
    vocab_size: int | None = Field(
        default=None, description="rows that its embeddings are resized to"
    )
    resized_from: int | None = Field(default=None, description="rows in its files")
    new: tuple[str, ...] = Field(
        default=(), description="modules that no file of the base has: every adapter must have them"
    )


class LockedBase(Model):
    """The base, pinned."""

    declared: str = Field(description="source after variables and overrides")
    options: Digest | None = Field(None, description="of the storage options, if any")
    source: str = Field(description="the same, at an immutable revision if its kind has one")
    revision: str | None = None
    fetched_from: str | None = Field(
        None, description="mirror or endpoint that its bytes came from, if not from source"
    )
    files: Mapping[str, LockedFile]
    fingerprint: Fingerprint | None = None
    samples: str | None = Field(None, description="sample table of fingerprint.weights")
    loaded_as: LoadedAs | None = None


NEW_ADAPTER = "begun"
"""The source, in a lock, of an adapter that is created from its config."""


class LockedAdapter(Model):
    """One adapter, pinned. A ``mutable`` one is listed and not pinned. A new one (``NEW_ADAPTER``)
    has no files: its digest is that of its config and its ``seed``."""

    declared: str
    options: Digest | None = None
    source: str
    revision: str | None = None
    fetched_from: str | None = None
    digest: Digest | None = Field(None, description="of the folder's files in use")
    seed: int | None = Field(None, description="of a new adapter")
    files: Mapping[str, LockedFile] = Field(default_factory=dict)
    method: str
    rank: int
    targets: tuple[str, ...] = ()
    mutable: bool = False


class LockedComposition(Model):
    """One composition: the digest is of the method, its options, members and weights."""

    combine: str
    digest: Digest | None = Field(None, description="missing while a member is mutable")


class Lock(Model):
    """A complete lock."""

    version: Literal[1] = Field(
        description="of the lock's format; the last line, which shows that the file is complete"
    )
    generator: str
    inputs: Digest = Field(description="digest of everything that resolving depends on")
    overrides: Mapping[str, str] = Field(default_factory=dict)
    base: LockedBase | None = None
    adapters: Mapping[Name, LockedAdapter] = Field(default_factory=dict)
    compositions: Mapping[Name, LockedComposition] = Field(default_factory=dict)
    accepted: tuple[str, ...] = Field((), description="codes of unchecked findings accepted")

    @field_validator("accepted")
    @classmethod
    def _of_today(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Replace ids of earlier releases by today's."""
        codes = ((id, find_code(id)) for id in ids)
        return tuple(dict.fromkeys(id if code is None else code.id for id, code in codes))


def lock_path(manifest: str | os.PathLike[str]) -> Path:
    """``adapters.lock`` for ``adapters.yaml``, ``team.v2.lock`` for a manifest ``team.v2``."""
    path = Path(manifest)
    stem = path.stem if path.suffix.lower() in (".yaml", ".yml") else path.name
    return path.with_name(f"{stem}.lock")


def read_lock(path: Path) -> Lock | None:
    """The lock at ``path``, or ``None`` if there is no such file.

    Raises :class:`LockError` for a file that is not a lock, or has another version.
    """
    where = Where(file=str(path))
    try:
        raw = read_at_most(path, LOCK_BYTES, regular=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(
            codes.LOCK_UNREADABLE.finding(
                "Cannot read the lock", where, found=error.strerror or error
            )
        ) from error
    try:
        document = read_document(raw, str(path), BOUNDS)
    except ManifestError as error:
        raise LockError(
            codes.LOCK_UNREADABLE.finding(
                "Invalid lock: it is not the YAML that `adapterdock lock` writes",
                error.findings[0].where,
                found=error.findings[0].message,
            )
        ) from error
    data = conform(document.root, shape_of(Lock))
    version = data.get("version")
    if type(version) is int and version != LOCK_VERSION:
        raise LockError(
            codes.LOCK_VERSION_UNKNOWN.finding(
                "The lock was written by another version of adapterdock",
                where,
                found=f"version: {version}",
                expected=f"version: {LOCK_VERSION}",
            )
        )
    try:
        return Lock.model_validate(data, strict=True)
    except ValidationError as error:
        raise LockError(
            *(
                codes.LOCK_UNREADABLE.finding(
                    "Invalid lock: it was edited by hand or cut off",
                    document.where(tuple(problem["loc"])),
                    found=problem["msg"],
                )
                for problem in error.errors()[:10]
            )
        ) from error


def render_lock(lock: Lock) -> str:
    """The lock as text, always the same for the same lock; ``read_lock`` reads it back."""
    data = lock.model_dump(mode="json", exclude_defaults=True)
    # PyYAML's own dumper, not libyaml's: some machines lack that, and it folds lines differently.
    return _HEAD + yaml.dump(
        data, Dumper=yaml.SafeDumper, sort_keys=True, width=10_000, allow_unicode=True
    )


def write_lock(lock: Lock, path: Path) -> None:
    """Write ``lock`` by rename, so that a reader sees the old or the new one. Temporary files of
    killed processes are removed."""
    where = Where(file=str(path))
    try:
        for left in left_beside(path, ""):
            left.unlink(missing_ok=True)
        temporary = made_beside(path, "")
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(render_lock(lock))
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise LockError(
            codes.LOCK_UNWRITABLE.finding("Cannot write the lock", where, found=error.strerror)
        ) from error


_HEAD = "# Written by `adapterdock lock`; commit it beside its manifest, do not edit it.\n"
