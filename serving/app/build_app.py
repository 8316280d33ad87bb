"""The app: a model that is loaded, its batches, its manifest, its routes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...loader.load import load
from ...manifests.findings import serving as codes
from .answering import Answering
from .batcher import Batcher
from .drain import Drain
from .engine import Engine
from .failure import RequestError, invalid
from .following import Follower
from .gate import Gate
from .keys import Keys
from .limits import Limits
from .metrics import Metrics
from .routes import ROUTES, Service, routes
from .tasks import Pooling

log = logging.getLogger("adapterdock")

_AT_ONCE = 1.0
"""Seconds for what takes no time once nothing runs."""


@dataclass(frozen=True)
class Settings:
    """How a model is served.

    Args:
        manifest: Its path.
        keys: Who may ask.
        limits: What one request may ask for.
        policy: A policy file that applies besides the manifest's own.
        accept: Codes of unchecked findings to accept.
        frozen: Refuse a missing or incomplete lock.
        offline: Use no network.
        residency: Bytes of adapters on the model's device, as for ``load``.
        threads: Of torch; ``None`` leaves torch's own number.
        period: Seconds between two looks at the manifest; ``None`` does not follow it.
        pooling: How embeddings are made; ``None`` for what suits the base.
        drain: Seconds that a server which stops waits for its answers.
    """

    manifest: Path
    keys: Keys = field(default_factory=Keys)
    limits: Limits = field(default_factory=Limits)
    policy: Path | None = None
    accept: tuple[str, ...] = ()
    frozen: bool = False
    offline: bool = False
    residency: str | None = None
    threads: int | None = None
    period: float | None = 30.0
    pooling: Pooling | None = None
    drain: float = 30.0


def load_engine(settings: Settings, **more: Any) -> Engine:
    """Load the manifest's base and adapters. Raises any :class:`AdapterdockError` of ``load``."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    model = load(
        settings.manifest,
        policy=settings.policy,
        accept=settings.accept,
        frozen=settings.frozen,
        offline=settings.offline,
        residency=settings.residency,
        **more,
    )
    return Engine(model, settings.pooling)


def build_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """A FastAPI app that serves a manifest.

    Args:
        settings: How.
        engine: The model, if it is loaded already.

    Returns:
        The app; it follows the manifest from its start to its end.

    Raises:
        AdapterdockError: The manifest cannot be loaded.
    """
    if engine is None:
        engine = load_engine(settings)
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
        engine,
        settings.manifest,
        period=settings.period or 30.0,
        on_look=lambda result: metrics.looks.labels(result).inc(),
        policy=settings.policy,
        accept=settings.accept,
        frozen=settings.frozen,
        offline=settings.offline,
    )
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
        await asyncio.to_thread(follower.close)

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
    ran = await asyncio.to_thread(batcher.close, _AT_ONCE)
    if not done:
        log.warning(
            "The server stopped after %g seconds, before every answer was complete", seconds
        )
        await drain.finished(_AT_ONCE)  # those that were cut are told
    return done and ran


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse(error.as_dict(), error.status, headers=error.headers)


async def _not_valid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _refused(request, explained(error.errors()))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, RequestError):  # FastAPI wraps what the gate raised in a body
        return await _refused(request, error.__cause__)
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
    first = errors[0]
    steps = [str(step) for step in first["loc"] if step != "body"]
    param = steps[0] if steps else None
    if first["type"] == "json_invalid":
        return invalid("The body is not valid JSON", found=first.get("ctx", {}).get("error"))
    if first["type"] == "extra_forbidden":
        return invalid(f"The field {param!r} is not served", param)
    if first["type"] == "missing":
        return invalid(f"The field {'.'.join(steps) or 'body'!r} is missing", param)
    return invalid(f"Invalid {'.'.join(steps) or 'body'}", param, expected=first["msg"])
