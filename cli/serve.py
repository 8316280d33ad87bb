"""`adapterdock serve`."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import serving as codes
from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import AdapterdockError, UsageError
from .command import status_of
from .console import err
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    FrozenOption,
    OfflineOption,
    PolicyOption,
    check_arguments,
    importing_torch,
    open_manifest_argument,
    require_allowed,
    require_torch,
)
from .progress import shown_progress
from .render import print_findings
from .run import hushed
from .verbosity import log_level

if TYPE_CHECKING:
    from ..manifests.findings.finding import Finding
    from ..manifests.manifest import ManifestFile
    from ..serving.app.settings import Settings

log = logging.getLogger("adapterdock")

_NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "prometheus_client": "prometheus-client"}


class LogFormat(str, Enum):
    """How the lines of the log are written."""

    text = "text"
    json = "json"


class Pooling(str, Enum):
    """How an embedding is made of an input's tokens."""

    mean = "mean"
    cls = "cls"
    last = "last"


def serve(
    manifest: Annotated[
        str,
        typer.Argument(
            help="The manifest, or its URL (default: adapters.yaml).",
            show_default=False,
            metavar="MANIFEST",
        ),
    ] = str(DEFAULT_MANIFEST),
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
    log_format: Annotated[
        LogFormat,
        typer.Option(help="How the log on stderr is written: for people, or a JSON object a line."),
    ] = LogFormat.text,
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

    A manifest at a URL needs its lock beside it, and names nothing by relative paths. After a
    restart, what was served is served again, even while the URL or a registry is out of reach.

    Needs the extras torch and serve: pip install 'adapterdock[torch,serve]'.

    Examples:

      adapterdock serve
      adapterdock serve team.yaml --port 9000 --frozen --offline
      adapterdock serve s3://bucket/team/adapters.yaml
      ADAPTERDOCK_API_KEYS=file:keys.txt adapterdock serve --host 0.0.0.0 --residency 2GiB
    """
    with _log_in_json() if log_format is LogFormat.json else nullcontext():
        size = _bytes(max_body)
        file = _local_manifest(manifest, policy)
        require_torch()
        _require_packages()
        if file is not None:
            require_allowed(file, policy=policy, accept=accept, frozen=frozen, offline=offline)
        with importing_torch():
            from ..serving.app.keys import VARIABLE, read_keys
            from ..serving.app.limits import Limits
            from ..serving.app.server import bound, is_this_machine
            from ..serving.app.settings import Settings

        keys = read_keys(os.environ.get(VARIABLE))
        if not keys and not open_ and not is_this_machine(host):
            raise UsageError(
                codes.OPEN_TO_EVERYONE.finding("The server would answer without a key", found=host)
            )
        bound(host, port).close()  # before the base is loaded, which may take minutes
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
        _serve(settings, host, port, log_format)


def _serve(settings: Settings, host: str, port: int, log_format: LogFormat) -> None:
    """Load, then answer until a signal ends it."""
    from ..registry.locks.project import policies_in_force
    from ..serving.app.keys import VARIABLE, allowed
    from ..serving.app.loaded import load_served
    from ..serving.app.log_lines import TextLines, logged_to_stderr
    from ..serving.app.server import serve as serve_app

    as_json = log_format is LogFormat.json
    if as_json:
        with hushed():
            loaded = load_served(settings)
    else:
        with hushed(), shown_progress("Loading the base and its adapters") as progress:
            loaded = load_served(settings, progress=progress)
    findings = loaded.memory.location.shown(loaded.engine.model.findings)
    names = [*loaded.engine.names]
    policies = policies_in_force(loaded.found.file, settings.policy)
    nobody = not settings.keys.names and bool(allowed(None, policies))
    if as_json:
        _log(findings, logging.WARNING)
    else:
        print_findings(findings, err, settings.accept)

    def started(url: str) -> None:
        said = f"Serving {len(names) - 1} adapters and the base at {url}"
        if as_json:
            log.info("%s", said, extra={"event": "started", "url": url, "adapters": names})
        else:
            with err.heard():  # with --quiet too: with port 0, nothing else says the address
                err.line(said)
        if nobody:
            message = "A policy has `allow_keys` and %s is not set: nobody can use the adapters"
            log.warning(message, VARIABLE)

    with nullcontext() if as_json else logged_to_stderr(TextLines(), log_level()):
        serve_app(settings, host, port, loaded, started)


@contextmanager
def _log_in_json() -> Generator[None]:
    """Everything on stderr is the log, also what ends the command."""
    from ..serving.app.log_lines import JsonLines, logged_to_stderr

    err.muted = True  # notes for people; the next command sets it again
    with logged_to_stderr(JsonLines(), log_level()):
        try:
            yield
        except AdapterdockError as error:
            _log(error.findings, logging.ERROR)
            raise typer.Exit(status_of(error)) from None


def _log(findings: Iterable[Finding], level: int) -> None:
    for finding in findings:
        log.log(level, "%s", finding, extra={"event": "finding", "codes": [finding.code]})


def _local_manifest(manifest: str, policy: Path | None) -> ManifestFile | None:
    """The manifest, so that what can be seen is refused before torch is imported; ``None`` for a
    URL, which is read later."""
    from ..serving.served.location import is_url, local_path

    if is_url(manifest):
        check_arguments(None, None, policy)
        return None
    file = open_manifest_argument(local_path(manifest), None, None, policy)
    if file.manifest.base.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("The manifest declares no base", file.where(("base",)))
        )
    return file


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
