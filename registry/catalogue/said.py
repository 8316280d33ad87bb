"""Reads what a publisher says of a version, from values of any kind."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from pydantic import ValidationError

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import UsageError
from ...manifests.reading.complaints import first_problem
from ..records.entry import Provenance
from .make_entry import Said

_PATH = re.compile(r"(?:/|~|\.{1,2}(?:[/\\]|$)|\\|[A-Za-z]:[/\\](?!/)|file:|local:)")
"""How a path of one machine starts."""


def said_of(
    *,
    licence: object = None,
    owner: object = None,
    description: object = None,
    tags: Iterable[object] = (),
    metrics: Mapping[Any, object] | None = None,
    provenance: Provenance | Mapping[str, Any] | None = None,
) -> Said:
    """What a publisher says of a version, if an entry can hold it: types are not trusted.

    Raises :class:`UsageError` for text that is not text, for a metric that is not a finite number,
    for fields of ``provenance`` of another type, and for paths of this machine in it.
    """
    if isinstance(tags, str):
        raise _invalid("tags", f"{_short(tags)} is one text, and a list is expected")
    return Said(
        None if licence is None else _text("licence", licence),
        None if owner is None else _text("owner", owner),
        None if description is None else _text("description", description),
        tuple(_text("tags", tag) for tag in tags),
        {_text("metrics", name): _number(name, value) for name, value in (metrics or {}).items()},
        _provenance(provenance),
    )


def _text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise _invalid(field, f"{_short(value)} is not text")
    return value


def _number(name: object, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise _invalid("metrics", f"{str(name)[:80]}: {_short(value)} is not a finite number")
    return float(value)


def _provenance(provenance: Provenance | Mapping[str, Any] | None) -> Provenance:
    found = _read_provenance(provenance)
    for field, texts in (("data", found.data), ("parents", found.parents)):
        for text in texts:
            if _PATH.match(text):
                raise _invalid(
                    "provenance",
                    f"{field}: {_short(text)} is a path on this machine, which nobody else has",
                )
    return found


def _read_provenance(provenance: Provenance | Mapping[str, Any] | None) -> Provenance:
    if provenance is None or isinstance(provenance, Provenance):
        return provenance or Provenance()
    try:
        return Provenance.model_validate_json(json.dumps(dict(provenance)))
    except ValidationError as error:
        raise _invalid("provenance", first_problem(error, "provenance")) from error
    except (TypeError, ValueError, RecursionError) as error:
        raise _invalid("provenance", str(error)[:200]) from error


def _invalid(field: str, problem: str) -> UsageError:
    return UsageError(codes.SAID_INVALID.finding(f"Invalid {field}: {problem}"))


def _short(value: object) -> str:
    return repr(value)[:80]
