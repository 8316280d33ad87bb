"""What changes if a running model follows another manifest. Pure.

The model and the pinned manifest are brought to the same plain form (:class:`Held`,
:class:`State`). Their differences are the plan, which reads like ``terraform plan``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..manifests.findings import changing as codes
from ..manifests.findings.finding import Finding
from ..manifests.findings.notebook import lines_html
from ..manifests.language.rules import answering, flatten
from ..manifests.language.schema import Base, Composition, Rules
from ..manifests.language.weights import Weight, shown
from ..manifests.lockfile import Lock, LockedBase
from ..manifests.manifest import ManifestFile
from .access.access import Access


@dataclass(frozen=True)
class Held:
    """One adapter, as it is attached or as it is wanted.

    ``digest`` is its folder's (``None`` where it was never hashed: then it differs from any);
    ``dtype`` is ``None`` for that of the modules it sits on. ``method`` and ``rank`` are only
    shown.
    """

    digest: str | None
    dtype: str | None = None
    trainable: bool = False
    source: str | None = field(default=None, compare=False)
    method: str = field(default="", compare=False)
    rank: int = field(default=0, compare=False)

    def same_as(self, other: Held) -> bool:
        """Whether this adapter can stay where the other is wanted."""
        return self.digest is not None and self == other


@dataclass(frozen=True)
class State:
    """What a model answers with. ``rules`` is ``None`` for rules that code gave it; ``active``
    and the compositions of a ``sum`` are weights of adapters."""

    adapters: Mapping[str, Held]
    compositions: Mapping[str, Composition]
    rules: Rules | None
    active: Mapping[str, Weight]
    residency: int | None = None


@dataclass(frozen=True)
class Plan:
    """What :meth:`AdaptedModel.apply` will do. It is true if that is anything.

    ``added``, ``removed`` and ``replaced`` (before, after) are adapters by name, ``kept`` those
    that are not touched. ``compositions`` and ``rules`` are what differs, before and after
    (``None`` where there is none), ``active`` the same as weights, ``residency`` as bytes.
    ``stamp`` is the state of the model that the plan was made for: it is refused for any other.
    ``locked`` says whether ``lock`` is beside the manifest; otherwise it was made for the plan.
    """

    file: ManifestFile = field(repr=False)
    lock: Lock = field(repr=False)
    access: Access = field(repr=False)
    accepted: frozenset[str]
    stamp: object = field(repr=False)
    locked: bool
    wanted: Mapping[str, Held] = field(repr=False)
    added: Mapping[str, Held]
    removed: Mapping[str, Held]
    replaced: Mapping[str, tuple[Held, Held]]
    kept: tuple[str, ...]
    compositions: Mapping[str, tuple[Composition | None, Composition | None]]
    rules: tuple[Rules | None, Rules] | None
    active: tuple[Mapping[str, Weight], Mapping[str, Weight]] | None
    residency: tuple[int | None, int | None] | None = None

    def __bool__(self) -> bool:
        adapters = (self.added, self.removed, self.replaced)
        return any((*adapters, self.compositions, self.rules, self.active, self.residency))

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def _repr_html_(self) -> str:
        return lines_html(_lines(self))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))


def plan_of(
    now: State,
    wanted: State,
    file: ManifestFile,
    lock: Lock,
    access: Access,
    accepted: frozenset[str] = frozenset(),
    stamp: object = None,
    *,
    locked: bool = True,
) -> Plan:
    """The differences between the model and what ``file``, pinned by ``lock``, wants."""
    both = [name for name in now.adapters if name in wanted.adapters]
    kept = [name for name in both if now.adapters[name].same_as(wanted.adapters[name])]
    compositions = {
        name: (now.compositions.get(name), wanted.compositions.get(name))
        for name in (*now.compositions, *(set(wanted.compositions) - set(now.compositions)))
    }
    return Plan(
        file=file,
        lock=lock,
        access=access,
        accepted=accepted,
        stamp=stamp,
        locked=locked,
        wanted=wanted.adapters,
        added={n: one for n, one in wanted.adapters.items() if n not in now.adapters},
        removed={n: one for n, one in now.adapters.items() if n not in wanted.adapters},
        replaced={n: (now.adapters[n], wanted.adapters[n]) for n in both if n not in kept},
        kept=tuple(kept),
        compositions={n: p for n, p in sorted(compositions.items()) if _differ(*p)},
        rules=None if now.rules == wanted.rules else (now.rules, wanted.rules or Rules()),
        active=None if now.active == wanted.active else (now.active, wanted.active),
        residency=(
            None if now.residency == wanted.residency else (now.residency, wanted.residency)
        ),
    )


def _differ(one: Composition | None, other: Composition | None) -> bool:
    """Whether two compositions differ, declared or made by code."""
    if one is None or other is None:
        return True
    return not same_recipe(one, other)


def same_recipe(one: Composition, other: Composition) -> bool:
    """Whether they compute the same of the same adapters."""
    said = [composition.model_dump(exclude={"of"}) for composition in (one, other)]
    return said[0] == said[1] and dict(one.of) == dict(other.of)


def wanted_state(file: ManifestFile, lock: Lock, digests: Mapping[str, str]) -> State:
    """What ``file`` wants. ``digests`` are of adapters that ``lock`` does not pin."""
    manifest = file.manifest
    return State(
        adapters={
            name: Held(
                digest=digests.get(name) or lock.adapters[name].digest,
                dtype=declared_dtype(adapter.dtype),
                trainable=adapter.trainable,
                source="new" if adapter.source is None else str(adapter.source),
                method=lock.adapters[name].method,
                rank=lock.adapters[name].rank,
            )
            for name, adapter in manifest.adapters.items()
        },
        compositions={
            name: as_weights(one, flatten(manifest, name))
            for name, one in manifest.compositions.items()
        },
        rules=manifest.rules,
        active={} if manifest.active is None else answering(manifest, manifest.active),
    )


def as_weights(composition: Composition, weights: Mapping[str, Weight]) -> Composition:
    """The composition with its members resolved to adapters."""
    return composition.model_copy(update={"of": dict(weights)})


def declared_dtype(dtype: str | None) -> str | None:
    """``auto`` is the dtype of an adapter without a declaration."""
    return None if dtype == "auto" else dtype


def check_same_base(
    now: tuple[ManifestFile, Lock], wanted: tuple[ManifestFile, Lock], *, loaded: bool
) -> list[Finding]:
    """Findings where the wanted manifest has another base than the current one, or loads it another
    way: neither can change under a running model.

    ``loaded`` says that the base was loaded as the current manifest says, and was not passed in. A
    manifest without a base accepts any.
    """
    (file, lock), (new, new_lock) = now, wanted
    old_base, new_base = file.manifest.base, new.manifest.base
    if new_base.model is None or old_base.model is None:
        return []
    findings: list[Finding] = []
    if _place(file, old_base) != _place(new, new_base):
        return [_another(new, "model", old_base.model, new_base.model)]
    old, other = lock.base, new_lock.base
    if old is not None and other is not None and _content(old) != _content(other):
        found, expected = other.revision or "other files", old.revision or "its files"
        findings.append(_another(new, "model", expected, found))
        if loaded and old.loaded_as != other.loaded_as:
            before, after = old.loaded_as, other.loaded_as
            findings.append(_another(new, "way of being loaded", before, after))
    for key in _SHAPING if loaded else ():
        before, after = getattr(old_base, key), getattr(new_base, key)
        if before != after:
            findings.append(_another(new, key, before, after))
    if (
        old_base.fingerprint is not None
        and new_base.fingerprint is not None
        and old_base.fingerprint != new_base.fingerprint
    ):
        findings.append(
            _another(new, "fingerprint", old_base.fingerprint.weights, new_base.fingerprint.weights)
        )
    return findings


_SHAPING = (
    "dtype",
    "device_map",
    "float32_modules",
    "quantization",
    "attn_implementation",
    "task",
    "num_labels",
    "id2label",
    "vocab_size",
    "trust_remote_code",
)
"""What decides how the base is loaded, apart from its source."""


def _place(file: ManifestFile, base: Base) -> str:
    assert base.model is not None
    return str(base.model.local_path(file.directory) if base.model.is_local else base.model)


def _content(base: LockedBase) -> dict[str, object]:
    """What pins it: digests, and versions of files that were never hashed."""
    return {path: (f.size, None if f.version else f.sha256) for path, f in base.files.items()}


def _another(file: ManifestFile, key: str, before: object, after: object) -> Finding:
    return codes.BASE_IS_ANOTHER.finding(
        f"The manifest's base has another {key}",
        file.where(("base", key)),
        found=after,
        expected=before,
    )


# -- in words -----------------------------------------------------------------------------------


def _lines(plan: Plan) -> Iterator[str]:
    if not plan:
        yield f"No changes: the model matches {plan.file.file or 'the manifest'}."
        return
    for name, one in plan.added.items():
        yield f"+ adapter {name}  {_adapter(one)}"
    for name, (old, new) in plan.replaced.items():
        yield f"~ adapter {name}  {', '.join(_differences(old, new))}"
    for name, one in plan.removed.items():
        yield f"- adapter {name}  {_adapter(one)}"
    for name, (before, after) in plan.compositions.items():
        if before is None and after is not None:
            yield f"+ composition {name}  {_composition(after)}"
        elif before is not None and after is None:
            yield f"- composition {name}  {_composition(before)}"
        elif before is not None and after is not None:
            yield f"~ composition {name}  {_composition(before)} -> {_composition(after)}"
    if plan.rules is not None:
        before, after = plan.rules
        yield f"~ rules  {_rules(before)} -> {_rules(after)}"
    if plan.active is not None:
        yield f"~ active  {_weights(plan.active[0])} -> {_weights(plan.active[1])}"
    if plan.residency is not None:
        yield f"~ residency  {_bytes(plan.residency[0])} -> {_bytes(plan.residency[1])}"
    sets = {n for n, (b, _) in plan.compositions.items() if b is None}
    gone = {n for n, (_, a) in plan.compositions.items() if a is None}
    settings = sum(one is not None for one in (plan.rules, plan.active, plan.residency))
    added, removed = len(plan.added) + len(sets), len(plan.removed) + len(gone)
    changed = len(plan.replaced) + len(plan.compositions) - len(sets) - len(gone) + settings
    yield f"Plan: {added} to add, {changed} to change, {removed} to remove."


def _adapter(one: Held) -> str:
    parts = [_digest(one.digest)]
    if one.method:
        parts.append(f"{one.method} r={one.rank}")
    parts += [f"dtype {one.dtype}"] if one.dtype else []
    parts += ["trainable"] if one.trainable else []
    return ", ".join([*parts, *([one.source] if one.source else [])])


def _differences(old: Held, new: Held) -> Iterator[str]:
    if old.digest != new.digest or old.digest is None:
        yield f"{_digest(old.digest)} -> {_digest(new.digest)}"
    if old.dtype != new.dtype:
        yield f"dtype {old.dtype or 'auto'} -> {new.dtype or 'auto'}"
    if old.trainable != new.trainable:
        yield "trainable" if new.trainable else "no longer trainable"


def _digest(digest: str | None) -> str:
    return f"sha256:{digest.removeprefix('sha256:')[:12]}" if digest else "never hashed"


def _composition(one: Composition) -> str:
    options = one.model_dump(exclude={"combine", "of"}, exclude_none=True)
    more = "".join(f", {key} {value}" for key, value in options.items())
    return f"{one.combine} of {_weights(one.of)}{more}"


def _weights(weights: Mapping[str, Any]) -> str:
    if not weights:
        return "the base alone"
    return " + ".join(
        name if weight == 1 else f"{shown(weight)} {name}" for name, weight in weights.items()
    )


def _rules(rules: Rules | None) -> str:
    if rules is None:
        return "rules of your code"
    said = rules.model_dump(exclude_defaults=True)
    return ", ".join(f"{key} {_plain(value)}" for key, value in said.items()) or "none"


def _bytes(budget: int | None) -> str:
    return "any number of bytes" if budget is None else f"{budget} bytes"


def _plain(value: Any) -> object:
    if isinstance(value, Mapping):
        return {key: list(inner) for key, inner in value.items()}
    return [list(one) for one in value] if isinstance(value, tuple) else value
