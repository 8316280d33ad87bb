"""What replicas serve beside what the lock says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding, Where
from ...manifests.lockfile import Lock
from ...registry.files.wording import shown, some
from ..copies.joined import joined_digest
from .answers import STATUS_PATH, Asked, ModelsAnswer, NoAnswer, StatusAnswer

AdapterState = Literal["same", "differs", "missing", "extra", "unknown"]
ReplicaState = Literal["same", "behind", "differs", "unknown"]

_HEX = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{64}(?![0-9A-Za-z])")
_BEHIND: frozenset[AdapterState] = frozenset({"differs", "missing", "extra"})


@dataclass(frozen=True)
class AdapterRow:
    """One adapter on one replica.

    Args:
        name: As the manifest names it.
        state: ``same``, ``differs``, ``missing`` (not served), ``extra`` (not in the lock) or
            ``unknown`` (it cannot be compared).
        locked: The digest in the lock.
        served: The digest of what is served.
        acts: Whether a probe showed that it acts; ``None`` if it was not probed.
    """

    name: str
    state: AdapterState
    locked: str | None = None
    served: str | None = None
    acts: bool | None = None


@dataclass(frozen=True)
class ReplicaRow:
    """One replica.

    Args:
        replica: Its URL, and its address where the name has several.
        state: ``same``; ``behind``: it differs, and is to serve what the lock says; ``differs``;
            ``unknown``: it could not be asked, or not all of it can be compared.
        engine: Name and version, if it says them.
        asked: ``status`` (our route), ``models`` (the paths in ``/v1/models``) or ``None``.
        checked: When the replica last looked at its manifest.
        adapters: Sorted by name.
        findings: What is wrong with it.
    """

    replica: str
    state: ReplicaState
    engine: str | None = None
    asked: Literal["status", "models"] | None = None
    checked: str | None = None
    adapters: tuple[AdapterRow, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def same(self) -> int:
        """How many adapters are served as locked."""
        return sum(row.state == "same" for row in self.adapters)

    @property
    def expected(self) -> int:
        """How many adapters the lock has."""
        return sum(row.state != "extra" for row in self.adapters)


def wanted_of(lock: Lock) -> dict[str, str | None]:
    """By name of an adapter or a composition, its digest; ``None`` where it is mutable."""
    return {
        **{name: one.digest for name, one in lock.adapters.items()},
        **{name: one.digest for name, one in lock.compositions.items()},
    }


def compare(lock: Lock, answers: Iterable[Asked]) -> tuple[ReplicaRow, ...]:
    """A row for each answer, in their order."""
    return tuple(_row(lock, asked) for asked in answers)


def exit_status(rows: Iterable[ReplicaRow]) -> int:
    """1 if a replica differs, else 3 if one could not be compared, else 0."""
    states = {row.state for row in rows}
    if states & {"behind", "differs"}:
        return 1
    return 3 if "unknown" in states else 0


def _row(lock: Lock, asked: Asked) -> ReplicaRow:
    name, answer = asked.replica.name, asked.answer
    if isinstance(answer, StatusAnswer):
        return _by_status(lock, name, answer)
    if isinstance(answer, ModelsAnswer):
        return _by_models(lock, name, answer)
    return _unasked(lock, name, answer)


def _unasked(lock: Lock, name: str, answer: NoAnswer) -> ReplicaRow:
    finding = codes.REPLICA_UNKNOWN.finding(
        f"Cannot compare the replica: {answer.reason}", _where(name), hint=answer.hint
    )
    rows = (AdapterRow(key, "unknown", digest) for key, digest in sorted(wanted_of(lock).items()))
    return ReplicaRow(name, "unknown", adapters=tuple(rows), findings=(finding,))


def _by_status(lock: Lock, name: str, answer: StatusAnswer) -> ReplicaRow:
    rows = _adapters(wanted_of(lock), answer.adapters)
    wrong_base, base_unknown = _base(lock, name, answer)
    behind = all(answer.wanted.get(row.name) == row.locked for row in rows if row.state in _BEHIND)
    findings = [*wrong_base]
    if bad := [row for row in rows if row.state in _BEHIND]:
        ahead = [
            one.name for one in bad if one.locked and answer.followed.get(one.name) == one.locked
        ]
        findings.append(_differs(name, bad, answer.problems, behind=behind, ahead=ahead))
    if findings:
        state: ReplicaState = "behind" if behind and not wrong_base else "differs"
    else:
        findings = [*_unknown_adapters(name, rows), *base_unknown]
        state = "unknown" if findings else "same"
    return ReplicaRow(
        name, state, answer.engine, "status", answer.checked, tuple(rows), tuple(findings)
    )


def _by_models(lock: Lock, name: str, answer: ModelsAnswer) -> ReplicaRow:
    wanted = wanted_of(lock)
    recipes = {key: one.digest for key, one in lock.compositions.items()}
    joined = {key: joined_digest(recipe) for key, recipe in recipes.items() if recipe is not None}
    rows: list[AdapterRow] = []
    for key in sorted({*wanted, *answer.roots}):
        locked = wanted.get(key)
        if key not in answer.roots:
            rows.append(AdapterRow(key, "missing", locked))
            continue
        if key not in wanted:
            if key not in answer.bases:
                rows.append(AdapterRow(key, "extra"))
            continue
        digests = [f"sha256:{found}" for found in _HEX.findall(answer.roots[key] or "")]
        if locked is None or not digests:
            rows.append(AdapterRow(key, "unknown", locked))
        elif locked in digests or (key in joined and joined[key] in digests):
            rows.append(AdapterRow(key, "same", locked, locked))
        else:
            rows.append(AdapterRow(key, "differs", locked, digests[-1]))
    if bad := [row for row in rows if row.state in _BEHIND]:
        findings, state = [_differs(name, bad, (), behind=False)], "differs"
    else:
        findings = _unknown_adapters(name, rows, "the server does not say what its files contain")
        state = "unknown" if findings else "same"
    return ReplicaRow(name, state, asked="models", adapters=tuple(rows), findings=tuple(findings))


def _adapters(wanted: Mapping[str, str | None], served: Mapping[str, str]) -> list[AdapterRow]:
    rows: list[AdapterRow] = []
    for name in sorted({*wanted, *served}):
        locked, found = wanted.get(name), served.get(name)
        if name not in wanted:
            state: AdapterState = "extra"
        elif found is None:
            state = "missing"
        elif locked is None:
            state = "unknown"
        else:
            state = "same" if found == locked else "differs"
        rows.append(AdapterRow(name, state, locked, found))
    return rows


def _differs(
    name: str,
    rows: list[AdapterRow],
    problems: tuple[str, ...],
    *,
    behind: bool,
    ahead: Sequence[str] = (),
) -> Finding:
    words = {"differs": "another content", "missing": "not served", "extra": "not in the lock"}
    found = some((f"{shown(row.name, 60)}: {words[row.state]}" for row in rows), 5)
    if problems:
        found += f"; the replica says: {some(problems, 2)}"
    message = "The replica does not serve what the lock pins"
    if behind:
        message = "The replica is behind: it does not serve yet what the lock pins"
    hint = None
    if ahead:
        names = [shown(one, 60) for one in ahead]
        message = f"The replica follows a promotion that the lock does not have: {some(names, 5)}"
        hint = f"Move the pin with `adapterdock lock --upgrade {ahead[0]}`, or promote back."
    return codes.REPLICA_DIFFERS.finding(message, _where(name), found=found, hint=hint)


def _unknown_adapters(
    name: str, rows: Iterable[AdapterRow], why: str = "the lock does not pin them"
) -> list[Finding]:
    unknown = [row for row in rows if row.state == "unknown"]
    if not unknown:
        return []
    mutable = [row for row in unknown if row.locked is None]
    if mutable:
        unknown, why = mutable, "the lock does not pin mutable adapters"
    return [
        codes.REPLICA_UNKNOWN.finding(
            f"Cannot compare adapters of the replica: {why}",
            _where(name),
            found=some(row.name for row in unknown),
            hint=f"Serve with adapterdock, whose replicas answer at {STATUS_PATH}."
            if not mutable
            else "Remove `mutable`, and run `adapterdock lock`.",
        )
    ]


def _base(lock: Lock, name: str, answer: StatusAnswer) -> tuple[list[Finding], list[Finding]]:
    """Findings of another base, and of one that cannot be compared."""
    pinned = lock.base.fingerprint if lock.base else None
    if pinned is None:
        return [], []
    levels = dict(_levels(pinned.model_dump(mode="json", exclude_none=True)))
    same = _same_base(levels, answer.fingerprint)
    where = _where(name)
    if same is None:
        return [], [
            codes.REPLICA_UNKNOWN.finding(
                "Cannot compare the base: the replica does not tell its fingerprint", where
            )
        ]
    if same:
        return [], []
    return [
        codes.REPLICA_DIFFERS.finding(
            "The replica serves another base than the lock pins",
            where,
            found=answer.base or "no name",
            expected=lock.base.source if lock.base else None,
        )
    ], []


def _same_base(levels: Mapping[str, Any], found: str | Mapping[str, Any] | None) -> bool | None:
    """Whether a fingerprint is that of the lock; ``None`` if they have no level in common."""
    if isinstance(found, str):
        return found in levels.values()
    common = [(levels[level], value) for level, value in _levels(found or {}) if level in levels]
    return all(want == have for want, have in common) if common else None


def _levels(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from _levels(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}", value


def _where(name: str) -> Where:
    return Where(file=name)
