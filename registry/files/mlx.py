"""Adapters of mlx-lm, read as PEFT's LoRA and DoRA.

Format: https://github.com/ml-explore/mlx-lm, ``tuner/lora.py``, ``tuner/dora.py`` and
``tuner/utils.py`` (the same files in mlx-examples ``llms/mlx_lm`` before March 2025). Beside
``adapter_config.json`` is ``adapters.safetensors`` with the trained parameters by their names:

===============  ==========================================  =====================================
module           in the file                                 PEFT's
===============  ==========================================  =====================================
Linear           ``lora_a`` (in, r), ``lora_b`` (r, out)     ``lora_A`` (r, in), ``lora_B`` (out, r)
Embedding        ``lora_a`` (rows, r), ``lora_b`` (r, dim)   ``lora_embedding_A``, ``_B``, turned
DoRALinear       ``m`` (out,)                                ``lora_magnitude_vector``
SwitchLinear     ``lora_a`` (experts, r, in), ``lora_b``     one ``lora_A`` and ``lora_B`` for each
                 (experts, out, r)                           expert, as transformers < 5 named them
===============  ==========================================  =====================================

Up to October 2025 ``lora_a`` of a SwitchLinear was (experts * r, in), expert by expert. The
delta of a weight is ``scale * (lora_a @ lora_b).T``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.errors import SourceError
from ...manifests.findings.finding import Finding, Where
from .facts import Header, Origin, StoredTensor, TensorInfo
from .names import PEFT_PREFIX
from .reading import Reading, header_of, metadata_of
from .wording import some

FORMAT = "mlx-lm"
WEIGHTS = "adapters.safetensors"

_LEAVES = ("lora_a", "lora_b", "m")
_EMBEDDINGS = frozenset(
    {"embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in", "embeddings"}
)
"""mlx-lm's names of input embeddings, whose factors look like a Linear's. A wrong guess does no
harm: a module of the other kind refuses the factors."""
_EXPERTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "mlp": ("experts", {}),
    "block_sparse_moe": ("experts", {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}),
}
"""By the module around a ``switch_mlp``: its experts and their parts in transformers < 5."""
_MOST_KEYS = 1000
_MOST_EXPERTS = 4096
_MOST_TENSORS = 1 << 20
_PARAMETERS = frozenset({"rank", "scale", "alpha", "dropout", "keys"})
_FULL = (
    "Fuse it on the machine where mlx-lm runs (`mlx_lm.fuse --model BASE --adapter-path DIR "
    "--save-path OUT`) and declare the result as base.model."
)


def is_config(config: Mapping[str, Any]) -> bool:
    """Whether this ``adapter_config.json`` is mlx-lm's: it names no method of PEFT, and has fields
    of mlx-lm's training."""
    if "peft_type" in config:
        return False
    kinds = ("lora", "dora", "full")
    return isinstance(config.get("lora_parameters"), dict) or config.get("fine_tune_type") in kinds


def read(config: Mapping[str, Any], file: str, header: Header, where: Where) -> Reading:
    """The adapter as PEFT would have written it.

    Raises :class:`SourceError` for a config that leaves the computation open, and for tensors that
    have no counterpart in PEFT.
    """
    said = _Said.of(config, where)
    parts: dict[str, StoredTensor] = {}
    modules: dict[str, None] = {}
    odd: list[str] = []
    for name, info in header.tensors.items():
        module, _, leaf = name.rpartition(".")
        made = _made(file, name, info, module, leaf, header, said) if leaf in _LEAVES else None
        if not module or made is None or len(parts) + len(made) > _MOST_TENSORS:
            odd.append(name)
            continue
        for inside, key, part in made:
            modules.setdefault(inside)
            parts[f"{PEFT_PREFIX}{inside}.{key}"] = part
    if odd:
        raise SourceError(_unread(odd, header, where))
    return Reading(
        said.as_peft(config, tuple(modules)),
        header_of(parts, {file: header}, metadata_of([header])),
        parts,
        Origin(FORMAT, layers=said.layers, keys=said.keys),
    )


@dataclass(frozen=True)
class _Said:
    """The fields of mlx-lm's config that determine the computation."""

    rank: int
    scale: float
    dropout: float
    dora: bool
    layers: int | None
    keys: tuple[str, ...]

    @classmethod
    def of(cls, config: Mapping[str, Any], where: Where) -> _Said:
        kind = config.get("fine_tune_type", "dora" if config.get("use_dora") else "lora")
        if kind == "full":
            message = "fine_tune_type is full: mlx-lm trained complete weights, not an adapter"
            raise SourceError(codes.FOREIGN_TENSOR.finding(message, where, hint=_FULL))
        if kind not in ("lora", "dora"):
            _unclear("fine_tune_type", kind, "lora, dora", where)
        found = config.get("lora_parameters")
        if not isinstance(found, dict):
            _unclear("lora_parameters", found, "a mapping with rank and scale", where)
        parameters = cast("dict[str, Any]", found)
        unknown = sorted(map(str, parameters.keys() - _PARAMETERS))
        if unknown:
            _unclear("lora_parameters", unknown[0], ", ".join(sorted(_PARAMETERS)), where)
        rank = parameters.get("rank")
        if type(rank) is not int or not 1 <= rank < 1 << 31:
            _unclear("lora_parameters.rank", rank, "a whole number, 1 or more", where)
        dropout = parameters.get("dropout", 0.0)
        if not _is_number(dropout) or not 0 <= dropout < 1:
            _unclear("lora_parameters.dropout", dropout, "a number from 0 to 1", where)
        keys = parameters.get("keys") or []
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            _unclear("lora_parameters.keys", keys, "a list of names", where)
        if len(keys) > _MOST_KEYS:
            _unclear("lora_parameters.keys", len(keys), f"at most {_MOST_KEYS} names", where)
        layers = config.get("num_layers", config.get("lora_layers"))
        if layers is not None and type(layers) is not int:
            _unclear("num_layers", layers, "a whole number", where)
        scale = _scale(config, parameters, rank, where)
        return cls(rank, scale, dropout, kind == "dora", layers, tuple(keys))

    def as_peft(self, config: Mapping[str, Any], modules: tuple[str, ...]) -> dict[str, Any]:
        """The config with PEFT's fields, without those of training."""
        model = config.get("model")
        return {
            "base_model_name_or_path": model if isinstance(model, str) else None,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "lora_alpha": self.scale * self.rank,
            "lora_dropout": self.dropout,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": list(modules),
            "task_type": "CAUSAL_LM",
            "use_dora": self.dora,
            "use_rslora": False,
        }


def _scale(
    config: Mapping[str, Any], parameters: Mapping[str, Any], rank: int, where: Where
) -> float:
    """The factor of the delta.

    mlx-lm has always needed ``scale``. Up to 0.14.1 (2 June 2024) it was multiplied with
    ``alpha / rank``; since then ``alpha`` is written but not used. A config with ``num_layers`` is
    from 0.19 or later, one with ``lora_layers`` from an earlier version, and from 0.13.0 or earlier
    if it has no ``use_dora``. Between these, the version is not known.
    """
    scale, alpha = parameters.get("scale"), parameters.get("alpha")
    if not _is_number(scale):
        _unclear(
            "lora_parameters.scale",
            scale,
            "a number (mlx-lm itself cannot load the adapter without it)",
            where,
        )
    if alpha is None or "num_layers" in config or "fine_tune_type" in config:
        return float(scale)
    if not _is_number(alpha):
        _unclear("lora_parameters.alpha", alpha, "a number", where)
    if alpha == rank:
        return float(scale)
    if "lora_layers" in config and "iters" in config and "use_dora" not in config:
        return scale * (alpha / rank)
    old = scale * (alpha / rank)
    raise SourceError(
        codes.FOREIGN_UNCLEAR.finding(
            "Cannot tell the scale of this mlx-lm adapter: mlx-lm used alpha up to 0.14.1, but not "
            "later",
            where,
            found=f"scale {scale:g}, alpha {alpha:g}, rank {rank}",
            expected=f"a scale of {old:g} (mlx-lm up to 0.14.1) or {scale:g} (0.14.2 and later)",
            hint="In adapter_config.json set lora_parameters.scale to the scale of the training, "
            "remove lora_parameters.alpha, and rename lora_layers to num_layers.",
        )
    )


def _made(
    file: str,
    name: str,
    info: TensorInfo,
    module: str,
    leaf: str,
    header: Header,
    said: _Said,
) -> list[tuple[str, str, StoredTensor]] | None:
    """(module, key, part) of each of PEFT's tensors in this one; ``None`` where PEFT has no
    counterpart."""
    other = header.tensors.get(f"{module}.{'lora_a' if leaf == 'lora_b' else 'lora_b'}")
    last = module.rpartition(".")[2]
    if leaf == "m":
        if len(info.shape) != 1 or last in _EMBEDDINGS:
            return None  # DoRA of an embedding has a size for each row; PEFT's is for each column
        return [(module, "lora_magnitude_vector", StoredTensor(file, name))]
    both = (info, other) if leaf == "lora_b" else (other, info)
    if any(factor is not None and len(factor.shape) == 3 for factor in both):
        return _of_experts(file, name, info, module, leaf, other)
    if len(info.shape) != 2:
        return None
    letter = "A" if leaf == "lora_a" else "B"
    key = f"lora_embedding_{letter}" if last in _EMBEDDINGS else f"lora_{letter}.weight"
    return [(module, key, StoredTensor(file, name, turned=True))]


def _of_experts(
    file: str, name: str, info: TensorInfo, module: str, leaf: str, other: TensorInfo | None
) -> list[tuple[str, str, StoredTensor]] | None:
    """The factors of a SwitchLinear, one by one. A has PEFT's layout already."""
    b = info if leaf == "lora_b" else other
    place, _, projection = module.rpartition(".")
    around, _, switch = place.rpartition(".")
    owner = around.rpartition(".")[2]
    if b is None or len(b.shape) != 3 or switch != "switch_mlp" or owner not in _EXPERTS:
        return None
    experts, rank = b.shape[0], b.shape[2]
    each = b.shape[1] if leaf == "lora_b" else rank
    if not 0 < experts <= _MOST_EXPERTS or math.prod(info.shape[:-1]) != experts * each:
        return None
    called, spelled = _EXPERTS[owner]
    inside = spelled.get(projection, projection)
    key = f"lora_{'A' if leaf == 'lora_a' else 'B'}.weight"
    return [
        (
            f"{around}.{called}.{expert}.{inside}",
            key,
            StoredTensor(file, name, (expert * each, (expert + 1) * each)),
        )
        for expert in range(experts)
    ]


def _unread(odd: list[str], header: Header, where: Where) -> Finding:
    return codes.FOREIGN_TENSOR.finding(
        f"The mlx-lm adapter holds tensors that have no counterpart in PEFT: {some(odd)}",
        where,
        found=f"{odd[0][:200]} {header.tensors[odd[0]].shape}",
        expected="lora_a and lora_b of a Linear, an Embedding or a switch_mlp; m of a Linear",
        hint=_FULL,
    )


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a number that is small enough to be multiplied with others."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _unclear(field: str, found: object, expected: str, where: Where) -> NoReturn:
    raise SourceError(
        codes.FOREIGN_UNCLEAR.finding(
            f"Invalid {field} of the mlx-lm adapter",
            where,
            found="nothing" if found is None else repr(found)[:80],
            expected=expected,
        )
    )
