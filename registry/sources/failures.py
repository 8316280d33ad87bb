"""From what a library raised to one of our errors: which code, and words without secrets.

Libraries are recognised by the names of their exception classes and by HTTP statuses, so that
nothing has to be imported to tell what went wrong (and because the Hub's client has changed its
HTTP library between versions).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from ...manifests.findings import sources as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import OfflineError, SourceError
from ...manifests.findings.finding import Where

_ABSENT_NETWORK = frozenset({codes.UNREACHABLE.id, codes.OFFLINE.id})

_BY_CLASS: tuple[tuple[Code, frozenset[str]], ...] = (
    (codes.OFFLINE, frozenset({"OfflineModeIsEnabled"})),
    (codes.BAD_ANSWER, frozenset({"ListingTooLongError"})),  # botocore wraps it
    (codes.HUB_GATED, frozenset({"GatedRepoError"})),
    (codes.HUB_DISABLED, frozenset({"DisabledRepoError"})),
    (codes.HUB_REVISION_NOT_FOUND, frozenset({"RevisionNotFoundError"})),
    (codes.HUB_REPOSITORY_NOT_FOUND, frozenset({"RepositoryNotFoundError"})),
    (codes.FILE_MISSING, frozenset({"RemoteEntryNotFoundError"})),
    (
        codes.NOT_AUTHENTICATED,
        frozenset(
            {
                "NoCredentialsError",
                "PartialCredentialsError",
                "CredentialRetrievalError",
                "ProfileNotFound",
                "LocalTokenNotFoundError",
                "DefaultCredentialsError",
            }
        ),
    ),
)

_BY_SERVICE_CODE: dict[str, Code] = {
    "NoSuchBucket": codes.BUCKET_NOT_FOUND,
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

_BY_SYMPTOM: tuple[tuple[Code, frozenset[str]], ...] = (
    (
        codes.UNREACHABLE,
        frozenset(
            {
                "ConnectError",
                "ConnectTimeout",
                "ConnectTimeoutError",
                "ConnectionTimeoutError",
                "EndpointConnectionError",
                "ClientConnectorError",
                "ConnectionRefusedError",
                "ProxyError",
                "ProxyConnectionError",
                "SSLError",
                "gaierror",
            }
        ),
    ),
    (
        codes.TIMED_OUT,
        frozenset(
            {"TimeoutException", "ReadTimeoutError", "FSTimeoutError", "TimeoutError", "timeout"}
        ),
    ),
    (
        codes.TRUNCATED,
        frozenset(
            {
                "RemoteProtocolError",
                "ReadError",
                "IncompleteRead",
                "IncompleteReadError",
                "ClientPayloadError",
                "ResponseStreamingError",
                "ServerDisconnectedError",
                "ConnectionClosedError",
                "ConnectionResetError",
                "ClientOSError",
            }
        ),
    ),
    (codes.UNREACHABLE, frozenset({"NetworkError", "ConnectionError", "HTTPClientError"})),
    (codes.ACCESS_DENIED, frozenset({"PermissionError"})),
    (codes.FILE_MISSING, frozenset({"FileNotFoundError"})),
    (codes.BAD_ANSWER, frozenset({"JSONDecodeError", "ResponseParserError", "DecodingError"})),
    (codes.BAD_STORAGE_OPTIONS, frozenset({"ParamValidationError", "UnknownServiceError"})),
)

_SAID_BY_LIBRARY = (
    codes.UNREACHABLE,
    codes.SOURCE_FAILED,
    codes.TARGET_UNWRITABLE,
    codes.BAD_STORAGE_OPTIONS,
)
_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/'\"<>]*@)?([^\s?'\"<>]*)(\?[^\s'\"<>]*)?")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}|\b[Bb]earer\s+\S+|\b(?:AKIA|ASIA)[A-Z0-9]{12,}")
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCOUNT_KEY", re.IGNORECASE)


def scrub(text: str) -> str:
    """``text`` without what may be secret: a URL's user part and query, tokens, and the values
    of environment variables whose names say that they hold one."""
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
    """The error with this one finding; an :class:`OfflineError` where the network is absent."""
    finding = code.finding(
        scrub(message),
        where,
        found=None if found is None else scrub(str(found)),
        expected=None if expected is None else scrub(str(expected)),
        hint=hint,
    )
    return (OfflineError if code.id in _ABSENT_NETWORK else SourceError)(finding)


def explain(error: BaseException, subject: str, where: Where) -> SourceError:
    """What ``error``, raised by a library about ``subject``, means in our codes.

    The caller raises it ``from error``. An error that already is ours comes back as it is.
    """
    if isinstance(error, SourceError):
        return error
    code = _code_of(error)
    hint = _wait_hint(error) if code is codes.RATE_LIMITED else None
    return source_error(
        code, f"{subject}: {_summary(code)}", where, found=_reason(error, code), hint=hint
    )


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind ``error``, if there is one."""
    for link in _chain(error):
        answer = getattr(link, "response", None)
        if isinstance(answer, dict):
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            status = getattr(answer, "status_code", getattr(link, "status", None))
        if isinstance(status, int):
            return status
    return None


def service_code_of(error: BaseException) -> str | None:
    """The error code in an S3 answer (``NoSuchBucket``), if there is one."""
    for link in _chain(error):
        answer = getattr(link, "response", None)
        if isinstance(answer, dict):
            code = answer.get("Error", {}).get("Code")
            if isinstance(code, str):
                return code
    return None


def _code_of(error: BaseException) -> Code:
    names = _class_names(error)
    for code, known in _BY_CLASS:
        if names & known:
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
    if isinstance(error, TypeError) and "argument" in str(error):
        return codes.BAD_STORAGE_OPTIONS
    if isinstance(error, OSError) and "Consistency check failed" in str(error):
        return codes.TRUNCATED
    for code, known in _BY_SYMPTOM:
        if names & known:
            return code
    return codes.SOURCE_FAILED


def _summary(code: Code) -> str:
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


def _wait_hint(error: BaseException) -> str | None:
    for link in _chain(error):
        headers = getattr(getattr(link, "response", None), "headers", None)
        wait = headers.get("Retry-After") if headers is not None else None
        if isinstance(wait, str) and wait.strip().isdigit():
            return f"Wait {wait.strip()} seconds and run again. {codes.RATE_LIMITED.fix}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _class_names(error: BaseException) -> frozenset[str]:
    return frozenset(cls.__name__ for link in _chain(error) for cls in type(link).__mro__)
