"""Prompt tuning (https://arxiv.org/abs/2104.08691), p-tuning (https://arxiv.org/abs/2103.10385) and
prefix tuning (https://arxiv.org/abs/2101.00190) on disk.

One tensor, ``prompt_embeddings``, for the whole model (PEFT 0.21, ``utils/save_and_load.py``):

==================  ==================================================================
prompt, p-tuning    (num_virtual_tokens * num_transformer_submodules, token_dim); of
                    p-tuning it is what the encoder returned
prefix tuning       (num_virtual_tokens, num_layers * 2 * token_dim): keys and values of
                    each layer, token_dim is the width of all key-value heads together
==================  ==================================================================

Beside it are whole modules (``modules_to_save``): their keys begin with ``base_model.``, for PEFT
puts no tuner between itself and the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..files.conversion import Shape
from ..files.facts import CACHED, EMBEDS, AdapterPlan, Layout, ModuleShape, SitePlan, TensorInfo
from .keys import MAX_NAME, Roles
from .method import Method
from .naming import Naming
from .options import Option
from .patterns import Patterns
from .places import Places
from .prompt_begin import beside, check_new, complete
from .prompt_config import (
    EMBEDDINGS,
    P_OPTIONS,
    PREFIX_OPTIONS,
    PREFIX_TUNING,
    PROMPT_OPTIONS,
    PromptConfig,
)

ROLES: Roles = {(EMBEDDINGS, ""): EMBEDDINGS}
ROLE_SETS: tuple[frozenset[str], ...] = (frozenset({EMBEDDINGS}),)

_BASE = "base_model."


def planner(method: str):
    """The ``MakePlan`` of one of the three methods."""

    def plan(
        config: PromptConfig,
        tensors: Mapping[str, TensorInfo],
        layout: Layout | None,
        patterns: Patterns | None = None,
    ) -> tuple[AdapterPlan, Naming]:
        places = Places(config, layout, Naming(), frozenset())
        names = {key.removeprefix(_BASE): key for key in tensors if key != EMBEDDINGS}
        odd = [key for key in tensors if key != EMBEDDINGS and key not in names.values()]
        for name, key in names.items():
            if len(name) > MAX_NAME or not name.isprintable():
                odd.append(key)
            else:
                places.put(name, key, names)
        found = AdapterPlan(
            sites=(),
            saved=places.saved,
            biases=places.biases,
            embeddings=places.embeddings,
            leftovers=(*odd, *places.leftovers),
            prompt=_site(method, config) if EMBEDDINGS in tensors else None,
        )
        return found, Naming()

    return plan


def _site(method: str, config: PromptConfig) -> SitePlan:
    settings = {
        "input": CACHED if method == PREFIX_TUNING else EMBEDS,
        "num_virtual_tokens": config.num_virtual_tokens,
        "token_dim": config.token_dim,
        "num_transformer_submodules": config.submodules,
        "task_type": config.task_type,
        "num_layers": config.num_layers,
        "num_attention_heads": config.heads,
    }
    tensors = {EMBEDDINGS: EMBEDDINGS}
    return SitePlan("", method, tensors, 0, 1.0, 1.0, MappingProxyType(settings))


def shapes(site: SitePlan, module: ModuleShape, found: Mapping[str, Shape]) -> str:
    """It is for the whole model; see ``registry.checks.prompts``."""
    return f"{site.method} sits on no module"


def _row(peft_type: str, options: tuple[Option, ...]) -> Method:
    return Method(
        peft_type,
        options,
        PromptConfig.of,
        planner(peft_type),
        ROLES,
        ROLE_SETS,
        {},
        shapes,
        complete=complete,
        check_new=check_new,
        beside=beside,
    )


METHODS = (
    _row("PROMPT_TUNING", PROMPT_OPTIONS),
    _row("P_TUNING", P_OPTIONS),
    _row(PREFIX_TUNING, PREFIX_OPTIONS),
)
