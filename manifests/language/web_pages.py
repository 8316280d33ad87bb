"""Addresses of web pages that people copy from a browser, and the source that each means. Pure.

A page is not a folder of files: opened as one, it gives errors that name neither the Hub nor the
bucket.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qs, unquote

HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co", "www.hf.co"})
_GITHUB = frozenset({"github.com", "www.github.com"})
_S3_CONSOLE = re.compile(r"(?:[a-z0-9-]+\.)?console\.aws\.amazon\.com\Z")
_GOOGLE_CONSOLE = "console.cloud.google.com"
_FILES = ("blob", "resolve", "raw")
"""Steps of a Hub page that a revision and a file follow; ``tree`` has a folder."""
_NO_MODELS = frozenset(
    {"datasets", "spaces", "collections", "papers", "docs", "blog", "models", "kernels"}
)


def page_meant(address: str) -> tuple[str, str] | None:
    """What the page at ``address`` (without its scheme) is, and the source to write instead.

    ``None`` for an address that may be a folder of files, such as a release or ``/raw/`` on
    GitHub, or a bucket's own address.
    """
    host, _, rest = address.partition("/")
    host = host.lower().partition(":")[0]
    path, _, query = rest.partition("?")
    steps = [unquote(step) for step in path.partition("#")[0].split("/") if step]
    if host in HUB_HOSTS:
        if steps[:1] and steps[0] in _NO_MODELS:
            return "a page of the Hub that is not a model's", "hf://org/name"
        return "a page of the Hub", hub_source(steps)
    if host in _GITHUB and len(steps) >= 2 and (len(steps) == 2 or steps[2] in ("blob", "tree")):
        return "a page of GitHub", _github(steps)
    if _S3_CONSOLE.match(host) and steps[:1] == ["s3"]:
        return "a page of the S3 console", _bucket("s3", steps[2:3], parse_qs(query))
    if host == _GOOGLE_CONSOLE and steps[:2] == ["storage", "browser"]:
        named = [step.partition(";")[0] for step in steps[2:] if step != "_details"]
        return "a page of the Google Cloud console", "/".join(["gs:/", *(named or ["BUCKET"])])
    return None


def hub_source(steps: list[str]) -> str:
    """The source of a model's page on the Hub, from the steps of its path."""
    if len(steps) > 1 and steps[1] in (*_FILES, "tree"):  # a repository without an owner
        repository, rest = steps[:1], steps[1:]
    else:
        repository, rest = steps[:2], steps[2:]
    text = f"hf://{'/'.join(repository) or 'org/name'}"
    if len(rest) < 2 or rest[0] not in (*_FILES, "tree"):
        return text
    if rest[1] != "main":
        text += f"@{rest[1].replace('/', '%2F')}"
    folder = rest[2:] if rest[0] == "tree" else rest[2:-1]
    return "/".join([text, *folder])


def _github(steps: list[str]) -> str:
    owner, name, kind = steps[0], steps[1].removesuffix(".git"), steps[2:3]
    inside = steps[3:-1] if kind == ["blob"] else steps[3:]
    return "/".join(["https://github.com", owner, name, "raw", *(inside or ["BRANCH", "FOLDER"])])


def _bucket(scheme: str, bucket: list[str], query: dict[str, list[str]]) -> str:
    prefix = query.get("prefix", [""])[0].strip("/")
    last = prefix.rpartition("/")[2]
    if "." in last:  # the page of one file
        prefix = prefix.rpartition("/")[0]
    return "/".join([f"{scheme}:/", *(bucket or ["BUCKET"]), *([prefix] if prefix else [])])
