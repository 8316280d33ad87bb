"""The key that replicas are asked with."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Where
from ...manifests.reading.bounded_file import read_at_most

KEY_VARIABLE = "ADAPTERDOCK_FLEET_KEY"
KEY_BYTES = 8192

_KEY = re.compile(r"[\x21-\x7e]+\Z")


def read_key(path: Path | None) -> str | None:
    """The key in the file, else in the environment, else ``None``. Raises :class:`UsageError`,
    which never contains it."""
    if path is None:
        text = os.environ.get(KEY_VARIABLE, "").strip()
        return _checked(text, Where(file=f"${KEY_VARIABLE}")) if text else None
    where = Where(file=str(path))
    try:
        raw = read_at_most(path, KEY_BYTES)
    except (OSError, ValueError) as error:
        raise UsageError(
            codes.FLEET_ARGUMENT.finding(
                "Cannot read the file of --key-file",
                where,
                found=getattr(error, "strerror", None) or str(error),
                hint="Check the path.",
            )
        ) from error
    return _checked(raw.decode("ascii", errors="replace").strip(), where)


def _checked(text: str, where: Where) -> str:
    if _KEY.match(text) and len(text) <= KEY_BYTES:
        return text
    raise UsageError(
        codes.FLEET_ARGUMENT.finding(
            "Invalid key",
            where,
            found=f"{len(text)} characters, which are not one word of ASCII" if text else "nothing",
            expected="one line with the key and nothing else",
        )
    )
