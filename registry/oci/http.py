"""Requests to an OCI registry: authentication, redirections, waits with an end, errors as findings.

They go through the Hub client's own session, which knows the user's proxies and certificates.
See https://distribution.github.io/distribution/spec/auth/token/ for tokens.
"""

from __future__ import annotations

import json
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode, urljoin, urlsplit

from ...manifests.bounds import ANSWER_BYTES
from ...manifests.findings import policy as policy_codes
from ...manifests.findings import sources as codes
from ...manifests.findings.code import Code
from ...manifests.findings.errors import AdapterdockError, SourceError
from ...manifests.findings.finding import Where
from ...manifests.language.oci_reference import OciReference
from ..sources.failures import explain, source_error
from ..sources.open import is_offline
from ..sources.pace import Limits, SlowError
from ..sources.relay import within
from .login import Login

T = TypeVar("T")
Body = Callable[[], Iterable[bytes]]

REQUEST_SECONDS = 60.0
"""For a request and its short answer, all redirections and the authentication together."""
TRIES = 4
FIRST_WAIT = 0.5
"""Seconds before the second try; each later one waits twice as long."""
LONGEST_WAIT = 10.0
"""Seconds between two tries, also where the server asks for more."""
_REDIRECTIONS = 5
_REDIRECTING = frozenset({301, 302, 303, 307, 308})
_AGAIN = frozenset(
    code.id for code in (codes.TIMED_OUT, codes.TRUNCATED, codes.SERVER_ERROR, codes.RATE_LIMITED)
)
_BY_STATUS: Mapping[int, Code] = {
    401: codes.NOT_AUTHENTICATED,
    403: codes.ACCESS_DENIED,
    404: codes.FILE_MISSING,
    408: codes.TIMED_OUT,
    429: codes.RATE_LIMITED,
}
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}\Z")
_SCHEME = re.compile(r"\s*(?:,\s*)*([A-Za-z][A-Za-z0-9-]*)(?=\s|\Z|,)")
_PARAMETER = re.compile(r'\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))\s*(?:,|\Z)')


@dataclass(frozen=True)
class Answer:
    """The end of a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class OciConnection:
    """Requests to one repository, from any thread.

    Args:
        reference: The repository.
        login: The user's, or ``None``: anonymous.
        offline: Whether the network is off.
        permits: Whether a URL may be redirected to; ``None``: any.
        where: The place in a manifest that findings name.

    Attributes:
        push: Whether a token is asked for that allows writing.
    """

    def __init__(
        self,
        reference: OciReference,
        login: Login | None,
        *,
        offline: bool = False,
        permits: Callable[[str], bool] | None = None,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        self.reference: OciReference = reference
        self.push: bool = False
        self.limits: Limits = Limits.from_environment(where)
        self._login: Login | None = login
        self._offline: bool = offline
        self._permits: Callable[[str], bool] | None = permits
        self._where: Where = where
        self._authorization: str | None = None
        self._authenticating = threading.Lock()
        self._asked_wait: float = 0.0

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        body: Body | None = None,
        limit: int = ANSWER_BYTES,
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """One request and at most ``limit`` bytes of its answer (one more, if there are more).
        Raises :class:`SourceError` only where there is no answer."""

        def call() -> Answer:
            with self.open(method, url, headers, body, seconds) as response:
                content = bytearray()
                for chunk in response.iter_raw():
                    content += chunk
                    if len(content) > limit:
                        break
                return Answer(
                    response.status_code,
                    response.headers,
                    bytes(content[: limit + 1]),
                    str(response.url),
                )

        try:
            return within(seconds, call)
        except SlowError as error:
            raise self.slow(error) from error

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        seconds: float | None = None,
    ) -> Generator[Any]:
        """An answer that is not read yet, authenticated where the registry asks for that. The
        caller watches the time."""
        if self._offline or is_offline():
            raise self.error(codes.OFFLINE, f"Cannot reach {self.reference.host}: offline")
        with self._explained():
            sent = self._authorization
            response = self._follow(method, url, headers, body, seconds)
            try:
                if response.status_code == 401:
                    challenge = ", ".join(response.headers.get_list("WWW-Authenticate"))
                    if self._renewed(sent, challenge):
                        response.close()
                        response = self._follow(method, url, headers, body, seconds)
                yield response
            finally:
                response.close()

    def patiently(self, call: Callable[[], T]) -> T:
        """``call()``, again where the failure may pass."""
        for attempt in range(1, TRIES):
            try:
                return call()
            except SourceError as error:
                slow = error.__cause__
                if error.code not in _AGAIN or (isinstance(slow, SlowError) and slow.final):
                    raise
            wait = max(self._asked_wait, FIRST_WAIT * 2 ** (attempt - 1))
            self._asked_wait = 0.0
            time.sleep(min(wait, LONGEST_WAIT))
        return call()

    def refused(
        self, status: int, headers: Mapping[str, str], body: bytes, what: str
    ) -> SourceError:
        """The error for an answer that is none of the expected ones."""
        host = self.reference.host
        wait = headers.get("Retry-After", "")
        self._asked_wait = float(wait) if re.fullmatch(r"[0-9]{1,6}", wait) else 0.0
        code = codes.SERVER_ERROR if status >= 500 else _BY_STATUS.get(status, codes.BAD_ANSWER)
        if status == 401 and self._login is None:
            return self.error(code, f"No credentials found for {host}, which {what} needs")
        message = f"{host} answered HTTP {status} for {what}"
        if status == 401:
            message = f"{host} rejected the login (HTTP 401) for {what}"
        return self.error(code, message, found=said(body) or f"HTTP {status}")

    def error(self, code: Code, message: str, **more: Any) -> SourceError:
        """A finding about this repository."""
        return source_error(code, message, self._where, **more)

    def slow(self, error: SlowError) -> SourceError:
        """The error for a server that is too slow."""
        return self.error(
            codes.TIMED_OUT,
            f"{self.reference.host} is too slow",
            found=error.found,
            expected=error.expected,
            hint=error.hint,
        )

    def place(self, base: str, target: str) -> str:
        """The URL that a server names in an answer. Raises :class:`SourceError` for one that is
        invalid or not encrypted, and for one that no policy allows."""
        try:
            url = urljoin(base, target)
            origin = origin_of(url)
        except ValueError:
            origin, url = ("", "", 0), target
        schemes = ("http", "https") if self.reference.plain else ("https",)
        if origin[0] not in schemes or not origin[1] or "@" in urlsplit(url).netloc:
            raise self.error(
                codes.BAD_ANSWER,
                f"{self.reference.host} names a URL that cannot be used",
                found=url[:200],
                expected=f"{' or '.join(schemes)}://...",
            )
        bare = urlsplit(url)._replace(query="", fragment="").geturl()
        foreign = origin != origin_of(self.reference.api)
        if foreign and self._permits is not None and not self._permits(bare):
            raise self.error(
                policy_codes.REDIRECT_FORBIDDEN,
                f"{self.reference.host} redirects to a URL that no policy allows",
                found=bare,
            )
        return url

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None,
        seconds: float | None,
    ) -> Any:
        for _ in range(_REDIRECTIONS):
            own = dict(headers)
            if self._authorization and origin_of(url) == origin_of(self.reference.api):
                own["Authorization"] = self._authorization
            response = self._send(method, url, own, body and body(), seconds)
            target = response.headers.get("Location")
            redirects = method in ("GET", "HEAD") and response.status_code in _REDIRECTING
            if not redirects or not target:
                return response
            response.close()
            url = self.place(str(response.url), target)
        raise self.error(codes.BAD_ANSWER, f"Too many redirections from {self.reference.host}")

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Iterable[bytes] | None,
        seconds: float | None,
    ) -> Any:
        from huggingface_hub import get_session

        silence = self.limits.silence
        reading = silence if content is None else max(silence, seconds or 0)
        request = get_session().build_request(
            method,
            url,
            headers={"Accept-Encoding": "identity", **headers},
            content=content,
            timeout=(silence, reading, silence, silence),
        )
        return get_session().send(request, stream=True, follow_redirects=False)

    def _renewed(self, sent: str | None, header: str) -> bool:
        """Whether there is something else to send than what was ``sent``; another thread may have
        got it meanwhile."""
        with self._authenticating:
            return self._authorization != sent or self._authenticate(header)

    def _authenticate(self, header: str) -> bool:
        """Whether there is something new to send."""
        offered = challenges(header)
        before = self._authorization
        for scheme, parameters in offered:
            if scheme == "bearer" and parameters.get("realm"):
                self._authorization = f"Bearer {self._token(parameters)}"
                return self._authorization != before
        basic = any(scheme == "basic" for scheme, _ in offered)
        if basic and self._login is not None and self._login.user:
            self._authorization = _basic(self._login)
            return self._authorization != before
        return False

    def _token(self, parameters: Mapping[str, str]) -> str:
        realm = self.place(self.reference.api, parameters["realm"])
        repository = urlsplit(self.reference.api).path.removeprefix("/v2/")
        scope = f"repository:{repository}:{'pull,push' if self.push else 'pull'}"
        form = {"service": parameters.get("service", ""), "scope": scope}
        headers: dict[str, str] = {}
        content = None
        login = self._login
        if login is not None and login.identity_token is not None:
            method, url = "POST", realm
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            more = {"grant_type": "refresh_token", "refresh_token": login.identity_token}
            content = urlencode({**form, **more, "client_id": "adapterdock"}).encode()
            headers["Content-Length"] = str(len(content))
        else:
            method, url = "GET", f"{realm}{'&' if '?' in realm else '?'}{urlencode(form)}"
            if login is not None:
                headers["Authorization"] = _basic(login)
        response = self._send(method, url, headers, None if content is None else [content], None)
        try:
            raw = b""
            for chunk in response.iter_raw():
                raw += chunk
                if len(raw) > ANSWER_BYTES:
                    break
            status = response.status_code
            if status != 200:
                status = 401 if status in (400, 403) else status
                raise self.refused(status, response.headers, raw, "a token")
        finally:
            response.close()
        token = token_in(raw)
        if token is None:
            raise self.error(
                codes.BAD_ANSWER, f"{urlsplit(realm).hostname} answered without a token"
            )
        return token

    @contextmanager
    def _explained(self) -> Generator[None]:
        """What the HTTP library raises, as one of our errors."""
        try:
            yield
        except (AdapterdockError, SlowError):
            raise
        except OSError as error:
            raise explain(error, str(self.reference), self._where, self.reference.host) from error
        except Exception as error:
            if not _is_library(error):
                raise
            raise explain(error, str(self.reference), self._where, self.reference.host) from error


def _is_library(error: BaseException) -> bool:
    """Whether the HTTP library (whichever the Hub's client uses) or that client raised it."""
    rooms = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return not rooms.isdisjoint(
        {"httpx", "httpx2", "httpcore", "httpcore2", "huggingface_hub", "h11", "ssl"}
    )


def challenges(header: str) -> list[tuple[str, Mapping[str, str]]]:
    """The schemes of a ``WWW-Authenticate`` header (RFC 9110, section 11.6.1), in lower case, with
    their parameters; what is malformed ends the list."""
    found: list[tuple[str, Mapping[str, str]]] = []
    at = 0
    while match := _SCHEME.match(header, at):
        at = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, at):
            at = parameter.end()
            quoted = parameter[2]
            value = parameter[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            parameters.setdefault(parameter[1].lower(), value)
        found.append((match[1].lower(), parameters))
    return found


def token_in(raw: bytes) -> str | None:
    """The token in a token server's answer, or ``None``."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    found = (data.get("token") or data.get("access_token")) if isinstance(data, dict) else None
    return found if isinstance(found, str) and _TOKEN.match(found) else None


def said(body: bytes) -> str | None:
    """The first error in an answer of the distribution protocol (``errors: [{code, message}]``)."""
    try:
        first = json.loads(body)["errors"][0]
        text = f"{first['code']}: {first.get('message') or ''}"
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    return "".join(char for char in text if char.isprintable())[:300].removesuffix(": ")


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port. Raises ``ValueError``."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port


def _basic(login: Login) -> str:
    return "Basic " + b64encode(f"{login.user}:{login.password}".encode()).decode()
