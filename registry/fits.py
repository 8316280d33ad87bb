"""Which bases of published adapters are a given base, by their fingerprints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..manifests.findings import registry as codes
from ..manifests.findings.errors import FitError, UsageError
from ..manifests.findings.finding import Severity, Where
from ..manifests.language.schema import Fingerprint
from ..manifests.language.source import Source, SourceSyntaxError
from ..manifests.manifest import ManifestFile, read_manifest
from .access.session import session_for
from .base.fingerprint import Measured, compare
from .locks.project import open_manifest
from .records.thin_row import base_fingerprints
from .resolve import measure, resolve_base


@dataclass(frozen=True)
class Fitting:
    """Numbers of bases: those that are the base, and those that may be it."""

    fits: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()


def measured_base(
    target: str, *, policy: str | os.PathLike[str] | None = None, offline: bool = False
) -> Measured:
    """The measurements of the base at a source, or of a manifest's base.

    A fingerprint that a manifest declares is taken as it is, and nothing is read. Otherwise a few
    values of each of the base's tensors are.

    Raises:
        UsageError: The source is invalid, or the manifest has no base.
        FitError: The base cannot be read.
    """
    file = manifest_of_base(target)
    declared = file.manifest.base.fingerprint
    if declared is not None and declared.structure and declared.weights:
        return Measured(declared)
    if file.manifest.base.model is None:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                "The manifest declares no base",
                file.where(("base",)),
                hint="Name a manifest with `base.model`, or the source of a base.",
            )
        )
    resolution = resolve_base(file, session_for(file, policy=policy, offline=offline).access)
    if resolution.base is None or resolution.base_folder is None:
        raise FitError(*resolution.findings)
    return measure(resolution)


def fitting(bases: Mapping[int, str], measured: Measured) -> Fitting:
    """Which of these bases (texts of thin rows, by number) are the ``measured`` one.

    Structure, config and weights decide. A tokenizer or a chat template may differ: an adapter
    changes neither.
    """
    found = {number: _verdict(base_fingerprints(text), measured) for number, text in bases.items()}
    return Fitting(
        frozenset(number for number, verdict in found.items() if verdict is True),
        frozenset(number for number, verdict in found.items() if verdict is None),
    )


def _verdict(fingerprints: list[Fingerprint], measured: Measured) -> bool | None:
    verdicts = [_is_same(fingerprint, measured) for fingerprint in fingerprints]
    if True in verdicts:
        return True
    return None if None in verdicts or not verdicts else False


def _is_same(declared: Fingerprint, measured: Measured) -> bool | None:
    """Whether it is the same base; ``None`` where too little is recorded."""
    decides = declared.model_copy(update={"tokenizer": None, "chat_template": None})
    severities = {finding.severity for finding in compare(decides, measured)}
    if Severity.ERROR in severities:
        return False
    if Severity.UNCHECKED in severities or declared.structure is None or declared.weights is None:
        return None
    return True


def manifest_of_base(target: str) -> ManifestFile:
    """The manifest that ``target`` names, or one with the base of this source alone."""
    if Path(target).suffix in (".yaml", ".yml"):
        return open_manifest(Path(target))
    bare = Path(target).is_dir() and not target.startswith((".", "/", "~"))
    try:
        source = Source.parse(f"./{target}" if bare else target)
    except SourceSyntaxError as error:
        raise UsageError(
            codes.BAD_REFERENCE.finding(
                "This is neither a manifest nor the source of a base",
                Where(),
                found=target,
                expected=f"a manifest (*.yaml) or a source; {error}",
                hint="Write ./folder, hf://org/name, or the path of a manifest.",
            )
        ) from error
    return read_manifest({"version": 1, "base": {"model": str(source)}})
