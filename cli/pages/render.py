"""The pages of a site, from its data. The same data gives the same bytes.

Every text comes from strangers. Jinja escapes all of it, control characters are made visible, and a
page may load nothing but its own files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...manifests.findings import usage as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.said import clean
from .addresses import page_names, web_link
from .facts import Adapter, Composition, Fit, Key, Signature, Site, Version
from .graph import Tree, composition_tree, draw
from .heat_picture import picture
from .plot import number, plots
from .rows import cut_end, facets_of, method_name, method_text, rank_text, rows_of

if TYPE_CHECKING:
    from jinja2 import Environment

_HERE = Path(__file__).parent
_ASSETS = ("icon.svg", "site.css", "site.js")
FIRST_ROWS = 60
"""Adapters in the list before a person asks for more."""
FACET_ROWS = 6
"""Values of a facet before a person asks for more."""
MOST_PLOTS = 24
"""Metrics that are drawn; all of them are in the table."""
CSP = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: "
    "data:; base-uri 'none'; form-action 'none'"
)
"""``file:`` is for browsers in which a page on the disk has no self."""


@dataclass(frozen=True)
class _Pages:
    """What every page needs."""

    site: Site
    environment: Environment
    names: Mapping[Key, str]
    nav: tuple[tuple[str, str], ...]
    groups: int
    """From how many places the adapters are."""

    def page(self, template: str, here: str, root: str = "", **values: Any) -> bytes:
        text = self.environment.get_template(template).render(
            site=self.site, csp=CSP, nav=self.nav, here=here, root=root, **values
        )
        return text.encode("utf-8", "backslashreplace")


def render(site: Site) -> dict[str, bytes]:
    """By path, the files of a site. Raises :class:`UsageError` where Jinja is not installed."""
    environment = _environment()
    names = page_names(one.key for one in site.adapters)
    nav = [("index.html", "Adapters"), ("matrix.html", "Matrix")]
    if site.compositions:
        nav.append(("compositions.html", "Compositions"))
    groups = len({one.group for one in site.adapters})
    pages = _Pages(site, environment, names, tuple(nav), groups)
    files = {
        **{f"assets/{name}": (_HERE / "static" / name).read_bytes() for name in _ASSETS},
        "index.html": _index(pages),
        "matrix.html": _matrix(pages),
    }
    if site.compositions:
        files["compositions.html"] = _compositions(pages)
    if site.problems:
        files["problems.html"] = pages.page("problems.html", "problems.html")
    fits: dict[Key, list[tuple[str, Fit]]] = {}
    for fit in site.matrix.fits:
        fits.setdefault(fit.adapter, []).append((fit.base, fit))
    parts = _parts(site)
    for one in site.adapters:
        path = f"adapters/{names[one.key]}"
        files[path] = _adapter(pages, one, fits.get(one.key, []), parts.get(one.key, []))
    return files


def require_library() -> None:
    """Raise :class:`UsageError` where Jinja is not installed."""
    _environment()


def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise UsageError(
            codes.SITE_UNAVAILABLE.finding("A site needs the package jinja2", found=str(error))
        ) from error
    made: Any = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_printable,
    )
    made.filters.update(
        web_link=web_link,
        cut=cut_end,
        day=_day,
        bytes=_bytes,
        short=_short,
        signed=_signed,
        method=method_text,
    )
    made.globals.update(counted=_counted, metric=_metric)
    return made


def _printable(value: Any) -> Any:
    return clean(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _index(pages: _Pages) -> bytes:
    site = pages.site
    facets = facets_of(site.adapters)
    versions = sum(len(one.versions) for one in site.adapters)
    parts = [_counted(len(site.adapters), "adapter")]
    if versions:
        parts.append(_counted(versions, "version"))
    if pages.groups > 1:
        parts.append(f"from {pages.groups} places")
    return pages.page(
        "index.html",
        "index.html",
        lead=f"{', '.join(parts)}.",
        rows=rows_of(site.adapters, facets, pages.names),
        facets=facets,
        first_rows=FIRST_ROWS,
        facet_rows=FACET_ROWS,
    )


def _matrix(pages: _Pages) -> bytes:
    matrix = pages.site.matrix
    fits = {(fit.adapter, fit.base): fit for fit in matrix.fits}
    rows = [
        {
            "page": pages.names[one.key],
            "name": one.name,
            "fits": [fits.get((one.key, base)) for base in matrix.bases],
        }
        for one in pages.site.adapters
    ]
    return pages.page("matrix.html", "matrix.html", bases=matrix.bases, rows=rows)


def _compositions(pages: _Pages) -> bytes:
    rows: list[dict[str, Any]] = []
    for at, one in enumerate(pages.site.compositions):
        others = _of_group(pages.site, one.group)
        members = [
            (name, weight, pages.names.get((one.group, name))) for name, weight in one.members
        ]
        rows.append(
            {
                "one": one,
                "address": _address(at),
                "graph": draw(composition_tree(one, others)),
                "members": members,
                "lines": one.lines,
            }
        )
    return pages.page("compositions.html", "compositions.html", rows=rows)


def _adapter(
    pages: _Pages,
    one: Adapter,
    fits: list[tuple[str, Fit]],
    parts: list[tuple[str, str]],
) -> bytes:
    lineage = None
    if one.parents:
        tree = Tree(one.name, "", tuple(Tree(name) for name in one.parents), "composition")
        lineage = draw(tree, "comes from")
    return pages.page(
        "adapter.html",
        "",
        "../",
        one=one,
        many_groups=pages.groups > 1,
        plots=plots(one.versions),
        most_plots=MOST_PLOTS,
        heat=[picture(drawn, one.heat.relative) for drawn in one.heat.maps],
        lineage=lineage,
        compositions=parts,
        fits=fits,
        facts=[(name, value) for name, value in _facts(one) if value],
        total=sum(file.size for file in one.files),
    )


def _facts(one: Adapter) -> Iterator[tuple[str, str | None]]:
    method = one.method
    yield "Owner", one.owner
    yield "Licence", one.licence
    yield "Base", one.base
    yield "Base is also", cut_end(", ".join(one.base_names), 300)
    yield "Of the base", one.base_note
    if method is not None:
        yield "Method", method_name(method)
        yield "Rank", rank_text(method).removeprefix("rank ")
        yield "Alpha", None if method.alpha is None else f"{method.alpha:g}"
        yield "Virtual tokens", f"{method.prompt_tokens or ''}"
        yield "Targets", cut_end(", ".join(method.targets), 400)
        yield "Replaced modules", cut_end(", ".join(method.replaced), 400)
        yield "Trained tokens", f"{method.trained_tokens or ''}"
        yield "Trained values", f"{method.parameters:,}"
        yield "Stored as", method.dtype
        yield "Written by PEFT", method.peft_version
    yield "Source", one.source
    yield "Published", (one.created or "")[:10]
    yield "Trained", one.trained
    for text in one.data:
        yield "Data", text
    yield "Code", one.code


def _parts(site: Site) -> Mapping[Key, list[tuple[str, str]]]:
    """By adapter, the compositions that it is a member of."""
    found: dict[Key, list[tuple[str, str]]] = {}
    for at, one in enumerate(site.compositions):
        for name, _ in one.members:
            found.setdefault((one.group, name), []).append((one.name, _address(at)))
    return found


def _of_group(site: Site, group: str) -> Mapping[str, Composition]:
    return {one.name: one for one in site.compositions if one.group == group}


def _address(at: int) -> str:
    return f"c{at + 1}"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _metric(version: Version, name: str) -> str:
    return number(version.metrics[name]) if name in version.metrics else "–"


def _day(text: str | None) -> str:
    return (text or "")[:10]


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:10]


def _signed(signatures: tuple[Signature, ...] | None) -> str:
    if signatures is None:
        return "unknown"
    keys = dict.fromkeys(key for one in signatures for key in one.keys)
    if not keys:
        return "unreadable" if signatures else "no"
    return f"by {', '.join(key[:10] for key in keys)}"
