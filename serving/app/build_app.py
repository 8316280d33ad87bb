"""The app: a model that is loaded, its batches, its manifest, its routes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...manifests.findings import serving as codes
from ...manifests.reading.complaints import expected_of
from .answering import Answering
from .batcher import Batcher
from .drain import Drain
from .failure import RequestError, invalid
from .following import Follower
from .gate import Gate
from .loaded import Loaded, load_served
from .metrics import Metrics
from .requests import UNIONS
from .routes import ROUTES, Service, routes
from .settings import Settings

log = logging.getLogger("adapterdock")

_AT_ONCE = 1.0
"""Seconds for what takes no time once nothing runs."""


def build_app(settings: Settings, loaded: Loaded | None = None) -> FastAPI:
    """A FastAPI app that serves a manifest.

    Args:
        settings: How.
        loaded: The model, if it is loaded already.

    Returns:
        The app; it follows the manifest from its start to its end.

    Raises:
        AdapterdockError: The manifest cannot be loaded.
    """
    if loaded is None:
        loaded = load_served(settings)
    engine = loaded.engine
    limits, metrics = settings.limits, Metrics()
    batcher = Batcher(
        engine.run,
        rows=limits.rows,
        waiting=limits.waiting,
        wait_seconds=limits.wait_seconds,
        fits=engine.fits,
        ran=metrics.batch,
    )
    follower = Follower(
        loaded,
        period=settings.period or 30.0,
        on_look=lambda result: metrics.looks.labels(result).inc(),
        policy=settings.policy,
        accept=settings.accept,
        frozen=settings.frozen,
        offline=settings.offline,
    )
    if settings.period is not None:
        follower.take_up()
    metrics.watch(lambda: batcher.waiting, lambda: batcher.running)
    metrics.state(lambda: follower.standing.behind, lambda: len(engine.names))
    answering = Answering(batcher, metrics, limits.answer_seconds)
    service = Service(engine, follower, answering, metrics, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        if settings.period is not None:
            follower.start()
        service.ready = True
        yield
        if not drain.closing:  # a server that drains by itself has waited already
            await stop(app, settings.drain)
        await asyncio.to_thread(follower.close, _AT_ONCE)

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    drain = app.state.drain = Drain()
    app.state.service, app.state.batcher = service, batcher
    app.include_router(routes(service))
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _broken)
    app.add_middleware(
        cast("Any", Gate),
        keys=settings.keys,
        policies=lambda: follower.standing.policies,
        limits=limits,
        drain=drain,
        metrics=metrics,
        routes=ROUTES,
    )
    return app


async def stop(app: FastAPI, seconds: float) -> bool:
    """Take no more requests, and wait for the answers of those that are here. Whether all had
    theirs within ``seconds``."""
    drain: Drain = app.state.drain
    service: Service = app.state.service
    batcher: Batcher = app.state.batcher
    service.ready = False
    drain.close()
    done = await drain.finished(seconds)
    ran = await asyncio.to_thread(batcher.close, _AT_ONCE if done else 0)
    if not done:
        log.warning(
            "The server stopped after %g seconds, before every answer was complete", seconds
        )
        if not await drain.finished(_AT_ONCE):  # those whose rows were cut are told
            drain.cut()
            await drain.finished(_AT_ONCE)
    return done and ran


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse(error.as_dict(), error.status, headers=error.headers)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    said = request.headers.get("content-type", "")
    if error.errors()[0]["loc"] == ("body",) and not _is_json(said):
        finding = codes.REQUEST_INVALID.finding(
            "The Content-Type is not that of JSON",
            found=said[:100] or "none",
            expected="application/json",
        )
        return await _refused(request, RequestError(finding, status=415))
    return await _refused(request, explained(error.errors()))


def _is_json(content_type: str) -> bool:
    kind, _, sub = content_type.partition(";")[0].strip().lower().partition("/")
    return kind == "application" and (sub == "json" or sub.endswith("+json"))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, RequestError):  # FastAPI wraps what the gate raised in a body
        return await _refused(request, error.__cause__)
    if error.status_code == 400:  # FastAPI could not parse it: no UTF-8, too deep, huge numbers
        return await _refused(request, invalid("The body is not valid JSON"))
    finding = codes.REQUEST_INVALID.finding(
        f"{error.detail}: {request.method} {request.url.path[:200]}",
        hint="Use a route of OpenAI's API, such as POST /v1/chat/completions.",
    )
    return await _refused(request, RequestError(finding, status=error.status_code))


async def _broken(request: Request, error: Exception) -> Response:
    log.exception("A request ended with an error", exc_info=error)
    finding = codes.REQUEST_INVALID.finding(
        "The server failed to answer", found=type(error).__name__, hint="Look at the server's log."
    )
    return await _refused(request, RequestError(finding, status=500))


def explained(errors: Any) -> RequestError:
    """pydantic's errors as one that names the first field. What was sent is not repeated."""
    field = errors[0]["loc"][:2]
    ours = (one for one in errors if one["type"] == "value_error" and one["loc"][:2] == field)
    first = next(ours, errors[0])
    loc = [str(at) for at in first["loc"][1:]]  # after "body"
    known = loc[:-1] if first["type"] == "extra_forbidden" else loc
    # "str" and "list[...]" are the branches of a union, and no places in a body
    steps = [at for at in known if at != "str" and "[" not in at] + loc[len(known) :]
    param = steps[0] if steps else None
    if first["type"] == "json_invalid":
        return invalid("The body is not valid JSON", found=first.get("ctx", {}).get("error"))
    if first["type"] == "extra_forbidden":
        return invalid(f"The field {'.'.join(steps)!r} is not served", param)
    if first["type"] == "missing":
        return invalid(f"The field {'.'.join(steps) or 'body'!r} is missing", param)
    expected = None if first["type"] == "value_error" else UNIONS.get(steps[-1] if steps else "")
    return invalid(
        f"Invalid {'.'.join(steps) or 'body'}", param, expected=expected or _expected(first)
    )


def _expected(error: Mapping[str, Any]) -> str:
    if error["type"] == "value_error":  # one of ours, which says what it expects
        return str(error["ctx"]["error"])
    return expected_of(error) or str(error["msg"])
