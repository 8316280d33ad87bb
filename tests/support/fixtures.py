"""Fixtures that more than one room uses."""

from .real_models import minilm, rxnfp_berts, smollm2, t5_bias_lora  # noqa: F401
