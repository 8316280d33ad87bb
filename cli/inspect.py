"""`adapterdock inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import out, say
from .heat import number, print_heat
from .options import JsonOption, OfflineOption
from .progress import shown_progress
from .registries import RegistriesOption, RegistryOption, manifest_of
from .render import counted, human_bytes, print_table, short_digest

if TYPE_CHECKING:
    from ..registry.inspecting import Card
    from ..registry.measured import Measured

SCHEMA = "adapterdock.inspect/1"

BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="SOURCE",
        help="Compare with the weights of this base (default: the one in the entry, if it is on "
        "this machine).",
    ),
]


def inspect(
    reference: Annotated[
        str,
        typer.Argument(
            metavar="REGISTRY/NAME@VERSION",
            help="One version of an adapter, or an alias: team/refunds@prod.",
            show_default=False,
        ),
    ],
    base: BaseOption = None,
    card_only: Annotated[
        bool, typer.Option("--card", help="Show what the registry says; do not read the weights.")
    ] = False,
    registry: RegistryOption = None,
    manifest: RegistriesOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show everything about a published version, and where it acts.

    Prints its entry, its signatures (which are not verified here), marks and aliases. Then reads
    its weights, and shows how large the change is in each layer and module: as a part of the base's
    weights if these are on this machine, else as an absolute norm.

    Examples:

      adapterdock inspect team/refunds@2.1.0
      adapterdock inspect team/refunds@prod --base ./base
      adapterdock inspect team/refunds@2.1.0 --card --json | jq '.entry.metrics'
    """
    from ..registry.catalogue.reference import parse_reference
    from ..registry.inspecting import card_of, measure_published, open_reference
    from ..registry.store.store import Store

    folder = open_reference(
        parse_reference(reference),
        registry=registry,
        file=manifest_of(manifest) if registry is None else None,
        offline=offline,
    )
    card = card_of(folder)
    measured = None
    if not card_only:
        source = None if base is None else base_argument(base)
        with shown_progress(f"Reading {reference}") as progress:
            measured = measure_published(
                folder, Store.default(), base=source, offline=offline, progress=progress
            )
    if as_json:
        out.as_json(SCHEMA, _describe(card, measured))
        return
    _print_card(card)
    if measured is not None:
        say()
        _print_measured(measured)


def base_argument(text: str) -> Any:
    """The source that ``--base`` names. Raises :class:`UsageError`."""
    from ..manifests.findings import registry as codes
    from ..manifests.findings.errors import UsageError
    from ..manifests.language.source import Source, SourceSyntaxError

    try:
        return Source.parse(text)
    except SourceSyntaxError as error:
        raise UsageError(
            codes.BAD_REFERENCE.finding("Invalid --base", found=text, expected=error)
        ) from error


def describe_measured(measured: Measured | None) -> dict[str, Any] | None:
    """The sizes as data."""
    if measured is None:
        return None
    from ..registry.heat_map import is_relative, place_of

    modules = [
        {
            "module": module,
            "layer": place_of(module).layer,
            "norm": size.norm,
            "relative": size.relative,
            "note": measured.notes.get(module),
        }
        for module, size in measured.sizes.items()
    ]
    return {
        "relative": is_relative(measured.sizes),
        "why": measured.why,
        "modules": modules,
        "left_out": dict(measured.left_out),
    }


def _describe(card: Card, measured: Measured | None) -> dict[str, Any]:
    mark, signatures = card.mark, card.signatures
    return {
        "reference": card.reference,
        "registry": card.registry,
        "id": card.registry_id,
        "digest": card.resolved.digest,
        "entry": card.resolved.entry.model_dump(mode="json", exclude_none=True),
        "yanked": mark is not None and mark.yanked,
        "deprecated": mark is not None and mark.deprecated,
        "why": None if mark is None else mark.why,
        "aliases": list(card.aliases),
        "signatures": None
        if signatures is None
        else [{"path": one.path, "keys": list(one.keys)} for one in signatures],
        "delta": describe_measured(measured),
    }


def _print_card(card: Card) -> None:
    say((card.reference, "bold"))
    for name, value in _lines(card):
        if value:
            out.line((f"{name}: ", "dim"), value, indent=2)
    say()
    files = card.resolved.entry.files
    rows = [
        (file.role, human_bytes(file.size), short_digest(file.sha256, out), file.path)
        for file in files
    ]
    print_table(("role", "size", "digest", "file"), rows, out)


def _lines(card: Card) -> Iterator[tuple[str, str]]:
    entry, mark = card.resolved.entry, card.mark
    yield "description", entry.description or ""
    yield "entry", card.resolved.digest
    yield "content", entry.digest
    yield "published", entry.created
    if mark is not None:
        words = [word for word in ("yanked", "deprecated") if getattr(mark, word)]
        yield "marked", " and ".join(words) + (f": {mark.why}" if mark.why and words else "")
    yield "aliases", ", ".join(card.aliases)
    yield "signatures", _signatures(card)
    yield from _method(card)
    yield from _base(card)
    yield "licence", entry.licence or ""
    yield "owner", entry.owner or ""
    yield "tags", ", ".join(entry.tags)
    yield "metrics", ", ".join(f"{name} {value:g}" for name, value in entry.metrics.items())
    said = entry.provenance
    yield "data", ", ".join(said.data)
    yield "code", said.code or ""
    yield "trained", said.date or ""
    yield "parents", ", ".join(said.parents)
    unknown = {**(entry.model_extra or {}), **(said.model_extra or {})}
    for name, value in unknown.items():
        yield name, str(value)[:200]


def _signatures(card: Card) -> str:
    if card.signatures is None:
        return "unknown (a web server lists no files)"
    if not card.signatures:
        return "none"
    keys = dict.fromkeys(key for one in card.signatures for key in one.keys)
    unreadable = sum(not one.keys for one in card.signatures)
    parts = [counted(len(card.signatures) - unreadable, "file")]
    if keys:
        parts.append(f"not verified here, by {', '.join(key[:16] for key in keys)}")
    if unreadable:
        parts.append(f"{unreadable} unreadable")
    return ", ".join(parts)


def _method(card: Card) -> Iterator[tuple[str, str]]:
    method = card.resolved.entry.method
    ranks = {method.lowest_rank, method.rank} - {0}
    parts = [method.peft_type]
    if ranks:
        parts.append(f"rank {' to '.join(map(str, sorted(ranks)))}")
    if method.alpha is not None:
        parts.append(f"alpha {method.alpha:g}")
    parts += [name for name, used in (("rsLoRA", method.rslora), ("DoRA", method.dora)) if used]
    if method.prompt_tokens:
        parts.append(counted(method.prompt_tokens, "virtual token"))
    yield "method", ", ".join([*parts, method.dtype, f"{method.parameters:,} values"])
    yield "targets", ", ".join(method.targets)
    replaced = (f"{name} ({human_bytes(size)})" for name, size in method.replaced.items())
    yield "replaced modules", ", ".join(replaced)
    yield "trained tokens", str(method.trained_tokens or "")
    yield "peft", method.peft_version or ""


def _base(card: Card) -> Iterator[tuple[str, str]]:
    base = card.resolved.entry.base
    yield "base", (base.source or "") + (f" at {base.revision}" if base.revision else "")
    yield "base also called", ", ".join(base.aliases)
    first = base.fingerprints[0] if base.fingerprints else None
    if first is not None:
        found = (first.architecture, first.structure)
        yield "base is a", ", ".join(text for text in found if text)
    yield "quantised with", base.quantisation or ""
    yield "base's licence", base.licence or ""


def _print_measured(measured: Measured) -> None:
    from ..registry.heat_map import is_relative, together

    if measured.sizes:
        total = together(measured.sizes.values())
        if is_relative(measured.sizes):
            size = f"{number(100 * (total.relative or 0))} % of the weights that it changes"
        else:
            size = f"norm {number(total.norm)} (absolute: {measured.why})"
        say(f"Changes {counted(len(measured.sizes), 'module')}: {size}")
        print_heat(measured.sizes, out)
    elif measured.why is not None and not measured.left_out:
        say(f"Not measured: {measured.why}")
    for text, count in _counts(measured.notes).items():
        say(f"The size at {counted(count, 'module')} is {text}")
    for text, count in _counts(measured.left_out).items():
        say(f"Not measured at {counted(count, 'module')}: {text}")


def _counts(texts: Mapping[str, str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in texts.values():
        found[text] = found.get(text, 0) + 1
    return found
