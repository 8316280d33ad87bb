"""Whether a server may start: what is cheap to check, before the engine starts."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding, refused
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.access.session import accepted_codes
from ...registry.locks.project import lock_of, open_manifest
from ...registry.locks.state import require_lock
from ...registry.sources.failures import scrub
from ...registry.store.store import Store
from ..served.location import Found, Location, is_url
from ..served.memory import Memory, is_away
from .arguments import Arguments, read_arguments
from .installed import installed_version, is_supported
from .served_base import base_findings
from .settings import ALLOW_RUNTIME_ROUTES, MANIFEST, RUNTIME_UPDATING, Settings, read_settings

log = logging.getLogger("adapterdock")

ASK_SECONDS = 20.0
"""How long a manifest at a URL is waited for, before the engine starts."""

RESOLVERS = frozenset({"lora_filesystem_resolver", "lora_hf_hub_resolver"})
"""vLLM's own resolvers, which are general plugins."""


def stop_unless_ready() -> None:
    """Raise :class:`SystemExit`, with the findings as its message, if this process's server may not
    start. Workers and engines are started by a process that has checked already."""
    if multiprocessing.parent_process() is not None:
        return
    findings = start_findings(os.environ, sys.argv, installed_version())
    if findings:
        raise SystemExit(refusal(findings))


def refusal(findings: Iterable[Finding]) -> str:
    """The message with which a server stops."""
    listed = "\n".join(str(finding) for finding in findings)
    return f"adapterdock: vLLM does not start with this setup\n{listed}"


def start_findings(
    environ: Mapping[str, str], argv: Sequence[str], version: str | None
) -> list[Finding]:
    """Why a server with this environment and these arguments may not start. The network is used for
    a manifest at a URL only, and for :data:`ASK_SECONDS` at most.

    Nothing is checked where no manifest is set and ``VLLM_PLUGINS`` does not name the plugin, which
    is then not in use; and for programs that are no server of vLLM (vLLM also runs plugins in a
    helper that inspects models).
    """
    arguments = read_arguments(argv)
    if not arguments.is_server:
        return []
    try:
        settings = read_settings(environ)
        if settings.manifest is None and not settings.is_named:
            return []
        accepted = accepted_codes(settings.accept)
        findings = [
            *setting_findings(settings),
            *engine_findings(settings, arguments, version),
            *loader_findings(settings),
        ]
        return findings or _project_findings(settings, arguments, accepted)
    except AdapterdockError as error:
        return list(error.findings)


def setting_findings(settings: Settings) -> Iterator[Finding]:
    """What is missing in the environment."""
    if settings.manifest is None:
        yield codes.PLUGIN_SETTINGS.finding(
            f"VLLM_PLUGINS names adapterdock, but {MANIFEST} is not set",
            hint=f"Set {MANIFEST} to the path or URL of a manifest.",
        )
    elif not settings.is_named:
        yield codes.PLUGIN_SETTINGS.finding(
            f"{MANIFEST} is set, but VLLM_PLUGINS does not name adapterdock: vLLM would start "
            "without the adapters",
            found="not set" if settings.plugins is None else ",".join(settings.plugins),
            expected="adapterdock",
            hint="Set VLLM_PLUGINS=adapterdock, with other plugins that you need after a comma.",
        )


def engine_findings(
    settings: Settings, arguments: Arguments, version: str | None
) -> Iterator[Finding]:
    """What this vLLM, as it is started, cannot do."""
    if version is not None and not is_supported(version):
        yield codes.ENGINE_UNSUPPORTED.finding(
            f"vLLM {version} is too old", found=version, expected="0.31 or later"
        )
    if settings.rust_frontend:
        yield codes.ENGINE_UNSUPPORTED.finding(
            "VLLM_USE_RUST_FRONTEND is set: that frontend loads no endpoint plugins",
            hint="Unset VLLM_USE_RUST_FRONTEND.",
        )
    if not arguments.enable_lora:
        yield codes.ENGINE_UNSUPPORTED.finding(
            "vLLM is started without --enable-lora", hint="Add --enable-lora."
        )
    if settings.lazy and (arguments.api_servers or 1) > 1:
        yield codes.ENGINE_UNSUPPORTED.finding(
            "ADAPTERDOCK_LAZY cannot be combined with several API servers: vLLM numbers the "
            "adapters that a resolver finds in each server separately",
            found=f"--api-server-count {arguments.api_servers}",
            hint="Use one API server, or unset ADAPTERDOCK_LAZY.",
        )


def loader_findings(settings: Settings) -> Iterator[Finding]:
    """What else could load adapters into this server."""
    if settings.allow_runtime_routes:
        return
    if settings.runtime_updating:
        yield codes.OTHER_LOADERS.finding(
            f"{RUNTIME_UPDATING} is set: anyone who reaches the server could load adapters, even "
            "without an API key",
            hint=f"Unset {RUNTIME_UPDATING}, or accept the risk with {ALLOW_RUNTIME_ROUTES}=1.",
        )
    others = sorted(RESOLVERS.intersection(settings.plugins or ()))
    if others:
        yield codes.OTHER_LOADERS.finding(
            f"VLLM_PLUGINS names {' and '.join(others)}, which would serve adapters that nobody "
            "verified",
            hint=f"Remove {' and '.join(others)} from VLLM_PLUGINS.",
        )


def _asked_project(manifest: str) -> Found | None:
    """A manifest at a URL, and its lock, which must be current; where the place is out of reach,
    what was served last. ``None`` where nothing is known in :data:`ASK_SECONDS`: the engine's start
    asks again."""
    answer: Queue[Found | AdapterdockError] = Queue()
    Thread(target=lambda: answer.put(_ask(manifest)), name="adapterdock start", daemon=True).start()
    try:
        found = answer.get(timeout=ASK_SECONDS)
    except Empty:
        log.warning("%s did not answer within %g seconds", scrub(manifest), ASK_SECONDS)
        return None
    if isinstance(found, Found):
        return found
    if is_away(found.findings):
        log.warning("%s cannot be checked before the engine starts\n%s", scrub(manifest), found)
        return None
    raise found


def _ask(manifest: str) -> Found | AdapterdockError:
    location: Location | None = None
    try:
        location = Location(manifest)
        found, _ = Memory(location, "vllm", Store.default().root / "serving").read()
        with location.showing():
            require_lock(found.file, found.lock, frozen=False)
        return found
    except AdapterdockError as error:
        return error
    except Exception as error:
        log.exception("Cannot read %s", scrub(manifest))
        message = f"Cannot read the manifest: {type(error).__name__}"
        return AdapterdockError(codes.LOOK_FAILED.finding(message))
    finally:
        if location is not None:
            location.close()


def _read_project(manifest: str) -> tuple[ManifestFile, Lock]:
    """A manifest on this machine, and its lock, which must be current."""
    file = open_manifest(Path(manifest.removeprefix("file://")))
    lock = lock_of(file)
    require_lock(file, lock, frozen=lock is None)
    assert lock is not None
    return file, lock


def _project_findings(
    settings: Settings, arguments: Arguments, accepted: frozenset[str]
) -> list[Finding]:
    """Of manifest, lock and base. A base that is not on this machine yet is checked with the
    engine."""
    if settings.manifest is None:
        return []
    if is_url(settings.manifest):
        asked = _asked_project(settings.manifest)
        if asked is None:
            return []
        file, lock = asked.file, asked.locked
    else:
        file, lock = _read_project(settings.manifest)
    if arguments.model is None:
        return []
    found = base_findings(file, lock, arguments.model, arguments.revision, arguments.load_format)
    return refused(found or (), accepted | frozenset(lock.accepted))
