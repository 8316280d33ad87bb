"""What locking a manifest again would change, from the manifest and its lock alone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ...manifests.language.schema import Composition
from ...manifests.language.weights import shown, weight_of
from ...manifests.lockfile import NEW_ADAPTER, Lock
from ...manifests.manifest import ManifestFile
from ...manifests.reading.secrets import redact
from .changes import UNNAMED, Changed, Kind, changes, declared_as, or_absent
from .inputs import inputs_digests

Sign = Literal["+", "~", "-"]
ACTIONS: dict[Sign, str] = {"+": "add", "~": "change", "-": "remove"}


@dataclass(frozen=True)
class Step:
    """What happens to one entry of the lock. ``text`` says what it is, or what changes in it."""

    sign: Sign
    kind: Kind
    name: str | None
    text: str
    fields: tuple[Changed, ...] = ()

    def __str__(self) -> str:
        title = self.kind if self.name is None else f"{self.kind} {self.name}"
        return f"{self.sign} {title}  {self.text}"

    def as_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        fields = [
            {
                "field": one.field,
                "before": one.before and redact(one.before),
                "now": one.now and redact(one.now),
            }
            for one in self.fields
        ]
        said = {"action": ACTIONS[self.sign], "kind": self.kind, "name": self.name}
        return {**said, "text": self.text, "fields": fields}


@dataclass(frozen=True)
class LockPlan:
    """What ``lock`` would change. It is true if that is anything.

    ``steps`` are in the order of the manifest, what is removed last. ``kept`` are the adapters
    whose pins stay. ``lock`` is ``None`` where there is none yet.
    """

    file: ManifestFile = field(repr=False)
    lock: Lock | None = field(repr=False)
    steps: tuple[Step, ...]
    kept: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def counts(self) -> dict[str, int]:
        """How many entries are added, changed and removed."""
        return {
            action: sum(step.sign == sign for step in self.steps)
            for sign, action in ACTIONS.items()
        }


def lock_plan(file: ManifestFile, lock: Lock | None) -> LockPlan:
    """The plan for ``file``, whose lock is ``lock``."""
    if lock is None:
        return LockPlan(file, None, tuple(_everything(file)), ())
    if lock.inputs in inputs_digests(file):
        return LockPlan(file, lock, (), tuple(file.manifest.adapters))
    found = list(changes(file, lock))
    steps = tuple(_steps(file, lock, found))
    touched = {step.name for step in steps if step.kind == "adapter"}
    kept = tuple(name for name in file.manifest.adapters if name not in touched)
    return LockPlan(file, lock, steps or (Step("~", "base", None, UNNAMED),), kept)


def _everything(file: ManifestFile) -> Iterator[Step]:
    manifest = file.manifest
    if manifest.base.model is not None:
        yield Step("+", "base", None, redact(str(manifest.base.model)))
    for name in manifest.adapters:
        yield Step("+", "adapter", name, _adapter(file, name))
    for name, composition in manifest.compositions.items():
        yield Step("+", "composition", name, _composition(composition))


def _steps(file: ManifestFile, lock: Lock, found: list[Changed]) -> Iterator[Step]:
    manifest = file.manifest
    base = [one for one in found if one.kind == "base"]
    model = next((one for one in base if one.field == "model"), None)
    if model is not None and None in (model.before, model.now):
        sign: Sign = "+" if model.before is None else "-"
        yield Step(sign, "base", None, redact(model.now or model.before or ""))
    elif base:
        yield Step("~", "base", None, _fields(base), tuple(base))
    sections: tuple[tuple[Kind, list[str]], ...] = (
        ("adapter", [*manifest.adapters, *lock.adapters]),
        ("composition", [*manifest.compositions, *lock.compositions]),
    )
    for kind, names in sections:
        for name in dict.fromkeys(names):
            own = [one for one in found if (one.kind, one.name) == (kind, name)]
            if own:
                yield _step(file, lock, kind, name, own)


def _step(file: ManifestFile, lock: Lock, kind: Kind, name: str, own: list[Changed]) -> Step:
    manifest, whole = file.manifest, next((one for one in own if one.field is None), None)
    if whole is None:
        return Step("~", kind, name, _fields(own), tuple(own))
    if whole.now is None:
        if kind == "composition":
            return Step("-", kind, name, lock.compositions[name].combine)
        entry = lock.adapters[name]
        what = f"{entry.method} r={entry.rank}, " if entry.method else ""
        return Step("-", kind, name, redact(what + _source(entry.declared)))
    if kind == "composition":
        return Step("+", kind, name, _composition(manifest.compositions[name]))
    return Step("+", kind, name, _adapter(file, name))


def _fields(found: list[Changed]) -> str:
    parts = [
        one.said or f"{one.field} {or_absent(one.before)} -> {or_absent(one.now)}" for one in found
    ]
    return redact(", ".join(parts))


def _adapter(file: ManifestFile, name: str) -> str:
    adapter = file.manifest.adapters[name]
    notes = ["mutable: not pinned"] if adapter.mutable else []
    notes += ["trainable"] if adapter.trainable else []
    return redact(", ".join([_source(declared_as(adapter)), *notes]))


def _source(declared: str) -> str:
    return "new, from a config" if declared == NEW_ADAPTER else declared


def _composition(one: Composition) -> str:
    weights = {name: weight_of(weight) for name, weight in one.of.items()}
    terms = (name if weight == 1 else f"{shown(weight)} {name}" for name, weight in weights.items())
    return f"{one.combine} of {' + '.join(terms)}"
