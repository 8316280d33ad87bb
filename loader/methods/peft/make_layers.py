"""PEFT makes an adapter's layers, outside of the base.

PEFT puts its layers into a shell: a tree of empty modules with stand-ins at the adapted modules'
names. The shell contains nothing of the base, so no method can change the base while its layers are
made.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ....manifests.findings import fit as fit_codes
from ....manifests.findings import loader as codes
from ....manifests.findings.errors import AttachError
from ....manifests.findings.finding import Finding, Where
from ....registry.files.facts import AdapterPlan, PeftPlan, TensorInfo
from ....registry.methods.through_peft import key_for_peft, shared_key_for_peft
from ...weights.dtypes import INTEGERS
from .layers import Values, stand_in_of

NAME = "default"
"""PEFT's name of the only adapter in a shell."""
_MAKING = threading.Lock()
"""The random state and warning filters of the process change while layers are made."""
_CONFIG = {"model_type": "custom", "tie_word_embeddings": False}


class _Tree(nn.Module):
    """A container of the shell."""


class _Holder(nn.Module):
    """A model with adapters for PEFT's functions on state dicts."""

    def __init__(self, tuner: nn.Module, config: Any) -> None:
        super().__init__()
        self.base_model = tuner
        vars(self)["peft_config"] = {NAME: config}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_model"), name)


@dataclass(frozen=True)
class Shell:
    """PEFT's ``layers`` and the ``stand_ins`` in them, both by live module."""

    holder: nn.Module
    layers: Mapping[str, nn.Module]
    stand_ins: Mapping[str, nn.Module]

    @property
    def tuner(self) -> nn.Module:
        return cast(nn.Module, self.holder.base_model)

    def state(self) -> dict[str, Tensor]:
        """The tensors that PEFT would save, by their names in a file."""
        from peft import get_peft_model_state_dict

        return get_peft_model_state_dict(
            self.holder, adapter_name=NAME, save_embedding_layers=False
        )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Load these values into the layers, by their names in a file."""
        from peft import set_peft_model_state_dict

        result: Any = set_peft_model_state_dict(self.holder, dict(tensors), adapter_name=NAME)
        if result.unexpected_keys:
            raise ValueError(f"unexpected tensors: {', '.join(result.unexpected_keys[:3])}")


def make_shell(
    plan: PeftPlan,
    modules: Mapping[str, nn.Module],
    where: Where,
    *,
    values: Values = Values.OWN,
    trainable: bool = False,
) -> Shell:
    """PEFT's layers for the live ``modules``; with other ``values`` than the base's own, only their
    shapes count.

    Raises :class:`AttachError` if PEFT is not installed, does not know the method, or refuses.
    """
    kind, tuner = _classes(plan.method, where)
    shell = _Tree()
    shell.config = _CONFIG  # pyright: ignore[reportArgumentType]
    stand_ins: dict[str, nn.Module] = {}
    for live, author in plan.authors.items():
        stand_ins[live] = stand_in_of(modules[live], values)
        _insert(shell, author, stand_ins[live])
    try:
        with _MAKING, warnings.catch_warnings(), _own_randomness(stand_ins.values()):
            warnings.simplefilter("ignore")
            config = kind(**_settings(kind, plan), inference_mode=not trainable)
            # not PEFT's low_cpu_mem_usage: it changes nn.Module itself, for every thread
            with torch.device("meta") if values is Values.NONE else nullcontext():
                made = tuner(shell, config, NAME)
            if hasattr(made, "_cast_adapter_dtype"):  # half precision to float32, as in PEFT
                made._cast_adapter_dtype(NAME)
            layers = {live: shell.get_submodule(at) for live, at in plan.authors.items()}
    except Exception as error:
        raise AttachError(
            fit_codes.PEFT_REFUSES.finding(
                f"PEFT cannot make the {plan.method} layers of this adapter",
                where,
                found=f"{type(error).__name__}: {error}"[:400],
            )
        ) from error
    others = [live for live, layer in layers.items() if layer is stand_ins[live]]
    if others:
        message = f"PEFT does not put a {plan.method} layer at {', '.join(others[:3])}"
        raise AttachError(codes.PEFT_PLACE.finding(message, where))
    return Shell(_Holder(made, config), layers, stand_ins)


def tensors_for_peft(plan: AdapterPlan, peft: PeftPlan) -> dict[str, str]:
    """{PEFT's name in a file: the file's own name} of each of the adapter's tensors."""
    found = {shared_key_for_peft(name): key for name, key in peft.shared.items()}
    for site in plan.sites:
        found |= {key_for_peft(peft, site, role): key for role, key in site.tensors.items()}
    return found


def misfits(
    shell: Shell, plan: AdapterPlan, infos: Mapping[str, TensorInfo], where: Where
) -> list[Finding]:
    """One finding if the names or shapes of the file's tensors differ from those that PEFT would
    save."""
    assert plan.peft is not None
    names = tensors_for_peft(plan, plan.peft)
    wanted = shell.state()
    problems = [f"{name} is missing" for name in wanted if name not in names]
    problems += [f"{key} is unexpected" for name, key in names.items() if name not in wanted]
    for name, key in names.items():
        if name not in wanted:
            continue
        shape, integers = tuple(wanted[name].shape), not wanted[name].is_floating_point()
        if infos[key].shape != shape:
            problems.append(f"{key} is {infos[key].shape} instead of {shape}")
        elif (infos[key].dtype in INTEGERS) is not integers:
            problems.append(f"{key} is {infos[key].dtype} instead of {wanted[name].dtype}")
    if not problems:
        return []
    more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
    return [
        fit_codes.PEFT_TENSORS.finding(
            f"The tensors do not match a {plan.peft.method} adapter with this config",
            where,
            found="; ".join(problems[:3]) + more,
            expected=f"the {len(wanted)} tensors that PEFT would save",
        )
    ]


def _classes(method: str, where: Where) -> tuple[Any, Any]:
    """PEFT's config and tuner of the method. Raises :class:`AttachError` if there are none."""
    try:
        from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
    except ImportError as error:
        raise AttachError(
            codes.PEFT_MISSING.finding(
                f"{method} attaches through PEFT, which cannot be imported: {error}", where
            )
        ) from error
    configs = {str(key.value): kind for key, kind in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    tuners = {str(key.value): kind for key, kind in PEFT_TYPE_TO_TUNER_MAPPING.items()}
    if method not in configs or method not in tuners:
        import peft

        raise AttachError(
            codes.PEFT_MISSING.finding(
                f"The installed PEFT does not know {method}",
                where,
                found=peft.__version__,
                hint="Upgrade it: `pip install -U peft`.",
            )
        )
    return configs[method], tuners[method]


def _settings(kind: Any, plan: PeftPlan) -> dict[str, Any]:
    """The config's fields. The target modules are known already: the shell has no others, and PEFT
    does not run the file's pattern."""
    known = set(kind.__dataclass_fields__)
    unknown = sorted(plan.config.keys() - known)
    if unknown:
        raise ValueError(f"the installed PEFT does not know {', '.join(unknown)}")
    targets = plan.targets and list(plan.targets)
    if not targets:
        targets = "|".join(re.escape(author) for author in plan.authors.values())
    # trained biases and replaced modules are attached without PEFT
    neutral = {"bias": "none", "progressbar": False}
    neutral = {name: value for name, value in neutral.items() if name in known}
    return {**plan.config, **neutral, "target_modules": targets}


def _own_randomness(modules: Iterable[nn.Module]) -> AbstractContextManager[None]:
    """Restores the random state after PEFT has drawn numbers."""
    devices = {p.device for m in modules for p in m.parameters() if p.is_cuda}
    return torch.random.fork_rng(devices=devices)


def _insert(shell: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    parent = shell
    for part in path:
        children = parent._modules  # pyright: ignore[reportPrivateUsage]
        if part not in children:
            children[part] = _Tree()
        parent = cast(nn.Module, children[part])
    parent._modules[last] = module  # pyright: ignore[reportPrivateUsage]
