"""Every class built from its default config on the ``meta`` device, then again with one option of
the config changed at a time (:mod:`.variants`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from torch import nn

from ..base.empty_model import build
from .architecture_survey import Occurrence, Seen, model_classes, record
from .variants import config_with, default_config, sub_config_variants, variants


def survey(classes: Mapping[str, type[nn.Module]]) -> dict[str, Seen]:
    """All that was seen of ``classes`` and of their sub-models, by class name."""
    seen: dict[str, Seen] = {}
    every = model_classes()  # a head is one whichever classes are asked for
    for number, cls in enumerate(classes.values(), 1):
        if number % 100 == 0:
            print(f"{number} of {len(classes)} classes", file=sys.stderr, flush=True)
        try:
            config = default_config(cls)
            record(seen, build(cls, config))
        except Exception:  # needs an option or a library that is not here: left to `unchecked`
            continue
        head = is_head(seen[cls.__name__].own[0], every)
        for ways in sub_config_variants(cls, config) if head else variants(cls, config):
            for options in ways:
                try:
                    record(seen, build(cls, config_with(cls, options)))
                    break
                except Exception:  # the class refuses these options
                    continue
    return seen


def is_head(occurrence: Occurrence, classes: Mapping[str, object]) -> bool:
    """Whether a class only puts a few layers on models that are surveyed by themselves."""
    inner = [name for name, *_ in occurrence.slots.values()]
    few = sum(map(bool, occurrence.modules.values())) <= 4
    return few and bool(inner) and all(name in classes for name in inner)
