"""Marks of a version: yanked, deprecated, both or neither. A series; the last mark counts."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Finding, Where
from .series import Value

Action = Literal["yank", "unyank", "deprecate"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True)
class Mark:
    """What a version is marked as; who set the last mark when (UTC), and why."""

    yanked: bool = False
    """Ranges skip the version."""
    deprecated: bool = False
    by: str | None = None
    at: str | None = None
    why: str | None = None

    def after(self, action: Action, by: str | None, at: str, why: str | None) -> Mark:
        """The mark that follows this one."""
        yanked = action == "yank" or (self.yanked and action != "unyank")
        deprecated = action == "deprecate" or self.deprecated
        return Mark(yanked, deprecated, by, at, why)

    def warning(self, name: str, version: str, where: Where) -> Finding | None:
        """What a user of the version gets to read."""
        states = [word for word in ("yanked", "deprecated") if getattr(self, word)]
        if not states:
            return None
        reason = f": {self.why}" if self.why else ""
        return codes.VERSION_MARKED.finding(
            f"{name}@{version} is {' and '.join(states)}{reason}", where, found=", ".join(states)
        )

    def same_state(self, other: Mark) -> bool:
        return (self.yanked, self.deprecated) == (other.yanked, other.deprecated)

    def as_value(self) -> Mapping[str, Any]:
        """What a file of the series says, with a nonce: equal bytes are the same write."""
        return {**said(vars(self)), "nonce": secrets.token_hex(8)}


def read_mark(folder: str, value: Value) -> Mark:
    """The mark that a file of the series says. Raises :class:`IntegrityError`."""
    data = value.data
    yanked, deprecated = data.get("yanked"), data.get("deprecated")
    if not isinstance(yanked, bool) or not isinstance(deprecated, bool):
        raise IntegrityError(
            codes.HISTORY_BROKEN.finding(
                f"{folder}: mark {value.number} does not say what it marks",
                expected="yanked and deprecated, each true or false",
            )
        )
    by, at, why = (text_or_none(data.get(key)) for key in ("by", "at", "why"))
    return replace(Mark(yanked, deprecated), by=by, at=at, why=why)


def said(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is not said."""
    return {key: value for key, value in fields.items() if value is not None}


def text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
