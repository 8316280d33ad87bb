"""The wrapper: an untouched base model, and the adapters that act on it."""

from __future__ import annotations

import functools
import inspect
import os
import sys
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
from .compose.recipe import weights_of
from .model.choice import UNSAID, Unsaid
from .model.deployment import Deployment, InMemory
from .model.stand_in import refusal
from .routing.routing import Using
from .routing.selection import Rules, Selection
from .savable import SavableModel
from .sites.attachable import check_attachable

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..registry.locks.project import ManifestSource
    from ..registry.plan import Plan
    from .lifecycle.watch import Watch


class AdaptedModel(SavableModel):
    """A base model with adapters, used like the base itself.

    Creating it does not change the base. Its class is a subclass made for the base's class, with
    the same name and forward signature, so that pipelines and trainers accept it. Attributes and
    methods that it lacks are the base's; methods run with the active adapters.

    The active adapters of a call are, in this order: those named in the call (``adapter=``), those
    of the innermost :meth:`using` around it, or the default (:meth:`set_adapter`). They are
    resolved once per ``forward`` or ``generate``. A new thread does not inherit ``using``.

    ``state_dict`` has the adapters under PEFT's live names, without the base. ``.to(dtype)``
    converts base and adapters, declared dtypes included. ``copy.deepcopy`` copies base and
    adapters, with what is active, merged, compiled and loaded. It cannot be pickled: save it.

    Args:
        base: A transformers model, or any other ``nn.Module``.

    Raises:
        AttachError: A base that is wrapped already, compiled, or cannot have adapters.
    """

    def __new__(cls, base: nn.Module) -> AdaptedModel:
        if isinstance(base, AdaptedModel):
            raise refusal(codes.MODEL_WRAPPED, "The model is already an AdaptedModel")
        check_attachable(base)
        kind = _class_for(type(base)) if cls is AdaptedModel else cls
        return object.__new__(kind)

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        model_id: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: Any = None,
        autocast_adapter_dtype: bool = True,
        ephemeral_gpu_offload: bool = False,
        low_cpu_mem_usage: bool = False,
        key_mapping: Mapping[str, str] | None = None,
        *,
        revision: str | None = None,
        subfolder: str | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        accept: Iterable[str] = (),
        **options: Any,
    ) -> AdaptedModel:
        """A loaded base with one adapter that is active, with PEFT's arguments.

        The base is not changed, and the adapter is checked as by :meth:`load_adapter`. As in PEFT,
        the model is then in evaluation mode. With ``is_trainable`` it stays in the base's mode:
        call ``train()`` for dropout.

        Args:
            model: The base.
            model_id: A folder, an id on the Hub, or a source as in a manifest.
            adapter_name: Its name in the model.
            is_trainable: Whether its parameters have gradients; the base then has none.
            config: PEFT's config object or a mapping, to use instead of the config in the folder;
                for a local folder.
            autocast_adapter_dtype: Whether an adapter in half precision becomes float32; otherwise
                it gets the dtype of the modules that it acts on.
            ephemeral_gpu_offload: Must be ``False``.
            low_cpu_mem_usage: Has no meaning here: weights are always read into their own place.
            key_mapping: Must be ``None``.
            revision: A branch, tag or commit on the Hub.
            subfolder: The adapter's folder in ``model_id``.
            token: The Hub's token; by default the one that huggingface_hub finds.
            local_files_only: Whether to use no network.
            accept: Codes of unchecked findings to accept.
            **options: PEFT's other options, which are refused by name.

        Returns:
            The model.

        Raises:
            UsageError: An option that is not supported, or a name that is not possible.
            AdapterdockError: As for :meth:`load_adapter`.
        """
        from .lifecycle.from_pretrained import refuse_options, source_text, with_config

        where = Where(file="from_pretrained")
        if not isinstance(cast(object, model), nn.Module):
            message = f"The first argument is a {type(model).__name__}, not a loaded model"
            hint = (
                "Load the base first, with `AutoModelForCausalLM.from_pretrained(...)` or the like."
            )
            raise refusal(codes.MODEL_WRAPPED, message, hint)
        refused = {"ephemeral_gpu_offload": ephemeral_gpu_offload, "key_mapping": key_mapping}
        refuse_options(where, {**refused, **options})
        source: Any = source_text(model_id, revision, subfolder)
        adapted = cls(model)
        given = {"source": source} if config is None else with_config(source, config)
        if token is not None and os.fspath(source).startswith("hf://"):
            given["storage_options"] = {"token": token}
        adapted.load_adapter(
            adapter_name=adapter_name,
            trainable=is_trainable,
            dtype=torch.float32 if autocast_adapter_dtype else None,
            offline=local_files_only,
            accept=accept,
            **given,
        )
        adapted.set_adapter(adapter_name)
        if not is_trainable:
            adapted.eval()
        return adapted

    if TYPE_CHECKING:  # what most bases have; `base_model` has the rest
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

    # -- what the model has ----------------------------------------------------------------

    @property
    def adapters(self) -> Mapping[str, AdapterInfo]:
        """The attached adapters by name: methods, rank, modules, size in bytes, dtypes, devices."""
        here = self._host.adapters.by_name
        return types.MappingProxyType({name: adapter.info() for name, adapter in here.items()})

    @property
    def compositions(self) -> Mapping[str, Mapping[str, Weight]]:
        """The members of each composition with their weights."""
        return types.MappingProxyType(self._host.state.compositions)

    @property
    def recipes(self) -> Mapping[str, Composition]:
        """How each composition combines its members: method, weights and options."""
        return types.MappingProxyType(self._host.state.recipes)

    @property
    def merged_adapters(self) -> list[str]:
        """The adapters that are merged into the base's weights, in order."""
        return self._host.state.merged_adapters

    @property
    def deployment(self) -> Deployment | None:
        """The manifest that the model was set up from, its lock and files; ``None`` without one."""
        return self._host.deployment

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Warnings of the set-up, and one for each used adapter with modules that did not run."""
        return self._host.findings

    @property
    def peft_config(self) -> dict[str, Any]:
        """PEFT's config object of each adapter, by name; it needs PEFT. Changing one changes
        nothing; :attr:`adapters` has the facts."""
        from .lifecycle.peft_state import config_of, has_config, refuse_pefts_functions

        refuse_pefts_functions(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        here = self._host.adapters.by_name
        return {name: config_of(one) for name, one in here.items() if has_config(one)}

    @property
    def active_peft_config(self) -> Any:
        """PEFT's config object of the active adapter, or of the first of several."""
        from .lifecycle.peft_state import config_of, has_config

        active = [one for one, _ in self._host.choice.active() if has_config(one)]
        if not active:
            message = "No adapter with a config is active"
            raise refusal(codes.ADAPTER_UNKNOWN, message, "Call `set_adapter`.")
        return config_of(active[0])

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """How many values are trained, and how many there are, as PEFT counts them.

        Returns:
            Both numbers; base and adapters count.
        """
        from .lifecycle.peft_state import numbers_of_parameters

        return numbers_of_parameters(self)

    def print_trainable_parameters(self) -> None:
        """Print how many values are trained, in PEFT's words."""
        trained, total = self.get_nb_trainable_parameters()
        share = 100 * trained / total if total else 0.0
        print(
            f"trainable params: {trained:,d} || all params: {total:,d} || trainable%: {share:.4f}"
        )

    def get_base_model(self) -> nn.Module:
        """The base model itself, the object that the wrapper was created with."""
        return self._base

    # -- select adapters -------------------------------------------------------------------

    def set_adapter(self, adapter: Selection) -> None:
        """Set the default: what is active wherever nothing else is selected.

        Args:
            adapter: The name of an adapter or composition, a list of names (each at weight 1), a
                mapping of names to weights (a number, or globs of modules to numbers), or ``None``
                for the base alone.

        Raises:
            RoutingError: Unknown names, or adapters that cannot be active together.
            PolicyError: The rules forbid the selection.
        """
        self._host.choice.set_default(adapter)

    def using(self, adapter: Selection) -> Using:
        """Select adapters for a block: ``with model.using("tone"):``.

        It counts in this thread (or asyncio task) until the end of the block. Blocks nest; the
        default does not change. The names are resolved in each call, so an adapter that was
        replaced meanwhile is the new one.

        Args:
            adapter: As for :meth:`set_adapter`.

        Returns:
            A context manager that may be entered again.

        Raises:
            RoutingError: Unknown names, or adapters that cannot be active together.
            PolicyError: The rules forbid the selection.
        """
        return self._host.choice.using(adapter)

    def disable_adapter(self) -> Using:
        """Run the base alone in this thread: ``with model.disable_adapter():``, as in PEFT.

        Returns:
            A context manager.

        Raises:
            RoutingError: While adapters are merged.
        """
        return self._host.choice.using(None)

    def disable_adapters(self) -> None:
        """Run the base alone in all threads, until :meth:`enable_adapters`.

        A call that names adapters raises :class:`RoutingError` meanwhile.

        Raises:
            RoutingError: While adapters are merged.
        """
        self._host.choice.disable()

    def enable_adapters(self) -> None:
        """Undo :meth:`disable_adapters`. The default is the same as before."""
        self._host.adapters.say(disabled=False)

    @property
    def active_adapter(self) -> str | list[str] | None:
        """The name of the active adapter, a list of names if there are several, or ``None``."""
        names = self.active_adapters()
        return names if len(names) > 1 else names[0] if names else None

    def active_adapters(self) -> list[str]:
        """The names of the adapters that are active in this thread, in order."""
        return list(self.active_weights())

    def active_weights(self) -> dict[str, Weight]:
        """The adapters that are active in this thread, with their weights.

        Returns:
            By name, a number or weights by module.
        """
        return {adapter.name: weight for adapter, weight in self._host.choice.active()}

    @property
    def default_weights(self) -> dict[str, Weight]:
        """The adapters of the default with their weights, regardless of ``using`` and disabling."""
        return dict(self._host.state.default.weights)

    @property
    def rules(self) -> Rules | None:
        """A function that checks each set of active adapters, however it is set.

        It takes the weights by name and returns findings; any finding raises :class:`PolicyError`.
        Setting it raises if the default breaks the new rules.
        """
        return self._host.state.rules

    @rules.setter
    def rules(self, rules: Rules | None) -> None:
        self._host.choice.set_rules(rules)

    # -- memory ----------------------------------------------------------------------------

    def holding(self, adapter: Selection) -> AbstractContextManager[None]:
        """Keep adapters loaded for a block: ``with model.holding("tone"):``.

        Their weights stay on the model's device, and are loaded first if need be. Calls do the
        same for the adapters that they use.

        Args:
            adapter: As for :meth:`set_adapter`.

        Returns:
            A context manager. Entering it raises :class:`RoutingError` if the budget is too small.
        """
        return self._host.choice.holding(adapter)

    @property
    def residency(self) -> int | None:
        """The most bytes of adapters' weights on the model's device; ``None`` for no limit.

        The least recently used adapters make room: from a GPU they move to the CPU, on the CPU
        they are dropped and read again from their verified files. Adapters in a running call,
        trainable ones, and those created or changed by code stay. Setting it raises
        :class:`AttachError` if an adapter is larger.
        """
        return self._host.adapters.residency.budget

    @residency.setter
    def residency(self, budget: int | None) -> None:
        self._host.adapters.set_budget(budget)

    # -- run -------------------------------------------------------------------------------

    def forward(
        self,
        *args: Any,
        adapter: Selection | Unsaid = UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's forward with adapters.

        Args:
            *args: Arguments of the base's forward.
            adapter: The adapters of this call, as for :meth:`set_adapter`; by default the active
                ones.
            adapter_names: A name for each row of the batch (batch,): an adapter, a composition, or
                ``"__base__"`` or ``None`` for the base alone. Not together with ``adapter``.
            **kwargs: Arguments of the base's forward.

        Returns:
            What the base's forward returns.

        Raises:
            RoutingError: Adapters that cannot be used here, or not as many names as rows.
            PolicyError: The rules forbid the adapters.
        """
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
        """The base's ``generate``, completely with the adapters that are active at its start.

        Args:
            *args: Arguments of the base's ``generate``.
            adapter: The adapters of this call, as for :meth:`set_adapter`; by default the active
                ones.
            adapter_names: A name for each prompt (batch,), also used for its beams and returned
                sequences; see :meth:`forward`.
            **kwargs: Arguments of the base's ``generate``.

        Returns:
            What the base's ``generate`` returns: mostly token ids, int64 (batch, tokens).

        Raises:
            RoutingError: A base without ``generate``, or as for :meth:`forward`.
            PolicyError: The rules forbid the adapters.
        """
        return self._host.calls.generate(
            *args, adapter=adapter, adapter_names=adapter_names, **kwargs
        )

    def compile(self, *, max_rank: int | None = None, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compile the base for calls of this wrapper.

        Adapters, compositions and weights can then change without another compilation, as long as
        they act on modules that are adapted now. Calls run one at a time.

        Args:
            max_rank: The largest sum of the ranks of active adapters; by default the largest
                attached rank.
            **options: Options of ``torch.compile``.

        Raises:
            RoutingError: No adapters, or adapters that are more than low-rank factors at linear
                modules.
        """
        self._host.calls.compile(max_rank=max_rank, **options)

    # -- attach, create and delete ---------------------------------------------------------

    def load_adapter(
        self,
        source: str | os.PathLike[str] | None,
        adapter_name: str,
        *,
        adapter_state_dict: Any = None,
        peft_config: Any = None,
        sha256: str | None = None,
        registry: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        dtype: str | torch.dtype | None = None,
        trainable: bool = False,
        accept: Iterable[str] = (),
        offline: bool = False,
        hotswap: bool | str = False,
    ) -> None:
        """Attach one more adapter, with the same checks as the adapters of a manifest.

        It does not become active. Policies, mirrors, rules and aliases of the model's manifest
        apply. If it raises, the model is unchanged.

        Args:
            source: A source as in a manifest, or a path; a relative one starts at the current
                folder. ``None`` for an adapter in memory.
            adapter_name: Its name in this model.
            adapter_state_dict: For an adapter in memory, its tensors by PEFT's names on disk.
            peft_config: For an adapter in memory, PEFT's config object or a mapping of its fields.
            sha256: The digest of its folder (``sha256:...``), if it is known.
            registry: For a ``registry://`` source, the URL of the registry that it names. Default:
                what the model's manifest says, else the user's ``config.toml``.
            storage_options: Options for fsspec.
            dtype: The dtype of its factors: ``"float32"``, ``"float16"``, ``"bfloat16"``, or a
                torch dtype. By default that of the modules that they act on, or float32 if
                ``trainable``.
            trainable: Whether its parameters have gradients; the base then has none.
            accept: Codes of unchecked findings to accept.
            offline: Whether to use no network.
            hotswap: ``True`` to replace the adapter with this name, of any rank, alpha and target
                modules; ``"auto"`` to replace it if there is one. Running calls finish with the
                old adapter; every reference now uses the new adapter.

        Raises:
            UsageError: Invalid arguments.
            PolicyError: A policy or rule forbids the adapter.
            SourceError: Its files cannot be read.
            IntegrityError: Its files do not match ``sha256``.
            FitError: It does not fit the base.
            AttachError: It cannot be attached, or its name is taken.
        """
        from .lifecycle.load_adapter import load_adapter

        load_adapter(
            self._host,
            source,
            adapter_name,
            adapter_state_dict=adapter_state_dict,
            peft_config=peft_config,
            sha256=sha256,
            registry=registry,
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
        """Create a new adapter with PEFT's initialisation, to be trained.

        Its parameters have gradients; the base has none until the adapter is deleted. Random values
        come from torch's own generator, as in PEFT. It does not become active. If it raises, the
        model is unchanged.

        Args:
            adapter_name: Its name in this model.
            peft_config: PEFT's config object, or a mapping of its fields (with ``peft_type``), of
                any method that trains. Without target modules, PEFT's for the base's
                ``model_type``.
            dtype: The dtype of its parameters; float32 by default.

        Raises:
            FitError: A config that is wrong or does not fit.
            AttachError: An adapter that cannot be created, or a name that is taken.
        """
        from .lifecycle.add_adapter import add_adapter

        with self._host.adapters.changing():
            add_adapter(self._host, adapter_name, peft_config, dtype)

    def delete_adapter(self, adapter_names: str | list[str]) -> None:
        """Delete adapters, all or none. Running calls finish with them.

        Other adapters of the default stay active. If none is left, the base runs alone, with a
        warning.

        Args:
            adapter_names: One name, or several.

        Raises:
            RoutingError: Unknown or merged adapters, or members of a composition.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self._host.adapters.delete(names)

    def detach(self) -> nn.Module:
        """Remove all adapters for good, and unmerge what is merged.

        Returns:
            The base as it was before the first adapter.

        Raises:
            RoutingError: While calls are running.
        """
        return self._host.merging.detach()

    # -- compose ---------------------------------------------------------------------------

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
        """Name a combination of attached adapters.

        A ``sum`` is exact and works for all adapters. The other methods have PEFT's names and
        compute a new adapter of LoRA factors. If it raises, the model is unchanged.

        Args:
            name: Its name, which no adapter may have.
            of: Weights by adapter: numbers, or for a ``sum`` also {glob of modules: number}.
            combine: ``sum``, ``linear``, ``cat``, ``svd``, ``ties``, ``dare_linear``, ...
            density: The share of values that pruning keeps, above 0 and at most 1.
            majority_sign_method: ``total`` or ``frequency``, for ``ties``.
            svd_rank: The rank of the result of an SVD; by default the largest of the members.
            svd_clamp: A quantile in (0, 1] that bounds the factors of an SVD.
            seed: The seed of a random method, which needs one.
            where: The place for findings, if it was declared in a file.

        Raises:
            RoutingError: Adapters that cannot be combined in this way, or invalid options.
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
        """:meth:`define_composition` with PEFT's arguments.

        It differs from PEFT: random methods need a ``seed``, a taken name is an error, and a single
        adapter is pruned like several.

        Args:
            adapters: The names of the members.
            weights: A weight for each of them.
            adapter_name: The name of the composition.
            combination_type: As ``combine``; ``"svd"`` by default.
            svd_rank: See :meth:`define_composition`, like all the others.
            svd_clamp: See above.
            density: See above.
            majority_sign_method: See above.
            seed: See above.

        Raises:
            RoutingError: As for :meth:`define_composition`.
        """
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
        """Change weights of a composition, all or nothing.

        New calls use the new weights, also if the composition is the default. Running calls, and a
        ``using`` of a sum that was entered before, keep the old ones.

        Args:
            composition: Its name.
            weights: New weights by member; the other members keep theirs.

        Raises:
            RoutingError: Unknown names, or weights that are not possible.
        """
        self._host.compositions.reweigh(composition, weights)

    def refresh_compositions(self, changed: Iterable[str]) -> list[str]:
        """Compute compositions again whose members have new values, for example after training.

        A sum does not need it, and replacing an adapter does it.

        Args:
            changed: The names of the changed adapters.

        Returns:
            The names of the compositions that were computed again.
        """
        return self._host.compositions.refresh(changed)

    def save_composition(self, save_directory: str | os.PathLike[str], name: str) -> None:
        """Write a composition as an adapter in PEFT's format, in float32.

        Writes ``adapter_config.json`` and ``adapter_model.safetensors``. A sum becomes one LoRA
        that has the members' ranks side by side. The base that it records is the Hub id from which
        transformers loaded the model, else what all members record, if that is one name.

        Args:
            save_directory: The folder.
            name: The composition.

        Raises:
            RoutingError: A composition that does not consist of LoRA factors.
            AttachError: The folder cannot be written.
        """
        self._host.compositions.save(save_directory, name)

    def delete_composition(self, name: str) -> None:
        """Delete a composition; its members stay attached.

        A default that was set to a sum keeps its adapters active. A computed composition is deleted
        with its adapter.

        Args:
            name: The composition.

        Raises:
            RoutingError: An unknown name.
        """
        self._host.compositions.delete(name)

    # -- merge -----------------------------------------------------------------------------

    def merge_adapter(
        self,
        adapter_names: Selection = None,
        safe_merge: bool = False,
        keep: Literal["memory", "reread"] = "memory",
    ) -> None:
        """Merge adapters into the base's weights, until :meth:`unmerge_adapter`.

        Computed in float32 and rounded once to each weight's dtype. Biases and replaced modules are
        merged too; a head that is tied to a changed embedding gets its own weight. Meanwhile the
        merged adapters act in every call, also of ``base_model``, and cannot be selected. Adapters
        that are merged already stay merged. If it raises, the model is unchanged.

        Args:
            adapter_names: As for :meth:`set_adapter`; ``None`` for the active adapters.
            safe_merge: Whether to refuse NaN and infinite values.
            keep: ``"memory"`` keeps the old weights in memory; ``"reread"`` reads them again from
                the base's verified files.

        Raises:
            AttachError: A weight that is offloaded or quantised, or a method that cannot be merged.
            RoutingError: Nothing to merge, running calls, or an invalid selection.
        """
        self._host.merging.merge(adapter_names, safe=safe_merge, keep=keep)

    def unmerge_adapter(self) -> None:
        """Restore the base's own weights, bit for bit. Does nothing if nothing is merged.

        The default is the one before the merge, unless another was set since.

        Raises:
            AttachError: Weights that cannot be read again; everything stays merged.
            RoutingError: While calls are running.
        """
        self._host.merging.unmerge()

    def merge_and_unload(
        self, adapter_names: Selection = None, safe_merge: bool = False
    ) -> nn.Module:
        """Merge adapters for good and detach. Adapters that are not merged are dropped.

        Args:
            adapter_names: As for :meth:`merge_adapter`; added to what is merged already.
            safe_merge: Whether to refuse NaN and infinite values.

        Returns:
            The base with merged weights, without the wrapper.

        Raises:
            AttachError: As for :meth:`merge_adapter`.
            RoutingError: As for :meth:`merge_adapter`.
        """
        return self._host.merging.unload(adapter_names, safe=safe_merge)

    # -- follow a manifest -----------------------------------------------------------------

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
        """What :meth:`apply` would change so that the model is as loaded from ``manifest``.

        Changes nothing. Adapters are unchanged if digest, dtype and ``trainable`` are the same.
        Adapters that the manifest does not declare are removed, however they were attached.

        Args:
            manifest: A path, a mapping with a manifest's keys, or a manifest that was read.
            policy: A policy file that applies besides the manifest's own.
            accept: Codes of unchecked findings to accept.
            frozen: Whether to refuse a missing, stale or incomplete lock.
            offline: Whether to use no network.
            sources: Adapters in memory, by name; see :func:`load`.

        Returns:
            The plan. ``print(plan)`` shows it; it is false if nothing would change.

        Raises:
            FingerprintError: A manifest for another base.
            AdapterdockError: Any error of reading, resolving and locking the manifest.
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
        """Apply a plan: all changes at once, or none.

        Fetches, verifies, checks and builds everything first, while calls continue. Then each call
        sees only the old adapters or only the new ones; running calls finish with the old. Adapters
        that do not change are not touched.

        Args:
            fn: The plan. A function is applied to every module, as by ``nn.Module.apply``.

        Returns:
            This model.

        Raises:
            AttachError: A plan for an earlier state of the model.
            AdapterdockError: Any error of loading. The model is then unchanged.
        """
        from ..registry.plan import Plan
        from .lifecycle.change import apply_plan

        if not isinstance(fn, Plan):
            return super().apply(fn)
        apply_plan(self._host, fn)
        return self

    def watch(self, path: str | os.PathLike[str], **options: Any) -> Watch:
        """Follow the manifest at ``path`` in the background.

        Args:
            path: The manifest.
            **options: Options of :func:`adapterdock.watch`.

        Returns:
            A handle that stops following.
        """
        from .lifecycle.watch import watch

        return watch(self, path, **options)

    def __repr__(self) -> str:
        here = self._host.adapters.by_name
        parts = [
            f"{n} ({'+'.join(a.methods) or 'replacement'} r={a.rank})" for n, a in here.items()
        ]
        return (
            f"AdaptedModel({type(self._base).__name__}, adapters=[{', '.join(parts)}], "
            f"active={self.active_weights()}"
            + (f", merged={self.merged_adapters})" if self.merged_adapters else ")")
        )

    def _repr_html_(self) -> str:
        from .model.notebook import model_html

        base = type(self._base).__name__
        return model_html(base, self.adapters, self.active_weights(), self.merged_adapters)


@functools.cache
def _class_for(base: type[nn.Module]) -> type[AdaptedModel]:
    """The subclass for a class of base: with its name, and its forward's signature."""

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
            # isinstance checks this too; then Trainer saves with save_pretrained
            "__class__": property(lambda self: base),
        },
    )
    return cast("type[AdaptedModel]", made)
