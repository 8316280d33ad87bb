"""Read ``adapter_config.json`` strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn, cast

from ...manifests.bounds import CONFIG_BYTES
from ...manifests.findings import fit as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Where
from ..files.header import LFS_POINTER


def parse_adapter_config(
    data: bytes,
    where: Where = Where(),  # noqa: B008 - frozen
    file: str = "adapter_config.json",
) -> Mapping[str, Any]:
    """The JSON object in ``data``: UTF-8, no duplicate key, no NaN, at most 4 MiB.

    Raises :class:`SourceError`.
    """
    if len(data) > CONFIG_BYTES:
        _refuse(f"{file} is too large", where, f"{len(data)} bytes", f"at most {CONFIG_BYTES}")
    if data.startswith(LFS_POINTER):
        message = f"{file} is a Git LFS pointer, not the file itself"
        _refuse(message, where, None, "a JSON object", "Fetch the real file with `git lfs pull`.")
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        if b"\\u" in data:  # an escaped lone surrogate is not text (a UnicodeError, a ValueError)
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        _refuse(f"{file} is nested too deeply", where, None, None)
    except ValueError as error:
        _refuse(f"{file} is not valid JSON", where, str(error), None)
    if not isinstance(value, dict):
        _refuse(f"{file} is not a JSON object", where, type(value).__name__, "an object: {...}")
    return cast("dict[str, Any]", value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ValueError(f"duplicate key {key!r}")
        entries[key] = value
    return entries


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(
    message: str, where: Where, found: str | None, expected: str | None, hint: str | None = None
) -> NoReturn:
    raise SourceError(
        codes.CONFIG_MALFORMED.finding(message, where, found=found, expected=expected, hint=hint)
    )
