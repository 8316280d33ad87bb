"""The virtual tokens of an adapter: can the live base have them?"""

from __future__ import annotations

from typing import Any, cast

from ...manifests.findings import fit as fit_codes
from ...manifests.findings import loader as codes
from ...registry.checks.prompts import check_base, is_cached
from ...registry.files.facts import SitePlan
from ..base.inputs import inputs_of
from ..methods.prompts.virtual_tokens import embedding_of, unsupported
from .requirements import Requirements

PROMPT = "prompt_embeddings"
"""The one tensor of such an adapter, by its role and its name on disk."""


def require_prompt(required: Requirements, site: SitePlan) -> None:
    """Note what keeps the base from having these virtual tokens."""
    config = getattr(required.base, "config", None)
    reason = unsupported(site, required.base)
    if reason is None and not hasattr(config, "to_dict"):
        reason = "the base has no config with its layers and heads"
    if reason is not None:
        required.problem(codes.PROMPT_UNSUPPORTED, reason)
        return
    required.problems += check_base(
        site, cast(Any, config).to_dict(), inputs_of(required.base), required.where
    )
    embedding = embedding_of(required.base)
    if required.problems or embedding is None:
        return
    key = site.tensors[PROMPT]
    shape = required.tensors.shape(key)
    width = getattr(embedding, "embedding_dim", shape[-1])
    if not is_cached(site) and shape[-1] != width:
        required.misfit(PROMPT, shape, (shape[0], width), fit_codes.SIZE_MISMATCH)
    name = next(n for n, m in required.modules.by_name.items() if m is embedding)
    required.want(name, [key])
