"""The page ``docs/reference/architectures.md``: the verdicts on every class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MADE = "<!-- Made by `python -m adapterdock.loader.tables.architecture_check`; do not edit. -->\n"

HEAD = """\
# Architectures

Which models `validate` can check without torch. It derives a model's modules and their sizes from
`config.json` and the header of the weights. Each class of transformers {version} was built, with
every kind of layer and every sub-config that it can have, and compared with what the header gives.
A class that adds a head to another class is tried once; its kinds of layers are tried on that other
class.

Of {built} classes that can be built, {checked} are *checked*: {share} percent.

| verdict | classes | what it means |
|---|---|---|
| checked | {checked} | the modules, their kinds and their sizes are those of the live model |
| sizes unchecked | {sizes} | the modules are right; sizes or kinds of some are unknown (AD345) |
| not known | {unknown} | the modules are unknown (AD341) |
| not built | {unbuilt} | needs a library or options that the survey does not have |
| no modules | {empty} | a base class of other classes |

An unknown class never passes. `adapterdock validate --deep` asks transformers (with torch, without
weights). `lock --accept CODE` records in the lock that a person accepted it; the loaded model is
checked before anything is attached. A class from a repository's own code (`trust_remote_code`) is
not in the table.
"""


Rows = Mapping[str, Sequence[str]]
"""By class: its model type, the verdict, and why it is not better."""


def page_of(data: Mapping[str, Any]) -> str:
    """The page's text; ``data`` is the content of the file of verdicts."""
    rows: Rows = data["classes"]
    counts = Counter(verdict for _, verdict, _ in rows.values())
    built = sum(counts[one] for one in ("checked", "sizes unchecked", "not known", "wrong"))
    share = 100 * counts["checked"] / built if built else 0.0
    head = HEAD.format(
        version=data["transformers"],
        built=built,
        checked=counts["checked"],
        share=f"{share:.1f}",
        sizes=counts["sizes unchecked"],
        unknown=counts["not known"] + counts["wrong"],
        unbuilt=counts["not built"],
        empty=counts["no modules"],
    )
    return "\n".join([MADE, head, *_not_checked(rows), *_checked(rows)]) + "\n"


def _not_checked(rows: Rows) -> Iterator[str]:
    yield "## Not checked, and why\n"
    yield "| class | verdict | why |\n|---|---|---|"
    for name, (_, verdict, why) in sorted(rows.items()):
        if verdict not in ("checked", "no modules"):
            yield f"| {name} | {verdict} | {why.replace('|', '/')} |"


def _checked(rows: Rows) -> Iterator[str]:
    yield "\n## Checked, by model type\n"
    yield "| model type | classes |\n|---|---|"
    families: dict[str, list[str]] = {}
    for name, (family, verdict, _) in sorted(rows.items()):
        if verdict == "checked":
            families.setdefault(family, []).append(name)
    for family in sorted(families):
        yield f"| {family} | {', '.join(families[family])} |"
