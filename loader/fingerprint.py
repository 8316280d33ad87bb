"""Which base a live model is: measured under the names on disk, and checked.

Live names change between transformers versions, so a live model is brought to the names on disk
by transformers' own ``revert_weight_conversion``, layer by layer: first with meta tensors, for
names and shapes; then with the real ones, where a conversion changes values (experts that are
fused at load) and only in layers that are sampled, so that memory stays at one layer. Everything
after that is the torch-free code of :mod:`adapterdock.registry.fingerprint`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..manifests.findings import Finding, Where
from ..manifests.schema import Fingerprint
from ..registry.backbone import is_tied_head, split
from ..registry.baseconfig import (
    Canonical,
    canonical,
    hidden_size,
    known_fields,
    ties_embeddings,
)
from ..registry.fingerprint import Measured, compare, sampled_names, structure_digest, tables
from ..registry.samples import Sample, Samples, run, weight_digests
from ..registry.tokenizer import digest_of_json, digest_of_template

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_LAYER = re.compile(r"(.*?\.|)(\d+)\.(.*)")
_MOST_OPEN = 6
_INTEGER = "I64"
"""What stands for every dtype that is not sampled."""

Revert = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


def fingerprint_of_model(model: nn.Module, tokenizer: Any = None) -> Measured:
    """Measure a live model; ``tokenizer`` is a fast transformers tokenizer.

    For a base loaded from files the result is that of ``fingerprint_of`` on these files, as far
    as the dtype lets: of a model in another dtype than its files', the digest in that dtype.
    Parameters on the meta device are read through accelerate's weights map. What cannot be read
    (quantised, sharded) is left out, and ``doubts`` says so. Nothing in the model is changed.
    """
    config = _config(model)
    doubts: dict[str, str] = {}
    with torch.no_grad():
        live = _live_tensors(model)
        try:
            disk = _on_disk(model, live)
        except Exception as error:  # noqa: BLE001 - transformers' conversions raise anything
            doubts["structure"] = f"transformers could not name its tensors as on disk: {error}"
            disk = {name: _Place(name, tuple(t.shape), _dtype(t)) for name, t in live.items()}
        shapes = {name: place.shape for name, place in disk.items()}
        parts = split(shapes, tied=ties_embeddings(config))
        wanted = sampled_names(parts, {name: place.dtype for name, place in disk.items()})
        values, unread = _values(model, live, disk, wanted)
    quantised = _is_quantised(model)
    if quantised:
        doubts.setdefault("structure", "its weights are quantised")
    left_out = sorted(unread | (_unreadable(model, live) if quantised else set()))
    if left_out:
        doubts["weights"] = f"{len(left_out)} tensors could not be read: {', '.join(left_out[:5])}"
    elif quantised:
        doubts["weights"] = "its weights are quantised"
    left_by_class = _left_out_by_class(model)
    if left_by_class:
        doubts.setdefault("structure", f"{type(model).__name__} leaves out {left_by_class}")
    samples = tables(parts, values)
    whole = not left_out and not quantised
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
        weights=weight_digests(samples.backbone) if whole else None,
        head_weights=weight_digests(samples.heads) if whole else None,
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
) -> list[Finding]:
    """What of ``declared`` the live model is not; empty where it is the one.

    ``samples`` is the lock's sample table. The tokenizer's levels are compared where one is
    given: a model alone has none, and it is the base's files that are checked for it.
    """
    if tokenizer is None:
        declared = declared.model_copy(update={"tokenizer": None, "chat_template": None})
    return compare(declared, fingerprint_of_model(model, tokenizer), where, samples=samples)


@dataclass(frozen=True)
class _Place:
    """A tensor under its name on disk: ``live`` is the live tensor that it is, unchanged, or
    ``None`` where a conversion of the layer ``group`` makes it."""

    live: str | None
    shape: tuple[int, ...]
    dtype: str
    group: str = ""


def _live_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state without what is not saved: each shared tensor once, under the name that
    transformers calls the source."""
    state = {
        name: value
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }
    for name in cast("Iterable[str]", getattr(model, "_keys_to_ignore_on_save", None) or ()):
        state.pop(name, None)
    expand = getattr(model, "get_expanded_tied_weights_keys", None)
    if expand is not None:
        for alias, source in cast("dict[str, str]", expand(all_submodels=True)).items():
            if alias in state and source in state:
                state.pop(source if is_tied_head(source) and not is_tied_head(alias) else alias)
        return state
    first: dict[int, str] = {}
    for name, value in state.items():
        first.setdefault(id(value), name)
    return {name: value for name, value in state.items() if first[id(value)] == name}


def _on_disk(model: nn.Module, live: Mapping[str, Tensor]) -> dict[str, _Place]:
    """Every tensor's place under its name on disk, by reverting meta tensors layer by layer.
    Layers of one make are reverted once and renumbered, which their last one confirms."""
    revert = _reverter(model)
    if revert is None:
        return {name: _Place(name, tuple(t.shape), _dtype(t)) for name, t in live.items()}
    alike: dict[tuple[Any, ...], list[str]] = {}
    groups = _groups(live)
    for group, names in groups.items():
        before = group.rstrip(".").rpartition(".")[0]
        form = tuple((n[len(group) :], tuple(live[n].shape), live[n].dtype) for n in names)
        alike.setdefault((before, group == "", form), []).append(group)
    found: dict[str, _Place] = {}
    for same in alike.values():
        first, last = same[0], same[-1]
        model_places = _reverted(revert, live, groups[first], first)
        if len(same) > 1:
            last_places = _reverted(revert, live, groups[last], last)
            if _renumbered(model_places, first, last) != last_places:
                for group in same:
                    found |= _reverted(revert, live, groups[group], group)
                continue
        for group in same:
            found |= _renumbered(model_places, first, group)
    return found


def _groups(live: Iterable[str]) -> dict[str, list[str]]:
    """Live names by layer (``model.layers.3.``); those outside any layer under ``""``."""
    groups: dict[str, list[str]] = {}
    for name in live:
        layer = _LAYER.fullmatch(name)
        group = f"{layer.group(1)}{layer.group(2)}." if layer is not None else ""
        groups.setdefault(group, []).append(name)
    return groups


def _reverted(
    revert: Revert, live: Mapping[str, Tensor], names: Iterable[str], group: str
) -> dict[str, _Place]:
    metas = {n: torch.empty(live[n].shape, dtype=live[n].dtype, device="meta") for n in names}
    name_of = {id(meta): name for name, meta in metas.items()}
    return {
        name: _Place(name_of.get(id(t)), tuple(t.shape), _dtype(t), group)
        for name, t in revert(metas).items()
    }


def _renumbered(places: Mapping[str, _Place], old: str, new: str) -> dict[str, _Place]:
    """The places of the layer ``old`` as they are in the layer ``new``."""
    if old == new:
        return dict(places)
    number, other = old.rstrip(".").rpartition(".")[2], new.rstrip(".").rpartition(".")[2]
    pattern = re.compile(rf"(^|\.){number}(?=\.)")
    return {
        pattern.sub(rf"\g<1>{other}", name, count=1): _Place(
            None if place.live is None else new + place.live[len(old) :],
            place.shape,
            place.dtype,
            new,
        )
        for name, place in places.items()
    }


def _reverter(model: nn.Module) -> Revert | None:
    """transformers' ``revert_weight_conversion`` for this model, ``None`` for one not its own."""
    if not hasattr(model, "config") or not hasattr(model, "base_model_prefix"):
        return None
    from transformers.core_model_loading import revert_weight_conversion

    return lambda state: revert_weight_conversion(cast(Any, model), dict(state))


def _values(
    model: nn.Module,
    live: Mapping[str, Tensor],
    disk: Mapping[str, _Place],
    wanted: Mapping[str, str],
) -> tuple[dict[str, Sample], set[str]]:
    """The samples by canonical name, and the canonical names of those that cannot be read."""
    slices: dict[str, Tensor] = {}
    converted: dict[str, dict[str, str]] = {}
    unread: set[str] = set()
    for name, disk_name in wanted.items():
        place = disk[disk_name]
        if place.live is None:
            converted.setdefault(place.group, {})[disk_name] = name
            continue
        tensor = _readable(model, place.live, live[place.live])
        if tensor is None or tuple(tensor.shape) != place.shape:
            unread.add(name)
        else:
            slices[name] = _slice(tensor)
    if converted:
        revert = cast(Revert, _reverter(model))
        unchanged = {place.live for place in disk.values()}
        groups = _groups(live)
        for group, names in converted.items():
            real = {
                n: _readable(model, n, live[n]) for n in groups[group] if n not in unchanged
            }
            readable = {n: t for n, t in real.items() if t is not None}
            made = revert(readable) if len(readable) == len(real) else {}
            for disk_name, name in names.items():
                if disk_name in made:
                    slices[name] = _slice(made[disk_name])
                else:
                    unread.add(name)
    return _fetched(slices), unread


def _slice(tensor: Tensor) -> Tensor:
    """The sample of one tensor where it lies, at most eight values, one-dimensional."""
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
        whole = torch.cat([slices[name].detach() for name in names]).cpu()
        data = bytes(whole.view(torch.uint8).tolist())
        at = 0
        for name in names:
            size = slices[name].numel() * dtype.itemsize
            samples[name] = Sample(_DTYPES[dtype], data[at : at + size])
            at += size
    return samples


def _readable(model: nn.Module, name: str, tensor: Tensor) -> Tensor | None:
    """The values of a live tensor, or ``None``: quantised and spread tensors are subclasses that
    claim a shape and dtype they do not have."""
    data = tensor.data
    if data.device.type == "meta":
        data = _offloaded(model, name)
        if data is None:
            return None
    if type(data) is not Tensor or data.dtype not in _DTYPES or data.layout is not torch.strided:
        return None
    return data


def _offloaded(model: nn.Module, name: str) -> Tensor | None:
    """A parameter that accelerate keeps elsewhere, through its hook's weights map."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        module = model.get_submodule(".".join(parts[:depth]))
        rest = ".".join(parts[depth:])
        hook = getattr(module, "_hf_hook", None)
        for each in (hook, *getattr(hook, "hooks", ())):
            weights = getattr(each, "weights_map", None)
            if weights is None:
                continue
            try:
                value = weights[rest]
            except KeyError:
                continue
            return value if isinstance(value, Tensor) and value.device.type != "meta" else None
    return None


def _dtype(tensor: Tensor) -> str:
    return _DTYPES.get(tensor.dtype, _INTEGER)


def _is_quantised(model: nn.Module) -> bool:
    return (
        getattr(model, "hf_quantizer", None) is not None
        or bool(getattr(model, "is_quantized", False))
        or getattr(getattr(model, "config", None), "quantization_config", None) is not None
        or any(type(p.data) is not Tensor for p in model.parameters())
    )


def _unreadable(model: nn.Module, live: Mapping[str, Tensor]) -> set[str]:
    """Parameters whose values are packed: integers, or a quantiser's tensor class."""
    names = {name for name, _ in model.named_parameters()}
    return {
        name
        for name, t in live.items()
        if name in names and (type(t.data) is not Tensor or t.dtype not in _DTYPES)
    }


def _left_out_by_class(model: nn.Module) -> str:
    """Parts of a checkpoint, layers and towers, that this class does not load: then a file's
    structure may rightly hold more than the model does."""
    patterns = [
        str(pattern)
        for pattern in getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
        if not re.search(r"inv_freq|bias|position|pooler|lm_head|relative|version|logits", str(pattern))
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
    """The config's digest, the others that files of the same config may have, and the doubt
    that is left. The class itself tells which open fields it would fill in alike."""
    if not config:
        return None, frozenset(), "the model has no config"
    form = canonical(config)
    cls = type(getattr(model, "config"))  # noqa: B009 - nn.Module's own getattr is not typed
    maybe = sorted(form.open | _unknown(form, config))
    implied = [path for path in maybe if _is_implied(cls, config, path)]
    if len(implied) <= _MOST_OPEN:
        subsets = [set(s) for n in range(len(implied) + 1) for s in combinations(implied, n)]
        doubt = form.doubt if form.inexact else None
    else:
        subsets, doubt = [set[str](), set(implied)], form.doubt
    return form.digest, frozenset(form.without(s) for s in subsets), doubt


def _unknown(form: Canonical, config: Mapping[str, Any]) -> set[str]:
    """Fields of a class newer than the table."""
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
    except Exception:  # noqa: BLE001 - then it is not
        return False


def _tokenizer(tokenizer: Any) -> tuple[str | None, str | None]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not hasattr(backend, "to_str"):
        return None, None
    template = digest_of_template(getattr(tokenizer, "chat_template", None))
    return digest_of_json(json.loads(backend.to_str())), template
