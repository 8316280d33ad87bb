"""What a model was set up from."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.findings.finding import Finding
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile
from ...registry.access.session import Session
from ...registry.pull import Pulled

InMemory = Mapping[str, Any]
"""An adapter in memory: file names to bytes. ``adapter_config.json`` may also be a PEFT config or a
mapping, ``adapter_model.safetensors`` a mapping of names to tensors."""


@dataclass(frozen=True)
class Deployment:
    """What a model was set up from. ``load_adapter`` uses the same policies and aliases.

    Attributes:
        file: The manifest.
        pulled: Its lock and the verified files.
        session: Policies, accepted codes and the store.
        base_folder: The folder of the base's files and its tokenizer, if we loaded the base.
        findings: Warnings of the set-up.
        residency: The budget in bytes that was passed besides the manifest.
        base_from: The manifest and lock that declare the base, if ``file`` does not.
    """

    file: ManifestFile
    pulled: Pulled
    session: Session
    base_folder: Path | None = None
    findings: tuple[Finding, ...] = ()
    residency: int | None = None
    base_from: tuple[ManifestFile, Lock] | None = None

    @property
    def base_declaration(self) -> tuple[ManifestFile, Lock]:
        """The manifest and lock that declare the base, or the current ones."""
        return self.base_from or (self.file, self.pulled.lock)

    def keep_files(self, owner: object) -> None:
        """Keep the files of the base and the adapters in the store as long as ``owner`` lives."""
        with ExitStack() as stack:
            found = (self.pulled.base, *self.pulled.adapters.values())
            digests = [file.fact.sha256 for files in found for file in files.values()]
            stack.enter_context(self.session.store.hold(one for one in digests if one))
            close_with(owner, stack)


def close_with(owner: object, stack: ExitStack) -> None:
    """Close ``stack`` when ``owner`` is gone, in this process only: a forked child must not remove
    its parent's files."""
    weakref.finalize(owner, close_here, os.getpid(), stack.pop_all().close)


def close_here(process: int, close: Callable[[], None]) -> None:
    """Call ``close`` in ``process`` only."""
    if os.getpid() == process:
        close()
