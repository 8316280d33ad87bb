"""What a command names: ``team/refunds@2.1.0``, a name in a registry, and what to select."""

from __future__ import annotations

from dataclasses import dataclass

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import UsageError
from ...manifests.language.published_names import wrong_alias, wrong_name
from ...manifests.language.selector import Selector, parse_selector

_SCHEME = "registry://"
_EXAMPLE = "REGISTRY/NAME@VERSION, for example team/refunds@2.1.0"


@dataclass(frozen=True)
class Reference:
    """``registry`` is a local name of one, ``name`` that of an adapter in it."""

    registry: str
    name: str
    selector: Selector | None = None

    def __str__(self) -> str:
        end = "" if self.selector is None else f"@{self.selector.text}"
        return f"{self.registry}/{self.name}{end}"


def parse_reference(text: str) -> Reference:
    """The reference that ``text`` is, with or without a selector. Raises :class:`UsageError`."""
    if text.startswith(_SCHEME):
        raise _invalid(text, f"leave out {_SCHEME}, which only a source has")
    place, at, select = text.partition("@")
    registry, slash, name = place.partition("/")
    if not slash:
        raise _invalid(text, "it names no adapter in a registry")
    for part in (registry, name):
        if (problem := wrong_name(part)) is not None:
            raise _invalid(text, problem)
    if not at:
        return Reference(registry, name)
    selector = parse_selector(select)
    if selector is None:
        problem = "is not a version, range, alias or digest"
        if "+" in select and parse_selector(select.partition("+")[0]) is not None:
            problem = "has build metadata (`+`), which no version here has"
        raise _invalid(text, f"{select[:80]!r} {problem}")
    return Reference(registry, name, selector)


def version_of(reference: Reference) -> str:
    """The one version that it names. Raises :class:`UsageError` for anything else."""
    if reference.selector is None or reference.selector.version is None:
        raise _invalid(str(reference), "it must name one exact version")
    return reference.selector.text


def name_of(reference: Reference) -> str:
    """The name of the adapter alone. Raises :class:`UsageError` where a version is named too."""
    if reference.selector is not None:
        raise _invalid(
            str(reference),
            "nothing follows the name here",
            f"REGISTRY/NAME, here {reference.registry}/{reference.name}",
        )
    return reference.name


def needs_selector(reference: Reference) -> Selector:
    """What it selects. Raises :class:`UsageError` where it says nothing after ``@``."""
    if reference.selector is None:
        raise _invalid(str(reference), "it must say what is meant after @")
    return reference.selector


def check_alias(alias: str) -> None:
    """Raise :class:`UsageError` for an invalid alias."""
    if (problem := wrong_alias(alias)) is not None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                f"Invalid alias {alias[:80]!r}: {problem}", found=alias[:80], expected="prod"
            )
        )


def _invalid(text: str, problem: str, expected: str = _EXAMPLE) -> UsageError:
    return UsageError(
        codes.BAD_REFERENCE.finding(
            f"Invalid reference {text[:120]!r}: {problem}", found=text[:120], expected=expected
        )
    )
