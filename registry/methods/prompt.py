"""Prompt tuning (https://arxiv.org/abs/2104.08691), p-tuning (https://arxiv.org/abs/2103.10385) and
prefix tuning (https://arxiv.org/abs/2101.00190) on disk.

One tensor, ``prompt_embeddings``, for the whole model (PEFT 0.21, ``utils/save_and_load.py``):

==================  ==================================================================
prompt, p-tuning    (num_virtual_tokens * num_transformer_submodules, token_dim); of
                    p-tuning it is what the encoder returned
prefix tuning       (num_virtual_tokens, num_layers * 2 * token_dim): keys and values of
                    each layer, token_dim is the width of all key-value heads together
==================  ==================================================================

The file also holds saved modules (``modules_to_save``). Their keys begin with ``base_model.``,
since PEFT puts no tuner between itself and the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..files.facts import CACHED, EMBEDS, AdapterPlan, Layout, SitePlan, TensorInfo
from .keys import is_name
from .method import MakePlan, Method
from .naming import Naming
from .new_prompt import beside, check_new, complete
from .options import Option
from .patterns import Patterns
from .places import Places
from .prompt_config import (
    EMBEDDINGS,
    P_OPTIONS,
    PREFIX_OPTIONS,
    PREFIX_TUNING,
    PROMPT_OPTIONS,
    PromptConfig,
)

_BASE = "base_model."


def planner(method: str) -> MakePlan:
    """The ``MakePlan`` of one of the three methods."""

    def plan(
        config: PromptConfig,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns,
    ) -> tuple[AdapterPlan, Naming]:
        places = Places(config, layout, Naming(), frozenset())
        names = {key.removeprefix(_BASE): key for key in tensors if key != EMBEDDINGS}
        odd = [key for key in tensors if key != EMBEDDINGS and key not in names.values()]
        for name, key in names.items():
            if is_name(name):
                places.put(name, key, names)
            else:
                odd.append(key)
        prompt = _site(method, config) if EMBEDDINGS in tensors else None
        return places.plan((), odd, prompt), Naming()

    return plan


def _site(method: str, config: PromptConfig) -> SitePlan:
    kind = CACHED if method == PREFIX_TUNING else EMBEDS
    settings = MappingProxyType({"input": kind, **config.settings})
    return SitePlan("", method, {EMBEDDINGS: EMBEDDINGS}, 0, 1.0, 1.0, settings)


def _row(peft_type: str, options: tuple[Option, ...]) -> Method:
    return Method(
        peft_type,
        options,
        PromptConfig.of,
        planner(peft_type),
        {(EMBEDDINGS, ""): EMBEDDINGS},
        {},
        lambda site, module, found: f"{site.method} does not adapt modules",
        complete=complete,
        check_new=check_new,
        beside=beside,
    )


METHODS = (
    _row("PROMPT_TUNING", PROMPT_OPTIONS),
    _row("P_TUNING", P_OPTIONS),
    _row(PREFIX_TUNING, PREFIX_OPTIONS),
)
