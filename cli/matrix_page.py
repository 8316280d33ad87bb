"""The matrix as one HTML page: no scripts, nothing from elsewhere, everything escaped."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..manifests.findings.catalogue import all_codes
from .console import clean

if TYPE_CHECKING:
    from ..registry.matrix import Matrix, Row
    from ..registry.verdicts import Verdict

WORDS = {
    True: ("yes", "\N{CHECK MARK} fits"),
    False: ("no", "\N{MULTIPLICATION X} does not fit"),
    None: ("open", "? unchecked"),
}
_STYLE = """
:root { color-scheme: light dark; --line: #767676; --yes: #0b6b2e; --no: #a4161a; --open: #7a4b00;
  --head: #f1f1f4; --page: #fff; --text: #1b1b1f }
@media (prefers-color-scheme: dark) { :root { --line: #8a8a94; --yes: #7ddf9c; --no: #ff9b9b;
  --open: #ffce73; --head: #26262c; --page: #16161a; --text: #ececf1 } }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 90rem;
  background: var(--page); color: var(--text) }
.scroll { overflow-x: auto }
table { border-collapse: collapse }
caption { text-align: left; padding: .5rem 0 }
th, td { border: 1px solid var(--line); padding: .35rem .6rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; min-width: 8rem }
thead th { background: var(--head) }
.in { display: block; font-weight: normal; font-size: .85rem }
.yes { color: var(--yes) } .no { color: var(--no) } .open { color: var(--open) }
td summary, td > span { font-weight: 600 }
summary { cursor: pointer }
a { color: inherit }
ul { margin: .3rem 0; padding-left: 1.2rem }
dt { font-weight: 600; margin-top: .8rem }
"""


def write_page(path: Path, found: Matrix, summary: str) -> None:
    """Write the page completely or not at all. Raises :class:`UsageError` where that fails."""
    from ..registry.files.disk import write_output

    write_output(path, page(found, summary).encode(), "Cannot write the page")


def page(found: Matrix, summary: str) -> str:
    """The page: a table of adapters and bases with its ``summary``, and what each code means."""
    heads = "".join(f'<th scope="col">{_text(base)}</th>' for base in found.bases)
    rows = "\n".join(map(_row, found.rows))
    problems = "".join(
        f"<li>{_text(f'{f.code} {f.name}: {f.message}')} {_text(str(f.where))}</li>"
        for f in found.problems
    )
    unread = f"<h2>Not read</h2>\n<ul>{problems}</ul>\n" if problems else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Which adapters fit which bases</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Which adapters fit which bases</h1>
<div class="scroll" role="region" aria-label="Adapters and bases" tabindex="0">
<table>
<caption>{_text(summary)}. A cell opens where there is a reason.</caption>
<thead><tr><th scope="col">Adapter</th>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
{unread}{_meanings(found)}<p>Written by adapterdock {_text(__version__)}.</p>
</main>
</body>
</html>
"""


def _row(row: Row) -> str:
    about = [row.manifest, row.facts.get("method"), row.facts.get("rank")]
    if row.facts.get("rank"):
        about[2] = f"rank {row.facts['rank']}"
    inside = "".join(f'<span class="in">{_text(str(one))}</span>' for one in about if one)
    cells = "".join(map(_cell, row.cells.values()))
    return f'<tr><th scope="row">{_text(row.adapter)}{inside}</th>{cells}</tr>'


def _cell(verdict: Verdict) -> str:
    kind, words = WORDS[verdict.fits]
    if not verdict.why:
        return f'<td><span class="{kind}">{words}</span></td>'
    reasons = dict.fromkeys((f.code, f.message, f.found, f.expected) for f in verdict.why)
    items = "".join(f"<li>{line}</li>" for line in map(_reason, reasons))
    return f'<td><details><summary class="{kind}">{words}</summary><ul>{items}</ul></details></td>'


def _reason(reason: tuple[str, str, str | None, str | None]) -> str:
    code, message, got, expected = reason
    text = f'<a href="#{_text(code)}">{_text(code)}</a>: {_text(message)}'
    for name, value in (("found", got), ("expected", expected)):
        text += f"<br>{name}: {_text(value)}" if value else ""
    return text


def _meanings(found: Matrix) -> str:
    lines = "\n".join(_meaning(found))
    return f"<h2>What the codes mean</h2>\n<dl>\n{lines}\n</dl>\n" if lines else ""


def _meaning(found: Matrix) -> Iterator[str]:
    known = all_codes()
    used = {code for row in found.rows for cell in row.cells.values() for code in cell.codes}
    for code in sorted(used):
        said = known[code].explained
        yield (
            f'<dt id="{_text(code)}">{_text(f"{code} {said.name}")}</dt>'
            f"<dd>{_text(said.summary)} {_text(said.explanation)} "
            f"<strong>What to do:</strong> {_text(said.fix)}</dd>"
        )


def _text(text: str) -> str:
    return escape(clean(text), quote=True)
