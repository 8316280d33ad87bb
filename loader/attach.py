"""Attach one adapter onto an adapted model: all of it, or nothing.

Everything is decided and built before the first mutation; what is mutated then (hooks, an
instance-level forward, entries in dictionaries) is taken back if anything goes wrong, and the
adapter's name becomes known last.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from ..manifests.codes import loader as codes
from ..manifests.errors import AdapterdockError, AttachError
from ..manifests.findings import Where
from ..registry.facts import AdapterPlan, ModuleKind, ModuleShape, SitePlan
from .adapter import Adapter, Part
from .bias import BiasFactors
from .claims import Claims
from .methods.dora import OnWeight
from .methods.table import METHODS
from .modules import check_not_compiled
from .peft_backend import PeftParts, claim_peft
from .placement import offloaded
from .prompt_claims import PROMPT, claim_prompt
from .prompts import make_prompt
from .site_claims import REGISTERED, ClaimedSite, check_trainable, claim_site, leader_of
from .sites import Factors
from .tensors import AdapterTensors
from .twins import twin_of
from .weight_sites import WeightFactors
from .whole_claims import claim_bias, claim_whole, whole_modules

if TYPE_CHECKING:
    from .adapted import AdaptedModel

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
    members: Mapping[str, float] | None = None,
    replace: bool = False,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Adapter:
    """Attach ``tensors`` as ``plan`` says, under ``name``. It does not become active, unless it is
    to ``replace`` one of this name that is.

    Factors are in ``dtype`` if given, else in float32 if ``trainable``, else in the dtype of the
    module they sit on; always on that module's device. ``dropout`` (PEFT's ``lora_dropout``) acts
    while training. A trainable adapter freezes the base's own parameters until it is deleted or
    the model detached. ``members`` are the adapters that it is made of, if it is a composition.

    Raises :class:`AttachError` with every finding; the model is then as it was, bit for bit.
    """
    with model.changing():
        modules = model.modules_of_base
        check_not_compiled(model.get_base_model(), modules.by_name.values())
        replaced = replace and name in model.attached
        if not replaced and (problem := model.name_problem(name, where)):
            raise AttachError(problem)
        model.check_unmerged(f"{name!r} cannot be attached")
        if trainable and dtype is None:
            dtype = torch.float32
        try:
            base = model.get_base_model()
            claims = Claims(base, modules, name, plan, tensors, dtype, trainable, where)
            built = _Builder(claims, dropout).build()
            tensors.verify()
            built.adapter.members = dict(members or {})
            model.add(built.adapter, built.outputs, built.twins, built.weights)
        except AdapterdockError:
            tensors.verify()  # if the bytes are others, that is the better explanation
            raise
        except Exception as error:
            raise AttachError(
                codes.ATTACH_FAILED.finding(
                    f"attaching {name!r} broke off: {type(error).__name__}: {error}", where
                )
            ) from error
        return built.adapter


@dataclasses.dataclass
class _Built:
    adapter: Adapter
    outputs: Mapping[str, tuple[Factors, ...]]
    twins: Mapping[str, nn.Module]
    weights: Mapping[str, tuple[WeightFactors, ...]]


@dataclasses.dataclass
class _Builder:
    """One attach on its way. Nothing here touches the model."""

    claims: Claims
    dropout: float

    def build(self) -> _Built:
        """Check everything, then make everything."""
        claims = self.claims
        plan, tensors = claims.plan, claims.tensors
        if plan.leftovers:
            claims.problem(
                codes.PLAN_INCOMPLETE,
                f"{len(plan.leftovers)} tensors have no place",
                found=", ".join(plan.leftovers[:3]),
            )
        check_trainable(claims)
        whole = whole_modules(claims)
        native = plan.sites if plan.peft is None else ()
        sites = [found for site in native if (found := claim_site(claims, site, whole))]
        biases = [found for item in plan.biases.items() if (found := claim_bias(claims, *item))]
        saved = {n: found for n in whole if (found := claim_whole(claims, n, whole[n]))}
        prompted = plan.prompt is not None and claim_prompt(claims, plan.prompt)
        claims.settle()
        peft = claim_peft(claims, plan.peft, whole) if plan.peft is not None else None
        claims.settle()
        placed = tensors.place(claims.wanted, own=claims.trainable)
        claims.problems += tensors.findings({n: p.dtype for n, p in claims.wanted.items()})
        claims.settle()
        acts = peft is not None and peft.changes
        if not claims.trainable and not acts and not _changes_anything(claims, saved, biases):
            claims.problem(
                codes.TENSORS_CHANGE_NOTHING, f"{claims.name!r} changes nothing anywhere"
            )
        claims.settle()
        # PEFT puts no tuner between itself and a base with virtual tokens
        prefix = "base_model." if prompted else _PREFIX
        return self._made(sites, biases, saved, placed, prefix, peft)

    def _made(
        self,
        sites: Sequence[ClaimedSite],
        biases: Iterable[tuple[str, str, torch.Tensor]],
        saved: Mapping[str, Mapping[str, str]],
        placed: Mapping[str, torch.Tensor],
        prefix: str,
        peft: PeftParts | None,
    ) -> _Built:
        """Everything from placed tensors, which fit."""
        claims = self.claims
        parameters: dict[str, nn.Parameter] = {**peft.parameters} if peft else {}
        outputs: dict[str, list[Factors]] = {}
        for name, factors in peft.factors.items() if peft else ():
            outputs[name] = [factors]
        weights: dict[str, list[WeightFactors]] = {}
        live = {
            name: {role: text.format(adapter=claims.name) for role, text in m.parameters.items()}
            for name, m in METHODS.items()
        }
        shared = self._shared(sites, placed)
        parts: list[Part] = [*peft.parts] if peft else []
        for name, common in shared.items():
            spelling = METHODS[name].shared
            parameters |= {spelling[r].format(adapter=claims.name): p for r, p in common.items()}
        for site, method, shape in sites:
            names, common = live[site.method], shared.get(site.method, {})
            # what follows another module has its parameters, which are registered once
            inside = f"{prefix}{leader_of(site)}.{site.settings.get('wraps', '')}"
            roles: dict[str, torch.Tensor] = {**common}
            own: dict[str, nn.Parameter] = {}
            for role, key in site.tensors.items():
                if role in common:
                    continue
                name = inside + names[role]
                if name not in parameters:
                    parameters[name] = self._parameter(placed[key])
                roles[role] = own[role] = parameters[name]
            built = method.build(site, shape, roles, self.dropout)
            if hasattr(built, "add_to"):
                weights.setdefault(site.module, []).append(cast(WeightFactors, built))
            else:
                outputs.setdefault(site.module, []).append(cast(Factors, built))
            if not common:
                parts.append(Part(site, shape, own, own.keys() <= method.input_roles))
        changed: dict[str, BiasFactors] = {}
        for module, key, old in biases:
            value = self._parameter(placed[key])
            parameters[f"{prefix}{module}.bias.{claims.name}"] = value
            changed[module] = BiasFactors(value, old)
            outputs.setdefault(module, []).append(changed[module])
        twins = {
            name: twin_of(
                claims.module(name),
                {path: placed[key] for path, key in paths.items()},
                # PEFT trains no embeddings that it stores beside the factors
                trainable=claims.trainable
                and (name in claims.plan.saved or name in claims.plan.tuned),
            )
            for name, paths in saved.items()
        }
        for name, twin in twins.items():
            for one in outputs.get(name, ()):
                if isinstance(one, OnWeight):  # the weight that it rescales is the adapter's own
                    one.stand_on(twin)
        prompt, asked = None, claims.plan.prompt
        if asked is not None:
            value = self._parameter(placed[asked.tensors[PROMPT]])
            parameters[f"prompt_encoder.{claims.name}.embedding.weight"] = value
            prompt = make_prompt(asked, value)
        adapter = Adapter(
            name=claims.name,
            methods=_methods(claims.plan),
            rank=claims.plan.rank,
            trainable=claims.trainable,
            sites=frozenset(outputs) | frozenset(weights),
            weights=frozenset(weights),
            whole=frozenset(twins),
            prompt=prompt,
            parameters=parameters,
            twins={
                f"{prefix}{name}.{self._wrapper(name)}.{claims.name}": twin
                for name, twin in twins.items()
            },
            parts=tuple(parts),
            biases=changed,
            unfired={*outputs, *twins, *weights} - self._stood_for(sites),
        )
        return _Built(
            adapter,
            {k: tuple(v) for k, v in outputs.items()},
            twins,
            {k: tuple(v) for k, v in weights.items()},
        )

    def _shared(
        self,
        sites: Iterable[ClaimedSite],
        placed: Mapping[str, torch.Tensor],
    ) -> dict[str, dict[str, nn.Parameter]]:
        """{method: {role: parameter}} of what all sites of a method have in common; it is never
        trained. What is made, and not in the file, goes where the first site's tensors are."""
        groups: dict[str, list[tuple[SitePlan, ModuleShape]]] = {}
        for site, method, shape in sites:
            if method.shared:
                groups.setdefault(site.method, []).append((site, shape))
        found: dict[str, dict[str, nn.Parameter]] = {}
        for name, group in groups.items():
            method, tensors = METHODS[name], group[0][0].tensors
            made = method.make_shared(group) if method.make_shared is not None else {}
            common = {role: placed[tensors[role]] for role in method.shared if role in tensors}
            like = next(placed[key] for role, key in tensors.items() if role not in method.shared)
            common |= {role: tensor.to(like) for role, tensor in made.items()}
            found[name] = {r: nn.Parameter(t, requires_grad=False) for r, t in common.items()}
        return found

    def _wrapper(self, name: str) -> str:
        """What PEFT calls the part of its wrapper that holds this whole module."""
        return "ln_tuning_layers" if name in self.claims.plan.tuned else "modules_to_save"

    def _stood_for(self, sites: Iterable[ClaimedSite]) -> set[str]:
        """Embeddings that may never run, for embeddings that follow them do (T5's ``shared``)."""
        return {
            leader_of(site)
            for site, _, shape in sites
            if "follows" in site.settings and shape.kind is ModuleKind.EMBEDDING
        }

    def _parameter(self, tensor: torch.Tensor) -> nn.Parameter:
        return nn.Parameter(tensor, requires_grad=self.claims.trainable)


def _changes_anything(
    claims: Claims,
    saved: Mapping[str, Mapping[str, str]],
    biases: Iterable[tuple[str, str, torch.Tensor]],
) -> bool:
    """Whether the model's answers can differ at all: stops at the first value that does."""
    if claims.plan.prompt is not None:
        return True  # tokens of zeros are attended to as well
    for site in claims.plan.sites if claims.plan.peft is None else ():
        roles = {role: claims.tensors.host(key) for role, key in site.tensors.items()}
        method = METHODS[site.method]
        if method.alters is not None:
            if method.alters(site, roles, claims.module(site.module)):
                return True
        elif method.changes(site, roles):
            return True
    for _, key, old in biases:
        if claims.differs(key, old):
            return True
    for name, paths in saved.items():
        module = claims.module(name)
        for path, key in paths.items():
            owner, _, leaf = path.rpartition(".")
            old = offloaded(module.get_submodule(owner), leaf)
            if old is None or claims.differs(key, old):
                return True
    return False


def _methods(plan: AdapterPlan) -> tuple[str, ...]:
    """PEFT's names of the methods that act."""
    tuned = {"LN_TUNING"} if plan.tuned else set[str]()
    sites = plan.sites if plan.prompt is None else (*plan.sites, plan.prompt)
    return tuple(sorted({REGISTERED[site.method].peft_type for site in sites} | tuned))
