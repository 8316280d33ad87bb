"""One method's row in the table: what generic code asks of a method, and never by its name.

A method is two files of one name: here what its config and its tensors' names and shapes mean, in
``loader/methods/`` what the tensors do. Each ends in its row. This file imports no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .default_targets import Table
from .keys import Keys, Roles
from .naming import Naming
from .new_adapter import NewAdapter
from .options import COMMON, Option, anything
from .patterns import Patterns
from .targets import TargetSelection

ReadConfig = Callable[[Mapping[str, Any]], Any]
CheckConfig = Callable[[Mapping[str, Any], Where], list[Finding]]
Complete = Callable[[Mapping[str, Any], Mapping[str, Any], Layout | None], Mapping[str, Any]]
"""``complete(config, base, layout)``; ``base`` is the base's ``config.json``."""
Beside = Callable[[NewAdapter], Mapping[str, Shape] | str]
Shapes = Callable[[SitePlan, ModuleShape, Mapping[str, Shape]], Mapping[str, Shape] | str]
SplitKeys = Callable[[Iterable[str]], Keys]
SelectsToo = Callable[[Layout, TargetSelection, Naming], list[str]]
CheckPlan = Callable[[Any, AdapterPlan, Where], list[Finding]]
"""``check_plan(config, plan, where)``; ``config`` is the method's own typed view."""


class MakePlan(Protocol):
    """Where every tensor goes, and how the file's names became live ones.

    Sites are in the file's order and bear live names where there is a ``layout``, the file's own
    where there is none. Decides places only; whether they fit is asked elsewhere. ``config`` is
    the method's own typed view. Raises ``PatternError`` for a
    pattern that is none or too slow.
    """

    def __call__(
        self,
        config: Any,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns | None = None,
    ) -> tuple[AdapterPlan, Naming]: ...


def _nothing(config: Mapping[str, Any], where: Where) -> list[Finding]:
    return []


def _as_said(
    config: Mapping[str, Any], base: Mapping[str, Any], layout: Layout | None
) -> Mapping[str, Any]:
    return config


def _always(site: SitePlan) -> bool:
    return True


def _no_others(layout: Layout, selection: TargetSelection, naming: Naming) -> list[str]:
    return []


def _sound(config: Any, plan: AdapterPlan, where: Where) -> list[Finding]:
    return []


def _nothing_beside(new: NewAdapter) -> Mapping[str, Shape]:
    return {}


@dataclass(frozen=True)
class Method:
    """One method: its config fields, its typed view of them, and its plan.

    Attributes:
        peft_type: PEFT's name of the method.
        options: The fields of its config.
        read_config: Gives the typed view of a config, a ``TunerConfig``.
        make_plan: Where every tensor of a file goes.
        roles: Its tensors' names, for the tables.
        role_sets: The sets of roles of which a site has exactly one.
        kinds: The kinds of modules that it adapts, with the roles for each. Empty where it acts on
            the model as a whole.
        shapes: What each role's tensor must be at a module (given what was found, for methods
            whose sizes are free), or why the method cannot sit there.
        name: What sites call it, where that is not its ``peft_type``.
        asked_by: The config field without which a role may not be in the file, by role.
        check_config: Finds fields that contradict each other, once each is of the right kind.
        check_trained: Finds what makes the config of a trained adapter unusable.
        check_plan: Finds what only this method asks of a file, once its tensors have their places.
        split_keys: Sorts out a file's keys; by ``roles``, if it is not given.
        selects_too: The modules that a config selects beside those of ``kinds``.
        ranked: Whether the factors are a pair A and B of the rank that the config gives; the typed
            view is then a ``LoraConfig``.
        native: False where PEFT has to attach it.
        dropout: The config field with the dropout of training that its sites carry out.
        needs_call: Whether a site acts only where its module's forward runs.
        idle: Sets of roles: where all of one set are zero, the site does nothing.
        trains: Whether gradients are all that the method's training needs.
        complete: Fills in what PEFT does in the config of a new adapter.
        check_begin: Finds what the config of a new adapter may not ask for.
        default_targets: PEFT's modules for a config that names none, by ``model_type``.
        beside: The names on disk and shapes of what a new adapter's file has beside its sites, or
            why there can be no new one. A new site has the roles of ``kinds`` and those that a
            field asks for (``asked_by``), in the ``shapes`` for where nothing is found.
        copied_as: What PEFT calls modules that the method trains as a whole, if it does.
    """

    peft_type: str
    options: tuple[Option, ...]
    read_config: ReadConfig
    make_plan: MakePlan
    roles: Roles
    role_sets: tuple[frozenset[str], ...]
    kinds: Mapping[ModuleKind, frozenset[str]]
    shapes: Shapes
    name: str = ""
    asked_by: Mapping[str, str] = field(default_factory=dict)
    check_config: CheckConfig = _nothing
    check_trained: CheckConfig = _nothing
    check_plan: CheckPlan = _sound
    split_keys: SplitKeys | None = None
    selects_too: SelectsToo = _no_others
    ranked: bool = False
    trains: bool = True
    complete: Complete = _as_said
    check_new: CheckConfig = _nothing
    default_targets: Table = field(default_factory=dict)
    beside: Beside = _nothing_beside
    copied_as: str = ""
    native: bool = True
    dropout: str = ""
    needs_call: Callable[[SitePlan], bool] = _always
    idle: tuple[frozenset[str], ...] = ()

    def plan(
        self,
        config: Mapping[str, Any],
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None = None,
        patterns: Patterns | None = None,
    ) -> AdapterPlan:
        """Where every tensor goes, from ``adapter_config.json`` (its fields already checked, see
        ``registry.checks``) and the header's tensors."""
        return self.make_plan(self.read_config(self.own(config)), tensors, layout, patterns)[0]

    def keys_of(self, tensors: Iterable[str]) -> Keys:
        """A file's keys, sorted out by module and role."""
        return self.split_keys(tensors) if self.split_keys else Keys.split(tensors, self.roles)

    def own(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those fields of a config that are this method's and of a kind that is known: others may
        hold anything, and are not to be read."""
        names = {*COMMON, *(o.name for o in self.options if o.expect is not anything)}
        return {name: value for name, value in config.items() if name in names}

    def spelling(self, role: str) -> str:
        """The role's name on disk, without ``.weight``."""
        for (parameter, last), name in self.roles.items():
            if name == role:
                return parameter if last in ("", "weight") else f"{parameter}.{last}"
        return role
