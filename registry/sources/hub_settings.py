"""Where the Hub is, as the user's environment says."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class HubSettings:
    """Where the Hub is, where its cache lies, and with which token (``None``: the client's own,
    ``False``: none). Without ``fills_cache`` nothing is written to that cache, where every program
    takes what it finds for the Hub's."""

    endpoint: str
    cache: Path
    token: str | bool | None = None
    fills_cache: bool = True

    def strange(self) -> HubSettings:
        """The same for an endpoint that the user did not choose: no token, no cache filled."""
        return replace(self, token=False, fills_cache=False)

    @classmethod
    def from_environment(cls, endpoint: str | None = None, token: str | None = None) -> HubSettings:
        """As the client would read them if it were imported now."""
        from huggingface_hub import constants

        env = os.environ
        cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
        if not cache:
            home = env.get("HF_HOME")
            cache = str(Path(home) / "hub") if home else constants.HF_HUB_CACHE
        where = endpoint or env.get("HF_ENDPOINT") or constants.ENDPOINT
        folder = Path(os.path.expandvars(cache)).expanduser()
        return cls(where.rstrip("/"), folder, token)
