"""Architectures that GGUF and MLX exports are proved for: a committed table.

An architecture is here once logits of its base with an exported adapter, in llama.cpp or in mlx-lm,
equal those of PEFT's arithmetic in torch (``tests/serving_real/test_export_gguf.py`` and
``test_export_mlx.py``). Names of tensors alone are no proof: for Llama the rows of q and k are
permuted, and a file without that is read without a complaint and answers half right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LAYER = re.compile(r"model\.layers\.(\d{1,6})\.(.+)\Z")
_DENSE: Mapping[str, str] = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_ROTARY: Mapping[str, str] = {
    "self_attn.q_proj": "num_attention_heads",
    "self_attn.k_proj": "num_key_value_heads",
}


@dataclass(frozen=True)
class Architecture:
    """How an architecture of transformers is called elsewhere.

    ``gguf`` is llama.cpp's ``general.architecture``. ``modules`` maps the linear layers of a layer
    to llama.cpp's names. ``permuted`` maps those whose rows llama.cpp has in another order to the
    field of config.json with their number of heads. ``mlx`` says that mlx-lm has the same names.
    """

    name: str
    gguf: str
    modules: Mapping[str, str]
    permuted: Mapping[str, str]
    mlx: bool = True

    def gguf_name(self, module: str) -> str | None:
        """llama.cpp's name of a module's weight; ``None`` for a module that is not in the table."""
        found = _LAYER.match(module)
        if found is None:
            return "output.weight" if module == "lm_head" else None
        inside = self.modules.get(found[2])
        return None if inside is None else f"blk.{int(found[1])}.{inside}.weight"

    def heads_of(self, module: str, config: Mapping[str, object]) -> int | None:
        """The number of heads by which the rows of a module are permuted; ``None`` if they are not.

        Raises:
            ValueError: config.json does not say it.
        """
        found = _LAYER.match(module)
        field = None if found is None else self.permuted.get(found[2])
        if field is None:
            return None
        heads = config.get(field)
        if heads is None:  # as in transformers: as many as for q
            heads = config.get("num_attention_heads")
        if type(heads) is not int or heads < 1:
            raise ValueError(f"{field} is {heads!r}")
        return heads


def layer_of(module: str) -> int | None:
    """The number of the layer that a module is in, ``None`` outside of the layers."""
    found = _LAYER.match(module)
    return None if found is None else int(found[1])


def inside_layer(module: str) -> str | None:
    """A module's name inside its layer: ``self_attn.q_proj``."""
    found = _LAYER.match(module)
    return None if found is None else found[2]


_TABLE = (
    Architecture("LlamaForCausalLM", "llama", _DENSE, _ROTARY),
    Architecture("MistralForCausalLM", "llama", _DENSE, _ROTARY),
    Architecture("Qwen2ForCausalLM", "qwen2", _DENSE, {}),
    Architecture("Qwen3ForCausalLM", "qwen3", _DENSE, {}),
)
ARCHITECTURES: Mapping[str, Architecture] = {row.name: row for row in _TABLE}
"""By the class of transformers in config.json."""
