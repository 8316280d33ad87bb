"""One base with its adapters, and the operations on them."""

from __future__ import annotations

from torch import nn

from ...manifests.findings.finding import Finding
from ...manifests.manifest import ManifestFile
from ...registry.access.session import Session
from ..adapter.warning import never_fired
from .adapter_set import AdapterSet
from .calls import Calls
from .choice import Choice
from .compositions import Compositions
from .deployment import Deployment
from .merging import Merging
from .model_state import ModelState


class AdapterHost:
    """The parts of an adapted model: its adapters, the choice of active ones, calls, merging and
    compositions. Functions that change a model take this."""

    def __init__(self, base: nn.Module) -> None:
        self.adapters = AdapterSet(base)
        self.live = self.adapters.live
        self.choice = Choice(self.adapters)
        self.calls = Calls(self.adapters, self.choice)
        self.merging = Merging(self.adapters, self.choice)
        self.compositions = Compositions(self.adapters, self.choice)

    @property
    def state(self) -> ModelState:
        """The present state of the adapters."""
        return self.adapters.state

    @property
    def deployment(self) -> Deployment | None:
        """The manifest that the model was set up from, and the pulled files."""
        return self.adapters.state.deployment

    @property
    def file(self) -> ManifestFile | None:
        """The manifest that the model was set up from, if any."""
        return self.deployment.file if self.deployment else None

    @property
    def session(self) -> Session:
        """The policies, accepted codes and store of the set-up, or the defaults."""
        return self.deployment.session if self.deployment else Session()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Warnings of the set-up, and of used adapters with modules that did not run."""
        deployment = self.deployment
        used = [adapter for adapter in list(self.adapters.by_name.values()) if adapter.used]
        unfired = [finding for adapter in used if (finding := never_fired(adapter))]
        return (*(deployment.findings if deployment else ()), *unfired)
