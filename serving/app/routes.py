"""The routes: OpenAI's, vLLM's for classes, and our own below ``/v1/adapterdock``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...loader.model.deployment import Deployment
from ...manifests.findings import serving as codes
from .admission import Admission
from .answering import Answering, gone, usage_for
from .channel import Channel
from .engine import Engine
from .failure import RequestError, not_served
from .following import Follower
from .gate import CALLER
from .keys import Caller
from .limits import Limits
from .metrics import Metrics
from .replies import Reply, classes, embeddings, models
from .requests import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    EmbeddingsRequest,
    as_list,
)
from .status import status_of

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
EMBEDDINGS, CLASSIFY, MODELS = "/v1/embeddings", "/v1/classify", "/v1/models"
STATUS, METRICS, HEALTH = "/v1/adapterdock/status", "/v1/adapterdock/metrics", "/health"
ROUTES = frozenset({CHAT, COMPLETIONS, EMBEDDINGS, CLASSIFY, MODELS, STATUS, METRICS})


class Service:
    """What the routes use."""

    def __init__(
        self,
        engine: Engine,
        follower: Follower,
        answering: Answering,
        metrics: Metrics,
        limits: Limits,
    ) -> None:
        self.engine, self.follower, self.metrics = engine, follower, metrics
        self.limits, self.answering = limits, answering
        self.admission = Admission(engine, limits)
        self.ready = False
        """Whether requests are answered: not before the start, and not once the end began."""

    async def generate(self, request: Request, body: ChatRequest | CompletionRequest) -> Response:
        """Answer a chat or completions."""
        chat = isinstance(body, ChatRequest)
        count = body.n if chat else body.n * min(len(as_list(body.prompt)), self.limits.choices + 1)
        channel = Channel(min(count, self.limits.choices))
        admitted = await run_in_threadpool(
            self.admission.generation, body, caller_of(request), channel.hear
        )
        reply = Reply("chat" if chat else "completions", body.model)
        if body.stream:
            return await self.answering.stream(
                request, admitted, channel, reply, usage=body.usage_in_stream
            )
        answers = await self.answering.complete(request, admitted, channel)
        if answers is None:
            return gone()
        return JSONResponse(reply.complete(answers, usage_for(admitted)))

    async def vectors(
        self, request: Request, body: EmbeddingsRequest | ClassifyRequest
    ) -> tuple[list[tuple[float, ...]], int] | None:
        """The vectors of a request's inputs, and the tokens of its prompts."""
        channel = Channel(min(len(as_list(body.input)), self.limits.choices))
        admitted = await run_in_threadpool(
            self.admission.inputs, body, caller_of(request), channel.hear
        )
        answers = await self.answering.complete(request, admitted, channel)
        if answers is None:
            return None
        return [answer.vector for answer in answers], admitted.prompt_tokens

    def status(self) -> dict[str, Any]:
        """What is served, and what should be."""
        deployment = self._deployment()
        lock, here = deployment.pulled.lock, self.engine.host.adapters.by_name
        sizes = {name: adapter.nbytes for name, adapter in here.items()}
        sizes |= {
            name: sum(file.size for file in one.files.values())
            for name, one in lock.adapters.items()
            if one.files
        }
        compositions = self.engine.host.state.compositions
        sizes |= {
            name: sum(sizes.get(member, 0) for member in of) for name, of in compositions.items()
        }
        follower = self.follower
        return status_of(follower.standing, follower.location, lock, sizes, ready=self.ready)

    def _deployment(self) -> Deployment:
        deployment = self.engine.host.deployment
        assert deployment is not None
        return deployment


def caller_of(request: Request) -> Caller:
    """Who sent the request, as the gate found."""
    return getattr(request.state, CALLER)


def unrestricted(request: Request) -> None:
    """Raise :class:`RequestError` for a key that may not know every name."""
    if caller_of(request).restricted:
        raise RequestError(
            codes.KEY_REFUSED.finding(
                "This key may not see all adapters",
                hint="Use a key that no `allow_keys` of a policy restricts.",
            ),
            status=403,
        )


def routes(service: Service) -> APIRouter:
    """The routes of one app."""
    router = APIRouter()

    @router.post(CHAT, response_model=None)
    async def chat(request: Request, body: ChatRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await service.generate(request, body)

    @router.post(COMPLETIONS, response_model=None)
    async def completions(request: Request, body: CompletionRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        return await service.generate(request, body)

    @router.post(EMBEDDINGS, response_model=None)
    async def embed(request: Request, body: EmbeddingsRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await service.vectors(request, body)
        if found is None:
            return gone()
        as_base64 = body.encoding_format == "base64"
        return JSONResponse(embeddings(body.model, *found, as_base64=as_base64))

    @router.post(CLASSIFY, response_model=None)
    async def classify(request: Request, body: ClassifyRequest) -> Response:  # pyright: ignore[reportUnusedFunction]
        found = await service.vectors(request, body)
        if found is None:
            return gone()
        vectors, tokens = found
        return JSONResponse(classes(body.model, vectors, service.engine.tasks.labels or {}, tokens))

    @router.get(MODELS, response_model=None)
    async def listed(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        return JSONResponse(_models(service, caller_of(request)))

    @router.get(MODELS + "/{name:path}", response_model=None)
    async def one(request: Request, name: str) -> Response:  # pyright: ignore[reportUnusedFunction]
        rows = _models(service, caller_of(request))["data"]
        found = next((row for row in rows if row["id"] == name), None)
        if found is None:
            raise not_served(name)
        return JSONResponse(found)

    @router.get(STATUS, response_model=None)
    async def status(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        unrestricted(request)
        return JSONResponse(service.status())

    @router.get(METRICS, response_model=None)
    async def metrics(request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        unrestricted(request)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.get(HEALTH, response_model=None)
    async def health() -> Response:  # pyright: ignore[reportUnusedFunction]
        state = "ok" if service.ready else "stopping"
        return JSONResponse({"status": state}, 200 if service.ready else 503)

    return router


def _models(service: Service, caller: Caller) -> dict[str, Any]:
    roots = {name: digest for name, (digest, _) in service.follower.standing.adapters.items()}
    names = service.admission.names_for(caller)
    return models(names, service.engine.tasks.names, roots)
