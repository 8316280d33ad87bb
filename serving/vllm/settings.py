"""The plugin's settings, which come from the environment of the server."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding
from ..served.aliases import follows_aliases

NAME = "adapterdock"
"""Of the plugin, in every group of entry points."""

MANIFEST = "ADAPTERDOCK_MANIFEST"
PERIOD = "ADAPTERDOCK_PERIOD"
LAZY = "ADAPTERDOCK_LAZY"
ALLOW_RUNTIME_ROUTES = "ADAPTERDOCK_ALLOW_RUNTIME_ROUTES"
ACCEPT = "ADAPTERDOCK_ACCEPT"
PLUGINS = "VLLM_PLUGINS"
RUNTIME_UPDATING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
RUST_FRONTEND = "VLLM_USE_RUST_FRONTEND"

DEFAULT_PERIOD = 30.0
LEAST_PERIOD = 1.0

_BOOLEANS = {"1": True, "true": True, "0": False, "false": False, "": False}


@dataclass(frozen=True)
class Settings:
    """What the environment says.

    Args:
        manifest: A path or a URL; ``None`` where the plugin is not in use.
        period: Seconds between two looks at the manifest.
        lazy: Whether an adapter is loaded by the first request for it, not before.
        follow_aliases: Whether aliases are followed beyond the lock.
        allow_runtime_routes: Whether vLLM's own routes that load adapters are accepted.
        accept: Codes of unchecked findings that are accepted.
        plugins: What ``VLLM_PLUGINS`` names; ``None`` where it is not set.
        runtime_updating: Whether vLLM has routes that load adapters.
        rust_frontend: Whether vLLM's frontend is the one that has no plugins.
    """

    manifest: str | None
    period: float = DEFAULT_PERIOD
    lazy: bool = False
    follow_aliases: bool = True
    allow_runtime_routes: bool = False
    accept: tuple[str, ...] = ()
    plugins: tuple[str, ...] | None = None
    runtime_updating: bool = False
    rust_frontend: bool = False

    @property
    def is_named(self) -> bool:
        """Whether ``VLLM_PLUGINS`` names this plugin."""
        return self.plugins is not None and NAME in self.plugins


def read_settings(environ: Mapping[str, str]) -> Settings:
    """The settings in ``environ``. Raises :class:`UsageError` with everything that is invalid."""
    findings: list[Finding] = []
    plugins = environ.get(PLUGINS)
    settings = Settings(
        manifest=environ.get(MANIFEST) or None,
        period=_period(environ, findings),
        lazy=_boolean(environ, LAZY, findings),
        follow_aliases=_follows(environ, findings),
        allow_runtime_routes=_boolean(environ, ALLOW_RUNTIME_ROUTES, findings),
        accept=tuple(code for code in environ.get(ACCEPT, "").replace(",", " ").split()),
        plugins=None if plugins is None else tuple(plugins.split(",")),
        runtime_updating=_of_vllm(environ, RUNTIME_UPDATING),
        rust_frontend=_of_vllm(environ, RUST_FRONTEND),
    )
    if findings:
        raise UsageError(*findings)
    return settings


def _period(environ: Mapping[str, str], findings: list[Finding]) -> float:
    text = environ.get(PERIOD)
    if not text:
        return DEFAULT_PERIOD
    try:
        period = float(text)
    except ValueError:
        period = math.nan
    if not LEAST_PERIOD <= period < math.inf:
        findings.append(
            codes.PLUGIN_SETTINGS.finding(
                f"Invalid {PERIOD}",
                found=text,
                expected=f"seconds, at least {LEAST_PERIOD:g}",
                hint=f"Set {PERIOD} to a number of seconds, such as 30.",
            )
        )
    return period


def _boolean(environ: Mapping[str, str], name: str, findings: list[Finding]) -> bool:
    text = environ.get(name, "")
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        findings.append(
            codes.PLUGIN_SETTINGS.finding(
                f"Invalid {name}", found=text, expected="1 or 0", hint=f"Set {name}=1, or unset it."
            )
        )
    return bool(value)


def _follows(environ: Mapping[str, str], findings: list[Finding]) -> bool:
    try:
        return follows_aliases(None, environ)
    except UsageError as error:
        findings += error.findings
        return True


def _of_vllm(environ: Mapping[str, str], name: str) -> bool:
    """A switch of vLLM. It takes ``1`` and ``true``, or any number but 0: be strict, so that no
    spelling that vLLM understands is missed."""
    return environ.get(name, "").strip().lower() not in ("", "0", "false")
