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
from ..files.names import ADAPTER_CONFIG


def parse_adapter_config(
    data: bytes,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Mapping[str, Any]:
    """The JSON object in ``data``: UTF-8, no duplicate key, no NaN, at most 4 MiB.

    Raises :class:`SourceError`.
    """

    def refuse(
        problem: str, found: object = None, expected: str | None = None, hint: str | None = None
    ) -> NoReturn:
        message = f"{ADAPTER_CONFIG} {problem}"
        raise SourceError(
            codes.CONFIG_MALFORMED.finding(
                message, where, found=found, expected=expected, hint=hint
            )
        )

    if len(data) > CONFIG_BYTES:
        refuse("is too large", f"{len(data)} bytes", f"at most {CONFIG_BYTES}")
    if data.startswith(LFS_POINTER):
        hint = "Fetch the real file with `git lfs pull`."
        refuse("is a Git LFS pointer, not the file itself", None, "a JSON object", hint)
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        if b"\\u" in data:  # an escaped lone surrogate is not text (a UnicodeError, a ValueError)
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        refuse("is nested too deeply")
    except ValueError as error:
        refuse("is not valid JSON", error)
    if not isinstance(value, dict):
        refuse("is not a JSON object", type(value).__name__, "an object: {...}")
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
