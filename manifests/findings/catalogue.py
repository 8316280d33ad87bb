"""Every code a finding can carry.

A code is stable for ever: its number and name are never reused for another meaning. Each area has a
file here, and a page in ``explain/`` with what is said of its codes. Each has a range: language
AD1xx, sources AD2xx (artefacts AD25x), fit AD3xx, fingerprints AD4xx, lock AD5xx, store AD6xx,
loader AD7xx and AD81x to AD84x (changing AD751 to AD755, merging AD756 to AD768, training and
saving AD746, AD747, AD769, AD793 to AD799), rules AD80x, policy AD85x, registry AD86x to AD89x,
serving AD943 to AD988, other usage AD9xx. New codes of any area may also take a free number from
AD377 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from .code import Code

AREAS = (
    *("language", "sources", "artefacts", "fit", "fingerprint", "lock", "store", "loader"),
    *("changing", "merging", "training", "rules", "policy", "registry", "serving", "usage"),
)


@cache
def codes_by_area() -> Mapping[str, tuple[Code, ...]]:
    """By area, its codes."""
    return {
        area: tuple(
            value
            for value in vars(import_module(f".{area}", __package__)).values()
            if isinstance(value, Code)
        )
        for area in AREAS
    }


@cache
def all_codes() -> Mapping[str, Code]:
    """Every code by its id, sorted."""
    codes = [code for area in codes_by_area().values() for code in area]
    return {code.id: code for code in sorted(codes, key=lambda code: code.id)}


def find_code(text: str) -> Code | None:
    """The code with this id or name, of today or of an earlier release, in any case."""
    wanted = text.strip().lower()
    for code in all_codes().values():
        if wanted in {word.lower() for word in (code.id, code.name, *code.was)}:
            return code
    return None
