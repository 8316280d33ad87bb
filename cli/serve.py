"""`adapterdock serve`."""

from __future__ import annotations

import os
from enum import Enum
from importlib.util import find_spec
from typing import Annotated

import typer

from ..manifests.findings import serving as codes
from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import UsageError
from .console import err
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    FrozenOption,
    ManifestArgument,
    OfflineOption,
    PolicyOption,
    importing_torch,
    open_manifest_argument,
    require_torch,
)
from .progress import shown_progress
from .render import print_findings
from .run import hushed

_NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}


class Pooling(str, Enum):
    """How an embedding is made of an input's tokens."""

    mean = "mean"
    cls = "cls"
    last = "last"


def serve(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Listen on this address.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="Listen on this port; 0: any.")
    ] = 8000,
    open_: Annotated[
        bool, typer.Option("--open", help="Answer other machines without API keys.")
    ] = False,
    rows: Annotated[int, typer.Option(metavar="N", min=1, help="At most N rows in a batch.")] = 8,
    wait: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, max=10, help="How long a row waits for others to join it."
        ),
    ] = 0.01,
    waiting: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most N rows wait; more get status 503.")
    ] = 256,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most N new tokens in one answer.")
    ] = 1024,
    max_context: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="At most N tokens of prompt and answer (default: the base's limit).",
            show_default=False,
        ),
    ] = None,
    max_body: Annotated[
        str, typer.Option(metavar="SIZE", help="The largest body of a request.")
    ] = "8MiB",
    max_choices: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most N rows in one request.")
    ] = 16,
    residency: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Keep at most so much of adapters loaded, such as 2GiB (default: as the manifest "
            "says).",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Threads of torch (default: torch's).", show_default=False
        ),
    ] = None,
    follow: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="Look at the manifest again after so long, and when a file changes; 0: never.",
        ),
    ] = 30.0,
    pooling: Annotated[
        Pooling | None,
        typer.Option(
            help="How embeddings are made (default: as the base needs).", show_default=False
        ),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="On SIGTERM, wait so long for answers in progress."
        ),
    ] = 30.0,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
) -> None:
    """Serve the base and its adapters over HTTP, like OpenAI's API.

    The name of an adapter or composition is the model's name; __base__ is the base alone. Rows of
    different adapters run in one batch. The manifest is followed: a change of it, or of its lock,
    is served without a restart. ADAPTERDOCK_API_KEYS sets the API keys (NAME=KEY, separated by
    commas, or file:PATH); `allow_keys` of a policy says which adapters each may use.

    Needs the extras torch and serve: pip install 'adapterdock[torch,serve]'.

    Examples:

      adapterdock serve
      adapterdock serve team.yaml --port 9000 --frozen --offline
      ADAPTERDOCK_API_KEYS=file:keys.txt adapterdock serve --host 0.0.0.0 --residency 2GiB
    """
    size = _bytes(max_body)
    file = open_manifest_argument(manifest, None, None, policy)
    if file.manifest.base.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("The manifest declares no base", file.where(("base",)))
        )
    require_torch()
    _require_packages()
    with importing_torch():
        from ..serving.app.build_app import Settings, load_engine
        from ..serving.app.keys import VARIABLE, read_keys
        from ..serving.app.limits import Limits
        from ..serving.app.server import is_this_machine
        from ..serving.app.server import serve as serve_app

    keys = read_keys(os.environ.get(VARIABLE))
    if not keys and not open_ and not is_this_machine(host):
        raise UsageError(
            codes.OPEN_TO_EVERYONE.finding("The server would answer without a key", found=host)
        )
    settings = Settings(
        manifest,
        keys,
        Limits(
            body_bytes=size,
            new_tokens=max_tokens,
            context=max_context,
            choices=max_choices,
            waiting=waiting,
            rows=rows,
            wait_seconds=wait,
        ),
        policy,
        tuple(accept or ()),
        frozen,
        offline,
        residency,
        threads,
        follow or None,
        None if pooling is None else pooling.value,
        drain,
    )
    with hushed(), shown_progress("Loading the base and its adapters") as progress:
        engine = load_engine(settings, progress=progress)
    print_findings(engine.model.findings, err, accept or ())
    names = engine.names
    serve_app(
        settings,
        host,
        port,
        engine,
        lambda url: err.line(f"Serving {len(names) - 1} adapters and the base at {url}"),
    )


def _bytes(text: str) -> int:
    import re

    from ..manifests.language.schema import BYTE_SIZE_PATTERN, parse_bytes

    if not re.match(BYTE_SIZE_PATTERN, text):
        raise UsageError(
            usage_codes.BAD_SIZE.finding("Invalid --max-body", found=text, expected="such as 8MiB")
        )
    return parse_bytes(text)


def _require_packages() -> None:
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(
            codes.SERVE_UNAVAILABLE.finding(f"{', '.join(missing)} {verb} not installed")
        )
