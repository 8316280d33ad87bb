"""Secrets in a manifest: in its text, its values and its storage options. None is repeated."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..findings import language as codes
from ..findings.finding import Finding, Where
from .document import Document
from .nodes import Items, Map, Node, Path, Scalar, find, scalars
from .secrets import HIDDEN, MAX_EACH, is_login_name, is_secret_name, redact, secrets_in


@dataclass(frozen=True)
class Secret:
    """One secret that was found, with the finding that does not repeat it."""

    text: str
    finding: Finding


def in_manifest(
    documents: Iterable[Document], root: Map, notes: Mapping[Path, Node], unexpanded: Map
) -> list[Secret]:
    """Secrets in the text of ``documents``, in the tree ``root`` that they resolve to, in its
    ``notes``, and in storage options before variables were expanded."""
    found: list[Secret] = []
    for document in documents:
        found += in_text(document.text, document.file, document.root)
    seen = {(secret.finding.where.file, secret.text) for secret in found}
    resolved = [
        secret for path, node in {(): root, **notes}.items() for secret in in_tree(node, path)
    ]
    found += [s for s in resolved if (s.finding.where.file, s.text) not in seen]
    adapters = find(unexpanded, ("adapters",))
    owners = [("adapters", name) for name in adapters.entries] if isinstance(adapters, Map) else []
    for owner in (("base",), *owners):
        options = find(unexpanded, (*owner, "storage_options"))
        if options is not None:
            found += in_options(options, (*owner, "storage_options"))
    return found


def in_text(text: str, file: str | None, root: Node | None = None) -> list[Secret]:
    """Secrets anywhere in a file, comments included. ``root`` is its tree, for their paths."""
    matches = list(secrets_in(text))
    if not matches:
        return []
    spans = [] if root is None else _spans(root, file)
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    found: dict[int, Secret] = {}
    for what, match in matches:
        start = match.start("secret")
        line = bisect_right(lines, start)
        where = Where(file, _path_at(spans, start), line, start - lines[line - 1] + 1)
        found.setdefault(start, Secret(match["secret"], _finding(what, where)))
    return [found[start] for start in sorted(found)]


def in_tree(root: Node, path: Path = ()) -> list[Secret]:
    """Secrets in values and keys, after escapes and variables are resolved."""
    found: list[Secret] = []
    for place, scalar in scalars(root, path, keys=True):
        if len(found) >= MAX_EACH:
            break
        via = ", from " + ", ".join(scalar.variables) if scalar.variables else ""
        for what, match in secrets_in(scalar.text if isinstance(scalar.value, str) else ""):
            found.append(Secret(match["secret"], _finding(what + via, scalar.spot.at(place))))
    return found


def in_options(options: Node, path: Path) -> list[Secret]:
    """Credentials in storage options: keys whose name says so, at any depth."""
    found: list[Secret] = []
    if isinstance(options, Items):
        for index, item in enumerate(options.items):
            found += in_options(item, (*path, index))
    if not isinstance(options, Map):
        return found
    for key, entry in options.entries.items():
        inner = (*path, key)
        if not is_secret_name(key) or _harmless(entry.value):
            found += in_options(entry.value, inner)
            continue
        finding = codes.SECRET_OPTION.finding(
            f"The storage option {redact(key)!r} contains a credential",
            entry.key.spot.at(inner),
            found=f"{redact(key)}: {HIDDEN}",
        )
        values = [scalar.text for _, scalar in scalars(entry.value, inner, keys=True)]
        found += [Secret(text, finding) for text in values or [""]]
    return found


def _harmless(value: Node) -> bool:
    if not isinstance(value, Scalar):
        return False
    return value.value is None or isinstance(value.value, bool) or is_login_name(value.text)


def _finding(what: str, where: Where) -> Finding:
    return codes.SECRET.finding(
        f"This looks like {what}, which is not allowed in a manifest", where, found=HIDDEN
    )


def _path_at(spans: list[tuple[int, int, Path]], offset: int) -> Path:
    index = bisect_right(spans, offset, key=lambda span: span[0]) - 1
    return spans[index][2] if index >= 0 and offset < spans[index][1] else ()


def _spans(root: Node, file: str | None) -> list[tuple[int, int, Path]]:
    """Where the keys and values of ``file`` start and end, in its order."""
    return sorted(
        (scalar.spot.start, scalar.spot.end, path)
        for path, scalar in scalars(root, keys=True)
        if scalar.spot.file == file and scalar.spot.line is not None
    )
