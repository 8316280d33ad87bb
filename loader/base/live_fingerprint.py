"""The fingerprint of a live model, measured under the names on disk, and its check.

Names and shapes on disk come from ``loader.base.disk_names``. Where a conversion changes values
(experts that are fused at loading), it is reverted with the real tensors too: one layer at a time
and only in layers that are sampled, so that memory stays at one layer. The rest is the torch-free
code of ``registry.base.fingerprint``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn

from ...manifests.findings.finding import Finding, Where
from ...manifests.language.schema import Fingerprint
from ...manifests.lockfile import LoadedAs
from ...registry.base.backbone import split
from ...registry.base.base_config import (
    Canonical,
    canonical,
    hidden_size,
    known_fields,
    ties_embeddings,
)
from ...registry.base.fingerprint import Measured, compare, sampled_names, structure_digest, tables
from ...registry.base.samples import Sample, Samples, run, weight_digests
from ...registry.base.tokenizer import digest_of_json, digest_of_template
from ...registry.files.wording import some
from ..weights.dtypes import FLOAT_NAMES
from ..weights.placement import from_weights_map
from .disk_names import (
    DiskPlace,
    Revert,
    layers_of,
    live_tensors,
    places_on_disk,
    reverter,
    unconverted,
)
from .resized import as_before

_MOST_OPEN = 6
UNPACKED = "its weights were unpacked when it was loaded"


def fingerprint_of_model(
    model: nn.Module, tokenizer: Any = None, loaded_as: LoadedAs | None = None
) -> Measured:
    """Measure a live model; ``tokenizer`` is a fast transformers tokenizer. Of embeddings that were
    resized (``loaded_as``), the rows that they had before are measured.

    For a base loaded from files the result equals that of ``fingerprint_of`` on these files. For a
    model in another dtype than its files', it has the digest in that dtype. Parameters on the meta
    device are read through accelerate's weights map. Tensors that cannot be read (quantised,
    sharded) are left out, and ``doubts`` says so. The model is not changed.
    """
    config = _config(model)
    doubts: dict[str, str] = {}
    quantised = _quantised(model)
    with torch.no_grad():
        live = live_tensors(model)
        if loaded_as is not None and loaded_as.vocab_size is not None:
            config, live = as_before(model, config, live, loaded_as, doubts)
        try:
            disk = places_on_disk(model, live)
        except Exception as error:
            said = str(error) or type(error).__name__
            doubts["structure"] = f"transformers could not map its tensors to names on disk: {said}"
            disk = unconverted(live)
        shapes = {name: place.shape for name, place in disk.items()}
        parts = split(shapes, tied=ties_embeddings(config))
        wanted = sampled_names(parts, {name: place.dtype for name, place in disk.items()})
        values, unread = _values(model, live, disk, wanted, converts=quantised != UNPACKED)
    if quantised:
        doubts.setdefault("structure", quantised)
    known = {disk[wanted[name]].live for name in unread}  # each under one name
    left_out = sorted(unread | (_unreadable(model, live) - known if quantised else set()))
    if left_out:
        doubts["weights"] = f"{len(left_out)} tensors could not be read: {some(left_out, 5)}"
    elif quantised:
        doubts["weights"] = quantised
    left_by_class = _left_out_by_class(model)
    if left_by_class:
        doubts.setdefault("structure", f"{type(model).__name__} leaves out {left_by_class}")
    samples = tables(parts, values)
    complete = not left_out and not quantised
    own, others, doubt = _config_digests(model, config)
    if doubt is not None:
        doubts["config"] = doubt
    tokenized, template = _tokenizer(tokenizer)
    fingerprint = Fingerprint(
        architecture=type(model).__name__.removeprefix("FSDP"),
        hidden_size=hidden_size(config),
        structure=structure_digest(parts.backbone, shapes),
        heads=structure_digest(parts.heads, shapes),
        config=own,
        weights=weight_digests(samples.backbone) if complete else None,
        head_weights=weight_digests(samples.heads) if complete else None,
        tokenizer=tokenized,
        chat_template=template,
    )
    return Measured(fingerprint, samples, others, doubts, frozenset(parts.backbone))


def check_model(
    model: nn.Module,
    declared: Fingerprint,
    samples: Samples | None = None,
    where: Where = Where(),  # noqa: B008 - frozen
    tokenizer: Any = None,
    loaded_as: LoadedAs | None = None,
) -> list[Finding]:
    """How the live model differs from ``declared``; empty where it is the same base.

    ``samples`` is the lock's sample table. The tokenizer's levels are compared only with a
    ``tokenizer``; without one, the base's files are checked for them.
    """
    if tokenizer is None:
        declared = declared.model_copy(update={"tokenizer": None, "chat_template": None})
    found = fingerprint_of_model(model, tokenizer, loaded_as)
    return compare(declared, found, where, samples=samples)


def _values(
    model: nn.Module,
    live: Mapping[str, Tensor],
    disk: Mapping[str, DiskPlace],
    wanted: Mapping[str, str],
    *,
    converts: bool,
) -> tuple[dict[str, Sample], set[str]]:
    """The samples by canonical name, and the canonical names of those that cannot be read: without
    ``converts``, these include all that need a conversion."""
    slices: dict[str, Tensor] = {}
    converted: dict[str, dict[str, str]] = {}
    unread: set[str] = set()
    for name, disk_name in wanted.items():
        place = disk[disk_name]
        if place.live is None and not converts:
            unread.add(name)
            continue
        if place.live is None:
            converted.setdefault(place.group, {})[disk_name] = name
            continue
        tensor = _readable(model, place.live, live[place.live])
        if tensor is None or tuple(tensor.shape) != place.shape:
            unread.add(name)
        else:
            slices[name] = _slice(tensor)
    if converted:
        revert = cast(Revert, reverter(model))
        unchanged = {place.live for place in disk.values()}
        groups = layers_of(live)
        for group, names in converted.items():
            real = {n: _readable(model, n, live[n]) for n in groups[group] if n not in unchanged}
            readable = {n: t for n, t in real.items() if t is not None}
            made = revert(readable) if len(readable) == len(real) else {}
            for disk_name, name in names.items():
                if disk_name in made:
                    slices[name] = _slice(made[disk_name])
                else:
                    unread.add(name)
    return _fetched(slices), unread


def _slice(tensor: Tensor) -> Tensor:
    """The sample of one tensor on its device: at most eight values, one-dimensional."""
    first, count = run(tensor.shape)
    if tensor.is_contiguous():
        return tensor.view(-1)[first : first + count]
    flat = torch.arange(first, first + count, device=tensor.device)
    return tensor[torch.unravel_index(flat, tensor.shape)]


def _fetched(slices: Mapping[str, Tensor]) -> dict[str, Sample]:
    """The slices' bytes, with one transfer for each device and dtype."""
    batches: dict[tuple[torch.device, torch.dtype], list[str]] = {}
    for name, piece in slices.items():
        batches.setdefault((piece.device, piece.dtype), []).append(name)
    samples: dict[str, Sample] = {}
    for (_, dtype), names in batches.items():
        joined = torch.cat([slices[name].detach() for name in names]).cpu()
        data = bytes(joined.view(torch.uint8).tolist())
        at = 0
        for name in names:
            size = slices[name].numel() * dtype.itemsize
            samples[name] = Sample(FLOAT_NAMES[dtype], data[at : at + size])
            at += size
    return samples


def _readable(model: nn.Module, name: str, tensor: Tensor) -> Tensor | None:
    """The values of a live tensor; ``None`` for a quantised or sharded one: its class reports a
    shape and dtype that its values do not have."""
    data = tensor.data
    if data.device.type == "meta":
        data = _offloaded(model, name)
        if data is None:
            return None
    if (
        type(data) is not Tensor
        or data.dtype not in FLOAT_NAMES
        or data.layout is not torch.strided
    ):
        return None
    return data


def _offloaded(model: nn.Module, name: str) -> Tensor | None:
    """A parameter that accelerate offloaded, from the weights map of its or an outer module."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        module = model.get_submodule(".".join(parts[:depth]))
        rest = ".".join(parts[depth:])
        value = from_weights_map(module, rest)
        if value is not None:
            return value if value.device.type != "meta" else None
    return None


def _quantised(model: nn.Module) -> str:
    """Why the model's tensors differ from those of an unquantised model; empty where they do not.

    Some quantisers unpack at loading (FP8 and mxfp4 on a CPU) and leave a plain model. Only the
    conversions that transformers keeps for saving show it: saving would quantise again, to other
    values.
    """
    if (
        getattr(model, "hf_quantizer", None) is not None
        or bool(getattr(model, "is_quantized", False))
        or getattr(getattr(model, "config", None), "quantization_config", None) is not None
        or any(type(p.data) is not Tensor for p in model.parameters())
    ):
        return "its weights are quantised"
    conversions = cast("list[Any]", getattr(model, "_weight_conversions", None) or [])
    operations = (one for each in conversions for one in getattr(each, "operations", ()))
    return UNPACKED if any(hasattr(one, "hf_quantizer") for one in operations) else ""


def _unreadable(model: nn.Module, live: Mapping[str, Tensor]) -> set[str]:
    """Parameters with packed values: integers, or a quantiser's tensor class."""
    names = {name for name, _ in model.named_parameters()}
    return {
        name
        for name, t in live.items()
        if name in names and (type(t.data) is not Tensor or t.dtype not in FLOAT_NAMES)
    }


def _left_out_by_class(model: nn.Module) -> str:
    """Parts of a checkpoint (layers, towers) that this class does not load: the structure of the
    files may then contain more than the model's."""
    patterns = [
        str(pattern)
        for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
        if not re.search(
            r"inv_freq|bias|position|pooler|lm_head|relative|version|logits", str(pattern)
        )
    ]
    return ", ".join(patterns)


def _config(model: nn.Module) -> dict[str, Any]:
    config = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        return cast("dict[str, Any]", cast(Any, config).to_dict())
    return dict(cast("Mapping[str, Any]", config)) if isinstance(config, Mapping) else {}


def _config_digests(
    model: nn.Module, config: Mapping[str, Any]
) -> tuple[str | None, frozenset[str], str | None]:
    """The config's digest, other digests that files of the same config may have, and the remaining
    doubt. The class itself shows which open fields it would fill in with the same values."""
    if not config:
        return None, frozenset(), "the model has no config"
    form = canonical(config)
    cls = type(getattr(model, "config"))  # noqa: B009 - nn.Module's own getattr is not typed
    # a class with parts may fill in fields of the parts (PaliGemma's bidirectional attention)
    of_parts = {p for p in form.fields if isinstance(config.get(p.partition(".")[0]), Mapping)}
    maybe = sorted(form.open | _unknown(form, config) | of_parts)
    implied = [path for path in maybe if _is_implied(cls, config, path)]
    if len(implied) <= _MOST_OPEN:
        subsets = [set(s) for n in range(len(implied) + 1) for s in combinations(implied, n)]
        doubt = form.doubt if form.inexact else None
    else:
        subsets, doubt = [set[str](), set(implied)], form.doubt
    return form.digest, frozenset(form.without(s) for s in subsets), doubt


def _unknown(form: Canonical, config: Mapping[str, Any]) -> set[str]:
    """Fields of a class that is newer than the table."""
    known = known_fields(str(config.get("model_type")))
    if known is None:
        return set(form.fields) - {"model_type"}
    return {p for p in form.fields if "." not in p and p not in known and p != "model_type"}


def _is_implied(cls: Any, config: Mapping[str, Any], path: str) -> bool:
    """Whether the config class would give the same config without this field."""
    try:
        shorter = cast("dict[str, Any]", json.loads(json.dumps(config)))
        *parents, last = path.split(".")
        part = shorter
        for parent in parents:
            part = cast("dict[str, Any]", part[parent])
        if last not in part:
            return False
        del part[last]
        return canonical(cls.from_dict(shorter).to_dict()).fields == canonical(config).fields
    except Exception:
        return False


def _tokenizer(tokenizer: Any) -> tuple[str | None, str | None]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return None, None
    template = digest_of_template(getattr(tokenizer, "chat_template", None))
    return digest_of_json(json.loads(backend.to_str())), template
