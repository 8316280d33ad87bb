"""What a model was set up from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.findings.finding import Finding
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.pull import Pulled
from ...registry.session import Session

InMemory = Mapping[str, Any]
"""An adapter in memory: the names of its files to their bytes. ``adapter_config.json`` may also be
a PEFT config or a mapping, ``adapter_model.safetensors`` a mapping of names to tensors."""


@dataclass(frozen=True)
class Deployment:
    """What a model was set up from; ``load_adapter`` obeys the same policies and aliases.

    ``base_folder`` is where the base's files (and its tokenizer) are, if the base was loaded
    here. ``findings`` are the warnings of setting it up, ``residency`` the budget that was given
    beside the manifest.
    ``base_from`` are the manifest and lock that say which base it is, where ``file`` does not.
    """

    file: ManifestFile
    pulled: Pulled
    session: Session
    base_folder: Path | None = None
    findings: tuple[Finding, ...] = ()
    residency: int | None = None
    base_from: tuple[ManifestFile, Lock] | None = None

    @property
    def said_of_base(self) -> tuple[ManifestFile, Lock]:
        """The manifest and lock that last said which base this is; those in force if none did."""
        return self.base_from or (self.file, self.pulled.lock)
