"""What every request passes before its body is read: a key, and the limit of the body.

Plain ASGI, so that streams pass through unchanged.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...manifests.findings import serving as codes
from ...manifests.language.schema import Policy
from .drain import Drain
from .failure import RequestError, busy, too_large
from .keys import Caller, Keys
from .limits import Limits
from .metrics import Metrics

OPEN = frozenset({"/health"})
"""Paths without a key, also while the server is about to stop: a probe of the platform."""
CALLER = "adapterdock_caller"


class Gate:
    """An ASGI app in front of another one.

    Args:
        app: What answers the requests that pass.
        keys: The keys of the server.
        policies: Those in force at this moment.
        limits: Of bodies.
        drain: Counts requests.
        metrics: Counts them too.
        routes: The paths that metrics name.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        policies: Callable[[], Iterable[Policy]],
        limits: Limits,
        drain: Drain,
        metrics: Metrics,
        routes: frozenset[str],
    ) -> None:
        self._app, self._keys, self._policies = app, keys, policies
        self._limits, self._drain, self._metrics, self._routes = limits, drain, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), [500]
        started = False
        route = scope["path"] if scope["path"] in self._routes else "other"

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                status[0], started = message["status"], True
            await send(message)

        try:
            with self._drain:
                headers = _headers(scope)
                scope.setdefault("state", {})[CALLER] = self._caller(headers)
                _check_length(headers, self._limits.body_bytes)
                await self._app(scope, _limited(receive, self._limits.body_bytes), counted)
        except RequestError as error:
            answer = JSONResponse(error.as_dict(), error.status, headers=error.headers)
            await answer(scope, receive, counted)
        except asyncio.CancelledError:
            if not self._drain.is_over:
                raise
            if not started:  # of an answer that has started, the server closes the connection
                error = busy("The server stopped before the request was complete")
                answer = JSONResponse(error.as_dict(), error.status, headers=error.headers)
                await answer(scope, receive, counted)
        finally:
            self._metrics.requests.labels(route, str(status[0])).inc()
            self._metrics.seconds.labels(route).observe(time.monotonic() - start)

    def _caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        said = headers.get(b"authorization")
        caller = self._keys.caller(said.decode("latin-1") if said else None, self._policies())
        if caller is None:
            found = "no Authorization header" if said is None else "a key that is not known"
            raise RequestError(codes.KEY_REFUSED.finding("The API key is refused", found=found))
        return caller


def _headers(scope: Scope) -> dict[bytes, bytes]:
    pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return dict(pairs)


def _check_length(headers: Mapping[bytes, bytes], most: int) -> None:
    said = headers.get(b"content-length", b"")
    if said.isdigit() and int(said) > most:
        raise _body(most, int(said))


def _limited(receive: Receive, most: int) -> Receive:
    """``receive`` that raises where the body has more than ``most`` bytes, whatever its header
    says."""
    seen = 0

    async def counting() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise _body(most)
        return message

    return counting


def _body(most: int, found: Any = None) -> RequestError:
    return too_large(
        "The body is too large", status=413, found=found, expected=f"at most {most} bytes"
    )
