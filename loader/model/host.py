"""One base, and everything that is done with its adapters."""

from __future__ import annotations

from torch import nn

from .adapter_set import AdapterSet
from .calls import Calls
from .choice import Choice
from .compositions import Compositions
from .deployment import Deployment
from .merging import Merging
from .model_state import ModelState


class AdapterHost:
    """What an adapted model is made of: its set of adapters, what is chosen of them, the calls that
    run with it, merging and compositions. Whatever changes a model takes this."""

    def __init__(self, base: nn.Module) -> None:
        self.adapters = AdapterSet(base)
        self.live = self.adapters.live
        self.choice = Choice(self.adapters)
        self.calls = Calls(self.adapters, self.choice)
        self.merging = Merging(self.adapters, self.choice)
        self.compositions = Compositions(self.adapters, self.choice)

    @property
    def state(self) -> ModelState:
        """What is said of the adapters now."""
        return self.adapters.state

    @property
    def deployment(self) -> Deployment | None:
        """The manifest that the model was set up from, and what was pulled for it."""
        return self.adapters.state.deployment
