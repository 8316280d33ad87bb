"""Whether a manifest is right, and whether an engine can serve it. Never imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..manifests.findings import serving as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Finding, Report
from ..registry.validate import subject_of
from ..registry.validate import validate as validate_manifest

if TYPE_CHECKING:
    from ..registry.access.access import AskLayout, AskPeft
    from ..registry.locks.project import ManifestSource
    from ..registry.resolution import Resolution


def validate(
    manifest: ManifestSource,
    *,
    model: str | None = None,
    dtype: str | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    ask: AskLayout | None = None,
    ask_peft: AskPeft | None = None,
    target: str | None = None,
    max_rank: int | None = None,
    max_loras: int | None = None,
) -> Report:
    """Whether every adapter of a manifest fits its base, decided before any download.

    Reads each source's config and safetensors header (by range), never the weights. A lock beside
    the manifest is obeyed, so that the verdict is on what would be loaded; entries that changed
    since are resolved as :func:`lock` would. With ``target``, also whether that engine can serve
    it; then the values of adapters that are on this machine are read too.

    Args:
        manifest: The manifest's path, or its data.
        model: Replaces ``base.model`` in this call; a relative path is from the current folder.
        dtype: Replaces ``base.dtype`` in this call.
        policy: A policy file that must allow everything too.
        accept: Codes (id or name) of unchecked findings to accept, beside those that the lock
            accepts.
        frozen: Makes a missing, stale or partial lock an error.
        offline: Use no network.
        ask: Returns the modules of an architecture that the committed table does not have. Without
            it, such a base is unchecked.
        ask_peft: Returns PEFT's findings on methods that only PEFT knows. Without it, they are
            unchecked.
        target: The engine that is to serve it: ``vllm==0.32``, or ``vllm`` for the newest version
            that is known.
        max_rank: The largest rank that its server is started with; default: the engine's own.
        max_loras: How many adapters its server runs in one batch.

    Returns:
        The report, with everything that is wrong. Nothing that is wrong raises.
    """
    try:
        also = check_for(target, max_rank, max_loras)
    except UsageError as error:
        return Report(subject=subject_of(manifest), findings=error.findings)
    return validate_manifest(
        manifest,
        model=model,
        dtype=dtype,
        policy=policy,
        accept=accept,
        frozen=frozen,
        offline=offline,
        ask=ask,
        ask_peft=ask_peft,
        also=also,
    )


def check_for(
    target: str | None, max_rank: int | None = None, max_loras: int | None = None
) -> Callable[[Resolution], list[Finding]] | None:
    """What returns everything that an engine cannot serve of what was read; ``None`` without a
    target. Raises :class:`UsageError` if the target is invalid, or a limit has none."""
    if target is None:
        _require_no_limits(max_rank, max_loras)
        return None
    from .targets.check import check_local_values, check_target
    from .targets.target import Target

    aim = Target.parse(target, max_rank=max_rank, max_loras=max_loras)

    def check(resolution: Resolution) -> list[Finding]:
        found = check_target(aim, resolution.file, resolution.adapters, resolution.base)
        return [*found, *check_local_values(resolution.file, resolution.adapters)]

    return check


def _require_no_limits(max_rank: int | None, max_loras: int | None) -> None:
    given = {"--max-rank": max_rank, "--max-loras": max_loras}
    findings = [
        codes.BAD_TARGET.finding(
            f"{option} is used without --target",
            found=value,
            hint="Add --target, for example --target vllm==0.32.",
        )
        for option, value in given.items()
        if value is not None
    ]
    if findings:
        raise UsageError(*findings)
