"""The lock beside a manifest: its shape, and reading and writing it.

``NAME.lock`` stands beside ``NAME.yaml``: sorted YAML that reads well in a diff.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator

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
"""A lock is written by us, and says many times what its manifest says."""


class LockedFile(Model):
    """One consumed file. A base's large remote files have a ``version`` (S3 VersionId, ETag, or
    the like) until the first pull adds their ``sha256``."""

    size: int = Field(ge=0, description="bytes")
    sha256: Digest | None = None
    version: str | None = None


class LoadedAs(Model):
    """How a base is loaded, where that is not what its own config.json says."""

    architecture: str | None = Field(default=None, description="the class of transformers")
    num_labels: int | None = None
    id2label: Mapping[str, str] = Field(default_factory=dict)
    vocab_size: int | None = Field(
        default=None, description="rows that its embeddings are resized to"
    )
    resized_from: int | None = Field(default=None, description="rows in its files")
    new: tuple[str, ...] = Field(
        default=(), description="modules that no file of the base fills: every adapter brings them"
    )


class LockedBase(Model):
    """The base, pinned."""

    declared: str = Field(description="the source after variables and overrides")
    options: Digest | None = Field(None, description="of the storage options, if there are any")
    source: str = Field(description="the same, at an immutable revision where its kind has one")
    revision: str | None = None
    fetched_from: str | None = Field(
        None, description="the mirror or endpoint that its bytes came from, if not from source"
    )
    files: Mapping[str, LockedFile]
    fingerprint: Fingerprint | None = None
    samples: str | None = Field(None, description="the sample table behind fingerprint.weights")
    loaded_as: LoadedAs | None = None


BEGUN = "begun"
"""What a lock calls the source of an adapter that is begun from its config."""


class LockedAdapter(Model):
    """One adapter, pinned; a ``mutable`` one is named here and not pinned. One that is begun has
    no files: its digest is of its config and its ``seed``."""

    declared: str
    options: Digest | None = None
    source: str
    revision: str | None = None
    fetched_from: str | None = None
    digest: Digest | None = Field(None, description="of the folder's consumed files")
    seed: int | None = Field(None, description="of one that is begun")
    files: Mapping[str, LockedFile] = Field(default_factory=dict)
    method: str
    rank: int
    targets: tuple[str, ...] = ()
    mutable: bool = False


class LockedComposition(Model):
    """One composition: the digest covers the method, its options, members and weights."""

    combine: str
    digest: Digest | None = Field(None, description="none while a member is mutable")


class Lock(Model):
    """A whole lock."""

    version: Literal[1] = Field(description="of the lock's shape; the last line, so never cut off")
    generator: str
    inputs: Digest = Field(description="digest of everything that resolution depends on")
    overrides: Mapping[str, str] = Field(default_factory=dict)
    base: LockedBase | None = None
    adapters: Mapping[Name, LockedAdapter] = Field(default_factory=dict)
    compositions: Mapping[Name, LockedComposition] = Field(default_factory=dict)
    accepted: tuple[str, ...] = Field((), description="codes of unchecked findings accepted")

    @field_validator("accepted")
    @classmethod
    def _of_today(cls, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Ids of earlier releases are those that the codes have now."""
        codes = ((id, find_code(id)) for id in ids)
        return tuple(dict.fromkeys(id if code is None else code.id for id, code in codes))


def lock_path(manifest: str | os.PathLike[str]) -> Path:
    """``adapters.lock`` for ``adapters.yaml``, ``team.v2.lock`` for a manifest ``team.v2``."""
    path = Path(manifest)
    stem = path.stem if path.suffix.lower() in (".yaml", ".yml") else path.name
    return path.with_name(f"{stem}.lock")


def read_lock(path: Path) -> Lock | None:
    """The lock at ``path``, or ``None`` where there is no such file.

    Raises :class:`LockError` for a file that is no lock or one of a later version.
    """
    where = Where(file=str(path))
    try:
        raw = read_at_most(path, LOCK_BYTES, regular=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockError(
            codes.LOCK_UNREADABLE.finding(
                "the lock cannot be read", where, found=error.strerror or error
            )
        ) from error
    try:
        document = read_document(raw, str(path), BOUNDS)
    except ManifestError as error:
        raise LockError(
            codes.LOCK_UNREADABLE.finding(
                "the lock is not the YAML that `adapterdock lock` writes",
                error.findings[0].where,
                found=error.findings[0].message,
            )
        ) from error
    data = conform(document.root, shape_of(Lock))
    version = data.get("version")
    if type(version) is int and version != LOCK_VERSION:
        raise LockError(
            codes.LOCK_VERSION_UNKNOWN.finding(
                "this lock was written by another version of adapterdock",
                where,
                found=f"version: {version}",
                expected=f"version: {LOCK_VERSION}",
            )
        )
    try:
        return TypeAdapter(Lock).validate_python(data, strict=True)
    except ValidationError as error:
        raise LockError(
            *(
                codes.LOCK_UNREADABLE.finding(
                    "the lock was edited by hand or cut off",
                    document.where(tuple(problem["loc"])),
                    found=problem["msg"],
                )
                for problem in error.errors()[:10]
            )
        ) from error


def render_lock(lock: Lock) -> str:
    """The lock as text: the same for the same lock, always, and ``read_lock`` gives it back."""
    data = lock.model_dump(mode="json", exclude_defaults=True)
    # PyYAML's own dumper and not libyaml's, which not every machine has and which folds otherwise.
    return _HEAD + yaml.dump(
        data, Dumper=yaml.SafeDumper, sort_keys=True, width=10_000, allow_unicode=True
    )


def write_lock(lock: Lock, path: Path) -> None:
    """Write ``lock`` by rename, so that a reader sees the old or the new one, never half. What a
    killed process left of doing so is removed."""
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
            codes.LOCK_UNWRITABLE.finding("the lock cannot be written", where, found=error.strerror)
        ) from error


_HEAD = "# Written by `adapterdock lock`; commit it beside its manifest, do not edit it.\n"
