"""New adapters: what their files hold before the first step, from the config and the base's layout
alone. The loader makes the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import training as codes
from ...manifests.findings.finding import Finding, Where, refused
from ..files.conversion import Shape
from ..files.facts import SIZED, Header, Layout, ModuleKind, ModuleShape, SitePlan, TensorInfo
from ..files.names import PEFT_PREFIX
from ..files.wording import listed
from ..methods.lora_parameters import selected
from ..methods.method import Method
from ..methods.naming import Naming
from ..methods.new_adapter import NewAdapter
from ..methods.patterns import PatternError, Patterns
from ..methods.places import saved_module
from ..methods.targets import TargetSelection
from ..methods.tuner_config import TASK_HEADS, TunerConfig
from . import options
from .biases import trained_biases
from .check_adapter import check_patterns, pattern_finding
from .saved import parameters_of
from .version import KNOWN_PEFT

_VERSION = ".".join(map(str, (*KNOWN_PEFT, 0)))
"""The PEFT whose format is written, where the config was made without it."""


@dataclass(frozen=True)
class NewAdapterFiles:
    """An adapter before its first step. ``config`` is as PEFT would write it, ``header`` has its
    tensors with their shapes, ``copies`` maps those that start as copies to the base's own."""

    config: Mapping[str, Any]
    header: Header
    copies: Mapping[str, str] = field(default_factory=dict)


def plan_new_adapter(
    config: Mapping[str, Any],
    base: Mapping[str, Any],
    layout: Layout | None,
    where: Where = Where(),  # noqa: B008 - frozen
    bare: Iterable[str] = (),
) -> tuple[NewAdapterFiles | None, list[Finding]]:
    """The files of a new adapter with this ``config``, on a base with this ``config.json`` and
    ``layout``, and what is wrong with it. ``None`` where it cannot be created, or where there is no
    layout: then a finding says that it is *unchecked*. ``bare`` names the modules without
    parameters, which are not in the layout, where they are known. Raises nothing for bad input."""
    method, found = options.check_method(config, where)
    if method is None:
        return None, found
    if found := options.check_types(config, method, where):
        return None, found
    full = _completed(config, method, base, layout)
    own, patterns = method.own(full), Patterns()
    found = options.check_options(full, method, where, unknown=fit_codes.OPTION_UNKNOWN)
    found += options.check_contradictions(own, where)
    found += check_patterns(own, patterns, where)
    found += method.check_new(full, where)
    if not (method.trains and method.native):
        message = f"{method.peft_type} adapters can be loaded, but not created"
        found.append(codes.NEW_METHOD.finding(message, where, found=method.peft_type))
    if layout is None:
        message = "Cannot place the new adapter: the base's modules are not known"
        found.append(codes.NEW_UNPLACED.finding(message, where))
    if layout is None or refused(found):
        return None, found
    try:
        return _Draft(full, method, layout, where, patterns, tuple(bare)).finished(found), found
    except PatternError as error:
        return None, [*found, pattern_finding(error, where)]


def _completed(
    config: Mapping[str, Any], method: Method, base: Mapping[str, Any], layout: Layout | None
) -> dict[str, Any]:
    """The config with what PEFT adds: targets for the base's type, heads for the task, sizes."""
    full = {"peft_version": _VERSION, **method.complete(config, base, layout)}
    targets = method.default_targets.get(str(base.get("model_type")))
    if full.get("target_modules") is None and targets is not None:
        full["target_modules"] = targets if isinstance(targets, str) else list(targets)
    heads = TASK_HEADS.get(str(full.get("task_type")), ())
    saved: list[str] = list(full.get("modules_to_save") or ())
    if heads:
        full["modules_to_save"] = [*saved, *(head for head in heads if head not in saved)]
    return full


@dataclass
class _Draft:
    """The tensors of a new adapter so far: their names on disk and their shapes."""

    config: dict[str, Any]
    method: Method
    layout: Layout
    where: Where
    patterns: Patterns
    bare: tuple[str, ...] = ()
    tensors: dict[str, Shape] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def finished(self, found: list[Finding]) -> NewAdapterFiles | None:
        """The complete files; what is wrong is added to ``found``."""
        method, layout = self.method, self.layout
        typed = cast(TunerConfig, method.read_config(self.config))
        selection = TargetSelection(typed, self.patterns, method.kinds)
        live = selection.live_modules(layout, Naming())
        chosen = tuple(name for name in layout.modules if name in live)
        if typed.fan_in_fan_out is not None:
            kinds = {layout.modules[name].kind for name in chosen}
            if kinds & {ModuleKind.CONV1D, ModuleKind.LINEAR}:
                self.config["fan_in_fan_out"] = ModuleKind.CONV1D in kinds
                typed = cast(TunerConfig, method.read_config(self.config))
        wrong = [*self._left_out(selection), *self._sites(typed, chosen)]
        beside = method.beside(NewAdapter(typed, self.config, layout, chosen, self.patterns))
        if isinstance(beside, str):
            wrong.append(codes.NEW_INIT.finding(beside, self.where))
        else:
            self.tensors |= beside
        self._copied(typed, chosen)
        parameters = any(
            selected(name, typed.parameters, list(module.parameters))
            for name, module in layout.modules.items()
        )
        targeted = chosen or parameters or not method.kinds
        # as in PEFT, replaced modules and tokens alone are not enough
        if not wrong and not (targeted and self.tensors):
            message = "The config does not select any module of this model"
            targets = self.config.get("target_modules")
            wrong.append(codes.NEW_SELECTS_NOTHING.finding(message, self.where, found=targets))
        found += wrong
        if refused(wrong):
            return None
        header = {key: TensorInfo("F32", shape) for key, shape in self.tensors.items()}
        return NewAdapterFiles(self.config, Header(header), self.copies)

    def _left_out(self, selection: TargetSelection) -> Iterable[Finding]:
        """Modules that the config selects but the method cannot adapt: PEFT refuses them."""
        kinds, modules = self.method.kinds, self.layout.modules
        if not kinds or selection.is_all_linear or ModuleKind.OTHER in kinds:
            return
        refused = [n for n in modules if modules[n].kind not in kinds and selection.selects(n)]
        refused += [name for name in self.bare if name not in modules and selection.selects(name)]
        if refused:
            of_kind = {n: modules[n].kind.value if n in modules else "no weight" for n in refused}
            yield codes.NEW_INIT.finding(
                f"{self.method.peft_type} cannot adapt {listed(refused, 'module')}",
                self.where,
                found=", ".join(dict.fromkeys(of_kind.values())),
                expected="modules of kind " + ", ".join(sorted(kind.value for kind in kinds)),
                hint="Name other modules in `target_modules`, or name these in `exclude_modules`.",
            )

    def _sites(self, typed: TunerConfig, chosen: tuple[str, ...]) -> Iterable[Finding]:
        """The method's own tensors at the ``chosen`` modules. The method's plan gives the rank and
        settings of each site from names alone."""
        method, modules = self.method, self.layout.modules
        spelled = {role: ".".join(filter(None, parts)) for parts, role in method.roles.items()}
        first = {
            f"{PEFT_PREFIX}{name}.{spelled[min(method.kinds[modules[name].kind])]}": name
            for name in chosen
            if method.kinds[modules[name].kind]
        }
        named = {key: TensorInfo("F32", ()) for key in first}
        plan, _ = method.make_plan(typed, named, self.layout, self.patterns)
        taken = frozenset(first.values())
        refusals: dict[str, list[str]] = {}
        unknown: list[str] = []
        for site in plan.sites:
            if site.module not in taken or site.method != method.peft_type:
                continue
            module = modules[site.module]
            if module.kind in SIZED and None in (module.in_features, module.out_features):
                unknown.append(site.module)
                continue
            roles = self._roles(site, module)
            if isinstance(roles, str):
                refusals.setdefault(roles, []).append(site.module)
                continue
            inside = f"{PEFT_PREFIX}{site.module}."
            self.tensors |= {f"{inside}{spelled[role]}": shape for role, shape in roles.items()}
        for reason, names in refusals.items():
            message = f"{method.peft_type} cannot adapt {listed(names, 'module')}"
            yield codes.NEW_INIT.finding(message, self.where, found=reason)
        if unknown:
            message = f"Unknown sizes of {listed(unknown, 'module')}"
            yield fit_codes.SIZE_UNKNOWN.finding(message, self.where)

    def _roles(self, site: SitePlan, module: ModuleShape) -> Mapping[str, Shape] | str:
        """The shapes of a new site by role, or why the method cannot adapt the module."""
        method = self.method
        shapes = method.shapes(site, module, {})
        if isinstance(shapes, str):
            return shapes
        asked = {role for role, name in method.asked_by.items() if self.config.get(name)}
        for role in sorted(asked - shapes.keys()):
            return f"{method.asked_by[role]} does not apply to modules of kind {module.kind.value}"
        wanted = (method.kinds[module.kind] & shapes.keys()) | asked
        return {role: shape for role, shape in shapes.items() if role in wanted}

    def _copied(self, typed: TunerConfig, chosen: tuple[str, ...]) -> None:
        """Replaced modules, and biases: they start as copies of the base's own."""
        layout, method = self.layout, self.method
        # for virtual tokens, PEFT wraps the base without a tuner
        prefix = PEFT_PREFIX if method.kinds else "base_model."
        if method.copied_as:
            for name in chosen:
                self._copy(f"{PEFT_PREFIX}{name}.{method.copied_as}", name)
        inside = (saved_module(typed, name) for name in layout.modules)
        saved = list(dict.fromkeys(name for name in inside if name is not None))
        for name in saved:
            self._copy(f"{prefix}{name}", name)
        for name in trained_biases(typed.bias, layout, chosen, saved):
            wrapped = "base_layer." if name in chosen else ""
            key = f"{prefix}{name}.{wrapped}bias"
            self.tensors[key] = layout.modules[name].parameters["bias"]
            self.copies[key] = f"{name}.bias"

    def _copy(self, at: str, module: str) -> None:
        for path, shape in parameters_of(self.layout, module):
            self.tensors[f"{at}.{path}"] = shape
            self.copies[f"{at}.{path}"] = f"{module}.{path}"
