"""adapterdock: a declarative registry and loader for model adapters.

Importing this package imports nothing else: every name below is loaded on first use (PEP 562),
and those that only read, check, lock or fetch never import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .manifests.errors import (
        AdapterdockError as AdapterdockError,
    )

_EXPORTS = {
    "AdaptedModel": ".loader.adapted",
    "attach": ".loader.load",
    "load": ".loader.load",
    "lock": ".registry.lock",
    "pull": ".registry.pull",
    "validate": ".registry.validate",
    "AdapterdockError": ".manifests.errors",
    "AttachError": ".manifests.errors",
    "FingerprintError": ".manifests.errors",
    "FitError": ".manifests.errors",
    "IntegrityError": ".manifests.errors",
    "LockError": ".manifests.errors",
    "ManifestError": ".manifests.errors",
    "OfflineError": ".manifests.errors",
    "PolicyError": ".manifests.errors",
    "RoutingError": ".manifests.errors",
    "SourceError": ".manifests.errors",
    "StoreError": ".manifests.errors",
    "UsageError": ".manifests.errors",
    "Finding": ".manifests.findings",
    "Report": ".manifests.findings",
    "Severity": ".manifests.findings",
    "Where": ".manifests.findings",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
