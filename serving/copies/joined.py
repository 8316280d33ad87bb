"""A sum of plain LoRA adapters as one adapter in PEFT's format, made without torch.

``sum_i weight_i * scale_i * B_i @ A_i`` is one product: the A below one another, the B side by
side. So ranks add up at each module, and the sum is exact. Weight and scale are folded into B in
float32, and the scale of the new adapter is 1 everywhere. Only one module is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import RoutingError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.weights import Weight, weight_at
from ...registry.files.digests import PREFIX, sha256_bytes
from ...registry.files.facts import AdapterFacts, AdapterPlan, FileFact, SitePlan, TensorInfo
from ...registry.files.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, PEFT_PREFIX
from .floats import DTYPES, float32_bytes

_CONTENT = "adapterdock joined sum v1"
"""What a digest of a joined adapter begins with: another way to join has other bytes."""


@dataclass(frozen=True)
class Member:
    """One adapter of a sum, from the files in ``folder``. ``digest`` is the lock's."""

    name: str
    weight: Weight
    digest: str
    facts: AdapterFacts
    plan: AdapterPlan
    folder: Path


@dataclass(frozen=True)
class Part:
    """One member's pair at one module: where its A (rank, in) and its B (out, rank) are, and the
    factor of B."""

    a: tuple[Path, int, TensorInfo]
    b: tuple[Path, int, TensorInfo]
    rank: int
    factor: float


def joined_digest(recipe: str) -> str:
    """The digest under which a joined adapter is kept; ``recipe`` is that of its recipe, which has
    the digests of the members."""
    return sha256_bytes(f"{_CONTENT}\n{recipe}".encode())


def plan_joined(
    members: Sequence[Member],
    where: Where = Where(),  # noqa: B008 - frozen
) -> Mapping[str, tuple[Part, ...]]:
    """By module, the pairs that are joined there. Members with the weight 0 at a module are left
    out.

    Raises:
        RoutingError: A member is more than pairs of LoRA factors at linear modules, members store
            weights in different orders, or nothing is left to join.
    """
    findings = [
        _refusal(f"Cannot join {member.name!r} without torch: {reason}", where, found)
        for member in members
        for reason, found in [_why_not(member)]
        if reason
    ]
    orders = {bool(member.facts.config.get("fan_in_fan_out")) for member in members}
    if not findings and len(orders) > 1:
        findings.append(_refusal("Members differ in fan_in_fan_out", where))
    modules: dict[str, list[Part]] = {}
    for member in () if findings else members:
        for site in member.plan.sites:
            factor = weight_at(member.weight, site.module) * site.scale
            if factor:
                parts = modules.setdefault(site.module, [])
                parts.append(_part(member, site, factor))
    for module, parts in modules.items():
        sizes = {(part.a[2].shape[1], part.b[2].shape[0]) for part in parts}
        if len(sizes) > 1:
            findings.append(_refusal(f"Members have different sizes at {module}", where, sizes))
    if not findings and not modules:
        findings.append(_refusal("Every weight is 0, so that nothing is left to join", where))
    if findings:
        raise RoutingError(*findings)
    return {module: tuple(parts) for module, parts in modules.items()}


def rank_of(modules: Mapping[str, Sequence[Part]]) -> int:
    """The largest rank of the joined adapter at any module."""
    return max(sum(part.rank for part in parts) for parts in modules.values())


def write_joined(
    modules: Mapping[str, Sequence[Part]], members: Sequence[Member], folder: Path
) -> Iterable[FileFact]:
    """Write the joined adapter into ``folder``, read-only; what was written. Raises ``OSError``."""
    config = json.dumps(joined_config(modules, members), indent=2, sort_keys=True).encode()
    yield _written(folder / ADAPTER_CONFIG, [config])
    yield _written(folder / ADAPTER_WEIGHTS, _weights(modules))


def joined_config(
    modules: Mapping[str, Sequence[Part]], members: Sequence[Member]
) -> dict[str, Any]:
    """``adapter_config.json``. ``r`` is the largest rank, because there are engines that read
    nothing else; modules with a smaller one are in ``rank_pattern``. Alpha is always the rank."""
    ranks = {module: sum(part.rank for part in parts) for module, parts in modules.items()}
    largest = max(ranks.values())
    smaller = {f"^{re.escape(m)}": rank for m, rank in ranks.items() if rank != largest}
    first = members[0].facts.config
    same_task = all(one.facts.config.get("task_type") == first.get("task_type") for one in members)
    return {
        "peft_type": "LORA",
        "task_type": first.get("task_type") if same_task else None,
        "base_model_name_or_path": first.get("base_model_name_or_path"),
        "inference_mode": True,
        "r": largest,
        "lora_alpha": largest,
        "rank_pattern": smaller,
        "alpha_pattern": smaller,
        "target_modules": sorted(ranks),
        "modules_to_save": None,
        "bias": "none",
        "lora_bias": False,
        "fan_in_fan_out": bool(first.get("fan_in_fan_out")),
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }


def _why_not(member: Member) -> tuple[str, object]:
    """Why a member cannot be joined, and what was found; empty if it can be."""
    facts, plan = member.facts, member.plan
    if facts.peft_type != "LORA":
        return "it is not LoRA", facts.peft_type
    if facts.origin is not None:
        return "its files are not in PEFT's format", facts.origin.format
    if plan.conversion is not None:
        return "its names are those of an older transformers", next(iter(facts.header.tensors), "")
    others = {
        "replaced modules": plan.saved or plan.tuned,
        "trained biases": plan.biases,
        "complete embeddings": plan.embeddings,
        "virtual tokens": plan.prompt,
        "parts that only PEFT knows": plan.peft,
        "tensors without a place": plan.leftovers,
    }
    for what, there in others.items():
        if there:
            return f"it has {what}", None
    seen: set[str] = set()
    for site in plan.sites:
        if site.method != "LORA" or set(site.tensors) != {"A", "B"} or site.settings:
            roles = ", ".join(sorted({*site.tensors, *site.settings}))
            return "it is not made of plain pairs", f"{site.method} ({roles}) at {site.module}"
        if site.module in seen:
            return "it adapts a module twice", site.module
        seen.add(site.module)
        for key in site.tensors.values():
            info = facts.header.tensors[key]
            if len(info.shape) != 2:
                return "it adapts other modules than linear ones", site.module
            if info.dtype not in DTYPES:
                return f"its values are {info.dtype}", key
            part = facts.parts.get(key)
            if part is not None and (part.rows is not None or part.turned):
                return "its tensors are parts of others", key
    return ("", None) if plan.sites else ("it has no factors", None)


def _part(member: Member, site: SitePlan, factor: float) -> Part:
    a, b = (_place(member, site.tensors[role]) for role in "AB")
    return Part(a, b, a[2].shape[0], factor)


def _place(member: Member, key: str) -> tuple[Path, int, TensorInfo]:
    """The file of a tensor, where its bytes begin there, and its row in the header."""
    stored = member.facts.parts.get(key)
    file = stored.file if stored else next(iter(member.facts.headers))
    header = member.facts.headers[file]
    info = header.tensors[stored.name if stored else key]
    return member.folder / file, header.data_start + info.start, info


def _weights(modules: Mapping[str, Sequence[Part]]) -> Iterator[bytes]:
    """The file, in pieces: the header, then the tensors in its order."""
    rows: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for module, parts in sorted(modules.items()):
        rank = sum(part.rank for part in parts)
        inner, outer = parts[0].a[2].shape[1], parts[0].b[2].shape[0]
        for letter, shape in (("A", [rank, inner]), ("B", [outer, rank])):
            start, end = end, end + 4 * shape[0] * shape[1]
            rows[f"{PEFT_PREFIX}{module}.lora_{letter}.weight"] = {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [start, end],
            }
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, parts in sorted(modules.items()):
        for part in parts:
            yield float32_bytes(_read(part.a), part.a[2].dtype)
        yield _side_by_side(parts)


def _side_by_side(parts: Sequence[Part]) -> bytes:
    """The B of all parts, times their factors: row by row, one after the other."""
    outer = parts[0].b[2].shape[0]
    scaled = [float32_bytes(_read(part.b), part.b[2].dtype, part.factor) for part in parts]
    if len(parts) == 1:
        return scaled[0]
    widths = [4 * part.rank for part in parts]
    whole = sum(widths)
    joined = bytearray(outer * whole)
    at = 0
    for raw, width in zip(scaled, widths, strict=True):
        for row in range(outer):
            joined[row * whole + at : row * whole + at + width] = raw[
                row * width : (row + 1) * width
            ]
        at += width
    return bytes(joined)


def _read(place: tuple[Path, int, TensorInfo]) -> bytes:
    path, start, info = place
    with path.open("rb") as file:
        file.seek(start)
        raw = file.read(info.nbytes)
    if len(raw) != info.nbytes:
        raise OSError(f"{path} is shorter than its header says")
    return raw


def _written(path: Path, pieces: Iterable[bytes]) -> FileFact:
    digest = hashlib.sha256()
    size = 0
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += len(piece)
        file.flush()
        path.chmod(0o444)
    return FileFact(path.name, size, PREFIX + digest.hexdigest())


def _refusal(message: str, where: Where, found: object = None) -> Finding:
    return codes.NOT_JOINED.finding(message, where, found=found)
