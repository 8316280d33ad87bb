"""Building an adapter of a plan and tensors: checked and finished, and on no model yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AdapterdockError, AttachError
from ...manifests.findings.finding import Where
from ...registry.files.facts import AdapterPlan, ModuleKind, ModuleShape, SitePlan
from ...registry.files.names import PEFT_PREFIX
from ...registry.methods.idle import needs_call
from ...registry.methods.lora_variants import invocation_of
from ...registry.methods.table import methods_of
from ..adapter.adapter import Adapter, Built
from ..adapter.factors import BiasChange, Factors, WeightFactors
from ..adapter.memory import bytes_of, shared_with
from ..adapter.weights import AdapterWeights, SitePart
from ..base.live_base import LiveBase
from ..methods.method import Method
from ..methods.prompts.encoders import Encoder
from ..methods.prompts.virtual_tokens import make_prompt
from ..methods.table import METHODS
from ..sites.attachable import check_not_compiled
from ..sites.bias import BiasFactors, BiasWeight, bias_of
from ..sites.replacements import replacement_of
from ..weights.placement import offloaded
from ..weights.tensors import AdapterTensors
from .module_requirements import require_bias, require_module, whole_modules
from .peft_requirements import PeftParts, require_peft
from .prompt_requirements import PROMPT, require_prompt
from .requirements import Requirements
from .site_requirements import REGISTERED, RequiredSite, check_trainable, leader_of, require_site


def build_adapter(
    live: LiveBase,
    name: str,
    plan: AdapterPlan,
    tensors: AdapterTensors,
    *,
    dtype: torch.dtype | None = None,
    trainable: bool = False,
    dropout: float = 0.0,
    members: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    encoder: Encoder | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Built:
    """An adapter that is checked and made as ``plan`` says, for this base but not yet on it.

    Factors are in ``dtype`` if given, else in float32 if ``trainable``, else in the dtype of the
    module they sit on; always on that module's device. ``dropout`` (PEFT's ``lora_dropout``) acts
    while training. ``members`` are the adapters that it is made of, if it is a composition,
    ``config`` its ``adapter_config.json``, kept for saving. ``encoder`` makes its virtual tokens,
    and is trained in their place. Raises :class:`AttachError` with every finding.
    """
    base, modules = live.module, live.modules
    check_not_compiled(base, modules.by_name.values())
    if trainable and dtype is None:
        dtype = torch.float32
    try:
        required = Requirements(base, modules, name, plan, tensors, dtype, trainable, where)
        built = _Builder(required, dropout, config or {}, encoder).build()
        adapter = built.adapter
        adapter.members = dict(members or {})
        adapter.nbytes = bytes_of(adapter)
        tensors.verify()
    except AdapterdockError:
        tensors.verify()  # if the bytes are others, that is the better explanation
        raise
    except Exception as error:
        raise broken_off(name, error, where) from error
    return built


def broken_off(name: str, error: Exception, where: Where) -> AttachError:
    said = f"attaching {name!r} broke off: {type(error).__name__}: {error}"
    return AttachError(codes.ATTACH_FAILED.finding(said, where))


@dataclasses.dataclass
class _Builder:
    """One attach on its way. Nothing here touches the model."""

    required: Requirements
    dropout: float
    config: Mapping[str, Any]
    encoder: Encoder | None

    def build(self) -> Built:
        """Check everything, then make everything."""
        required = self.required
        plan, tensors = required.plan, required.tensors
        if plan.leftovers:
            required.problem(
                fit_codes.TENSOR_UNEXPECTED,
                f"{len(plan.leftovers)} tensors have no place",
                found=", ".join(plan.leftovers[:3]),
            )
        check_trainable(required)
        whole = whole_modules(required)
        native = plan.sites if plan.peft is None else ()
        sites = [found for site in native if (found := require_site(required, site, whole))]
        biases = [found for item in plan.biases.items() if (found := require_bias(required, *item))]
        saved = {n: found for n in whole if (found := require_module(required, n, whole[n]))}
        prompted = plan.prompt is not None and require_prompt(required, plan.prompt)
        required.settle()
        peft = require_peft(required, plan.peft, whole) if plan.peft is not None else None
        required.settle()
        placed = tensors.place(required.wanted, own=required.trainable)
        required.problems += tensors.findings({n: p.dtype for n, p in required.wanted.items()})
        required.settle()
        acts = peft is not None and peft.changes
        if not required.trainable and not acts and not _changes_anything(required, saved, biases):
            required.problem(fit_codes.EMPTY, f"{required.name!r} changes nothing anywhere")
        required.settle()
        # PEFT puts no tuner between itself and a base with virtual tokens
        prefix = "base_model." if prompted else PEFT_PREFIX
        return self._made(sites, biases, saved, placed, prefix, peft)

    def _made(
        self,
        sites: Sequence[RequiredSite],
        biases: Iterable[tuple[str, str, torch.Tensor]],
        saved: Mapping[str, Mapping[str, str]],
        placed: Mapping[str, torch.Tensor],
        prefix: str,
        peft: PeftParts | None,
    ) -> Built:
        """Everything from placed tensors, which fit."""
        required = self.required
        parameters: dict[str, nn.Parameter] = {**peft.parameters} if peft else {}
        keys: dict[str, str] = {**peft.keys} if peft else {}
        outputs: dict[str, list[Factors]] = {}
        for name, factors in peft.factors.items() if peft else ():
            outputs[name] = [factors]
        weights: dict[str, list[WeightFactors]] = {}
        live = {
            name: {role: text.format(adapter=required.name) for role, text in m.parameters.items()}
            for name, m in METHODS.items()
        }
        shared = self._shared(sites, placed)
        parts: list[SitePart] = [*peft.parts] if peft else []
        replaced: list[tuple[str, Method, Factors | WeightFactors]] = []
        for name, common in shared.items():
            spelling = METHODS[name].shared
            parameters |= {spelling[r].format(adapter=required.name): p for r, p in common.items()}
        for site, method, shape in sites:
            for role, text in method.shared.items():
                if role in site.tensors:
                    keys[_on_disk(site.tensors[role])] = text.format(adapter=required.name)
            names, common = live[site.method], shared.get(site.method, {})
            # what follows another module has its parameters, which are registered once
            inside = f"{prefix}{leader_of(site)}.{site.settings.get('wraps', '')}"
            roles: dict[str, nn.Parameter] = {**common}
            for role, key in site.tensors.items():
                if role in common:
                    continue
                name = inside + names[role]
                if name not in parameters:
                    still = role in site.settings.get("frozen", ())
                    parameters[name] = self._parameter(placed[key], frozen=still)
                keys[_on_disk(key)] = name  # tied ones are in the file more than once
                roles[role] = parameters[name]
            built = method.build(site, shape, roles, self.dropout)
            if hasattr(built, "add_to"):
                weights.setdefault(site.reader, []).append(cast(WeightFactors, built))
            else:
                outputs.setdefault(site.module, []).append(cast(Factors, built))
            if site.module in saved:
                replaced.append((site.module, method, built))
            parts.append(SitePart(site, shape, roles, roles.keys() <= method.input_roles))
        changed: dict[str, BiasChange] = {}
        for module, key, old in biases:
            value = self._parameter(placed[key])
            live_name = f"{prefix}{module}.bias.{required.name}"
            parameters[live_name], keys[_on_disk(key)] = value, live_name
            if bias_of(required.module(module)) is None:
                changed[module] = inner = BiasWeight(value, old)
                weights.setdefault(module, []).append(inner)
                continue
            changed[module] = last = BiasFactors(value, old, required.modules.called(module))
            outputs.setdefault(module, []).append(last)
        replacements = {
            name: replacement_of(
                required.module(name),
                {path: placed[key] for path, key in paths.items()},
                # PEFT trains no embeddings that it stores beside the factors
                trainable=required.trainable
                and (name in required.plan.saved or name in required.plan.tuned),
            )
            for name, paths in saved.items()
        }
        for name, method, built in replaced:
            method.on_replacement(built, replacements[name])
        held = {
            f"{prefix}{n}.{self._wrapper(n)}.{required.name}": one
            for n, one in replacements.items()
        }
        for live_name, paths in zip(held, saved.values(), strict=True):
            keys |= {_on_disk(key): f"{live_name}.{path}" for path, key in paths.items()}
        prompt, asked = None, required.plan.prompt
        if asked is not None:
            inside, key = f"prompt_encoder.{required.name}", asked.tensors[PROMPT]
            made: torch.Tensor | Encoder
            if self.encoder is not None:  # what it makes is written: see `saved_tensors`
                made = self.encoder.to(placed[key])
                parameters |= {f"{inside}.{path}": p for path, p in made.named_parameters()}
            else:
                made = parameters[f"{inside}.embedding.weight"] = self._parameter(placed[key])
                keys[key] = f"{inside}.embedding.weight"
            prompt = make_prompt(asked, made)
        if peft and required.tensors.header.tensors.keys() - keys.keys():
            keys = {}  # what is here is not what PEFT stores
        adapter = Adapter(
            name=required.name,
            methods=methods_of(required.plan),
            rank=required.plan.rank,
            trainable=required.trainable,
            sites=frozenset(outputs) | frozenset(weights),
            reweighed=frozenset(weights),
            whole=frozenset(replacements),
            weights=AdapterWeights(
                parameters=parameters,
                replacements=held,
                replaced=replacements,
                prompt=prompt,
                parts=tuple(parts),
                biases=changed,
                keys=keys,
                shared=shared_with(required.base, replacements.values()),
            ),
            invocation=invocation_of(required.plan),
            config=self.config,
            unfired={*outputs, *replacements, *weights}
            - self._stood_for(sites)
            - self._idle(sites),
        )
        return Built(
            adapter,
            {k: tuple(v) for k, v in outputs.items()},
            replacements,
            {k: tuple(v) for k, v in weights.items()},
        )

    def _shared(
        self,
        sites: Iterable[RequiredSite],
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
        plan = self.required.plan
        return REGISTERED[plan.tuned_by].copied_as if name in plan.tuned else "modules_to_save"

    def _stood_for(self, sites: Iterable[RequiredSite]) -> set[str]:
        """Embeddings that may never run, for embeddings that follow them do (T5's ``shared``)."""
        return {
            leader_of(site)
            for site, _, shape in sites
            if "follows" in site.settings and shape.kind is ModuleKind.EMBEDDING
        }

    def _idle(self, sites: Iterable[RequiredSite]) -> set[str]:
        """Modules that never run, where nothing is lost by that."""
        called = self.required.modules.called
        return {s.module for s, _, _ in sites if needs_call(s) and not called(s.module)}

    def _parameter(self, tensor: torch.Tensor, *, frozen: bool = False) -> nn.Parameter:
        return nn.Parameter(tensor, requires_grad=self.required.trainable and not frozen)


def _changes_anything(
    required: Requirements,
    saved: Mapping[str, Mapping[str, str]],
    biases: Iterable[tuple[str, str, torch.Tensor]],
) -> bool:
    """Whether the model's answers can differ at all: stops at the first value that does."""
    if required.plan.prompt is not None:
        return True  # tokens of zeros are attended to as well
    for site in required.plan.sites if required.plan.peft is None else ():
        roles = {role: required.tensors.host(key) for role, key in site.tensors.items()}
        if METHODS[site.method].changes(site, roles, required.module(site.module)):
            return True
    for _, key, old in biases:
        if required.differs(key, old):
            return True
    for name, paths in saved.items():
        module = required.module(name)
        for path, key in paths.items():
            owner, _, leaf = path.rpartition(".")
            old = offloaded(module.get_submodule(owner), leaf)
            if old is None or required.differs(key, old):
                return True
    return False


def _on_disk(key: str) -> str:
    """PEFT's prefix, which some writers leave out."""
    return key if key.startswith("base_model.") else f"{PEFT_PREFIX}{key}"
