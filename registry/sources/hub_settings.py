"""Where the Hub is, as the user's environment says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .request import SourceRequest


@dataclass(frozen=True)
class HubSettings:
    """The Hub's endpoint, its cache and the token (``None``: the client's own, ``False``: none).
    Without ``fills_cache`` nothing is written to the cache, whose files other programs trust."""

    endpoint: str
    cache: Path
    token: str | bool | None = None
    fills_cache: bool = True

    @classmethod
    def of(cls, request: SourceRequest) -> HubSettings:
        """As the client would read them if it were imported now. An endpoint that the user did
        not choose gets no token, and fills no cache."""
        from huggingface_hub import constants

        env = os.environ
        cache = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
        if not cache:
            home = env.get("HF_HOME")
            cache = str(Path(home) / "hub") if home else constants.HF_HUB_CACHE
        endpoint = request.options.get("endpoint") or env.get("HF_ENDPOINT") or constants.ENDPOINT
        token = False if request.strange else request.options.get("token")
        folder = Path(os.path.expandvars(cache)).expanduser()
        return cls(endpoint.rstrip("/"), folder, token, not request.strange)

    @property
    def token_place(self) -> str:
        """Where the token comes from, in words; never the token."""
        if isinstance(self.token, str):
            return "the token in storage_options, or token="
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            if os.environ.get(name, "").strip():
                return f"the token in {name}"
        return "the token that `hf auth login` stored"
