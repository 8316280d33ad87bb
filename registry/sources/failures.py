"""From a library's exception to one of our errors: its code, and a message without secrets.

Libraries are recognised by the names of their exception classes and by HTTP statuses, so that
nothing has to be imported for that (and because the Hub's client has changed its HTTP library
between versions).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Mapping

from ...manifests.findings import sources as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import OfflineError, SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.source import LOCAL
from .hints import hint_for, hint_for_error

_NETWORK_MISSING = frozenset({codes.UNREACHABLE.id, codes.OFFLINE.id})

_BY_CLASS: Mapping[str, Code] = {
    "OfflineModeIsEnabled": codes.OFFLINE,
    "ListingTooLongError": codes.BAD_ANSWER,  # botocore wraps it
    "GatedRepoError": codes.HUB_GATED,
    "DisabledRepoError": codes.HUB_DISABLED,
    "RevisionNotFoundError": codes.HUB_REVISION_NOT_FOUND,
    "RepositoryNotFoundError": codes.HUB_REPOSITORY_NOT_FOUND,
    "RemoteEntryNotFoundError": codes.FILE_MISSING,
    "NoCredentialsError": codes.NOT_AUTHENTICATED,
    "PartialCredentialsError": codes.NOT_AUTHENTICATED,
    "CredentialRetrievalError": codes.NOT_AUTHENTICATED,
    "ProfileNotFound": codes.NOT_AUTHENTICATED,
    "LocalTokenNotFoundError": codes.NOT_AUTHENTICATED,
    "DefaultCredentialsError": codes.NOT_AUTHENTICATED,
    "CredentialUnavailableError": codes.NOT_AUTHENTICATED,
}
"""Exception classes that say more than an HTTP status; the first that fits counts."""

_BY_SERVICE_CODE: dict[str, Code] = {
    "NoSuchBucket": codes.BUCKET_NOT_FOUND,
    "ContainerNotFound": codes.BUCKET_NOT_FOUND,
    "NoSuchVersion": codes.VERSION_GONE,
    "PreconditionFailed": codes.SOURCE_CHANGED,
    "SlowDown": codes.RATE_LIMITED,
    "ExpiredToken": codes.ACCESS_DENIED,
    "InvalidToken": codes.ACCESS_DENIED,
    "SignatureDoesNotMatch": codes.ACCESS_DENIED,
    "InvalidAccessKeyId": codes.ACCESS_DENIED,
    "AuthorizationHeaderMalformed": codes.ACCESS_DENIED,
}

_BY_STATUS: dict[int, Code] = {
    401: codes.NOT_AUTHENTICATED,
    403: codes.ACCESS_DENIED,
    404: codes.FILE_MISSING,
    408: codes.TIMED_OUT,
    412: codes.SOURCE_CHANGED,
    416: codes.BAD_ANSWER,
    429: codes.RATE_LIMITED,
}

_BY_SYMPTOM: Mapping[str, Code] = {
    "ConnectError": codes.UNREACHABLE,
    "ConnectTimeout": codes.UNREACHABLE,
    "ConnectTimeoutError": codes.UNREACHABLE,
    "ConnectionTimeoutError": codes.UNREACHABLE,
    "EndpointConnectionError": codes.UNREACHABLE,
    "ClientConnectorError": codes.UNREACHABLE,
    "ConnectionRefusedError": codes.UNREACHABLE,
    "ProxyError": codes.UNREACHABLE,
    "ProxyConnectionError": codes.UNREACHABLE,
    "SSLError": codes.UNREACHABLE,
    "gaierror": codes.UNREACHABLE,
    "TimeoutException": codes.TIMED_OUT,
    "ReadTimeoutError": codes.TIMED_OUT,
    "FSTimeoutError": codes.TIMED_OUT,
    "TimeoutError": codes.TIMED_OUT,
    "timeout": codes.TIMED_OUT,
    "RemoteProtocolError": codes.TRUNCATED,
    "ReadError": codes.TRUNCATED,
    "IncompleteRead": codes.TRUNCATED,
    "IncompleteReadError": codes.TRUNCATED,
    "ClientPayloadError": codes.TRUNCATED,
    "ResponseStreamingError": codes.TRUNCATED,
    "ServerDisconnectedError": codes.TRUNCATED,
    "ServiceRequestError": codes.UNREACHABLE,
    "ServiceResponseError": codes.TRUNCATED,
    "ConnectionClosedError": codes.TRUNCATED,
    "ConnectionResetError": codes.TRUNCATED,
    "ClientOSError": codes.TRUNCATED,
    "NetworkError": codes.UNREACHABLE,
    "ConnectionError": codes.UNREACHABLE,
    "HTTPClientError": codes.UNREACHABLE,
    "PermissionError": codes.ACCESS_DENIED,
    "FileNotFoundError": codes.FILE_MISSING,
    "JSONDecodeError": codes.BAD_ANSWER,
    "ResponseParserError": codes.BAD_ANSWER,
    "DecodingError": codes.BAD_ANSWER,
    "ParamValidationError": codes.BAD_STORAGE_OPTIONS,
    "UnknownServiceError": codes.BAD_STORAGE_OPTIONS,
}
"""Exception classes for what has no status; the first that fits counts."""

_SAID_BY_LIBRARY = (
    codes.UNREACHABLE,
    codes.SOURCE_FAILED,
    codes.TARGET_UNWRITABLE,
    codes.BAD_STORAGE_OPTIONS,
)
_OF_THE_HOST = (codes.UNREACHABLE, codes.NOT_AUTHENTICATED)
_STARTS = ("cannot ", "no ", "the ")
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/'\"<>]*@)?([^\s?'\"<>]*)(\?[^\s'\"<>]*)?")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|\b[Bb]earer\s+\S+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCOUNT_KEY", re.IGNORECASE)


def scrub(text: str) -> str:
    """``text`` without possible secrets: a URL's user part and query, tokens, and the values of
    environment variables with a secret's name."""
    text = _URL.sub(lambda m: m.group(1) + m.group(3) + ("?..." if m.group(4) else ""), text)
    text = _TOKEN.sub("***", text)
    for name, value in os.environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return text


def source_error(
    code: Code,
    message: str,
    where: Where,
    *,
    found: object = None,
    expected: object = None,
    hint: str | None = None,
) -> SourceError:
    """The error with this finding; an :class:`OfflineError` where the network is missing."""
    finding = code.finding(
        scrub(message),
        where,
        found=None if found is None else scrub(str(found)),
        expected=None if expected is None else scrub(str(expected)),
        hint=hint,
    )
    return (OfflineError if code.id in _NETWORK_MISSING else SourceError)(finding)


def explain(
    error: BaseException,
    subject: str,
    where: Where,
    host: str = "the server",
    *,
    doing: str = "read",
    scheme: str = LOCAL,
) -> SourceError:
    """What ``error``, raised by a library about ``subject`` at ``host``, means in our codes.
    ``doing`` is what failed, as a verb; ``scheme`` that of the source, for what to do.

    A message about a host that cannot be used leaves ``subject`` out where ``where`` says it, so
    that all sources at that host have the same one.

    The caller raises it ``from error``. An error of ours is returned unchanged.
    """
    if isinstance(error, SourceError):
        return error
    code = _code_of(error)
    hint = hint_for_error(str(error), scheme) or hint_for(code, scheme)
    if code is codes.RATE_LIMITED:
        hint = _wait_hint(error, hint or code.fix)
    reason = _summary(code, host, status_of(error))
    if code in _OF_THE_HOST and where.path and doing == "read":
        message = reason[0].upper() + reason[1:] if reason.startswith(_STARTS) else reason
    else:
        message = f"Cannot {doing} {subject}: {reason}"
    return source_error(code, message, where, found=_reason(error, code), hint=hint)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind ``error``, or ``None``."""
    for link in _chain(error):
        answer = getattr(link, "response", None)
        if isinstance(answer, dict):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(answer, "status_code", getattr(link, "status", None))
        if status is None and type(link).__name__ == "HttpError":  # gcsfs
            status = getattr(link, "code", None)
        if isinstance(status, int):
            return status
    return None


def service_code_of(error: BaseException) -> str | None:
    """The error code in an answer of S3 or Azure (``NoSuchBucket``), or ``None``."""
    for link in _chain(error):
        answer = getattr(link, "response", None)
        azure = getattr(link, "error_code", None)
        if isinstance(azure, str):
            return str(getattr(azure, "value", azure))
        if isinstance(answer, dict):
            code = answer.get("Error", {}).get("Code")
            if isinstance(code, str):
                return code
    return None


def _code_of(error: BaseException) -> Code:
    names = _class_names(error)
    if code := _first(_BY_CLASS, names):
        return code
    service = service_code_of(error)
    if service in _BY_SERVICE_CODE:
        return _BY_SERVICE_CODE[service]
    status = status_of(error)
    if status is not None and status >= 400:
        if status in _BY_STATUS:
            return _BY_STATUS[status]
        if status >= 500:
            return codes.SERVER_ERROR
    if any(isinstance(link, OSError) and link.errno in _DISK for link in _chain(error)):
        return codes.TARGET_UNWRITABLE
    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
        return codes.BAD_STORAGE_OPTIONS
    if isinstance(error, TypeError) and "argument" in str(error):
        return codes.BAD_STORAGE_OPTIONS
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return codes.TRUNCATED
    return _first(_BY_SYMPTOM, names) or codes.SOURCE_FAILED


def _first(table: Mapping[str, Code], names: frozenset[str]) -> Code | None:
    return next((code for name, code in table.items() if name in names), None)


def _summary(code: Code, host: str, status: int | None) -> str:
    if code is codes.UNREACHABLE:
        return f"cannot connect to {host}"
    if code is codes.NOT_AUTHENTICATED:
        refused = f"{host} rejected the credentials (HTTP 401)"
        return refused if status == 401 else f"no credentials found for {host}"
    return code.summary[0].lower() + code.summary[1:].rstrip(".")


def _reason(error: BaseException, code: Code) -> str:
    parts = [type(error).__name__]
    status, service = status_of(error), service_code_of(error)
    if status is not None and status >= 400:
        parts.append(f"HTTP {status}")
    if service is not None and service != str(status):
        parts.append(service)
    if code in _SAID_BY_LIBRARY:
        first = (str(error).strip().splitlines() or [""])[0]
        parts.append(first[:200])
    return ", ".join(part for part in parts if part)


def _wait_hint(error: BaseException, fix: str) -> str:
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None)
        wait = headers.get("Retry-After") if headers is not None else None
        if isinstance(wait, str) and wait.strip().isdigit():
            return fix.replace("Wait", f"Wait {wait.strip()} seconds", 1)
    return fix


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _class_names(error: BaseException) -> frozenset[str]:
    return frozenset(cls.__name__ for link in _chain(error) for cls in type(link).__mro__)
