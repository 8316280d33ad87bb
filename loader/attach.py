"""Attach one adapter onto an adapted model: all of it, or nothing.

Everything is decided and built before the first mutation; what is mutated then (hooks, an
instance-level forward, entries in dictionaries) is taken back if anything goes wrong, and the
adapter's name becomes known last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import AdapterdockError, AttachError
from ..manifests.findings import Finding, Where
from ..registry.facts import AdapterPlan, ModuleShape, SitePlan
from ..registry.methods.table import METHODS as REGISTERED
from ..registry.methods.table import Method as MethodOnDisk
from .adapter import Adapter
from .bias import BiasFactors, bias_of
from .methods.table import METHODS, Method
from .modules import ModuleMap, check_not_compiled
from .placement import Placement, offloaded, placement_of
from .residency import bytes_of, shared_with
from .sites import Factors
from .tensors import FLOATS, AdapterTensors
from .twins import own_tensors, twin_of

if TYPE_CHECKING:
    from .adapted import AdaptedModel

Shape = tuple[int, ...]

_PREFIX = "base_model.model."


def attach_adapter(
    model: AdaptedModel,
    name: str,
    plan: AdapterPlan,
    tensors: AdapterTensors,
    *,
    dtype: torch.dtype | None = None,
    trainable: bool = False,
    dropout: float = 0.0,
    replace: bool = False,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Adapter:
    """Attach ``tensors`` as ``plan`` says, under ``name``. It does not become active, unless it is
    to ``replace`` one of this name that is.

    Factors are in ``dtype`` if given, else in float32 if ``trainable``, else in the dtype of the
    module they sit on; always on that module's device. ``dropout`` (PEFT's ``lora_dropout``) acts
    while training. A trainable adapter freezes the base's own parameters until it is deleted or
    the model detached.

    Raises :class:`AttachError` with every finding; the model is then as it was, bit for bit.
    """
    with model.changing():
        check_free(model, name, replace, where)
        built = build_adapter(
            model,
            name,
            plan,
            tensors,
            dtype=dtype,
            trainable=trainable,
            dropout=dropout,
            where=where,
        )
        return add_adapter(model, built, where)


def check_free(model: AdaptedModel, name: str, replace: bool, where: Where) -> None:
    """Raise :class:`AttachError` for a name that is taken, unless by one to ``replace``."""
    replaced = replace and name in model.attached
    if not replaced and (problem := model.name_problem(name, where)):
        raise AttachError(problem)


def build_adapter(
    model: AdaptedModel,
    name: str,
    plan: AdapterPlan,
    tensors: AdapterTensors,
    *,
    dtype: torch.dtype | None = None,
    trainable: bool = False,
    dropout: float = 0.0,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Built:
    """An adapter that is checked and made, for ``model`` but not yet on it; raises as
    :func:`attach_adapter` does."""
    modules = model.modules_of_base
    check_not_compiled(model.get_base_model(), modules.by_name.values())
    if trainable and dtype is None:
        dtype = torch.float32
    try:
        builder = _Builder(
            model.get_base_model(), modules, name, plan, tensors, dtype, trainable, dropout, where
        )
        built = builder.build()
        built.adapter.shared = shared_with(model.get_base_model(), built.adapter)
        built.adapter.nbytes = bytes_of(built.adapter)
        tensors.verify()
    except AdapterdockError:
        tensors.verify()  # if the bytes are others, that is the better explanation
        raise
    except Exception as error:
        raise _broken_off(name, error, where) from error
    return built


def add_adapter(model: AdaptedModel, built: Built, where: Where = Where()) -> Adapter:  # noqa: B008
    """Put a finished adapter on the model; all of it or nothing."""
    try:
        model.add(built.adapter, built.outputs, built.twins)
    except AdapterdockError:
        raise
    except Exception as error:
        raise _broken_off(built.adapter.name, error, where) from error
    return built.adapter


def _broken_off(name: str, error: Exception, where: Where) -> AttachError:
    said = f"attaching {name!r} broke off: {type(error).__name__}: {error}"
    return AttachError(codes.ATTACH_FAILED.finding(said, where))


@dataclasses.dataclass
class Built:
    """A finished adapter, and what goes to which module's site."""

    adapter: Adapter
    outputs: Mapping[str, tuple[Factors, ...]]
    twins: Mapping[str, nn.Module]


@dataclasses.dataclass
class _Builder:
    """One attach on its way. Nothing here touches the model."""

    base: nn.Module
    modules: ModuleMap
    name: str
    plan: AdapterPlan
    tensors: AdapterTensors
    dtype: torch.dtype | None
    trainable: bool
    dropout: float
    where: Where
    problems: list[Finding] = dataclasses.field(default_factory=list)
    wanted: dict[str, Placement] = dataclasses.field(default_factory=dict)
    linears: dict[tuple[Any, ...], Mapping[str, Shape] | str] = dataclasses.field(
        default_factory=dict
    )
    """Expected shapes at plain linears, of which a model has many of one size."""

    def build(self) -> Built:
        """Check everything, then make everything."""
        if self.plan.leftovers:
            self._problem(
                codes.PLAN_INCOMPLETE,
                f"{len(self.plan.leftovers)} tensors have no place",
                found=", ".join(self.plan.leftovers[:3]),
            )
        whole = self._whole_modules()
        whole = {n: paths for n, paths in whole.items() if not self._is_the_bases_own(n, paths)}
        sites = [found for site in self.plan.sites if (found := self._site(site, whole))]
        biases = [found for item in self.plan.biases.items() if (found := self._bias(*item))]
        saved = {name: found for name in whole if (found := self._saved(name, whole[name]))}
        _raise_if(self.problems)
        placed = self.tensors.place(self.wanted, own=self.trainable)
        _raise_if(self.tensors.findings({n: p.dtype for n, p in self.wanted.items()}))
        if not self.trainable and not self._changes_anything(saved, biases):
            self._problem(codes.TENSORS_CHANGE_NOTHING, f"{self.name!r} is zero everywhere")
        _raise_if(self.problems)

        parameters: dict[str, nn.Parameter] = {}
        outputs: dict[str, list[Factors]] = {}
        live = {
            name: {role: text.format(adapter=self.name) for role, text in m.parameters.items()}
            for name, m in METHODS.items()
        }
        for site, method, shape in sites:
            roles: dict[str, torch.Tensor] = {}
            names, inside = live[site.method], f"{_PREFIX}{site.module}."
            for role, key in site.tensors.items():
                roles[role] = parameters[inside + names[role]] = self._parameter(placed[key])
            outputs.setdefault(site.module, []).append(
                method.build(site, shape, roles, self.dropout)
            )
        for module, key, old in biases:
            value = self._parameter(placed[key])
            parameters[f"{_PREFIX}{module}.bias.{self.name}"] = value
            outputs.setdefault(module, []).append(BiasFactors(value, old))
        twins = {
            name: twin_of(
                self._module(name),
                {path: placed[key] for path, key in paths.items()},
                trainable=self.trainable and name in self.plan.saved,  # PEFT trains no others
            )
            for name, paths in saved.items()
        }
        adapter = Adapter(
            name=self.name,
            methods=tuple(sorted({site.method for site, _, _ in sites})),
            rank=self.plan.rank,
            trainable=self.trainable,
            sites=frozenset(outputs),
            whole=frozenset(twins),
            parameters=parameters,
            twins={
                f"{_PREFIX}{name}.modules_to_save.{self.name}": twin for name, twin in twins.items()
            },
            unfired={*outputs, *twins},
        )
        return Built(adapter, {k: tuple(v) for k, v in outputs.items()}, twins)

    # -- factors ---------------------------------------------------------------------------

    def _site(
        self, site: SitePlan, whole: Mapping[str, Mapping[str, str]]
    ) -> tuple[SitePlan, Method, ModuleShape] | None:
        method = METHODS.get(site.method)
        if method is None:
            self._problem(
                codes.METHOD_UNKNOWN,
                f"{site.module}: {site.method} has no native implementation",
                expected=", ".join(METHODS),
            )
            return None
        module = self._usable_module(site.module)
        if module is None or not self._present(site.module, site.tensors.values()):
            return None
        inside = (
            next((w for w in whole if site.module.startswith(f"{w}.")), None) if whole else None
        )
        if inside is not None:
            self._problem(
                codes.SITE_INSIDE_SAVED, f"{site.module} is inside {inside}, which is replaced"
            )
            return None
        known = REGISTERED[site.method]
        if frozenset(site.tensors) not in known.role_sets:
            self._problem(
                codes.PLAN_MISMATCH,
                f"{site.module} has not the parts that {site.method} needs",
                found=", ".join(sorted(site.tensors)),
                expected=" or ".join(", ".join(sorted(one)) for one in known.role_sets),
            )
            return None
        shape = self._grown(site.module, self.modules.shape(site.module), whole)
        infos = self.tensors.header.tensors
        shapes = {role: infos[key].shape for role, key in site.tensors.items()}
        expected = self._expected(known, method, site, module, shape, shapes)
        if isinstance(expected, str):
            self._problem(codes.MODULE_UNSUPPORTED, f"{site.module}: {expected}")
            return None
        for role, found in shapes.items():
            if found != expected.get(role):
                self._misfit(f"{role} at {site.module}", found, expected.get(role))
        return (site, method, shape) if self._want(site.module, site.tensors.values()) else None

    def _expected(
        self,
        known: MethodOnDisk,
        method: Method,
        site: SitePlan,
        module: nn.Module,
        shape: ModuleShape,
        found: Mapping[str, Shape],
    ) -> Mapping[str, Shape] | str:
        """What each role's tensor must be at this module, or why none can be there."""
        sizes = (shape.kind, shape.in_features, shape.out_features)
        key = (site.method, sizes, site.rank, tuple(found.items()))
        plain = type(module) is nn.Linear and not site.settings
        expected = self.linears.get(key) if plain else None
        if expected is None:
            if shape.kind not in known.kinds or None in sizes:
                expected = f"{site.method} cannot sit on a {type(module).__name__}"
            else:
                reason = method.unsupported(site, module, shape)
                expected = reason or known.shapes(site, shape, found)
            if plain:
                self.linears[key] = expected
        return expected

    def _grown(
        self, name: str, shape: ModuleShape, whole: Mapping[str, Mapping[str, str]]
    ) -> ModuleShape:
        """The module's sizes, with the rows of the weight that the adapter brings for it."""
        if name not in self.plan.embeddings:
            return shape
        key = whole.get(name, {}).get("weight")
        if key is None:
            return shape
        rows = self.tensors.shape(key)[0]
        if "num_embeddings" in vars(self._module(name)):
            return dataclasses.replace(shape, in_features=rows)
        return dataclasses.replace(shape, out_features=rows)

    # -- whole modules ---------------------------------------------------------------------

    def _whole_modules(self) -> dict[str, Mapping[str, str]]:
        """Every replaced module: {path under it: tensor}. Saved embeddings are such modules too;
        a head that is tied to a saved embedding gets the same weight, as it does in PEFT, where
        loading writes into the tied parameter."""
        whole: dict[str, Mapping[str, str]] = dict(self.plan.saved)
        for name, key in self.plan.embeddings.items():
            whole[name] = {"weight": key}
            module = self.modules.by_name.get(name)
            weight = getattr(module, "weight", None)
            if weight is None:
                continue
            for other in self.modules.tied_to(f"{name}.weight"):
                tied, _, parameter = other.rpartition(".")
                if parameter == "weight" and tied not in self.plan.embeddings:
                    whole.setdefault(tied, {"weight": key})
        return whole

    def _is_the_bases_own(self, name: str, paths: Mapping[str, str]) -> bool:
        """A saved embedding that the training left as it was: PEFT saves targeted embeddings
        always. It needs no copy."""
        if name in self.plan.saved:
            return False
        module = self.modules.by_name.get(name)
        old = offloaded(module, "weight") if module is not None else None
        key = paths["weight"]
        infos = self.tensors.header.tensors
        if old is None or key not in infos or infos[key].dtype not in FLOATS:
            return False
        return not self._differs(key, old)

    def _saved(self, name: str, paths: Mapping[str, str]) -> Mapping[str, str] | None:
        module = self._usable_module(name)
        if module is None or not self._present(name, paths.values()):
            return None
        expected = {path: tuple(t.shape) for path, t in own_tensors(module).items()}
        grows = set(paths) == {"weight"} and name not in self.plan.saved
        if grows:
            rows = self.tensors.shape(paths["weight"])[:1]
            if "bias" in expected and rows != expected["weight"][:1]:
                self._misfit(f"{name}.bias", expected["bias"], rows)
                return None
            expected = {"weight": (*rows, *expected["weight"][1:])}
        missing = sorted(expected.keys() - paths.keys())
        unknown = sorted(paths.keys() - expected.keys())
        if missing or unknown:
            self._problem(
                codes.SAVED_INCOMPLETE,
                f"{name} is not whole",
                found=f"missing {missing}, unexpected {unknown}",
                expected=", ".join(sorted(expected)),
            )
            return None
        for path, key in paths.items():
            if self.tensors.shape(key) != expected[path]:
                self._misfit(f"{name}.{path}", self.tensors.shape(key), expected[path])
        old = own_tensors(module)
        for path, key in paths.items():
            owner, _, _ = path.rpartition(".")
            kept = None if old[path].is_floating_point() else old[path].dtype  # a counter
            if not self._want(f"{name}.{owner}" if owner else name, [key], kept):
                return None
        return paths

    # -- biases ----------------------------------------------------------------------------

    def _bias(self, name: str, key: str) -> tuple[str, str, torch.Tensor] | None:
        module = self._usable_module(name)
        if module is None or not self._present(name, [key]):
            return None
        old = bias_of(module)
        if old is None and (adds := self._adds_bias_of(name)) is not None:
            other = self.plan.biases.get(adds)
            if other is not None and self._same(key, other):
                return None  # the file has it under both names
            if other is None:
                return self._bias(adds, key)
        if old is None:
            self._problem(
                codes.BIAS_UNSUPPORTED,
                f"{name}: the bias of a {type(module).__name__} cannot be exchanged",
            )
            return None
        if self.tensors.shape(key) != tuple(old.shape):
            self._misfit(f"{name}.bias", self.tensors.shape(key), tuple(old.shape))
        return (name, key, old) if self._want(name, [key]) else None

    def _adds_bias_of(self, name: str) -> str | None:
        """The module that adds the bias which ``name`` owns: in BERT's heads for language models
        it is tied to the decoder's."""
        for tied in self.modules.tied_to(f"{name}.bias"):
            other, _, leaf = tied.rpartition(".")
            if leaf == "bias" and bias_of(self._module(other)) is not None:
                return other
        return None

    def _same(self, key: str, other: str) -> bool:
        infos = self.tensors.header.tensors
        return other in infos and torch.equal(self.tensors.host(key), self.tensors.host(other))

    # -- shared ----------------------------------------------------------------------------

    def _module(self, name: str) -> nn.Module:
        return self.modules.by_name[name]

    def _usable_module(self, name: str) -> nn.Module | None:
        module = self.modules.by_name.get(name)
        if module is None or not name:
            self._problem(codes.MODULE_MISSING, f"the model has no module {name!r}")
            return None
        others = self.modules.other_names(name)
        if others:
            self._problem(codes.MODULE_SHARED, f"{name} is the same module as {', '.join(others)}")
            return None
        parent = self.modules.by_name.get(name.rpartition(".")[0])
        if isinstance(parent, nn.MultiheadAttention):
            self._problem(codes.MODULE_NOT_CALLED, f"{name} is never called by its attention")
            return None
        return module

    def _present(self, module: str, keys: Iterable[str]) -> bool:
        infos = self.tensors.header.tensors
        missing = [key for key in keys if key not in infos]
        for key in missing:
            self._problem(
                codes.PLAN_MISMATCH, f"{key!r}, planned for {module}, is not among the tensors"
            )
        return not missing

    def _want(
        self, module_name: str, keys: Iterable[str], dtype: torch.dtype | None = None
    ) -> bool:
        module = self._module(module_name)
        placement = placement_of(module, self.base, dtype or self.dtype)
        if placement is None:
            self._problem(codes.MODULE_ON_META, f"{module_name} is on the meta device")
            return False
        for key in keys:
            self.wanted[key] = placement
        return True

    def _parameter(self, tensor: torch.Tensor) -> nn.Parameter:
        return nn.Parameter(tensor, requires_grad=self.trainable)

    def _changes_anything(
        self,
        saved: Mapping[str, Mapping[str, str]],
        biases: Iterable[tuple[str, str, torch.Tensor]],
    ) -> bool:
        """Whether the model's answers can differ at all: stops at the first value that does."""
        for site in self.plan.sites:
            roles = {role: self.tensors.host(key) for role, key in site.tensors.items()}
            if METHODS[site.method].changes(site, roles):
                return True
        for _, key, old in biases:
            if self._differs(key, old):
                return True
        for name, paths in saved.items():
            module = self._module(name)
            for path, key in paths.items():
                owner, _, leaf = path.rpartition(".")
                old = offloaded(module.get_submodule(owner), leaf)
                if old is None or self._differs(key, old):
                    return True
        return False

    def _differs(self, key: str, old: torch.Tensor) -> bool:
        new = self.tensors.host(key).to(old.device, old.dtype)
        return new.shape != old.shape or not torch.equal(new, old)

    def _problem(self, code: Any, message: str, **more: Any) -> None:
        self.problems.append(code.finding(f"{self.name}: {message}", self.where, **more))

    def _misfit(self, what: str, found: object, expected: object) -> None:
        self._problem(
            codes.MODULE_MISFIT,
            f"{what} has another size than its module needs",
            found=found,
            expected=expected,
        )


def _raise_if(problems: list[Finding]) -> None:
    if problems:
        raise AttachError(*problems)
