"""Every code a finding can carry, with what ``adapterdock explain`` says of it.

A code is stable for ever: its number and name are never reused for another meaning. Areas have
a file and a range each: language AD1xx, sources AD2xx (artefacts AD25x), fit AD3xx, fingerprints
AD4xx, lock AD5xx, store AD6xx, loader AD7xx and AD81x to AD84x (changing AD751 to AD755, merging
AD756 to AD768, training and saving AD746, AD747, AD769, AD793 to AD799), rules AD80x, policy AD85x,
usage AD9xx.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from .code import Code

__all__ = ["Code", "all_codes", "find_code"]


@cache
def all_codes() -> Mapping[str, Code]:
    """Every code by its id, sorted."""
    from . import (
        artefacts,
        changing,
        fingerprint,
        fit,
        language,
        loader,
        lock,
        merging,
        policy,
        rules,
        sources,
        store,
        training,
        usage,
    )

    found: dict[str, Code] = {}
    for area in (
        language,
        sources,
        artefacts,
        fit,
        fingerprint,
        lock,
        store,
        loader,
        changing,
        merging,
        training,
        rules,
        policy,
        usage,
    ):
        for value in vars(area).values():
            if isinstance(value, Code):
                if value.id in found:
                    raise ValueError(f"{value.id} is defined twice")
                found[value.id] = value
    return dict(sorted(found.items()))


def find_code(text: str) -> Code | None:
    """The code with this id or name, in any case, or ``None``."""
    wanted = text.strip().lower()
    for code in all_codes().values():
        if wanted in (code.id.lower(), code.name):
            return code
    return None
