"""Whether the model that vLLM serves is the base that the lock pins."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path, PurePath

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AdapterdockError, FingerprintError
from ...manifests.findings.finding import Finding, Severity, Where
from ...manifests.language.schema import Fingerprint
from ...manifests.language.source import Source
from ...manifests.lockfile import Lock
from ...manifests.manifest import ManifestFile, read_manifest
from ...registry.access.access import Access
from ...registry.base.fingerprint import compare
from ...registry.base.samples import Samples
from ...registry.resolve import measure, resolve_base

_SNAPSHOT = re.compile(r"models--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})\Z")
_FROM_FILES = frozenset(
    {"auto", "hf", "safetensors", "fastsafetensors", "runai_streamer", "instanttensor"}
)
"""Load formats of vLLM that read the safetensors of the model's folder."""


def source_of_model(model: str, revision: str | None = None) -> str:
    """The source that ``--model`` names, as manifests write it.

    A folder is a folder, even without ``./``; a snapshot in the Hub's cache, which is what vLLM
    makes of a name when it is offline, is that commit of the Hub.
    """
    snapshot = _SNAPSHOT.search(PurePath(model).as_posix().rstrip("/"))
    if snapshot is not None:
        return f"hf://{snapshot['name'].replace('--', '/', 1)}@{snapshot['commit']}"
    if "://" in model:
        return model
    folder = Path(model).expanduser()
    if folder.exists() or folder.is_absolute():
        return str(folder.absolute())
    return f"hf://{model}" + (f"@{revision}" if revision else "")


def base_findings(
    file: ManifestFile,
    lock: Lock,
    model: str,
    revision: str | None = None,
    load_format: str | None = None,
) -> tuple[Finding, ...] | None:
    """How the served model differs from the locked base, read without the network; at most 64
    bytes of each tensor are read.

    Args:
        file: The manifest.
        lock: Its lock, which has the fingerprint.
        model: What vLLM serves: a folder, or a name on the Hub.
        revision: Of a name on the Hub.
        load_format: How vLLM loads it; ``None`` and ``auto`` are its default.

    Returns:
        Findings; none for the same base; ``None`` if the files are not on this machine (yet).
    """
    where = Where(file=f"--model {model}")
    declared, samples = _declared(file, lock)
    if declared is None:
        return (_unchecked("The lock has no fingerprint of a base", where),)
    if load_format is not None and load_format not in _FROM_FILES:
        message = f"vLLM loads the base with --load-format {load_format}, not from its safetensors"
        return (_unchecked(message, where, load_format),)
    try:
        bare = read_manifest(
            {
                "version": 1,
                "base": {
                    "model": source_of_model(model, revision),
                    "trust_remote_code": file.manifest.base.trust_remote_code,
                },
            }
        )
        resolution = resolve_base(bare, Access(offline=True))
        if resolution.base is None:
            return None
        measured = measure(resolution)
    except FingerprintError as error:
        return error.findings
    except AdapterdockError:
        return None
    hint = (
        f"Start vLLM with {_start_with(file, lock)}, or name this model as base.model in the "
        "manifest and lock it again."
    )
    return tuple(
        replace(one, hint=hint) if one.severity is Severity.ERROR else one
        for one in compare(declared, measured, where, samples=samples)
    )


def unread_base(model: str) -> Finding:
    """The finding for a model of which no files could be read, although the engine has them."""
    where = Where(file=f"--model {model}")
    return _unchecked(f"The files of {model} could not be read on this machine", where)


def _start_with(file: ManifestFile, lock: Lock) -> str:
    """The options of vLLM that name the locked base."""
    base = file.manifest.base.model if lock.base is None else Source.parse(lock.base.source)
    if base is None:
        return "the base that the fingerprint is of"
    if base.is_local:
        return f"--model {shlex.quote(str(base.local_path(file.directory)))}"
    if base.is_hub and not base.path:
        revision = f" --revision {base.revision}" if base.revision else ""
        return f"--model {base.location}{revision}"
    return f"a copy of {base}"


def _declared(file: ManifestFile, lock: Lock) -> tuple[Fingerprint | None, Samples | None]:
    if lock.base is None:
        return file.manifest.base.fingerprint, None
    samples = None if lock.base.samples is None else Samples.parse(lock.base.samples)
    return lock.base.fingerprint, samples


def _unchecked(message: str, where: Where, found: object = None) -> Finding:
    return codes.SERVED_BASE_UNCHECKED.finding(message, where, found=found)
