"""Do an adapter's virtual tokens fit the base: their number, their width, layers and heads?

PEFT's use of them: 0.21.2 ``peft_model.py`` (``get_prompt``) and ``utils/other.py``
(``_prepare_prompt_learning_config``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding, Where
from ..files.conversion import Shape
from ..files.facts import CACHED, DECODED, EMBEDS, Layout, SitePlan
from ..files.wording import shown
from ..methods.new_adapter import input_embedding
from ..methods.prompt_config import EMBEDDINGS, SEQ_2_SEQ
from .candidate import Subject

TASKS = ("CAUSAL_LM", SEQ_2_SEQ, "SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
"""Task types whose inputs are supported."""


def check(subject: Subject) -> Iterator[Finding]:
    """A missing tensor, its shape by the config, and the base's sizes where they are known."""
    site, layout = subject.plan.prompt, subject.layout
    if site is None:
        # `complete` reports an empty adapter
        if subject.plan.saved and not subject.method.kinds:
            message = f"{subject.name} has no {EMBEDDINGS}"
            yield codes.PROMPT_SHAPE.finding(message, found="modules_to_save only")
        return
    shape = subject.tensors[site.tensors[EMBEDDINGS]].shape
    findings = check_plan(site, shape, subject.where)
    yield from findings
    if findings or layout is None:
        return
    if (reason := cannot_take(site, layout.inputs)) is not None:
        message = f"The base {reason}, so it cannot have virtual tokens of this kind"
        hint = "Train another kind of adapter: PEFT cannot run this one on such a base either."
        yield codes.PROMPT_MISFIT.finding(message, found=site.method, hint=hint)
        return
    if not is_cached(site):
        yield from _width(site, layout)
    if subject.base is not None:
        yield from check_base(site, subject.base.config, layout.inputs, subject.where)


def cannot_take(site: SitePlan, inputs: Collection[str]) -> str | None:
    """Why a model that takes these of ``INPUTS`` cannot have the virtual tokens."""
    if site.settings["input"] in inputs:
        return None
    return f"takes no {CACHED}" if is_cached(site) else f"takes {EMBEDS} only of its own tokens"


def is_cached(site: SitePlan) -> bool:
    """Whether the virtual tokens are keys and values, not embeddings."""
    return site.settings["input"] == CACHED


def check_plan(site: SitePlan, shape: Shape, where: Where) -> list[Finding]:
    """What of the config is not supported, and a shape that the config does not describe."""
    return [*_task(site, where), *_shape(site, shape, where)]


def check_base(
    site: SitePlan, config: Mapping[str, Any], inputs: Collection[str], where: Where
) -> list[Finding]:
    """How the base does not fit the virtual tokens: its ``config`` (its ``config.json``, or a live
    model's ``config.to_dict()``), and its ``inputs`` (the encoder of such a model has none for a
    decoder)."""
    decodes = bool(config.get("is_encoder_decoder")) and DECODED in inputs
    if decodes != (site.settings["task_type"] == SEQ_2_SEQ):
        task, kind = site.settings["task_type"], "is" if decodes else "is not"
        return [
            codes.PROMPT_TASK.finding(
                f"The task is {task}, but the base {kind} an encoder-decoder model",
                where,
                found=f"task_type: {task}",
                expected=SEQ_2_SEQ if decodes else "another task",
            )
        ]
    return list(_keys_and_values(site, config, where)) if is_cached(site) else []


@dataclass(frozen=True)
class KeysAndValues:
    """What one layer of the base caches for a token; ``None`` where the config does not say."""

    layers: int | None
    heads: int | None
    head_dim: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> KeysAndValues | str:
        """From a base's config, or why its layers cannot have a prefix."""
        inner = config.get("text_config")
        text = cast("Mapping[str, Any]", inner) if isinstance(inner, dict) else config
        if reason := _uneven(text):
            return reason
        names = _DECODER if text.get("is_encoder_decoder") else _PLAIN
        heads = _first(text, names["heads"])
        width = _first(text, ("hidden_size", "n_embd", "d_model"))
        head_dim = _first(text, ("head_dim", "d_kv"))
        if head_dim is None and heads and width:
            head_dim = width // heads
        shared = 1 if text.get("multi_query") else _first(text, ("num_key_value_heads",))
        return cls(_first(text, names["layers"]), shared or heads, head_dim)


_PLAIN: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "num_layers", "n_layer"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
}
_DECODER: Mapping[str, tuple[str, ...]] = {
    "layers": ("decoder_layers", "num_decoder_layers", *_PLAIN["layers"]),
    "heads": ("decoder_attention_heads", *_PLAIN["heads"]),
}
_ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    values = (config.get(name) for name in names)
    return next((v for v in values if isinstance(v, int) and v > 0), None)


def _uneven(config: Mapping[str, Any]) -> str | None:
    """Why the base's layers do not all cache keys and values of one shape."""
    for name in ("per_layer_config", "global_head_dim", "num_kv_shared_layers", "kv_lora_rank"):
        if config.get(name):
            return f"{name} gives its layers keys and values of several shapes"
    kinds = config.get("layer_types")
    for kind in cast("list[object]", kinds) if isinstance(kinds, list) else []:
        if kind not in _ATTENTION:
            return f"it has layers of kind {shown(str(kind), 80)}, which cache no keys and values"
    return None


def _task(site: SitePlan, where: Where) -> Iterator[Finding]:
    task = site.settings["task_type"]
    if task not in TASKS:
        yield codes.PROMPT_TASK.finding(
            f"Virtual tokens for the task {shown(str(task), 80)} are not supported",
            where,
            found=f"task_type: {shown(str(task), 80)}",
            expected=", ".join(TASKS),
        )
        return
    parts = site.settings["num_transformer_submodules"]
    # PEFT passes keys and values to the decoder only where it counts two parts
    allowed = (1,) if task != SEQ_2_SEQ else (2,) if is_cached(site) else (1, 2)
    if parts not in allowed:
        yield codes.PROMPT_TASK.finding(
            f"num_transformer_submodules is {parts} for the task {task}",
            where,
            found=parts,
            expected=" or ".join(map(str, allowed)),
        )


def _shape(site: SitePlan, shape: Shape, where: Where) -> Iterator[Finding]:
    said = site.settings
    needed = ("num_virtual_tokens", "token_dim")
    if is_cached(site):
        needed = (*needed, "num_layers", "num_attention_heads")
    missing = [name for name in needed if said[name] is None]
    if missing:
        yield codes.PROMPT_SHAPE.finding(
            f"adapter_config.json does not set {', '.join(missing)}", where, expected="a number"
        )
        return
    tokens, width = said["num_virtual_tokens"], said["token_dim"]
    if is_cached(site):
        expected = (tokens, said["num_layers"] * 2 * width)
        if width % said["num_attention_heads"]:
            yield codes.PROMPT_SHAPE.finding(
                "token_dim is not a multiple of num_attention_heads",
                where,
                found=f"{width} for {said['num_attention_heads']} heads",
            )
    else:
        expected = (tokens * said["num_transformer_submodules"], width)
    if shape != expected:
        yield codes.PROMPT_SHAPE.finding(
            f"{EMBEDDINGS} has another shape than the config says",
            where,
            found=shape,
            expected=expected,
        )


def _width(site: SitePlan, layout: Layout) -> Iterator[Finding]:
    name = input_embedding(layout)
    width = None if name is None else layout.modules[name].out_features
    if width is None:
        yield codes.SIZE_UNKNOWN.finding("Unknown width of the base's token embedding")
    elif width != site.settings["token_dim"]:
        yield codes.PROMPT_MISFIT.finding(
            "The virtual tokens have another width than the base's token embedding",
            found=f"token_dim: {site.settings['token_dim']}",
            expected=width,
        )


def _keys_and_values(site: SitePlan, config: Mapping[str, Any], where: Where) -> Iterator[Finding]:
    said = site.settings
    base = KeysAndValues.of(config)
    if isinstance(base, str):
        message = "The base's layers cannot have a prefix"
        yield codes.PROMPT_MISFIT.finding(message, where, found=base)
        return
    heads = said["num_attention_heads"]
    pairs = (
        ("layers", said["num_layers"], base.layers),
        ("key and value heads", heads, base.heads),
        ("values in a head", said["token_dim"] // heads, base.head_dim),
    )
    for what, ours, theirs in pairs:
        if theirs is None:
            yield codes.SIZE_UNKNOWN.finding(f"Unknown number of {what} of the base", where)
        elif ours != theirs:
            yield codes.PROMPT_MISFIT.finding(
                f"The prefix is for another number of {what}", where, found=ours, expected=theirs
            )
