"""What the Hub's refusal of an upload means: a code, and what to do about it."""

from __future__ import annotations

import re
from dataclasses import replace
from urllib.parse import urlsplit

from ..manifests.findings import sources as codes
from ..manifests.findings.errors import SourceError
from ..manifests.findings.finding import Where
from ..manifests.findings.usage import HUB_UPLOAD
from ..manifests.language.source import HUB
from .sources.failures import explain, source_error, status_of
from .sources.hub_http import UNSENDABLE, cannot_send, sent_token
from .sources.hub_settings import HubSettings

_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3}) ")
_WAIT = re.compile(r"Wait( \d+ seconds)?")
_OF_THE_NETWORK = {
    codes.UNREACHABLE.id: "Check the network, the proxy and HF_ENDPOINT, and upload again.",
    codes.TIMED_OUT.id: "Upload again.",
    codes.TRUNCATED.id: "Upload again.",
    codes.RATE_LIMITED.id: "{wait}, and upload again.",
    codes.SERVER_ERROR.id: None,
    codes.OFFLINE.id: None,
    codes.BAD_ANSWER.id: "Check that HF_ENDPOINT is a Hub, and that no proxy answers in its place.",
}
"""The codes that mean the same for reading and for writing, and what to do where that differs."""


def refusal(error: Exception, name: str, settings: HubSettings, where: Where) -> SourceError:
    """What ``error``, which the Hub's client raised while it uploaded to ``name``, means."""
    answered, over_xet = _answered(error), _status_over_xet(error)
    status = status_of(error) or over_xet
    sent = sent_token(answered) or over_xet is not None
    host = urlsplit(settings.endpoint).netloc.rpartition("@")[2]
    cannot = f"Cannot upload to {name}"
    said = str(getattr(answered, "server_message", None) or answered).strip()
    found = "; ".join(line.strip() for line in said.splitlines() if line.strip())
    if cannot_send(answered) or (status == 401 and sent):
        rejected = f"{host} rejected the token (HTTP 401)"
        return source_error(
            codes.NOT_AUTHENTICATED,
            f"{cannot}: {UNSENDABLE if cannot_send(answered) else rejected}",
            where,
            found=settings.token_place,
            hint=f"Replace the token by a valid one that may write to {name}.",
        )
    if status == 401 or type(answered).__name__ == "LocalTokenNotFoundError":
        return source_error(
            codes.NOT_AUTHENTICATED,
            f"{cannot}: no token found for {host}",
            where,
            hint=f"Run `hf auth login`, or set HF_TOKEN to a token that may write to {name}.",
        )
    if status == 403:
        return source_error(
            codes.ACCESS_DENIED,
            f"{cannot}: the token may not write there (HTTP 403)",
            where,
            found=found,
            hint=f"Check the name, and use a token that may write to {name}. For a repository of "
            "others, create_pr=True opens a pull request.",
        )
    if status in (409, 412):
        return source_error(
            HUB_UPLOAD,
            f"{cannot}: others changed it during the upload (HTTP {status})",
            where,
            found=found,
            hint="Nothing was changed. Upload again.",
        )
    if over_xet is not None and over_xet >= 500:
        return source_error(
            codes.SERVER_ERROR, f"{cannot}: the server failed (HTTP {over_xet})", where
        )
    general = explain(error, name, where, host, doing="upload to", scheme=HUB)
    if general.code in _OF_THE_NETWORK and over_xet is None:
        finding, hint = general.findings[0], _OF_THE_NETWORK[general.code]
        if hint is not None:
            wait = _WAIT.match(finding.hint or "")
            finding = replace(finding, hint=hint.format(wait=wait[0] if wait else "Wait"))
        return type(general)(finding)
    kind = f"HTTP {status}" if status else type(error).__name__
    return source_error(HUB_UPLOAD, f"{cannot}: {kind}", where, found=found)


def _status_over_xet(error: BaseException) -> int | None:
    """The HTTP status that hf_xet was answered with: it says ``ConnectionError`` to all."""
    found = _XET_STATUS.search(str(error))
    return int(found[1]) if found else None


def _answered(error: BaseException) -> BaseException:
    """The first error behind it that has an answer of the Hub, else the first of all."""
    while getattr(error, "response", None) is None and error.__cause__ is not None:
        error = error.__cause__
    return error
