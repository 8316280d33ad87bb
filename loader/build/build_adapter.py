"""From a plan and tensors to a finished adapter that is not on the model yet."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from ...registry.methods.table import dropout_of, methods_of
from ..adapter.adapter import Adapter, Built
from ..adapter.factors import BiasChange, Factors, VirtualTokens, WeightFactors
from ..adapter.memory import bytes_of, shared_with
from ..adapter.weights import AdapterWeights, SitePart
from ..base.live_base import LiveBase
from ..methods.prompts.encoders import Encoder
from ..methods.prompts.virtual_tokens import make_prompt
from ..methods.table import METHODS
from ..sites.attachable import check_not_compiled
from ..sites.bias import BiasFactors, BiasWeight, bias_of
from ..sites.replacements import replacement_of
from ..weights.placement import offloaded
from ..weights.tensors import AdapterTensors
from .module_requirements import replaced_modules, require_bias, require_module
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
    members: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    encoder: Encoder | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Built:
    """Build the adapter of a ``plan`` that was found to fit this base's layout.

    Factors are in ``dtype`` if there is one, else in float32 if ``trainable``, else in the dtype of
    the module they sit on; always on that module's device. ``members`` are the adapters that a
    composition combines, ``config`` its ``adapter_config.json``: dropout acts in training, and the
    rest is kept for saving. ``encoder`` makes its virtual tokens, and is trained in their place.
    Raises :class:`AttachError` with every finding.
    """
    base, modules = live.module, live.modules
    check_not_compiled(base, modules.by_name.values())
    if trainable and dtype is None:
        dtype = torch.float32
    try:
        required = Requirements(base, modules, name, plan, tensors, dtype, trainable, where)
        built = _Builder(required, config or {}, encoder).build()
        adapter = built.adapter
        adapter.members = dict(members or {})
        adapter.nbytes = bytes_of(adapter)
        tensors.verify()
    except AdapterdockError:
        tensors.verify()  # changed bytes are the better explanation
        raise
    except Exception as error:
        raise attach_failed(name, error, where) from error
    return built


def attach_failed(name: str, error: Exception, where: Where) -> AttachError:
    message = f"Failed to attach {name!r}: {type(error).__name__}: {error}"
    return AttachError(codes.ATTACH_FAILED.finding(message, where))


@dataclasses.dataclass
class _Builder:
    """Checks one adapter, then makes it. Nothing here touches the model."""

    required: Requirements
    config: Mapping[str, Any]
    encoder: Encoder | None
    parameters: dict[str, nn.Parameter] = dataclasses.field(default_factory=dict)
    """By PEFT's live names."""
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    """Their live names, by those in the file."""
    outputs: dict[str, list[Factors]] = dataclasses.field(default_factory=dict)
    weights: dict[str, list[WeightFactors]] = dataclasses.field(default_factory=dict)

    @property
    def prefix(self) -> str:
        """Of live names; PEFT puts no tuner between itself and a base with virtual tokens."""
        return "base_model." if self.required.plan.prompt is not None else PEFT_PREFIX

    def build(self) -> Built:
        """Check everything, then make everything."""
        required = self.required
        plan, tensors = required.plan, required.tensors
        check_trainable(required)
        replaced = replaced_modules(required)
        native = plan.sites if plan.peft is None else ()
        sites = [found for site in native if (found := require_site(required, site, replaced))]
        biases = [found for item in plan.biases.items() if (found := require_bias(required, *item))]
        for name, paths in replaced.items():
            require_module(required, name, paths)
        if plan.prompt is not None:
            require_prompt(required, plan.prompt)
        required.settle()
        peft = PeftParts() if plan.peft is None else require_peft(required, plan.peft, replaced)
        placed = tensors.place(required.wanted, own=required.trainable)
        required.problems += tensors.findings({n: p.dtype for n, p in required.wanted.items()})
        required.settle()
        acts = required.trainable or peft.changes
        if not acts and not _changes_anything(required, replaced, biases):
            required.problem(fit_codes.EMPTY, "changes nothing anywhere")
            required.settle()
        return self._made(sites, biases, replaced, placed, peft)

    def _made(
        self,
        sites: Sequence[RequiredSite],
        biases: Iterable[tuple[str, str, torch.Tensor]],
        replaced: Mapping[str, Mapping[str, str]],
        placed: Mapping[str, torch.Tensor],
        peft: PeftParts,
    ) -> Built:
        """The adapter of placed tensors, which fit."""
        required, name = self.required, self.required.name
        self.parameters |= peft.parameters
        self.keys |= peft.keys
        self.outputs |= {module: [factors] for module, factors in peft.factors.items()}
        replacements = {
            module: replacement_of(
                required.module(module),
                {path: placed[key] for path, key in paths.items()},
                # PEFT trains no embeddings that it stores beside the factors
                trainable=required.trainable
                and (module in required.plan.saved or module in required.plan.tuned),
            )
            for module, paths in replaced.items()
        }
        live_names = {m: f"{self.prefix}{m}.{self._wrapper(m)}.{name}" for m in replacements}
        parts = [*peft.parts, *self._sites(sites, placed, replacements)]
        changed = {module: self._bias(module, placed[key], key, old) for module, key, old in biases}
        for module, paths in replaced.items():
            self.keys |= {_on_disk(k): f"{live_names[module]}.{p}" for p, k in paths.items()}
        prompt = self._prompt(placed)
        if required.plan.peft and required.tensors.header.tensors.keys() - self.keys.keys():
            self.keys = {}  # PEFT stores something else than its layers hold
        adapter = Adapter(
            name=name,
            methods=methods_of(required.plan),
            rank=required.plan.rank,
            trainable=required.trainable,
            sites=frozenset(self.outputs) | frozenset(self.weights),
            reweighed=frozenset(self.weights),
            replaced=frozenset(replacements),
            weights=AdapterWeights(
                parameters=self.parameters,
                replacements={live_names[m]: new for m, new in replacements.items()},
                replaced=replacements,
                prompt=prompt,
                parts=tuple(parts),
                biases=changed,
                keys=self.keys,
                shared=shared_with(required.base, replacements.values()),
            ),
            invocation=invocation_of(required.plan),
            config=self.config,
            unfired={*self.outputs, *replacements, *self.weights} - self._may_never_run(sites),
        )
        return Built(
            adapter,
            {k: tuple(v) for k, v in self.outputs.items()},
            replacements,
            {k: tuple(v) for k, v in self.weights.items()},
        )

    def _sites(
        self,
        sites: Sequence[RequiredSite],
        placed: Mapping[str, torch.Tensor],
        replacements: Mapping[str, nn.Module],
    ) -> Iterator[SitePart]:
        """Make the factors of each site."""
        name, dropout = self.required.name, dropout_of(self.config)
        shared = self._shared(sites, placed)
        for method, common in shared.items():
            live = METHODS[method].shared
            self.parameters |= {live[r].format(adapter=name): p for r, p in common.items()}
        for site, method, shape in sites:
            # a site that follows another has that one's parameters, which are registered once
            module = f"{self.prefix}{leader_of(site)}.{site.settings.get('wraps', '')}"
            roles: dict[str, nn.Parameter] = {**shared.get(site.method, {})}
            for role, key in site.tensors.items():
                if role in method.shared:
                    live_name = method.shared[role].format(adapter=name)
                else:
                    live_name = module + method.parameters[role].format(adapter=name)
                    if live_name not in self.parameters:
                        frozen = role in site.settings.get("frozen", ())
                        self.parameters[live_name] = self._parameter(placed[key], frozen=frozen)
                    roles[role] = self.parameters[live_name]
                self.keys[_on_disk(key)] = live_name  # tied ones are in the file more than once
            built = method.build(site, shape, roles, dropout)
            if hasattr(built, "add_to"):
                self.weights.setdefault(site.reader, []).append(cast(WeightFactors, built))
            else:
                self.outputs.setdefault(site.module, []).append(cast(Factors, built))
            if site.module in replacements:
                method.on_replacement(built, replacements[site.module])
            yield SitePart(site, shape, roles, roles.keys() <= method.input_roles)

    def _bias(self, module: str, tensor: torch.Tensor, key: str, old: torch.Tensor) -> BiasChange:
        """Make the bias that the adapter has in place of the base's."""
        value = self._parameter(tensor)
        live_name = f"{self.prefix}{module}.bias.{self.required.name}"
        self.parameters[live_name], self.keys[_on_disk(key)] = value, live_name
        if bias_of(self.required.module(module)) is None:
            weight = BiasWeight(value, old)
            self.weights.setdefault(module, []).append(weight)
            return weight
        factors = BiasFactors(value, old, self.required.modules.called(module))
        self.outputs.setdefault(module, []).append(factors)
        return factors

    def _prompt(self, placed: Mapping[str, torch.Tensor]) -> VirtualTokens | None:
        """Make the virtual tokens, of their encoder if there is one."""
        site = self.required.plan.prompt
        if site is None:
            return None
        key, inside = site.tensors[PROMPT], f"prompt_encoder.{self.required.name}"
        if self.encoder is not None:  # its output is what is saved: see `saved_tensors`
            encoder = self.encoder.to(placed[key])
            self.parameters |= {f"{inside}.{path}": p for path, p in encoder.named_parameters()}
            return make_prompt(site, encoder)
        self.keys[key] = f"{inside}.embedding.weight"
        value = self.parameters[self.keys[key]] = self._parameter(placed[key])
        return make_prompt(site, value)

    def _shared(
        self,
        sites: Iterable[RequiredSite],
        placed: Mapping[str, torch.Tensor],
    ) -> dict[str, dict[str, nn.Parameter]]:
        """{method: {role: parameter}} of what all sites of a method share; it is never trained.
        A shared tensor that is not in the file is made where the first site's tensors are."""
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

    def _wrapper(self, module: str) -> str:
        """PEFT's name for the part of its wrapper that holds a replaced module."""
        plan = self.required.plan
        return REGISTERED[plan.tuned_by].copied_as if module in plan.tuned else "modules_to_save"

    def _may_never_run(self, sites: Iterable[RequiredSite]) -> set[str]:
        """Modules that the base may never call, where nothing is lost by that: idle ones, and
        embeddings that others follow (T5's ``shared``)."""
        called = self.required.modules.called
        found = {s.module for s, _, _ in sites if needs_call(s) and not called(s.module)}
        return found | {
            leader_of(site)
            for site, _, shape in sites
            if "follows" in site.settings and shape.kind is ModuleKind.EMBEDDING
        }

    def _parameter(self, tensor: torch.Tensor, *, frozen: bool = False) -> nn.Parameter:
        return nn.Parameter(tensor, requires_grad=self.required.trainable and not frozen)


def _changes_anything(
    required: Requirements,
    replaced: Mapping[str, Mapping[str, str]],
    biases: Iterable[tuple[str, str, torch.Tensor]],
) -> bool:
    """Whether the model's outputs can differ; stops at the first value that differs."""
    if required.plan.prompt is not None:
        return True  # tokens of zeros are attended to as well
    for site in required.plan.sites if required.plan.peft is None else ():
        roles = {role: required.tensors.host(key) for role, key in site.tensors.items()}
        if METHODS[site.method].changes(site, roles, required.module(site.module)):
            return True
    for _, key, old in biases:
        if required.differs(key, old):
            return True
    for name, paths in replaced.items():
        module = required.module(name)
        for path, key in paths.items():
            owner, _, leaf = path.rpartition(".")
            old = offloaded(module.get_submodule(owner), leaf)
            if old is None or required.differs(key, old):
                return True
    return False


def _on_disk(key: str) -> str:
    """The key with PEFT's prefix, which some writers leave out."""
    return key if key.startswith("base_model.") else f"{PEFT_PREFIX}{key}"
