"""Names of an adapter whose model was wrapped while it was saved, without the wrapping.

torch.compile names the model inside ``_orig_mod``, FSDP ``_fsdp_wrapped_module``, and activation
checkpointing ``_checkpoint_wrapped_module``: no model has a module with such a name, so these parts
are always left out. Others name it ``module`` or ``pretrained_model`` (:data:`OUTSIDE`), which may
be a part of a model: these are left out where PEFT's prefix follows them in every name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .facts import Header, Origin
from .names import PEFT_PREFIX
from .reading import Reading

FORMAT = "PEFT"
INSIDE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
OUTSIDE = {
    "module": "DistributedDataParallel or DeepSpeed",
    "pretrained_model": "TRL's model with a value head",
}
_INSIDE = re.compile(rf"(?<![^.])(?:{'|'.join(INSIDE)})(?:\.|\\\.|$)")
"""A complete part of a name; in a pattern its dot may be escaped."""
_FIELDS = frozenset(
    {"target_modules", "exclude_modules", "modules_to_save", "target_parameters"}
    | {"rank_pattern", "alpha_pattern", "trainable_token_indices"}
)
"""Fields that name modules."""


def unwrapped(reading: Reading) -> Reading:
    """``reading`` without the wrappers' parts in its names and in the fields that name modules;
    unchanged where there are none, or where two names would become the same."""
    if not _may_be_wrapped(reading.header.tensors):
        return reading
    names = {key: _plain(key) for key in reading.header.tensors}
    found = tuple(part for part in INSIDE if any(part in key.split(".") for key in names))
    for part in OUTSIDE:
        before = f"{part}.{PEFT_PREFIX}"
        if names and all(name.startswith(before) for name in names.values()):
            names = {key: name.removeprefix(f"{part}.") for key, name in names.items()}
            found = (part, *found)
    if not found or len({*names.values()}) < len(names):
        return reading
    header = reading.header
    tensors = {names[key]: info for key, info in header.tensors.items()}
    return Reading(
        {k: _unwrapped(v) if k in _FIELDS else v for k, v in reading.config.items()},
        Header(tensors, header.metadata, header.data_start, header.size),
        {names[key]: part for key, part in reading.parts.items()},
        replace(reading.origin or Origin(FORMAT), wrappers=found),
    )


def _may_be_wrapped(names: Iterable[str]) -> bool:
    """A quick look at all names at once."""
    text = "\n".join(names)
    return text.startswith(tuple(OUTSIDE)) or any(part in text for part in INSIDE)


def _plain(name: str) -> str:
    if not any(part in name for part in INSIDE):
        return name
    return _INSIDE.sub("", name).removesuffix(".")


def _unwrapped(value: Any) -> Any:
    """A field's value: a pattern, a list of names, or a map of patterns."""
    if isinstance(value, str):
        return _plain_pattern(value)
    if isinstance(value, list):
        return [_plain(name) if isinstance(name, str) else name for name in value]
    if isinstance(value, dict):
        plain = {_plain_pattern(str(name)): kept for name, kept in value.items()}
        return plain if len(plain) == len(value) else value
    return value


def _plain_pattern(pattern: str) -> str:
    return re.sub(rf"(?:{'|'.join(INSIDE)})(?:\\?\.|$)", "", pattern)
