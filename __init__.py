"""adapterdock: a declarative registry and loader for model adapters.

Importing this package imports nothing else: every name below is loaded on first use (PEP 562),
and those that only read, check, lock or fetch never import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from .loader.adapted import AdaptedModel as AdaptedModel
    from .loader.load import attach as attach
    from .loader.load import load as load
    from .loader.unwrap import extract_base_model as extract_base_model
    from .loader.lifecycle.peft_state import get_peft_model_state_dict as get_peft_model_state_dict
    from .loader.lifecycle.peft_state import set_peft_model_state_dict as set_peft_model_state_dict
    from .loader.lifecycle.watch import watch as watch
    from .manifests.findings.errors import AdapterdockError as AdapterdockError
    from .manifests.findings.errors import AttachError as AttachError
    from .manifests.findings.errors import FingerprintError as FingerprintError
    from .manifests.findings.errors import FitError as FitError
    from .manifests.findings.errors import IntegrityError as IntegrityError
    from .manifests.findings.errors import LockError as LockError
    from .manifests.findings.errors import ManifestError as ManifestError
    from .manifests.findings.errors import OfflineError as OfflineError
    from .manifests.findings.errors import PolicyError as PolicyError
    from .manifests.findings.errors import RoutingError as RoutingError
    from .manifests.findings.errors import SourceError as SourceError
    from .manifests.findings.errors import StoreError as StoreError
    from .manifests.findings.errors import UsageError as UsageError
    from .manifests.findings.finding import Finding as Finding
    from .manifests.findings.finding import Report as Report
    from .manifests.findings.finding import Severity as Severity
    from .manifests.findings.finding import Where as Where
    from .registry.files.bars import progress_bars as progress_bars
    from .registry.lock import lock as lock
    from .registry.publishing import publish as publish
    from .registry.pull import pull as pull
    from .serving.validate import validate as validate

_EXPORTS = {
    "AdaptedModel": ".loader.adapted",
    "attach": ".loader.load",
    "extract_base_model": ".loader.unwrap",
    "get_peft_model_state_dict": ".loader.lifecycle.peft_state",
    "set_peft_model_state_dict": ".loader.lifecycle.peft_state",
    "load": ".loader.load",
    "watch": ".loader.lifecycle.watch",
    "lock": ".registry.lock",
    "progress_bars": ".registry.files.bars",
    "publish": ".registry.publishing",
    "pull": ".registry.pull",
    "validate": ".serving.validate",
    "AdapterdockError": ".manifests.findings.errors",
    "AttachError": ".manifests.findings.errors",
    "FingerprintError": ".manifests.findings.errors",
    "FitError": ".manifests.findings.errors",
    "IntegrityError": ".manifests.findings.errors",
    "LockError": ".manifests.findings.errors",
    "ManifestError": ".manifests.findings.errors",
    "OfflineError": ".manifests.findings.errors",
    "PolicyError": ".manifests.findings.errors",
    "RoutingError": ".manifests.findings.errors",
    "SourceError": ".manifests.findings.errors",
    "StoreError": ".manifests.findings.errors",
    "UsageError": ".manifests.findings.errors",
    "Finding": ".manifests.findings.finding",
    "Report": ".manifests.findings.finding",
    "Severity": ".manifests.findings.finding",
    "Where": ".manifests.findings.finding",
}

__all__ = ["__version__", *sorted(_EXPORTS)]


def __getattr__(name: str) -> Any:
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(module, __name__), name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        from .manifests.findings.usage import NEEDS_TORCH
        from .manifests.findings.errors import UsageError

        raise UsageError(NEEDS_TORCH.finding(f"{name} needs {error.name}")) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
