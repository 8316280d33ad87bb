"""The wrapper: a base model, untouched, and the adapters that act on it."""

from __future__ import annotations

import functools
import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from ..manifests.findings import loader as codes
from ..manifests.findings.finding import Finding, Where
from ..manifests.language.schema import Composition
from ..manifests.language.weights import Weight, Written
from .adapter.adapter import AdapterInfo
from .adapter.warning import AdapterWarning as AdapterWarning
from .adapter.warning import never_fired
from .compose.recipe import weights_of
from .model.choice import UNSAID, Unsaid
from .model.deployment import Deployment, InMemory
from .model.stand_in import StandIn, refusal
from .routing.routing import Using
from .routing.selection import Rules, Selection
from .sites.attachable import check_attachable

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..registry.locks.project import ManifestSource
    from ..registry.plan import Plan
    from .lifecycle.watch import Watch


class AdaptedModel(StandIn):
    """A base model with adapters, used like the base itself.

    ``AdaptedModel(base)`` alone changes nothing in the base. It is of a subclass made for the
    base's class, with that class's name and forward signature, so that pipelines and trainers see
    what they expect. Attributes and methods that it lacks are the base's; the methods run with
    the active adapters. The base's submodules, reached through it, are the base's own.

    Which adapters answer: those named in the call (``adapter=``), else those of the ``using``
    around it, else the default of :meth:`set_adapter`, else none. Resolved once per ``forward``
    or ``generate``. A thread does not inherit the ``using`` around its start: name the adapter.

    ``state_dict`` holds the adapters under PEFT's live names and nothing of the base.
    ``.to(dtype)`` converts base and adapters alike, declared dtypes included. Copying and
    pickling are refused: copy ``base_model``.
    """

    def __new__(cls, base: nn.Module) -> AdaptedModel:
        if isinstance(base, AdaptedModel):
            raise refusal(codes.MODEL_WRAPPED, "this is an AdaptedModel already")
        check_attachable(base)
        kind = _class_for(type(base)) if cls is AdaptedModel else cls
        return object.__new__(kind)

    if TYPE_CHECKING:  # the base's, as most bases have them; what else it has, base_model has
        base_model: nn.Module
        config: Any
        generation_config: Any
        device: torch.device
        dtype: torch.dtype
        main_input_name: str
        name_or_path: str
        can_generate: Callable[..., bool]
        get_input_embeddings: Callable[..., nn.Module]
        get_output_embeddings: Callable[..., nn.Module | None]
        gradient_checkpointing_enable: Callable[..., None]
        gradient_checkpointing_disable: Callable[..., None]
        enable_input_require_grads: Callable[..., None]
        num_parameters: Callable[..., int]

    @property
    def adapters(self) -> Mapping[str, AdapterInfo]:
        """The attached adapters by name: methods, rank, modules, size, dtype, device."""
        here = self._host.adapters.by_name
        return types.MappingProxyType({name: adapter.info() for name, adapter in here.items()})

    @property
    def compositions(self) -> Mapping[str, Mapping[str, Weight]]:
        """The members of each composition with their weights."""
        return types.MappingProxyType(self._host.state.compositions)

    @property
    def recipes(self) -> Mapping[str, Composition]:
        """How each composition combines its members."""
        return types.MappingProxyType(self._host.state.recipes)

    @property
    def merged_adapters(self) -> list[str]:
        """The adapters that are in the base's weights now."""
        return self._host.state.merged_adapters

    @property
    def deployment(self) -> Deployment | None:
        """The manifest that the model was set up from, and what was pulled for it."""
        return self._host.deployment

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Warnings of setting the model up, and what use has shown: modules that never ran."""
        deployment = self._host.deployment
        shown = tuple(
            finding
            for adapter in list(self._host.adapters.by_name.values())
            if adapter.used and (finding := never_fired(adapter))
        )
        return (*(deployment.findings if deployment else ()), *shown)

    def get_base_model(self) -> nn.Module:
        """The base model itself."""
        return self._base

    def set_adapter(self, adapter: Selection) -> None:
        """Make this the default: an adapter, a composition, a list (each at weight 1), a mapping
        of weights, or ``None`` for the base alone."""
        self._host.choice.set_default(adapter)

    def using(self, adapter: Selection) -> Using:
        """``with model.using("tone"):`` makes it the choice in this thread (and asyncio task)
        until the end of the block. Nests; does not touch the default."""
        return self._host.choice.using(adapter)

    def disable_adapter(self) -> Using:
        """PEFT's context manager: the base alone in this thread until the end of the block."""
        return self._host.choice.using(None)

    def disable_adapters(self) -> None:
        """Turn all adapters off, for every thread, until :meth:`enable_adapters`. A call that
        names an adapter all the same raises."""
        self._host.choice.disable()

    def enable_adapters(self) -> None:
        """Undo :meth:`disable_adapters`; what was the default is the default again."""
        self._host.adapters.say(disabled=False)

    def active_adapters(self) -> list[str]:
        """The adapters that would answer a call made here and now, in order."""
        return list(self.active_weights())

    def active_weights(self) -> dict[str, Weight]:
        """The same with their weights: numbers, or weights by module."""
        return {adapter.name: weight for adapter, weight in self._host.choice.active()}

    @property
    def default_weights(self) -> dict[str, Weight]:
        """The adapters of the default with their weights, whatever ``using`` or disabling says."""
        return dict(self._host.state.default.weights)

    @property
    def rules(self) -> Rules | None:
        """Asked of every set of weighted adapters before it is active, by whatever road."""
        return self._host.state.rules

    @rules.setter
    def rules(self, rules: Rules | None) -> None:
        self._host.choice.set_rules(rules)

    def holding(self, adapter: Selection) -> AbstractContextManager[None]:
        """``with model.holding("tone"):`` keeps the weights of what is selected on the model's
        device during the block, loaded if they were away. Calls do so by themselves."""
        return self._host.choice.holding(adapter)

    @property
    def residency(self) -> int | None:
        """Bytes that adapters' weights may take on the model's device; ``None`` for any number.

        The least recently used make room: from a GPU they go to the CPU, on the CPU they are
        dropped and read again from their verified files. Never sent away are adapters that a call
        runs on, trainable ones, and those that code made or changed.
        """
        return self._host.adapters.residency.budget

    @residency.setter
    def residency(self, budget: int | None) -> None:
        self._host.adapters.set_budget(budget)

    def forward(
        self,
        *args: Any,
        adapter: Selection | Unsaid = UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's forward with the active adapters, with those that ``adapter`` names, or with
        those that ``adapter_names`` names for each row of the batch (an adapter, a composition,
        ``"__base__"``)."""
        return self._host.calls.forward(
            *args, adapter=adapter, adapter_names=adapter_names, **kwargs
        )

    def generate(
        self,
        *args: Any,
        adapter: Selection | Unsaid = UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's ``generate``, all of it with the adapters that were active at its start, with
        those that ``adapter`` names, or with those that ``adapter_names`` names for each prompt
        (shared by its beams and returned sequences)."""
        return self._host.calls.generate(
            *args, adapter=adapter, adapter_names=adapter_names, **kwargs
        )

    def compile(self, *, max_rank: int | None = None, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compile the base for calls through this wrapper (``options`` are ``torch.compile``'s).

        Adapters, compositions and weights then change without compiling again, as long as their
        ranks add up to at most ``max_rank`` (the largest attached, if not given) and they act on
        modules that are adapted now. Calls run one at a time. Raises :class:`RoutingError` for
        adapters that are more than low-rank factors at linear modules.
        """
        self._host.calls.compile(max_rank=max_rank, **options)

    def load_adapter(
        self,
        source: str | os.PathLike[str] | None,
        adapter_name: str,
        *,
        adapter_state_dict: Any = None,
        peft_config: Any = None,
        sha256: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        dtype: str | torch.dtype | None = None,
        trainable: bool = False,
        accept: Iterable[str] = (),
        offline: bool = False,
        hotswap: bool | str = False,
    ) -> None:
        """Attach one more adapter, from any source, with the checks of a manifest's adapters.

        ``source`` is text as in a manifest, or a path; a relative one counts from the current
        folder. Or hand it over in memory: ``peft_config`` (PEFT's object, or its fields) and
        ``adapter_state_dict`` (PEFT's names on disk to tensors). ``sha256`` is the digest of its
        folder, ``dtype`` what its factors are kept in (else the dtype of the module they sit on).
        It does not become active. ``hotswap`` puts it in the place of the one with its name (with
        ``"auto"`` where there is one), whatever rank, alpha and targets that has: calls that are
        running end with the old one, and what meant the old one means the new. The policies,
        mirrors, rules and aliases of the model's manifest bind. Raises the errors of
        ``manifests.findings.errors``; the model is then as it was.
        """
        from .lifecycle.load_adapter import load_adapter

        load_adapter(
            self._host,
            source,
            adapter_name,
            adapter_state_dict=adapter_state_dict,
            peft_config=peft_config,
            sha256=sha256,
            storage_options=storage_options,
            dtype=dtype,
            trainable=trainable,
            accept=accept,
            offline=offline,
            hotswap=hotswap,
        )

    def add_adapter(
        self, adapter_name: str, peft_config: Any, *, dtype: str | torch.dtype | None = None
    ) -> None:
        """Begin a new adapter of any method that trains, with PEFT's initialisation, on the modules
        that the config selects.

        ``peft_config`` is PEFT's config object or a mapping with its fields (``peft_type`` among
        them); where it names no modules, PEFT's for the base's ``model_type`` are meant. First
        values are drawn from torch's own generator, as PEFT draws them. Its parameters have
        gradients, in float32 unless ``dtype`` says otherwise; the base has none until the adapter
        is deleted. It does not become active. Raises :class:`FitError` for a config that is wrong,
        :class:`AttachError` for one that cannot be begun; the model is then as it was.
        """
        from .lifecycle.add_adapter import add_adapter

        with self._host.adapters.changing():
            add_adapter(self._host, adapter_name, peft_config, dtype)

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Remove adapters. A call that runs on one of them finishes with it.

        If one was part of the default, the others of the default stay active; if none is left the
        base answers alone, and a warning says so. One that a composition needs is refused.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._host.adapters.delete(names)

    def detach(self) -> nn.Module:
        """Take every adapter away and give the base back, as it was before the first one; what is
        merged is unmerged first."""
        return self._host.merging.detach()

    def define_composition(
        self,
        name: str,
        of: Mapping[str, Written],
        *,
        combine: str = "sum",
        density: float | None = None,
        majority_sign_method: str | None = None,
        svd_rank: int | None = None,
        svd_clamp: float | None = None,
        seed: int | None = None,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        """Give a combination of attached adapters a name, which it shares with no adapter.

        ``of`` maps adapters to weights. A ``sum`` is exact, over any adapters; a weight there may
        be {glob of modules: number}. Every other method has PEFT's name (``linear``, ``svd``,
        ``ties``, ...), takes its options (``density``, ``majority_sign_method``, ``svd_rank``,
        ``svd_clamp``) and a ``seed`` where it is random, and makes an adapter of LoRA factors,
        computed here and now. Raises :class:`RoutingError` for what cannot be combined; the model
        is then as it was.
        """
        self._host.compositions.define(
            name,
            of,
            combine=combine,
            density=density,
            majority_sign_method=majority_sign_method,
            svd_rank=svd_rank,
            svd_clamp=svd_clamp,
            seed=seed,
            where=where,
        )

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "svd",
        svd_rank: int | None = None,
        svd_clamp: float | None = None,
        density: float | None = None,
        majority_sign_method: str | None = None,
        seed: int | None = None,
    ) -> None:
        """PEFT's: :meth:`define_composition` with two lists. The random methods need a ``seed``,
        a name that is taken is an error, and one adapter is pruned as many are."""
        self.define_composition(
            adapter_name,
            weights_of(adapters, weights),
            combine=combination_type,
            svd_rank=svd_rank,
            svd_clamp=svd_clamp,
            density=density,
            majority_sign_method=majority_sign_method,
            seed=seed,
        )

    def set_adapter_weights(self, composition: str, weights: Mapping[str, Written]) -> None:
        """Change weights of a composition: those of the adapters named, the others stay.

        Calls that begin after it have the new weights, also where the composition is the default;
        calls that are running, and a ``using`` of a sum that was entered before, keep the old
        ones. All or nothing.
        """
        self._host.compositions.reweigh(composition, weights)

    def refresh_compositions(self, changed: Iterable[str]) -> list[str]:
        """Make again what was computed from adapters that have other values now, since they were
        trained; returns the names. A sum needs none of it, and replacing an adapter does it by
        itself."""
        return self._host.compositions.refresh(changed)

    def save_composition(self, save_directory: str | os.PathLike[str], name: str) -> None:
        """Write a composition as an adapter of its own: ``adapter_config.json`` and
        ``adapter_model.safetensors`` in PEFT's format, float32. A sum becomes one LoRA with the
        members' ranks side by side. Raises :class:`RoutingError` for one that is not made of LoRA
        factors, :class:`AttachError` where the folder cannot be written."""
        self._host.compositions.save(save_directory, name)

    def delete_composition(self, name: str) -> None:
        """Forget a composition; its members stay. A default made of a sum stays as well; where it
        became an adapter, that is deleted."""
        self._host.compositions.delete(name)

    def merge_adapter(
        self,
        adapter_names: Selection = None,
        safe_merge: bool = False,
        keep: Literal["memory", "reread"] = "memory",
    ) -> None:
        """Fold adapters into the base's weights: those that are active, or an adapter, a
        composition, a list (each at weight 1), or a mapping of weights.

        Computed in float32 and rounded once to each weight's dtype; biases and whole modules of
        the adapters go along, and a head that is tied to a changed embedding gets a weight of its
        own. Until :meth:`unmerge_adapter` they cannot be chosen (they are in every answer), and
        ``base_model(x)`` is not the base's own answer. What is merged already stays so.

        ``safe_merge`` refuses NaN and infinity. ``keep="memory"`` keeps the old weights;
        ``"reread"`` reads them from the base's verified files when it unmerges. Raises
        :class:`AttachError` (an offloaded or quantised weight, a method that is no delta of a
        weight, ..) or :class:`RoutingError`; the model is then as it was.
        """
        self._host.merging.merge(adapter_names, safe=safe_merge, keep=keep)

    def unmerge_adapter(self) -> None:
        """Give the base its own weights back, bit for bit. Does nothing where nothing is merged.

        What was active before the merge is active again, unless another choice was made since.
        Raises :class:`AttachError` where weights were to be read again and are not there any more;
        everything then stays merged.
        """
        self._host.merging.unmerge()

    def merge_and_unload(
        self, adapter_names: Selection = None, safe_merge: bool = False
    ) -> nn.Module:
        """The base with the adapters in its weights for good, and no trace of the wrapper, which
        has ended. Merges as :meth:`merge_adapter`, beside what is merged already; all other
        adapters are dropped."""
        return self._host.merging.unload(adapter_names, safe=safe_merge)

    def save_adapter(self, save_directory: str | os.PathLike[str], adapter_name: str) -> None:
        """Write an adapter as PEFT does: ``adapter_config.json``, and ``adapter_model.safetensors``
        with PEFT's names, in the dtype that it is in, and the base's fingerprint in its metadata.

        The folder is a ``source``, and PEFT loads it. A save that is killed leaves the old files,
        the new ones, or a mix that is refused when it is loaded (AD398). Raises
        :class:`RoutingError` for an unknown name, :class:`AttachError` where it cannot be written.
        """
        from .lifecycle.save_adapter import save_adapter

        save_adapter(self._host, save_directory, adapter_name)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Write every adapter as :meth:`save_adapter` does, and ``adapterdock.yaml``: a manifest
        of adapters, compositions, rules, what is active, and the base by its source and
        fingerprint. ``adapterdock.load(save_directory)`` brings the model back.

        The one adapter that is trained lies in the folder itself, the others in folders of their
        names. While something is trained, ``model.safetensors`` has that once more by its live
        names: ``Trainer`` saves its checkpoints through here, and resumes from it. What cannot
        be written (a base made in memory has no source) is warned of. While adapters are merged,
        it writes the base with them in its weights, as a plain model. Raises as
        :meth:`save_adapter`.
        """
        from .lifecycle.save_model import save_pretrained

        if is_main_process:
            with self._host.adapters.changing():
                save_pretrained(self._host, save_directory, state_dict)

    def plan(
        self,
        manifest: ManifestSource,
        *,
        policy: str | os.PathLike[str] | None = None,
        accept: Iterable[str] = (),
        frozen: bool = False,
        offline: bool = False,
        sources: Mapping[str, InMemory] | None = None,
    ) -> Plan:
        """What :meth:`apply` would change for this model to be as if it had been loaded from
        ``manifest``; nothing is changed. ``print(plan)`` shows it, and it is false where that is
        nothing.

        Adapters are the same where their digest, dtype and ``trainable`` are; those that the
        manifest does not name are removed, however they came here. Options are those of
        ``attach``. Raises :class:`FingerprintError` for a manifest of another
        base, and whatever reading and locking it raises.
        """
        from .lifecycle.change import plan_change

        return plan_change(
            self._host,
            manifest,
            policy=policy,
            accept=accept,
            frozen=frozen,
            offline=offline,
            sources=sources,
        )

    def apply(self, fn: Plan | Callable[[nn.Module], Any]) -> Self:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Change the adapters as a plan says, all at once or not at all. (A function is what
        ``nn.Module.apply`` takes, and is applied to every module.)

        Everything new is fetched, verified, checked and built first, while calls go on; then each
        call sees wholly the old set or wholly the new one, and those that are running end with
        the old. What does not change is not touched. Raises :class:`AttachError` for a plan that
        is no longer about this model as it is, and the errors of loading; the model then answers
        as before.
        """
        from ..registry.plan import Plan
        from .lifecycle.change import apply_plan

        if not isinstance(fn, Plan):
            return super().apply(fn)
        apply_plan(self._host, fn)
        return self

    def watch(self, path: str | os.PathLike[str], **options: Any) -> Watch:
        """Follow the manifest at ``path`` from now on; see ``watch``."""
        from .lifecycle.watch import watch

        return watch(self, path, **options)

    def __repr__(self) -> str:
        here = self._host.adapters.by_name
        parts = [f"{n} ({'+'.join(a.methods) or 'whole'} r={a.rank})" for n, a in here.items()]
        return (
            f"AdaptedModel({type(self._base).__name__}, adapters=[{', '.join(parts)}], "
            f"active={self.active_weights()}"
            + (f", merged={self.merged_adapters})" if self.merged_adapters else ")")
        )


@functools.cache
def _class_for(base: type[nn.Module]) -> type[AdaptedModel]:
    """The subclass for one class of base: its name, and its forward's signature."""

    def forward(self: AdaptedModel, *args: Any, **kwargs: Any) -> Any:
        return self._host.calls.forward(*args, **kwargs)  # pyright: ignore[reportPrivateUsage]

    forward.__doc__ = base.forward.__doc__
    forward.__signature__ = inspect.signature(base.forward)  # type: ignore[attr-defined]
    made = type(
        base.__name__,
        (AdaptedModel,),
        {
            "__module__": __name__,
            "__qualname__": f"AdaptedModel[{base.__name__}]",
            "__doc__": AdaptedModel.__doc__,
            "forward": forward,
            # isinstance is asked of this too: Trainer saves through save_pretrained then
            "__class__": property(lambda self: base),
        },
    )
    return cast("type[AdaptedModel]", made)
