"""Checks of the rules, and of what is active."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import rules as codes
from ..findings.errors import RoutingError
from ..findings.finding import Finding
from ..language.names import listed
from ..language.rules import check_active, flatten
from .nodes import Path
from .subject import Subject


def check_rules(subject: Subject) -> Iterator[Finding]:
    """Rules that name unknown adapters, have no effect, or contradict each other."""
    rules = subject.manifest.rules
    for index, group in enumerate(rules.exclusive):
        path: Path = ("rules", "exclusive", index)
        for place, name in enumerate(group):
            yield from _adapter(subject, name, (*path, place))
        if len(set(group)) < 2 or len(set(group)) != len(group):
            yield codes.EXCLUSIVE_GROUP.finding(
                "An exclusive group needs two or more different adapters",
                subject.locate(path),
                found="[" + ", ".join(group) + "]",
                expected="two or more different adapters, each once",
            )
    for name, needed in rules.requires.items():
        path = ("rules", "requires", name)
        yield from _adapter(subject, name, path, key=True)
        for place, other in enumerate(needed):
            yield from _adapter(subject, other, (*path, place))
        yield from subject.repeated(needed, path)
        yield from _contradiction(subject, name)


def _adapter(subject: Subject, name: str, path: Path, *, key: bool = False) -> Iterator[Finding]:
    manifest = subject.manifest
    if name in manifest.adapters or name not in manifest.compositions:
        yield from subject.unknown(name, path, key=key)
        return
    yield codes.RULE_ON_COMPOSITION.finding(
        f"{name!r} is a composition; rules name adapters",
        subject.locate(path, key=key),
        found=name,
        expected=listed(manifest.adapters),
    )


def _contradiction(subject: Subject, name: str) -> Iterator[Finding]:
    rules = subject.manifest.rules
    where = subject.locate(("rules", "requires", name), key=True)
    if name in rules.requires[name]:
        yield codes.CONTRADICTION.finding(f"{name!r} requires itself", where, found=name)
    together, queue = {name: None}, [name]
    while queue:
        for other in rules.requires.get(queue.pop(), ()):
            if other not in together:
                together[other] = None
                queue.append(other)
    for finding in check_active(rules, together):
        yield codes.CONTRADICTION.finding(
            f"{name!r} can never be active with all that it requires: {finding.message}",
            where,
            found=finding.found,
            expected=finding.expected,
        )


def check_chosen(subject: Subject) -> Iterator[Finding]:
    """``active``: known names, each once, that the rules allow together."""
    active = subject.manifest.active
    names = (active,) if isinstance(active, str) else active or ()
    single = isinstance(active, str)
    unknown: list[Finding] = []
    for place, name in enumerate(names):
        unknown += subject.unknown(name, ("active",) if single else ("active", place))
    if not single:
        yield from subject.repeated(names, ("active",))
    yield from unknown
    if unknown or (single and active in subject.manifest.compositions):
        return  # a composition was checked where it is declared
    try:
        flat = flatten(subject.manifest, names)
    except RoutingError:  # reported where the composition is declared
        return
    yield from check_active(subject.manifest.rules, flat, None, subject.locate(("active",)))
