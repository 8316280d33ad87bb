"""PEFT's other methods: those that attach through it, and those that cannot be attached.

Facts of PEFT 0.21.2: ``utils/peft_types.py`` (names), ``mapping.py`` (what the names of a method's
parameters begin with), each method's ``config.py`` (its fields) and ``model.py`` (what it stores
once for all modules). A test keeps them current with the PEFT that is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

PICKING = ("layers_to_transform", "layers_pattern")
EXCLUDING = ("exclude_modules",)


@dataclass(frozen=True)
class PeftMethod:
    """One method that acts on modules, with layers of PEFT's.

    Attributes:
        prefix: The start of its parameters' names at a module.
        names: Its own config fields, separated by blanks.
        where: The fields that select modules and that not all methods have.
        tables: The fields that map patterns to values.
        shared: What it stores once for all modules.
        off: Fields that must have PEFT's default, and why.
        listed: False where the file need not have a tensor for each module: the config alone says
            which they are.
        trains: Whether gradients are all that its training needs.
        needs_weights: Whether PEFT computes the shapes from the base's weights.
        by_batch: Whether the output for a row depends on the other rows.
        merges: The parameters of a module that PEFT's merge changes.
    """

    prefix: str
    names: str
    where: tuple[str, ...] = (*EXCLUDING, *PICKING)
    tables: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    off: Mapping[str, str] = field(default_factory=dict)
    listed: bool = True
    trains: bool = True
    needs_weights: bool = False
    by_batch: bool = False
    merges: tuple[str, ...] = ("weight",)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.names.split())


PEFT_TABLE: Mapping[str, PeftMethod] = {
    "ADAMSS": PeftMethod(
        "adamss_",
        "r num_subspaces subspace_rank init_weights use_asa asa_target_subspaces init_warmup "
        "final_warmup mask_interval asa_importance_beta asa_uncertainty_beta "
        "asa_schedule_exponent use_dynamic_rank svd_threshold random_seed",
        where=PICKING,
        trains=False,
        needs_weights=True,
        merges=("weight", "bias"),
    ),
    "BEFT": PeftMethod("beft_", "init_weights", where=(), merges=("bias",)),
    "BOFT": PeftMethod(
        "boft_",
        "boft_block_size boft_block_num boft_n_butterfly_factor boft_dropout fan_in_fan_out "
        "bias init_weights",
    ),
    "C3A": PeftMethod(
        "c3a_",
        "block_size bias block_size_pattern init_weights",
        where=PICKING,
        tables=("block_size_pattern",),
    ),
    "DEFT": PeftMethod(
        "deft_",
        "r decomposition_method init_scale alpha para fan_in_fan_out deft_dropout init_weights "
        "bias",
    ),
    "DELORA": PeftMethod(
        "delora_",
        "r delora_lambda module_dropout bias init_weights rank_pattern lambda_pattern",
        tables=("rank_pattern", "lambda_pattern"),
    ),
    "FOURIERFT": PeftMethod(
        "fourierft_",
        "n_frequency scaling random_loc_seed fan_in_fan_out bias n_frequency_pattern init_weights",
        tables=("n_frequency_pattern",),
    ),
    "FROD": PeftMethod(
        "frod_",
        "projection_prng_key save_projection frod_dropout fan_in_fan_out bias init_weights "
        "sparse_rate regularization_alpha progressbar runtime_offload_base_weight",
        where=PICKING,
        shared=("frod_V", "frod_s_indices", "frod_s_size"),
        off={"runtime_offload_base_weight": "moves the base's weights"},
        needs_weights=True,
    ),
    "GLORA": PeftMethod(
        "glora_",
        "r bias config_A_B config_C config_D_E init_weights",
        where=(),
        merges=("weight", "bias"),
    ),
    "GRALORA": PeftMethod(
        "gralora_",
        "r hybrid_r alpha gralora_dropout gralora_k fan_in_fan_out bias init_weights",
        where=PICKING,
    ),
    "HIRA": PeftMethod(
        "hira_",
        "r hira_dropout fan_in_fan_out init_weights rank_pattern",
        tables=("rank_pattern",),
    ),
    "HRA": PeftMethod("hra_", "r apply_GS init_weights bias"),
    "LILY": PeftMethod("lily_", "r stride_A num_B scaling init_weights", by_batch=True),
    "MISS": PeftMethod("miss_", "r miss_dropout mini_r init_weights bias"),
    "OSF": PeftMethod(
        "osf_",
        "effective_rank rank_pattern init_weights target_svd_config",
        where=(),
        off={"rank_pattern": "gives modules ranks of their own"},
        trains=False,
    ),
    "PEANUT": PeftMethod("peanut_", "r depth act_fn scaling init_weights"),
    "PSOFT": PeftMethod(
        "psoft_",
        "r psoft_alpha psoft_dropout fan_in_fan_out ab_svd_init psoft_svd "
        "psoft_svd_lowrank_niter random_seed psoft_orth psoft_mag_b psoft_mag_a "
        "use_cayley_neumann num_cayley_neumann_terms cayley_neumann_eps init_weights",
    ),
    "PVERA": PeftMethod(
        "pvera_lambda_",
        "r projection_prng_key save_projection pvera_dropout d_initial fan_in_fan_out bias "
        "init_weights sample_at_inference generator_seed",
        where=PICKING,
        shared=("pvera_A", "pvera_B"),
    ),
    "RANDLORA": PeftMethod(
        "randlora_",
        "r projection_prng_key save_projection sparse very_sparse randlora_dropout "
        "fan_in_fan_out randlora_alpha bias init_weights",
        where=PICKING,
        shared=("randlora_A", "randlora_B"),
    ),
    "ROAD": PeftMethod(
        "road_",
        "variant group_size init_weights",
        where=(),
        merges=("weight", "bias"),
    ),
    "SHIRA": PeftMethod("shira_", "r mask_type random_seed fan_in_fan_out init_weights", where=()),
    "SUPERTUNING": PeftMethod(
        "supertuning_",
        "sparsity select_top r lora_alpha lora_dropout init_weights save_precomputed_indices",
        where=(),
    ),
    "TINYLORA": PeftMethod(
        "tinylora_",
        "r u weight_tying projection_seed save_projection init_v_bound tinylora_dropout "
        "fan_in_fan_out bias init_weights",
        where=PICKING,
        shared=("tinylora_v",),
    ),
    "UNILORA": PeftMethod(
        "unilora_",
        "r proj_seed theta_d_length unilora_dropout fan_in_fan_out bias init_theta_d_bound "
        "init_weights save_indices",
        where=PICKING,
        shared=("unilora_theta_d",),
        listed=False,
    ),
    "VBLORA": PeftMethod(
        "vblora_",
        "r num_vectors vector_length topk save_only_topk_weights vblora_dropout fan_in_fan_out "
        "bias init_vector_bank_bound init_logits_std",
        shared=("vblora_vector_bank",),
    ),
    "WAVEFT": PeftMethod(
        "waveft_",
        "n_frequency scaling wavelet_family use_idwt random_loc_seed fan_in_fan_out bias "
        "n_frequency_pattern proportional_parameters init_weights",
        tables=("n_frequency_pattern",),
    ),
}
"""By ``peft_type``."""

PEFT_REFUSED: Mapping[str, str] = {
    "ADAPTION_PROMPT": "it replaces the base's attention modules",
    "BONE": "PEFT has removed it: convert the adapter to MISS with an older PEFT",
    "CARTRIDGE": "its virtual tokens are a trained key-value cache",
    "CPT": "its virtual tokens need a loss and masks of their own",
    "MULTITASK_PROMPT_TUNING": "each call must name the task of its virtual tokens",
    "POLY": "each call must name its task",
    "SHADOW": "it runs a second model in addition to the base",
    "XLORA": "it runs the base twice, to weight other adapters by its output",
}
"""Methods that cannot be attached here, with or without PEFT, and why."""
