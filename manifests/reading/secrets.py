"""Secrets typed into a manifest: found by shape or by the name of their key, never repeated."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice, pairwise

from ..findings import language as codes
from ..findings.finding import Finding, Where
from .nodes import Items, Map, Node, Path, Scalar

HIDDEN = "[hidden]"
MAX_TOLD = 500
"""Characters of one part of a finding."""
MAX_EACH = 100
"""Secrets of one kind that are reported, so that a hostile file is answered in bounded time."""

_START = r"(?<![A-Za-z0-9_])"
# What it is: how it looks. The group 'secret' is what must never be shown.
_SHAPES: tuple[tuple[str, str], ...] = (
    ("a Hugging Face token", _START + r"(?P<secret>(?:hf|api_org)_[A-Za-z0-9]{20,})"),
    ("an AWS access key id", _START + r"(?P<secret>(?:AKIA|ASIA)[A-Z0-9]{16})(?![A-Z0-9])"),
    ("a GitHub token", _START + r"(?P<secret>gh[pousr]_[A-Za-z0-9]{20,})"),
    ("a GitHub token", _START + r"(?P<secret>github_pat_[A-Za-z0-9_]{20,})"),
    ("a GitLab token", _START + r"(?P<secret>glpat-[A-Za-z0-9_-]{20,})"),
    ("a Slack token", _START + r"(?P<secret>xox[abeoprs]-[A-Za-z0-9-]{10,})"),
    ("a PyPI token", _START + r"(?P<secret>pypi-[A-Za-z0-9_-]{50,})"),
    ("a Google API key", _START + r"(?P<secret>AIza[A-Za-z0-9_-]{35})"),
    ("an API key", _START + r"(?P<secret>sk-(?:[a-z0-9]{1,12}-){0,3}[A-Za-z0-9_]{20,})"),
    ("a Weights & Biases key", r"(?i:wandb_api_key)\s*[:=]\s*['\"]?(?P<secret>[0-9a-f]{40})"),
    (
        "a signed web token",
        _START + r"(?P<secret>eyJ[A-Za-z0-9_-]{10,300}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+)",
    ),
    ("a private key", r"(?P<secret>-----BEGIN [A-Z ]*PRIVATE KEY-----)"),
    ("an Azure account key", r"(?i:AccountKey|SharedAccessKey)=(?P<secret>[^;\s'\"]{8,})"),
    (
        "a user and password in a URL",
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{0,31}://"
        r"(?P<secret>[^\s/@:'\"]*:(?!\$\{)[^\s/@'\"]+)@",
    ),
    (
        "a user or token in a URL",
        r"(?<![A-Za-z0-9+.-])https?://(?P<secret>(?!\$\{)[^\s/@:'\"]+)@",
    ),
    (
        "a signed URL",
        r"(?i)[?&;](?:X-Amz-(?:Signature|Credential|Security-Token)|X-Goog-(?:Signature|Credential)"
        r"|AWSAccessKeyId|Signature|sig|token|access_token|auth_token|api_?key|password|secret)"
        r"=(?P<secret>(?!\$\{)[^\s&;#'\"]+)",
    ),
)
# One cheap look decides whether any shape can be there at all.
_PERHAPS = re.compile(
    r"hf_|api_org_|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox|pypi-|AIza|sk-|eyJ|-----BEGIN"
    r"|(?i:wandb_api_key|AccountKey|SharedAccessKey)|://[^\s/]*@|[?&;][A-Za-z_-]+="
)

_WORDS = frozenset(
    {
        *("secret", "secrets", "token", "tokens", "password", "passwd", "pwd", "passphrase"),
        *("credential", "credentials", "apikey", "accesskey", "secretkey", "privatekey"),
        *("accountkey", "authorization", "bearer", "cookie", "sas"),
    }
)
_KEY_KINDS = frozenset(
    {"access", "api", "private", "account", "secret", "signing", "encryption", "customer"}
)
_NOT_SECRET = frozenset({"anon", "cloud", "google_default", "cache"})
"""gcsfs's ``token`` names a way to log in, too."""


def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name holds a credential, judged by its whole words.

    ``HF_TOKEN``, ``secret``, ``aws_access_key_id`` and ``SSECustomerKey`` do; ``TOKENIZER_DIR``
    and ``key_prefix`` do not.
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    words = [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]
    if _WORDS & set(words) or words == ["key"] or words[-2:] == ["connection", "string"]:
        return True
    return any(kind in _KEY_KINDS and key in ("key", "keys") for kind, key in pairwise(words))


def redact(text: str) -> str:
    """``text`` with everything that looks like a secret hidden."""
    if not _PERHAPS.search(text):
        return text
    for _, shape in _SHAPES:
        text = re.sub(shape, lambda m: m.group().replace(m["secret"], HIDDEN), text)
    return text


def redacted(finding: Finding, secrets: Iterable[str] = ()) -> Finding:
    """The finding without any of ``secrets``, or anything that looks like one, and not too long."""

    def clean(text: str | None) -> str | None:
        if text is None:
            return None
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        text = redact(text)
        return text if len(text) <= MAX_TOLD else f"{text[:MAX_TOLD]}..."

    where = finding.where
    path = tuple(clean(part) or "" if isinstance(part, str) else part for part in where.path)
    return replace(
        finding,
        message=clean(finding.message) or "",
        found=clean(finding.found),
        expected=clean(finding.expected),
        hint=clean(finding.hint),
        where=where if path == where.path else replace(where, path=path),
    )


@dataclass(frozen=True)
class Secret:
    """One secret that was found, with the finding that does not repeat it."""

    text: str
    finding: Finding


def in_text(text: str, file: str | None, root: Node | None = None) -> list[Secret]:
    """Secrets anywhere in a file, comments included. ``root`` is its tree, to tell their paths."""
    if not _PERHAPS.search(text):
        return []
    spans = [] if root is None else _spans(root, file)
    lines = [0, *(match.end() for match in re.finditer("\n", text))]
    found: dict[int, Secret] = {}
    for what, shape in _SHAPES:
        for match in islice(re.finditer(shape, text), MAX_EACH):
            start = match.start("secret")
            line = bisect_right(lines, start)
            column = start - lines[line - 1] + 1
            path = _path_at(spans, start)
            where = Where(file, path, line, column)
            found.setdefault(start, Secret(match["secret"], _finding(what, where)))
    return [found[start] for start in sorted(found)]


def in_tree(root: Node, path: Path = ()) -> list[Secret]:
    """Secrets in values and keys, as they are once escapes and variables are resolved."""
    found: list[Secret] = []
    for place, scalar in _keys_and_values(root, path):
        if len(found) >= MAX_EACH:
            break
        text = scalar.text if isinstance(scalar.value, str) else ""
        if not text or not _PERHAPS.search(text):
            continue
        for what, shape in _SHAPES:
            for match in re.finditer(shape, text):
                via = ", by way of " + ", ".join(scalar.variables) if scalar.variables else ""
                finding = _finding(what + via, scalar.spot.at(place))
                found.append(Secret(match["secret"], finding))
    return found


def in_options(options: Node, path: Path) -> list[Secret]:
    """Credentials in storage options: keys that by their name hold one, at any depth."""
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
            f"The storage option {redact(key)!r} holds a credential.",
            entry.key.spot.at(inner),
            found=f"{redact(key)}: {HIDDEN}",
        )
        values = [scalar.text for _, scalar in _keys_and_values(entry.value, inner)]
        found += [Secret(text, finding) for text in values or [""]]
    return found


def _harmless(value: Node) -> bool:
    if not isinstance(value, Scalar):
        return False
    return value.value is None or isinstance(value.value, bool) or value.text in _NOT_SECRET


def _finding(what: str, where: Where) -> Finding:
    return codes.SECRET.finding(
        f"This looks like {what}, which must not stand in a manifest.", where, found=HIDDEN
    )


def _keys_and_values(node: Node, path: Path) -> Iterator[tuple[Path, Scalar]]:
    if isinstance(node, Scalar):
        yield path, node
    elif isinstance(node, Items):
        for index, item in enumerate(node.items):
            yield from _keys_and_values(item, (*path, index))
    else:
        for key, entry in node.entries.items():
            yield path, entry.key
            yield from _keys_and_values(entry.value, (*path, key))


def _path_at(spans: list[tuple[int, int, Path]], offset: int) -> Path:
    index = bisect_right(spans, offset, key=lambda span: span[0]) - 1
    return spans[index][2] if index >= 0 and offset < spans[index][1] else ()


def _spans(root: Node, file: str | None) -> list[tuple[int, int, Path]]:
    """Where the keys and values of ``file`` start and end, in its order."""
    return sorted(
        (scalar.spot.start, scalar.spot.end, path)
        for path, scalar in _keys_and_values(root, ())
        if scalar.spot.file == file and scalar.spot.line is not None
    )
