"""One method's row in the table: what generic code asks of a method, without asking for its name.

A method is two files of one name. Here: what its config and the names and shapes of its tensors
mean. In ``loader/methods/``: what the tensors do. Each ends in its row. This file imports no
method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from .keys import Keys, Roles, factor_by
from .naming import Naming
from .new_adapter import NewAdapter
from .options import COMMON, Option, anything
from .patterns import Patterns
from .peft_table import Table
from .targets import TargetSelection

ReadConfig = Callable[[Mapping[str, Any]], Any]
CheckConfig = Callable[[Mapping[str, Any], Where], list[Finding]]
Complete = Callable[[Mapping[str, Any], Mapping[str, Any], Layout | None], Mapping[str, Any]]
"""``complete(config, base, layout)``; ``base`` is the base's ``config.json``."""
Beside = Callable[[NewAdapter], Mapping[str, Shape] | str]
Shapes = Callable[[SitePlan, ModuleShape, Mapping[str, Shape]], Mapping[str, Shape] | str]
"""``shapes(site, module, found)``; ``found`` are the shapes in the file, by role."""
SplitKeys = Callable[[Iterable[str]], Keys]
SelectsToo = Callable[[Layout, TargetSelection, Naming], list[str]]
CheckPlan = Callable[[Any, AdapterPlan, Where], list[Finding]]
"""``check_plan(config, plan, where)``; ``config`` is the method's own typed view."""
MakePlan = Callable[
    [Any, Mapping[str, TensorInfo], Layout | None, Patterns], tuple[AdapterPlan, Naming]
]
"""``make_plan(config, tensors, layout, patterns)``: where every tensor goes, and how the file's
names became live ones.

``config`` is the method's own typed view. Sites are in the file's order, and have live names where
there is a ``layout``, else the file's own. Finds places only; the checks decide whether they fit.
Raises ``PatternError`` for an invalid or slow pattern.
"""


@dataclass(frozen=True)
class Method:
    """One method: its config fields, its typed view of them, and its plan.

    Attributes:
        peft_type: PEFT's name of the method.
        options: The fields of its config.
        read_config: Gives the typed view of a config, a ``TunerConfig``.
        make_plan: Where every tensor of a file goes.
        roles: What its tensors are called, by the ends of their keys.
        kinds: The kinds of modules that it adapts, with the roles for each. Empty where it acts on
            the model as a whole.
        shapes: What each role's tensor must be at a module (from the shapes in the file, for
            methods whose sizes are free), or why the method cannot sit there.
        role_sets: The sets of roles of which a site has exactly one. By default those of
            ``kinds``.
        name: What sites call it, where that is not its ``peft_type``.
        asked_by: By role, the config field that a file needs to have the role.
        check_config: Finds fields that contradict each other, once each is of the right kind.
        check_trained: Finds what makes the config of a trained adapter unusable.
        check_plan: Finds what only this method requires of a file, from the plan.
        split_keys: Sorts a file's keys. By default, ``roles`` does.
        selects_too: The modules that a config selects in addition to those of ``kinds``.
        ranked: Whether the factors are a pair A and B of the rank in the config; the typed view is
            then a ``LoraConfig``.
        native: False where PEFT has to attach it.
        dropout: The config field with the dropout of training that its sites apply.
        needs_call: Whether a site acts only where its module's forward runs.
        idle: Sets of roles: where all of one set are zero, the site does nothing.
        trains: Whether gradients are all that the method's training needs.
        complete: Fills in what PEFT does in the config of a new adapter.
        check_new: Finds what the config of a new adapter may not ask for.
        default_targets: PEFT's modules for a config that names none, by ``model_type``.
        beside: The names on disk and shapes of what a new adapter's file has in addition to its
            sites, or why a new one cannot be created. A new site has the roles of ``kinds`` and
            those that a field asks for (``asked_by``), with the ``shapes`` for an empty file.
        copied_as: What PEFT calls the copies of modules that the method trains completely, if it
            does.
    """

    peft_type: str
    options: tuple[Option, ...]
    read_config: ReadConfig
    make_plan: MakePlan
    roles: Roles
    kinds: Mapping[ModuleKind, frozenset[str]]
    shapes: Shapes
    role_sets: tuple[frozenset[str], ...] = ()
    name: str = ""
    asked_by: Mapping[str, str] = field(default_factory=dict)
    check_config: CheckConfig = lambda config, where: []
    check_trained: CheckConfig = lambda config, where: []
    check_plan: CheckPlan = lambda config, plan, where: []
    split_keys: SplitKeys | None = None
    selects_too: SelectsToo = lambda layout, selection, naming: []
    ranked: bool = False
    trains: bool = True
    complete: Complete = lambda config, base, layout: config
    check_new: CheckConfig = lambda config, where: []
    default_targets: Table = field(default_factory=dict)
    beside: Beside = lambda new: {}
    copied_as: str = ""
    native: bool = True
    dropout: str = ""
    needs_call: Callable[[SitePlan], bool] = lambda site: True
    idle: tuple[frozenset[str], ...] = ()

    def __post_init__(self) -> None:
        if not self.role_sets:
            object.__setattr__(self, "role_sets", tuple(dict.fromkeys(self.kinds.values())))

    def keys_of(self, tensors: Iterable[str]) -> Keys:
        """A file's keys, sorted by module and role."""
        if self.split_keys is not None:
            return self.split_keys(tensors)
        return Keys.split(tensors, factor_by(self.roles))

    def own(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """The fields of a config that this method has and whose kind is known. Other fields may
        hold anything, and must not be read."""
        names = {*COMMON, *(o.name for o in self.options if o.expect is not anything)}
        return {name: value for name, value in config.items() if name in names}

    def spelling(self, role: str) -> str:
        """The role's name on disk, without ``.weight``."""
        for (parameter, last), name in self.roles.items():
            if name == role:
                return parameter if last in ("", "weight") else f"{parameter}.{last}"
        return role
