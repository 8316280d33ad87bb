"""The kinds of the fields that only PEFT understands, by their names.

Facts of PEFT 0.21.2: the annotations in each method's ``config.py``. A name has one kind in all
methods. A test keeps them current with the installed PEFT.
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
"""The largest number in a config: PEFT makes tensors of such sizes."""


def within(inner: Expect) -> Expect:
    """A number of the kind ``inner`` that is not too large to be a size."""

    def expect(value: object) -> str | None:
        wrong = inner(value)
        if wrong is not None or not isinstance(value, (int, float)):
            return wrong
        return None if abs(value) <= MAX_SETTING else "a smaller number"

    return expect


_whole, _real = within(index), within(number)

_BY_KIND: tuple[tuple[Expect, str], ...] = (
    (
        _whole,
        "asa_target_subspaces block_size boft_block_num boft_block_size boft_n_butterfly_factor "
        "depth final_warmup gralora_k group_size hybrid_r init_warmup mask_interval mini_r "
        "n_frequency num_B num_cayley_neumann_terms num_subspaces num_vectors proj_seed "
        "projection_prng_key projection_seed psoft_svd_lowrank_niter stride_A subspace_rank "
        "theta_d_length topk u vector_length",
    ),
    (
        _real,
        "asa_importance_beta asa_schedule_exponent asa_uncertainty_beta boft_dropout d_initial "
        "deft_dropout delora_lambda frod_dropout gralora_dropout hira_dropout init_logits_std "
        "init_scale init_theta_d_bound init_v_bound init_vector_bank_bound lora_dropout "
        "miss_dropout module_dropout psoft_alpha psoft_dropout pvera_dropout randlora_alpha "
        "randlora_dropout regularization_alpha scaling sparse_rate sparsity svd_threshold "
        "tinylora_dropout unilora_dropout vblora_dropout weight_tying",
    ),
    (
        optional(boolean),
        "apply_GS fan_in_fan_out para progressbar proportional_parameters psoft_mag_a "
        "psoft_mag_b psoft_orth runtime_offload_base_weight sample_at_inference save_indices "
        "save_only_topk_weights save_precomputed_indices save_projection select_top sparse "
        "use_asa use_cayley_neumann use_dynamic_rank use_idwt very_sparse init_weights",
    ),
    (
        any_text,
        "ab_svd_init act_fn config_A_B config_C config_D_E decomposition_method mask_type "
        "psoft_svd variant wavelet_family",
    ),
    (optional(_whole), "generator_seed random_loc_seed random_seed"),
    (optional(_real), "alpha cayley_neumann_eps effective_rank lora_alpha"),
    (optional(map_of(_whole)), "block_size_pattern n_frequency_pattern target_svd_config"),
    (optional(map_of(_real)), "lambda_pattern rank_pattern"),
    (rank, "r"),
)
KINDS: Mapping[str, Expect] = {name: kind for kind, names in _BY_KIND for name in names.split()}
"""The valid values of every field of every method but ``bias``."""


_OF_METHOD: Mapping[tuple[str, str], Expect] = {
    **dict.fromkeys(
        ((method, "init_weights") for method in ("C3A", "HIRA", "MISS", "TINYLORA")),
        optional(either(boolean, any_text)),
    ),
    ("ADAMSS", "init_weights"): optional(any_text),
    ("GRALORA", "alpha"): _real,
    ("SUPERTUNING", "r"): optional(rank),  # low-rank factors are optional
}


def kind_of(method: str, name: str) -> Expect:
    """The valid values of the field ``name`` of ``method``'s config."""
    return _OF_METHOD.get((method, name)) or KINDS.get(name, anything)
