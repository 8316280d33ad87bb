"""The wrapper: a base model, untouched, and the adapters that act on it."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..manifests.findings import loader as codes
from ..manifests.findings.finding import Finding
from .adapter.warning import AdapterWarning as AdapterWarning
from .adapter.warning import never_fired
from .lifecycle.deployed_model import DeployedModel
from .model.adapter_set import unknown_adapter
from .model.stand_in import refusal
from .sites.attachable import check_attachable

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..registry.locks.project import ManifestSource
    from ..registry.plan import Plan
    from .lifecycle.deployed_model import InMemory
    from .lifecycle.watch import Watch


class AdaptedModel(DeployedModel):
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

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.training = self._tree.training = base.training

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Warnings of setting the model up, and what use has shown: modules that never ran."""
        shown = tuple(
            finding
            for adapter in list(self._adapters.values())
            if adapter.used and (finding := never_fired(adapter))
        )
        return (*(self._deployment.findings if self._deployment else ()), *shown)

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
            self,
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

        with self.changing():
            add_adapter(self, adapter_name, peft_config, dtype)

    def save_adapter(self, save_directory: str | os.PathLike[str], adapter_name: str) -> None:
        """Write an adapter as PEFT does: ``adapter_config.json``, and ``adapter_model.safetensors``
        with PEFT's names, in the dtype that it is in, and the base's fingerprint in its metadata.

        The folder is a ``source``, and PEFT loads it. A save that is killed leaves the old files,
        the new ones, or a mix that is refused when it is loaded (AD398). Raises
        :class:`RoutingError` for an unknown name, :class:`AttachError` where it cannot be written.
        """
        from .lifecycle.save_adapter import save_adapter

        with self.changing():
            if adapter_name not in self._adapters:
                attached = ", ".join(self._adapters) or "none"
                raise unknown_adapter(adapter_name, f"attached are: {attached}")
            self.check_unmerged(f"{adapter_name!r} cannot be saved with its base's fingerprint")
            save_adapter(self, save_directory, adapter_name)

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
            with self.changing():
                save_pretrained(self, save_directory, state_dict)

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
            self,
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
        apply_plan(self, fn)
        return self

    def watch(self, path: str | os.PathLike[str], **options: Any) -> Watch:
        """Follow the manifest at ``path`` from now on; see ``watch``."""
        from .lifecycle.watch import watch

        return watch(self, path, **options)

    def overrides(self) -> dict[str, str | None]:
        """What stood in place of the manifest's own ``model`` and ``dtype`` at load."""
        said = self._deployment.file.overrides if self._deployment else {}
        return {"model": said.get("model"), "dtype": said.get("dtype")}

    def _folder_of_base(self) -> Path | None:
        return self._deployment.base_folder if self._deployment else None

    def __repr__(self) -> str:
        parts = [
            f"{n} ({'+'.join(a.methods) or 'whole'} r={a.rank})" for n, a in self._adapters.items()
        ]
        return (
            f"AdaptedModel({type(self._base).__name__}, adapters=[{', '.join(parts)}], "
            f"active={self.active_weights()}"
            + (f", merged={self.merged_adapters})" if self.merged_adapters else ")")
        )


@functools.cache
def _class_for(base: type[nn.Module]) -> type[AdaptedModel]:
    """The subclass for one class of base: its name, and its forward's signature."""

    def forward(self: AdaptedModel, *args: Any, **kwargs: Any) -> Any:
        return AdaptedModel.forward(self, *args, **kwargs)

    def passes_for(self: AdaptedModel) -> type[Any]:
        return base

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
            "__class__": property(passes_for),
        },
    )
    return cast("type[AdaptedModel]", made)
