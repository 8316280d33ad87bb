"""What PEFT's functions say of an adapter: its config object, and its tensors by names on disk."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any, cast

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Where
from ..adapter.adapter import Adapter
from ..model.stand_in import StandIn, host_of
from ..weights.own_storage import with_own_storage
from .from_pretrained import refuse_options
from .save_adapter import saved_tensors

_DEFAULT = "default"


def refuse_pefts_functions(caller: FrameType) -> None:
    """Raise :class:`AttachError` if PEFT's functions for state dicts ask for the config: they walk
    through PEFT's layers, find none in this model, and would read or write nothing."""
    if caller.f_globals.get("__name__") == "peft.utils.save_and_load":
        raise AttachError(
            codes.NOT_THROUGH_WRAPPER.finding(
                f"peft's {caller.f_code.co_name} reads PEFT's own layers, which this model lacks",
                hint="Call `adapterdock.get_peft_model_state_dict(model, name)`, or "
                "`adapterdock.set_peft_model_state_dict(model, tensors, name)`.",
            )
        )


def config_of(adapter: Adapter) -> Any:
    """PEFT's config object of an adapter that :func:`has_config`. Raises ``AttributeError`` without
    PEFT, so that ``hasattr(model, "peft_config")`` is false."""
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise AttributeError("PEFT is not installed") from error
    fields = {**adapter.config, "inference_mode": not adapter.trainable}
    return PeftConfig.from_peft_type(**fields)


def has_config(adapter: Adapter) -> bool:
    """Whether it has a config of PEFT's: a computed composition has none."""
    return "peft_type" in adapter.config


def numbers_of_parameters(model: nn.Module) -> tuple[int, int]:
    """How many values are trained, and how many there are, base and adapters. Counts as PEFT does
    (0.21, ``PeftModel.get_nb_trainable_parameters``): a 4-bit weight of bitsandbytes packs two
    values into a byte."""
    trained = total = 0
    for parameter in model.parameters():
        number = parameter.numel()
        if type(parameter).__name__ == "Params4bit":
            number *= 2 * parameter.element_size()
        total += number
        trained += number if parameter.requires_grad else 0
    return trained, total


def get_peft_model_state_dict(
    model: StandIn, adapter_name: str = _DEFAULT, state_dict: Mapping[str, Any] | None = None
) -> dict[str, torch.Tensor]:
    """An adapter's tensors by PEFT's names on disk, as in ``adapter_model.safetensors``.

    Args:
        model: A model with adapters.
        adapter_name: The adapter.
        state_dict: Tensors by live name to give instead of the model's own.

    Returns:
        Tensors by names without the adapter's, such as
        ``base_model.model.<module>.lora_A.weight``. They share memory with the model.

    Raises:
        RoutingError: An unknown name.
    """
    host = host_of(model)
    with host.adapters.changing():
        adapter = host.adapters.known(adapter_name)
        with host.choice.present([adapter]):
            found = saved_tensors(adapter, state_dict or {})
            return {key: with_own_storage(one.detach()) for key, one in found.items()}


def set_peft_model_state_dict(
    model: StandIn,
    peft_model_state_dict: Mapping[str, torch.Tensor],
    adapter_name: str = _DEFAULT,
    ignore_mismatched_sizes: bool = False,
    low_cpu_mem_usage: bool = False,
) -> Any:
    """Copy tensors into an attached adapter, by PEFT's names on disk; all or nothing.

    Args:
        model: A model with adapters.
        peft_model_state_dict: What :func:`get_peft_model_state_dict` returns, or the tensors of an
            ``adapter_model.safetensors``.
        adapter_name: The adapter; it need not have the name that it was trained under.
        ignore_mismatched_sizes: Must be ``False``: tensors of another size are an error.
        low_cpu_mem_usage: Has no meaning here: values are copied into the adapter's own tensors.

    Returns:
        ``missing_keys`` and ``unexpected_keys``: names on disk that the adapter has and
        ``peft_model_state_dict`` lacks, and the other way round.

    Raises:
        RoutingError: An unknown name.
        AttachError: A tensor of another shape.
        UsageError: An option that is not supported.
    """
    del low_cpu_mem_usage
    where = Where(file="set_peft_model_state_dict")
    refuse_options(where, {"ignore_mismatched_sizes": ignore_mismatched_sizes})
    if not isinstance(cast(object, peft_model_state_dict), Mapping):
        kind = type(peft_model_state_dict).__name__
        raise AttachError(
            codes.STATE_MISMATCH.finding(
                f"The state dict is a {kind}",
                where,
                expected="tensors by PEFT's names on disk",
                hint="Pass what `get_peft_model_state_dict` returns.",
            )
        )
    host = host_of(model)
    with host.adapters.changing():
        adapter = host.adapters.known(adapter_name)
        with host.choice.present([adapter]):
            keys = adapter.resident.keys
            known = {keys[key]: one for key, one in peft_model_state_dict.items() if key in keys}
            host.adapters.load_state(known, strict=False, assign=False)
    return torch.nn.modules.module._IncompatibleKeys(  # pyright: ignore[reportPrivateUsage]
        sorted(keys.keys() - peft_model_state_dict.keys()),
        sorted(peft_model_state_dict.keys() - keys.keys()),
    )
