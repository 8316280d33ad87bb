"""Attach one adapter onto an adapted model: all of it, or nothing.

Everything is decided and built before the first mutation; what is mutated then (hooks, an
instance-level forward, entries in dictionaries) is taken back if anything goes wrong, and the
adapter's name becomes known last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import AdapterdockError, AttachError, UsageError
from ...manifests.findings.finding import Where
from ...manifests.language.names import NAME_RULE, is_name
from ...registry.files.facts import AdapterPlan
from ..adapter.adapter import Adapter, Built
from ..build.build_adapter import broken_off, build_adapter
from ..weights.tensors import AdapterTensors
from .adapter_set import Holder


def attach_adapter(
    model: Holder,
    name: str,
    plan: AdapterPlan,
    tensors: AdapterTensors,
    *,
    dtype: torch.dtype | None = None,
    trainable: bool = False,
    dropout: float = 0.0,
    members: Mapping[str, float] | None = None,
    replace: bool = False,
    config: Mapping[str, Any] | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
) -> Adapter:
    """Attach ``tensors`` as ``plan`` says, under ``name``. It does not become active, unless it is
    to ``replace`` one of this name that is.

    Factors are in ``dtype`` if given, else in float32 if ``trainable``, else in the dtype of the
    module they sit on; always on that module's device. ``dropout`` (PEFT's ``lora_dropout``) acts
    while training. A trainable adapter freezes the base's own parameters until it is deleted or
    the model detached. ``members`` are the adapters that it is made of, if it is a composition,
    ``config`` its ``adapter_config.json``, kept for saving.

    Raises :class:`AttachError` with every finding; the model is then as it was, bit for bit.
    """
    with model.changing():
        check_free(model, name, replace, where)
        built = build_adapter(
            model.live,
            name,
            plan,
            tensors,
            dtype=dtype,
            trainable=trainable,
            dropout=dropout,
            members=members,
            config=config,
            where=where,
        )
        put_adapters(model, [built], where)
        return built.adapter


def check_free(model: Holder, name: str, replace: bool, where: Where) -> None:
    """Raise :class:`AttachError` for a name that is taken, unless by one to ``replace``, and
    :class:`RoutingError` while something is merged."""
    replaced = replace and name in model.attached
    if not replaced and (problem := model.name_problem(name, where)):
        raise AttachError(problem)
    model.check_unmerged(f"{name!r} cannot be attached")


def put_adapters(model: Holder, built: Sequence[Built], where: Where) -> None:
    """Put finished adapters on the model, in place of those of their names; all or nothing."""
    try:
        if len(built) == 1 and built[0].adapter.name not in model.attached:
            model.add(built[0])
        else:
            model.exchange(built)
    except AdapterdockError:
        raise
    except Exception as error:
        raise broken_off(built[0].adapter.name, error, where) from error


def check_name(model: Holder, name: str, hotswap: bool | str, where: Where) -> bool:
    """Whether the adapter replaces one of its name (``hotswap``: true where it must, ``auto``
    where it may). Raises :class:`UsageError` for what is no name, :class:`AttachError` for one
    that is taken, or that none has: before anything is fetched."""
    if not isinstance(cast(object, name), str) or not is_name(name):
        raise UsageError(
            usage_codes.BAD_NAME.finding(f"{name!r} is no name", found=name, expected=NAME_RULE)
        )
    if hotswap and name in model.attached:
        return True
    if hotswap is True:
        raise AttachError(
            loader_codes.ADAPTER_UNKNOWN.finding(
                f"there is no {name!r} to replace",
                where,
                found=name,
                expected=", ".join(model.attached) or "none is attached",
            )
        )
    if name in model.attached or name in model.compositions:
        raise AttachError(
            loader_codes.NAME_TAKEN.finding(f"{name!r} is attached already", where, found=name)
        )
    if problem := model.case_problem(name, where):
        raise AttachError(problem)
    return False
