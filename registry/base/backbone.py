"""The tensors of a checkpoint as backbone and heads, under names that do not depend on the class.

The same base is saved by its backbone class (``BertModel``: ``encoder.layer.0...``) or with a
head (``BertForMaskedLM``: ``bert.encoder.layer.0...`` and ``cls...``), with its tied output
embedding written out or left out, and with buffers that some versions of transformers kept and
others did not. :func:`split` brings all of these to one form by fixed rules on the names alone.
The rules are part of version 1 of the fingerprint and never change: a table that follows
transformers would change the digests of unchanged bases.

The rules, in order:

1. Buffers of old checkpoints that no model reads (rotary frequencies, position ids, causal masks,
   T5's bias of cross attention) and counters of batches are left out; a quantiser's tensors beside
   a weight are kept. ``LayerNorm.gamma`` and ``.beta`` (TensorFlow's names) are
   ``.weight`` and ``.bias``.
2. Tensors under a head's name at the top (``lm_head``, ``classifier``, ``pooler``...) are heads.
   If every other name then starts with one common part (``bert.``), that is removed; both steps
   are repeated until nothing changes.
3. In a base that ties its embeddings, an output embedding with the shape of a backbone tensor is
   left out, and so are ``encoder.embed_tokens`` and ``decoder.embed_tokens`` beside ``shared``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..files.conversion import Shape

_BUFFERS = re.compile(
    r"(.*\.)?(\w*inv_freq|(cos|sin)_cached|masked_bias|position_ids|token_type_ids"
    r"|relative_position_index|num_batches_tracked|embed_positions\.weights|version"
    r"|EncDecAttention\.relative_attention_bias\.weight)"
)
_MASK = re.compile(r"(.*\.)?(attn|attention|crossattention|self_attention)\.bias")
_TENSORFLOW = re.compile(r"(.*LayerNorm)\.(gamma|beta)")
_HEADS = re.compile(
    r"answer_head|auxiliary_head|bbox_predictor|class_labels_classifier|class_predictor"
    r"|classification_head|classifier|cls|cls_classifier|ctc_head|decode_head"
    r"|discriminator_predictions|distillation_classifier|distribution_output|embed_out"
    r"|final_logits_bias|generator_lm_head|generator_predictions|head|itm_head|layer_weights"
    r"|lm_head|lm_heads|lm_loss|lm_predictions|logits_proj|mlm_score|multiple_choice_head"
    r"|objective|output_projection|pooler|pre_classifier|pred_layer|predictions|proj_out"
    r"|projector|qa_classifier|qa_outputs|rank_output|score|segmentation_head"
    r"|sequence_summary|sop_classifier|tdnn|v_head|value_head|vocab_(layer_norm|projector"
    r"|transform)"
)
_BARE_HEADS = frozenset({"decoder.weight", "decoder.bias", "output.weight"})
_TIED_HEAD = re.compile(
    r"(.*\.)?(lm_head|embed_out|proj_out|generator_lm_head|lm_loss|vocab_projector"
    r"|output_projection|pred_layer\.proj|lm_head\.out_proj|output|head|decoder"
    r"|(lm_head|cls\.predictions|predictions|mlm_score|head)\.decoder)\.weight"
)
_TIED_BIAS = re.compile(r"(.*\.)?(lm_head|cls\.predictions|predictions)\.decoder\.bias")
_SHARED = re.compile(r"(text_)?(encoder|decoder)\.embed_tokens\.weight")


@dataclass(frozen=True)
class Split:
    """Canonical name to name on disk, for the backbone and for the heads."""

    backbone: Mapping[str, str]
    heads: Mapping[str, str]

    @property
    def all(self) -> Mapping[str, str]:
        return {**self.backbone, **self.heads}


def split(tensors: Mapping[str, Shape], *, tied: bool) -> Split:
    """Split ``{name on disk: shape}``; ``tied`` says whether the base ties its embeddings."""
    kept = {_renamed(name): name for name, shape in tensors.items() if not _is_made(name, shape)}
    backbone, heads = _without_heads(kept)
    if tied:
        backbone, heads = _untied(backbone, heads, tensors)
    return Split(backbone, heads)


def is_tied_head(name: str) -> bool:
    """Whether a tied parameter of this name is the head's, and not the embedding itself."""
    return _TIED_HEAD.fullmatch(name) is not None


def _is_made(name: str, shape: Shape) -> bool:
    """Whether it is a buffer that is computed at load: its stored values do not matter."""
    mask = len(shape) == 4 and shape[:2] == (1, 1) and _MASK.fullmatch(name) is not None
    return mask or _BUFFERS.fullmatch(name) is not None


def _renamed(name: str) -> str:
    found = _TENSORFLOW.fullmatch(name)
    if found is None:
        return name
    return f"{found.group(1)}.{'weight' if found.group(2) == 'gamma' else 'bias'}"


def _without_heads(names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    backbone, heads = dict(names), dict[str, str]()
    while True:
        found = {name for name in backbone if _is_head(name)}
        if len(found) == len(backbone):  # only a head: then that is the model
            return backbone, heads
        heads.update({name: backbone.pop(name) for name in found})
        prefix = _common(backbone)
        if prefix is None:
            return backbone, heads
        backbone = {name[len(prefix) :]: disk for name, disk in backbone.items()}


def _is_head(name: str) -> bool:
    parts = name.split(".")
    return _HEADS.fullmatch(parts[0]) is not None or "lm_head" in parts or name in _BARE_HEADS


def _common(names: Iterable[str]) -> str | None:
    """``bert.`` where every name starts with it; ``None`` without such a part."""
    heads = {name.partition(".")[0] for name in names}
    if len(heads) != 1 or any("." not in name for name in names):
        return None
    first = heads.pop()
    return None if first.isdigit() else first + "."


def _untied(
    backbone: Mapping[str, str], heads: Mapping[str, str], tensors: Mapping[str, Shape]
) -> tuple[dict[str, str], dict[str, str]]:
    shapes = {tensors[disk] for disk in backbone.values()}
    heads_left = {
        name: disk
        for name, disk in heads.items()
        if not (_TIED_HEAD.fullmatch(name) and tensors[disk] in shapes)
        and not (_TIED_BIAS.fullmatch(name) and name.replace(".decoder.", ".") in heads)
    }
    shared = "shared.weight" in backbone
    backbone_left = {
        name: disk
        for name, disk in backbone.items()
        if not (shared and _SHARED.fullmatch(name) is not None)
    }
    return backbone_left, heads_left
