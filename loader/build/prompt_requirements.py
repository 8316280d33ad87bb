"""Virtual tokens that an adapter brings: can the base have them?"""

from __future__ import annotations

from typing import Any, cast

from ...manifests.findings import loader as codes
from ...registry.checks.prompts import check_base, check_plan, is_cached
from ...registry.files.facts import SitePlan
from ..methods.prompts.virtual_tokens import embedding_of, unsupported
from .requirements import Requirements

PROMPT = "prompt_embeddings"
"""The one tensor of such an adapter, by its role and its name on disk."""


def require_prompt(required: Requirements, site: SitePlan) -> bool:
    """Whether the base can have these virtual tokens; what is wrong is noted."""
    config = getattr(required.base, "config", None)
    reason = unsupported(site, required.base)
    if reason is not None or not hasattr(config, "to_dict"):
        reason = reason or "it has no config that tells its layers and heads"
        required.problem(codes.PROMPT_UNSUPPORTED, reason)
        return False
    key = site.tensors[PROMPT]
    if not required.present("the model", [key]):
        return False
    shape = required.tensors.shape(key)
    misfits = check_plan(site, shape, required.where)
    misfits = misfits or check_base(site, cast(Any, config).to_dict(), required.where)
    required.problems += misfits
    embedding = embedding_of(required.base)
    if misfits or embedding is None:
        return False
    width = getattr(embedding, "embedding_dim", shape[-1])
    if not is_cached(site) and shape[-1] != width:
        required.misfit(PROMPT, shape, (shape[0], width))
    name = next(n for n, m in required.modules.by_name.items() if m is embedding)
    return required.want(name, [key])
