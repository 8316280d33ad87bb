"""Of which kind the fields are that only PEFT understands, by their names.

Facts of PEFT 0.21.2: the annotations in each method's ``config.py``. Methods that share a name
mean a value of the same kind by it. A test keeps them current with the PEFT that is installed.
"""

from __future__ import annotations

from collections.abc import Mapping

from .options import (
    Expect,
    any_text,
    anything,
    boolean,
    either,
    index,
    map_of,
    number,
    optional,
    rank,
)

MAX_SETTING = 1 << 32
"""Numbers in a config; they become sizes of what PEFT makes."""


def within(inner: Expect) -> Expect:
    """A number of the kind ``inner`` that is not too large to be a size."""

    def expect(value: object) -> str | None:
        wrong = inner(value)
        if wrong is not None or not isinstance(value, (int, float)):
            return wrong
        return None if abs(value) <= MAX_SETTING else "a smaller number"

    return expect


_whole, _real = within(index), within(number)

_WHOLE = (
    "asa_target_subspaces block_size boft_block_num boft_block_size boft_n_butterfly_factor depth "
    "final_warmup gralora_k group_size hybrid_r init_warmup mask_interval mini_r "
    "n_frequency num_B num_cayley_neumann_terms num_subspaces num_vectors proj_seed "
    "projection_prng_key projection_seed psoft_svd_lowrank_niter "
    "stride_A subspace_rank theta_d_length topk u vector_length"
)
_REAL = (
    "asa_importance_beta asa_schedule_exponent asa_uncertainty_beta boft_dropout d_initial "
    "deft_dropout delora_lambda frod_dropout gralora_dropout hira_dropout init_logits_std "
    "init_scale init_theta_d_bound init_v_bound init_vector_bank_bound lora_dropout "
    "miss_dropout module_dropout psoft_alpha psoft_dropout pvera_dropout randlora_alpha "
    "randlora_dropout regularization_alpha scaling sparse_rate sparsity svd_threshold "
    "tinylora_dropout unilora_dropout vblora_dropout weight_tying"
)
_FLAGS = (
    "apply_GS fan_in_fan_out para progressbar proportional_parameters psoft_mag_a psoft_mag_b "
    "psoft_orth runtime_offload_base_weight sample_at_inference save_indices "
    "save_only_topk_weights save_precomputed_indices save_projection select_top sparse use_asa "
    "use_cayley_neumann use_dynamic_rank use_idwt very_sparse"
)
_WORDS = (
    "ab_svd_init act_fn config_A_B config_C config_D_E decomposition_method mask_type psoft_svd "
    "variant wavelet_family"
)
_OPTIONAL_WHOLE = "generator_seed random_loc_seed random_seed"
_OPTIONAL_REAL = "alpha cayley_neumann_eps effective_rank lora_alpha"

KINDS: Mapping[str, Expect] = {
    **dict.fromkeys(_WHOLE.split(), _whole),
    **dict.fromkeys(_REAL.split(), _real),
    **dict.fromkeys(_FLAGS.split(), optional(boolean)),
    **dict.fromkeys(_WORDS.split(), any_text),
    **dict.fromkeys(_OPTIONAL_WHOLE.split(), optional(_whole)),
    **dict.fromkeys(_OPTIONAL_REAL.split(), optional(_real)),
    "r": rank,
    "init_weights": optional(boolean),
    "block_size_pattern": optional(map_of(_whole)),
    "lambda_pattern": optional(map_of(_real)),
    "n_frequency_pattern": optional(map_of(_whole)),
    "rank_pattern": optional(map_of(_real)),
    "target_svd_config": optional(map_of(_whole)),
}
"""What a field may hold, for every field of every method but ``bias``."""


_OF_METHOD: Mapping[tuple[str, str], Expect] = {
    **dict.fromkeys(
        ((method, "init_weights") for method in ("C3A", "HIRA", "MISS", "TINYLORA")),
        optional(either(boolean, any_text)),
    ),
    ("ADAMSS", "init_weights"): optional(any_text),
    ("GRALORA", "alpha"): _real,
    ("SUPERTUNING", "r"): optional(rank),  # it need not have low-rank factors
}


def kind_of(method: str, name: str) -> Expect:
    """What the field ``name`` of ``method``'s config may hold."""
    return _OF_METHOD.get((method, name)) or KINDS.get(name, anything)
