"""A manifest on a Ray cluster: ``serve run adapterdock.serving.ray:app manifest=adapters.yaml``.

The same app as ``adapterdock serve``, in each replica of one Ray Serve deployment. Every replica
loads the base and follows the manifest by itself: nothing has to be pushed to it, also where Ray
restarts it or starts another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..manifests.findings import serving as codes
from ..manifests.findings.errors import UsageError
from ..manifests.language.names import listed
from ..manifests.reading.complaints import expected_of
from .app.keys import VARIABLE, read_keys
from .app.limits import Limits
from .served.location import absolute
from .served.log_with import log_with

if TYPE_CHECKING:
    from fastapi import FastAPI

    from .app.settings import Settings

DEPLOYMENT = "adapterdock"
_QUICK = 5.0
"""Seconds that Ray waits longer than a replica does itself."""


class Args(BaseModel):
    """The arguments of ``serve run``, as ``key=value``, or ``args`` in a config file of Ray Serve.

    Paths are relative to where ``serve run`` runs; on a cluster every node must have them. Every
    node must reach a URL.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    manifest: str = Field(description="path or URL of the manifest")
    policy: str | None = Field(default=None, description="a policy file that applies too")
    accept: str = Field(default="", description="codes of unchecked findings, with commas")
    frozen: bool = Field(default=False, description="refuse a missing or incomplete lock")
    offline: bool = Field(default=False, description="use no network")
    residency: str | None = Field(default=None, description="bytes of loaded adapters, as 2GiB")
    follow: float = Field(default=30.0, ge=0, description="seconds between looks; 0: never")
    rows: int = Field(default=8, ge=1, description="most rows of a batch")
    wait: float = Field(default=0.01, ge=0, le=10, description="seconds that a row waits")
    waiting: int = Field(default=256, ge=1, description="most rows that wait")
    max_tokens: int = Field(default=1024, ge=1, description="most new tokens of an answer")
    max_context: int | None = Field(default=None, ge=1, description="most tokens of both")
    max_body_bytes: int = Field(default=8 << 20, ge=1, description="largest body")
    max_choices: int = Field(default=16, ge=1, description="most rows of a request")
    pooling: Literal["mean", "cls", "last"] | None = Field(default=None, description="embeddings")
    drain: float = Field(default=30.0, ge=0, description="seconds for answers in progress")
    replicas: int = Field(default=1, ge=1, description="how many copies of the model")
    cpus: float = Field(default=1.0, gt=0, description="of one replica; torch's threads too")
    gpus: float = Field(default=0.0, ge=0, description="of one replica")
    guarded: bool = Field(
        default=False, description="set by `app`: a replica without API keys does not start"
    )


def app(args: Mapping[str, Any]) -> Any:
    """The Ray Serve application. ``serve run`` calls it.

    Args:
        args: The fields of :class:`Args`.

    Returns:
        What ``ray.serve.run`` takes.

    Raises:
        UsageError: Ray is not installed, or the arguments or the API keys are invalid.
    """
    serve = _serve()
    read_keys(os.environ.get(VARIABLE))
    said = read_args(args)

    def build() -> FastAPI:
        return replica(said)

    deployment = serve.deployment(
        serve.ingress(build)(),
        name=DEPLOYMENT,
        num_replicas=said.replicas,
        ray_actor_options={"num_cpus": said.cpus, "num_gpus": said.gpus},
        # Ray's own number is 5: no batch would ever be full
        max_ongoing_requests=max(said.waiting, 2 * said.rows),
        graceful_shutdown_timeout_s=said.drain + _QUICK,
    )
    return deployment.bind()


def read_args(args: Mapping[str, Any]) -> Args:
    """The arguments, checked, with absolute paths. Raises :class:`UsageError`."""
    try:
        said = Args.model_validate(dict(args))
    except ValidationError as error:
        raise UsageError(
            *(
                codes.SERVE_ARGUMENT.finding(
                    f"Invalid argument {'.'.join(map(str, one['loc']))!r}",
                    found=one["input"] if one["loc"] and one["type"] != "missing" else None,
                    expected=_expected(one),
                )
                for one in error.errors()
            )
        ) from error
    return said.model_copy(
        update={
            "manifest": absolute(said.manifest),
            "policy": None if said.policy is None else str(Path(said.policy).absolute()),
            "guarded": VARIABLE in os.environ,
        }
    )


def _expected(error: Mapping[str, Any]) -> str | None:
    if error["type"] == "missing":
        return "a value"
    if error["type"] == "extra_forbidden":
        return listed(sorted(set(Args.model_fields) - {"guarded"}))
    return expected_of(error) or str(error["msg"])


def replica(args: Args) -> FastAPI:
    """The app of one replica, in its own process.

    Raises:
        AdapterdockError: The manifest cannot be loaded.
    """
    from .app.build_app import build_app

    log_with("ray.serve")
    return build_app(settings_of(args))


def settings_of(args: Args) -> Settings:
    """How a replica serves. Raises :class:`UsageError` for missing or invalid API keys."""
    from .app.settings import Settings

    keys = read_keys(os.environ.get(VARIABLE))
    if args.guarded and not keys:
        raise UsageError(
            codes.OPEN_TO_EVERYONE.finding(
                "The replica has no API keys, and `serve run` has some",
                hint=f"Set {VARIABLE} on every node, or in `runtime_env` of the application.",
            )
        )
    return Settings(
        args.manifest,
        keys,
        Limits(
            body_bytes=args.max_body_bytes,
            new_tokens=args.max_tokens,
            context=args.max_context,
            choices=args.max_choices,
            waiting=args.waiting,
            rows=args.rows,
            wait_seconds=args.wait,
        ),
        policy=None if args.policy is None else Path(args.policy),
        accept=tuple(code.strip() for code in args.accept.split(",") if code.strip()),
        frozen=args.frozen,
        offline=args.offline,
        residency=args.residency,
        # more threads than CPUs make a replica slower by orders of magnitude
        threads=max(int(args.cpus), 1),
        period=args.follow or None,
        pooling=args.pooling,
        drain=args.drain,
    )


def _serve() -> Any:
    try:
        from ray import serve  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise UsageError(
            codes.SERVE_UNAVAILABLE.finding(
                "ray[serve] is not installed",
                found=error,
                hint="Install it with `pip install 'adapterdock[ray]'`.",
            )
        ) from error
    return serve
