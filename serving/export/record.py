"""``adapterdock-export.json``: what an export wrote into its folder, and from what.

Whatever the file lists is the export's own, and may be replaced and removed by the next one.
``replacing`` is there while an export exchanges files: a killed one leaves it, so that the next one
knows its files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ...manifests.bounds import LOCK_BYTES
from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AdapterdockError, UsageError
from ...manifests.findings.finding import Where
from ...manifests.language.schema import Digest, Model, Name
from ...manifests.reading.bounded_file import read_at_most
from ...manifests.reading.complaints import first_problem
from ...registry.files.digests import check_paths
from ...registry.files.disk import replace_file

RECORD = "adapterdock-export.json"
SCHEMA: Literal["adapterdock.export/1"] = "adapterdock.export/1"
Format = Literal["peft", "gguf", "mlx"]


class WrittenFile(Model):
    """One file of an export."""

    size: Annotated[int, Field(ge=0)]
    """Bytes."""
    sha256: Digest


class Exported(Model):
    """One adapter of an export. ``digest`` is the lock's, for an adapter, and that of its recipe,
    for a composition. ``files`` are by path in the folder of the export."""

    format: Format
    digest: Digest
    revision: str = ""
    rank: int | None = None
    files: Mapping[str, WrittenFile]

    @property
    def entry(self) -> str:
        """The one name in the folder of the export under which its files are."""
        return next(iter(self.files)).partition("/")[0]

    @model_validator(mode="after")
    def _one_entry(self) -> Exported:
        if not self.files or check_paths(self.files):
            raise ValueError("unsafe or no paths")
        if len({path.partition("/")[0] for path in self.files}) != 1:
            raise ValueError("files under more than one name")
        if self.entry.startswith(".") or self.entry == RECORD:
            raise ValueError(f"{self.entry} is not a name of an adapter")
        return self


class Origin(Model):
    """The manifest that was exported. ``location`` is its path from the folder of the export, so
    that it stays the same where both are moved together."""

    location: str
    sha256: Digest


class Locked(Model):
    """The lock that was exported."""

    sha256: Digest


class Record(Model):
    """The file."""

    schema_: Literal["adapterdock.export/1"] = Field(alias="schema")
    manifest: Origin
    lock: Locked
    adapters: Mapping[Name, Exported] = Field(default_factory=dict)
    replacing: Mapping[Name, Exported] = Field(default_factory=dict)

    def own(self) -> Mapping[str, frozenset[str]]:
        """By entry, the files that are the export's own."""
        found: dict[str, frozenset[str]] = {}
        for row in self._rows():
            found[row.entry] = found.get(row.entry, frozenset()) | row.files.keys()
        return found

    def _rows(self) -> Iterator[Exported]:
        yield from self.adapters.values()
        yield from self.replacing.values()


def read_record(folder: Path) -> Record | None:
    """The record in a folder, ``None`` where there is none. Raises :class:`UsageError` for a file
    that is not one."""
    path = folder / RECORD
    where = Where(file=str(path))
    if not path.exists() and not path.is_symlink():
        return None
    try:
        raw = read_at_most(path, LOCK_BYTES)
        return Record.model_validate_json(raw)
    except ValidationError as error:
        found = first_problem(error, "the record")
    except OSError as error:
        found = error.strerror or str(error)
    except (AdapterdockError, ValueError) as error:
        found = str(error)
    raise UsageError(
        codes.EXPORT_RECORD.finding(
            "Cannot read the record of an earlier export", where, found=found, expected=SCHEMA
        )
    )


def write_record(folder: Path, record: Record) -> None:
    """Write the record in one step. Raises ``OSError``."""
    text = record.model_dump_json(by_alias=True, indent=2, exclude_defaults=True)
    replace_file(folder / RECORD, f"{text}\n".encode())
