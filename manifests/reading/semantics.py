"""What no single value shows: names that refer to each other, and fields that belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..findings.finding import Finding
from ..language.schema import Manifest
from .adapter_checks import check_adapters, check_names, check_registries
from .base_checks import check_base, check_mirrors
from .composition_checks import check_compositions
from .nodes import Locate
from .rule_checks import check_chosen, check_rules
from .subject import Gaps, Subject

CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    *(check_names, check_registries, check_adapters, check_base, check_mirrors),
    *(check_compositions, check_rules, check_chosen),
)


def check(manifest: Manifest, locate: Locate, gaps: Gaps) -> list[Finding]:
    """Everything in ``manifest`` that contradicts itself, warnings included.

    Nothing is reported that depends on ``gaps``.
    """
    subject = Subject(manifest, locate, gaps)
    return [finding for check in CHECKS for finding in check(subject)]
