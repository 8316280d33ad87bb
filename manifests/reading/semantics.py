"""What no single value shows: names that refer to one another, and fields that go together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..findings import language as codes
from ..findings import rules as rule_codes
from ..findings import training, usage
from ..findings.errors import RoutingError
from ..findings.finding import Finding, Where
from ..language.devices import bad_devices
from ..language.mirrors import mirror_problem
from ..language.names import did_you_mean, listed
from ..language.rules import Flat, check_active, cycles, flatten, members_of
from ..language.schema import Composition, Manifest, Rules
from ..language.source import Source
from ..language.weights import weight_of
from .combine import check_fields
from .nodes import Locate, Path

MAX_HINTS = 100
"""Unknown names for which the nearest known one is looked up."""


@dataclass(frozen=True)
class Gaps:
    """What had to be taken out of a manifest because of errors of its own.

    ``names`` are adapters and compositions, and ``registries`` registries, that are declared all
    the same: they may be referred to. Of ``unsure`` compositions a field is missing; what
    ``unplaced`` adapters are made of is wrong.
    """

    names: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    unsure: frozenset[str] = frozenset()
    unplaced: frozenset[str] = frozenset()


NO_GAPS = Gaps()


def check(manifest: Manifest, locate: Locate, gaps: Gaps = NO_GAPS) -> list[Finding]:
    """Everything in ``manifest`` that contradicts itself, warnings included.

    Nothing is said of what rests upon ``gaps``.
    """
    checks = _Checks(manifest, locate, gaps)
    checks.names()
    checks.adapters()
    checks.base()
    checks.mirrors()
    checks.compositions()
    checks.rules()
    checks.active()
    return checks.findings


class _Checks:
    def __init__(self, manifest: Manifest, locate: Locate, gaps: Gaps) -> None:
        self.manifest = manifest
        self.locate = locate
        self.gaps = gaps
        self.findings: list[Finding] = []
        self.flat: dict[str, Flat] = {}
        self.unknown = 0
        self.known = dict.fromkeys([*manifest.adapters, *manifest.compositions, *gaps.names])
        self.listed = listed(self.known)

    def names(self) -> None:
        """No two names of adapters and compositions that differ in case only."""
        first: dict[str, str] = {}
        for section in ("adapters", "compositions"):
            for name in getattr(self.manifest, section):
                other = first.setdefault(name.lower(), name)
                if other != name:
                    self.findings.append(
                        codes.NAMES_IN_CASE.finding(
                            f"{name!r} and {other!r} differ in nothing but case.",
                            self.locate((section, name), key=True),
                            found=name,
                        )
                    )

    # --- adapters, registries, base ----------------------------------------------------------

    def adapters(self) -> None:
        manifest, locate = self.manifest, self.locate
        for name, source in manifest.registries.items():
            if source.is_registry:
                self._not_here("A registry is not found through another.", ("registries", name))
        seen: dict[object, str] = {}
        for name, adapter in manifest.adapters.items():
            path = ("adapters", name)
            if name in manifest.compositions:
                self.findings.append(
                    codes.NAME_TAKEN.finding(
                        f"An adapter and a composition are both called {name!r}.",
                        locate(("compositions", name), key=True),
                        found=name,
                    )
                )
            if name not in self.gaps.unplaced:
                self._origin(name)
            self._finite(adapter.storage_options, (*path, "storage_options"))
            self._finite(adapter.config, (*path, "config"))
            if adapter.source is None:
                continue
            self._registry(adapter.source, (*path, "source"))
            if adapter.mutable:
                self._mutable(name, adapter.source)
            if adapter.lazy and adapter.trainable:
                self.findings.append(
                    usage.LAZY_TRAINABLE.finding(
                        f"{name!r} is to be trained, and read on first use only.",
                        locate((*path, "lazy")),
                    )
                )
            same = (str(adapter.source), repr(adapter.storage_options), adapter.dtype)
            if same in seen:
                self.findings.append(
                    codes.SAME_SOURCE.finding(
                        f"{name!r} is the same adapter as {seen[same]!r}.",
                        locate((*path, "source")),
                        found=str(adapter.source),
                    )
                )
            seen.setdefault(same, name)

    def _origin(self, name: str) -> None:
        """A source or a config, and only the fields that go with it."""
        adapter, path = self.manifest.adapters[name], ("adapters", name)
        if adapter.source is None and adapter.config is None:
            self.findings.append(
                codes.MISSING_KEY.finding(
                    f"adapters.{name} has no 'source'.",
                    self.locate((*path, "source")),
                    expected="source: ... (or config: ..., for a new one)",
                )
            )
            return
        if adapter.source is not None and adapter.config is not None:
            self.findings.append(
                training.ADAPTER_ORIGIN.finding(
                    f"{name!r} has a source and a config.", self.locate((*path, "config"))
                )
            )
            return
        begun = adapter.config is not None
        odd = ("sha256", "storage_options", "lazy", "mutable") if begun else ("seed",)
        given = [field for field in odd if field in adapter.model_fields_set]
        self.findings += [
            training.FRESH_FIELD.finding(
                f"{field} says nothing of {name!r}, which has a {'config' if begun else 'source'}.",
                self.locate((*path, field)),
            )
            for field in given
            if getattr(adapter, field) is not None
        ]
        if begun and not adapter.trainable:
            self.findings.append(
                training.FRESH_NOT_TRAINABLE.finding(
                    f"{name!r} is begun, and not to be trained.",
                    self.locate((*path, "config")),
                    expected="trainable: true",
                )
            )

    def _registry(self, source: Source, path: Path) -> None:
        registry = source.location.partition("/")[0]
        known = [*self.manifest.registries, *self.gaps.registries]
        if source.is_registry and registry not in known:
            self.findings.append(
                codes.UNKNOWN_REGISTRY.finding(
                    f"No registry is called {registry!r}.",
                    self.locate(path),
                    found=str(source),
                    expected=listed(known),
                    hint=did_you_mean(registry, known),
                )
            )

    def _mutable(self, name: str, source: Source) -> None:
        adapter = self.manifest.adapters[name]
        where = self.locate(("adapters", name, "mutable"))
        if not source.is_local:
            self.findings.append(
                codes.MUTABLE_REMOTE.finding(
                    f"{name!r} is mutable, but its source is not a local folder.",
                    where,
                    found=str(source),
                    expected="a local folder",
                )
            )
        against = [
            said
            for said, holds in (
                (f"adapters.{name}.sha256", adapter.sha256 is not None),
                ("policy.require_digest", self.manifest.policy.require_digest),
            )
            if holds
        ]
        if against:
            self.findings.append(
                codes.MUTABLE_DIGEST.finding(
                    f"{name!r} is still changing, so it cannot have the digest that "
                    f"{' and '.join(against)} asks for.",
                    where,
                    found="mutable: true",
                )
            )

    def _not_here(self, message: str, path: Path) -> None:
        where = self.locate(path)
        self.findings.append(codes.SOURCE_NOT_HERE.finding(message, where, found="registry://..."))

    def base(self) -> None:
        base = self.manifest.base
        if base.model is not None and base.model.is_registry:
            self._not_here("A base model does not come from a registry.", ("base", "model"))
        self._once(base.aliases, ("base", "aliases"))
        for field in ("aliases", "float32_modules"):
            for index, text in enumerate(getattr(base, field)):
                if not text or text != text.strip():
                    self._bad_value(("base", field, index), text, "text without space around it")
        self._labels()
        self._finite(base.quantization, ("base", "quantization"))
        self._finite(base.storage_options, ("base", "storage_options"))
        for path, found, expected in bad_devices(base.device_map):
            self.findings.append(
                codes.BAD_DEVICE_MAP.finding(
                    "This is no device.",
                    self.locate(("base", "device_map", *path)),
                    found=found,
                    expected=expected,
                )
            )

    def _labels(self) -> None:
        """``id2label`` names the labels 0, 1, ..., as many as ``num_labels``; no name twice."""
        base = self.manifest.base
        names = base.id2label
        if names is None:
            return
        count = len(names) if base.num_labels is None else base.num_labels
        if set(names) != {str(n) for n in range(count)} or len({*names.values()}) < len(names):
            expected = f"a name of its own for each of 0 to {count - 1}"
            self._bad_value(("base", "id2label"), dict(names), expected)

    def _bad_value(self, path: Path, found: object, expected: str) -> None:
        where = self.locate(path)
        self.findings.append(
            codes.BAD_VALUE.finding(
                f"{where.dotted} cannot have this value.",
                where,
                found=repr(found),
                expected=expected,
            )
        )

    def _finite(self, value: Any, path: Path) -> None:
        """What is passed on is locked too, and neither YAML nor JSON can compare a NaN."""
        if isinstance(value, Mapping):
            for key, inner in value.items():
                self._finite(inner, (*path, key))
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                self._finite(inner, (*path, index))
        elif isinstance(value, float) and not math.isfinite(value):
            self._bad_value(path, value, "a finite number")

    def mirrors(self) -> None:
        for prefix, target in self.manifest.mirrors.items():
            problem = mirror_problem(prefix, target)
            if problem is not None:
                self.findings.append(
                    codes.BAD_MIRROR.finding(
                        problem,
                        self.locate(("mirrors", prefix)),
                        found=f"{prefix}: {target}",
                    )
                )

    # --- compositions --------------------------------------------------------------------------

    def compositions(self) -> None:
        for name, composition in self.manifest.compositions.items():
            if name not in self.gaps.unsure:
                self._fields(name, composition)
            self._members(name, composition)
            self._flat(name, composition)
        for cycle in cycles(self.manifest):
            self.findings.append(
                codes.COMPOSITION_CYCLE.finding(
                    f"{cycle[0]!r} is made of itself: {' > '.join((*cycle, cycle[0]))}.",
                    self.locate(("compositions", cycle[0]), key=True),
                )
            )

    def _fields(self, name: str, composition: Composition) -> None:
        def locate(path: Path) -> Where:
            return self.locate(("compositions", name, *path), key=True)

        self.findings += check_fields(composition, locate)

    def _members(self, name: str, composition: Composition) -> None:
        compositions = self.manifest.compositions
        for member, weight in composition.of.items():
            path = ("compositions", name, "of", member)
            self._weight(name, member, weight)
            if member in compositions and member not in self.manifest.adapters:
                inner = compositions[member].combine
                sure = not self.gaps.unsure & {name, member}
                if sure and (composition.combine != "sum" or inner != "sum"):
                    self.findings.append(
                        codes.NESTED_COMPOSITION.finding(
                            f"{name!r} ({composition.combine}) cannot hold the composition "
                            f"{member!r} ({inner}).",
                            self.locate(path, key=True),
                            found=member,
                            expected="adapters; or a sum within a sum",
                        )
                    )
            else:
                self._known(member, path, key=True)

    def _weight(self, name: str, member: str, weight: float | Mapping[str, float]) -> None:
        """A weight changes something: it is finite, and one of several at least is not 0."""
        path: Path = ("compositions", name, "of", member)
        several = isinstance(weight, Mapping)
        found = dict(weight) if isinstance(weight, Mapping) else {"": weight}
        bad = [glob for glob, one in found.items() if not math.isfinite(one)]
        if not bad and any(found.values()):
            return
        place = (*path, bad[0]) if several and bad else path
        self.findings.append(
            codes.BAD_WEIGHT.finding(
                f"{member!r} cannot have this weight in {name!r}.",
                self.locate(place),
                found=found[bad[0]] if bad else (found if several else weight),
                expected="a finite number other than 0",
            )
        )

    def _known(self, name: str, path: Path, *, key: bool = False) -> bool:
        if name in self.known:
            return True
        self.unknown += 1
        self.findings.append(
            codes.UNKNOWN_ADAPTER.finding(
                f"No adapter or composition is called {name!r}.",
                self.locate(path, key=key),
                found=name,
                expected=self.listed,
                hint=did_you_mean(name, self.known) if self.unknown < MAX_HINTS else None,
            )
        )
        return False

    def _flat(self, name: str, composition: Composition) -> None:
        where = self.locate(("compositions", name), key=True)
        try:
            active = members_of(self.manifest, name, self.flat).weights
        except RoutingError as error:  # what is unknown or a circle is told elsewhere
            deep = error.findings[0]
            if deep.expected is not None and deep.code == codes.COMPOSITION_CYCLE.id:
                self.findings.append(replace(deep, where=where))
            return
        gone = [adapter for adapter, weight in active.items() if not weight]
        if gone and all(weight_of(weight) for weight in composition.of.values()):
            self.findings.append(
                codes.BAD_WEIGHT.finding(
                    f"In {name!r} the weights of {', '.join(gone)} cancel out.",
                    self.locate(("compositions", name, "of")),
                    found="0 in total",
                    expected="a total other than 0",
                )
            )
        self.findings += check_active(self.manifest.rules, active, None, where)

    # --- rules and what is active --------------------------------------------------------------

    def rules(self) -> None:
        rules = self.manifest.rules
        for index, group in enumerate(rules.exclusive):
            path: Path = ("rules", "exclusive", index)
            for place, name in enumerate(group):
                self._adapter(name, (*path, place))
            if len(set(group)) < 2 or len(set(group)) != len(group):
                self.findings.append(
                    rule_codes.EXCLUSIVE_GROUP.finding(
                        "This group does not keep different adapters apart.",
                        self.locate(path),
                        found="[" + ", ".join(group) + "]",
                        expected="two or more different adapters, each once",
                    )
                )
        for name, needed in rules.requires.items():
            path = ("rules", "requires", name)
            self._adapter(name, path, key=True)
            for place, other in enumerate(needed):
                self._adapter(other, (*path, place))
            self._once(needed, path)
            self._contradiction(rules, name)

    def _adapter(self, name: str, path: Path, *, key: bool = False) -> None:
        if name in self.manifest.compositions and name not in self.manifest.adapters:
            self.findings.append(
                rule_codes.RULE_ON_COMPOSITION.finding(
                    f"{name!r} is a composition; rules are about adapters.",
                    self.locate(path, key=key),
                    found=name,
                    expected=listed(self.manifest.adapters),
                )
            )
        else:
            self._known(name, path, key=key)

    def _contradiction(self, rules: Rules, name: str) -> None:
        where = self.locate(("rules", "requires", name), key=True)
        if name in rules.requires[name]:
            self.findings.append(
                rule_codes.CONTRADICTION.finding(f"{name!r} requires itself.", where, found=name)
            )
        together = {name: 1.0}
        queue = [name]
        while queue:
            for other in rules.requires.get(queue.pop(), ()):
                if other not in together:
                    together[other] = 1.0
                    queue.append(other)
        for finding in check_active(rules, together):
            self.findings.append(
                rule_codes.CONTRADICTION.finding(
                    f"{name!r} can never be active. With all that it requires: {finding.message}",
                    where,
                    found=finding.found,
                    expected=finding.expected,
                )
            )

    def _once(self, names: Iterable[str], path: Path) -> None:
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                self.findings.append(
                    codes.REPEATED_NAME.finding(
                        f"{name!r} stands twice in this list.",
                        self.locate((*path, index)),
                        found=name,
                    )
                )
            seen.add(name)

    def active(self) -> None:
        active = self.manifest.active
        if active is None:
            return
        if isinstance(active, str):
            known = self._known(active, ("active",))
        else:
            self._once(active, ("active",))
            found = [self._known(name, ("active", place)) for place, name in enumerate(active)]
            known = all(found)
        single_composition = isinstance(active, str) and active in self.manifest.compositions
        if not known or single_composition:  # a composition was checked where it is declared
            return
        try:
            flat = flatten(self.manifest, active)
        except RoutingError:  # told where the composition is declared
            return
        self.findings += check_active(self.manifest.rules, flat, None, self.locate(("active",)))
