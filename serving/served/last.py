"""What was served last of one manifest, in a file: what a server goes on with after a restart.

The file decides nothing that a lock could not: whatever it names is pulled, verified and checked
again. One that is damaged, or of another format, is as good as none.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from ...manifests.bounds import LOCK_BYTES, MANIFEST_BYTES
from ...manifests.language.schema import Model, Name
from ...manifests.lockfile import LockedAdapter
from ...manifests.reading.bounded_file import read_at_most
from ...manifests.reading.complaints import first_problem
from ...registry.files.disk import replace_file

_log = logging.getLogger("adapterdock")

SCHEMA: Literal["adapterdock.last/1"] = "adapterdock.last/1"
_MOST = 4 * LOCK_BYTES + 2 * MANIFEST_BYTES


def _decoded(value: object) -> object:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


Raw = Annotated[
    bytes, BeforeValidator(_decoded), PlainSerializer(_encoded, return_type=str, when_used="json")
]


class Content(Model):
    """The bytes of a manifest, and of the files beside it; ``None`` for one that is not there."""

    manifest: Raw
    lock: Raw | None = None
    samples: Raw | None = None


class Last(Model):
    """What was served.

    Args:
        content: Of a manifest at a URL; a local one is read again.
        followed: By name, the adapters whose aliases were newer than the lock.
    """

    schema_: Literal["adapterdock.last/1"] = Field(alias="schema")
    content: Content | None = None
    followed: Mapping[Name, LockedAdapter] = Field(default_factory=dict)


NOTHING = Last(schema=SCHEMA)


def read_last(path: Path) -> Last:
    """What the file says; nothing where there is none. One that cannot be read is told in the
    log."""
    try:
        raw = read_at_most(path, _MOST, regular=True)
        return Last.model_validate_json(raw)
    except FileNotFoundError:
        return NOTHING
    except ValidationError as error:
        reason = first_problem(error, "the file")
    except (OSError, ValueError) as error:
        reason = str(error)
    _log.warning("%s is ignored: it does not say what was served last: %s", path, reason)
    return NOTHING


def write_last(path: Path, last: Last) -> None:
    """Write the file in one step; none where there is nothing to say. Raises :class:`OSError`."""
    if last == NOTHING:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    text = last.model_dump_json(by_alias=True, exclude_defaults=True)
    replace_file(path, text.encode(), private=True)
