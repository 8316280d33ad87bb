"""What looks like a secret: by its form, or by the name of its key; and hiding it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice, pairwise

from ..findings.finding import Finding

HIDDEN = "[hidden]"
MAX_SHOWN = 500
"""Characters of one part of a finding."""
MAX_EACH = 100
"""Secrets of one kind that are found in one text, so that a hostile file takes limited time."""

_START = r"(?<![A-Za-z0-9_])"
# What it is, and its form. The group 'secret' must never be shown.
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
# A quick test whether any of these can be in a text.
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
"""Values of gcsfs's ``token`` that only name a way to log in."""


def is_secret_name(name: str) -> bool:
    """Whether a key or variable of this name has a credential, judged by the words in it.

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
    """The finding without ``secrets`` or anything that looks like one, and not too long."""

    def clean(text: str | None) -> str | None:
        if text is None:
            return None
        for secret in secrets:
            text = text.replace(secret, HIDDEN)
        text = redact(text)
        return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."

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


def secrets_in(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """What each secret in ``text`` looks like, and its match (the group ``secret``)."""
    if _PERHAPS.search(text):
        for what, shape in _SHAPES:
            for match in islice(re.finditer(shape, text), MAX_EACH):
                yield what, match


def is_login_name(text: str) -> bool:
    """Whether a value under the name of a secret only names a way to log in."""
    return text in _NOT_SECRET
