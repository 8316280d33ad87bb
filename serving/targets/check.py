"""What a target cannot serve of a manifest, said before anything is deployed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import AdapterdockError
from ...manifests.findings.finding import Finding, Where
from ...manifests.manifest import ManifestFile
from ...registry.catalogue.values import check_values as check_looked
from ...registry.catalogue.values import look
from ...registry.files.facts import AdapterFacts, AdapterPlan, BaseFacts
from ...registry.resolution import Opened
from .adapters import check_adapter, check_base
from .compositions import check_alone, check_composition, served_names
from .target import Target


def check_target(
    target: Target,
    file: ManifestFile,
    adapters: Mapping[str, Opened],
    base: BaseFacts | None = None,
) -> list[Finding]:
    """Everything that ``target`` cannot serve of a manifest, from configs and headers alone.

    Whether the adapters fit the base is another question, which ``validate`` answers. Adapters
    without facts or a plan are left out: their own findings say why.

    Args:
        target: The engine.
        file: The manifest.
        adapters: What was read of its adapters, by name.
        base: The base's facts, if they are known.

    Returns:
        Findings with the places of the manifest: errors, unchecked ones and warnings.
    """
    manifest = file.manifest
    findings = [*target.findings, *check_base(target, base, file.where(("base", "model")))]
    ranks: dict[str, int] = {}
    for name, opened in adapters.items():
        if opened.facts is None or opened.plan is None or name not in manifest.adapters:
            continue
        ranks[name] = opened.plan.rank
        findings += check_adapter(
            target,
            opened.facts,
            opened.plan,
            file.where(("adapters", name, "source")),
            layout=opened.layout or (base.layout if base is not None else None),
            base=base,
        )
    for name in manifest.compositions:
        where = file.where(("compositions", name))
        findings += check_composition(target, manifest, name, adapters, where)
    if ranks.keys() >= manifest.adapters.keys():
        places = {name: file.where(("adapters", name)) for name in manifest.adapters}
        findings += check_alone(target, manifest, ranks, places)
    findings += _differences(target, file, served_names(manifest, ranks))
    return list(dict.fromkeys(findings))


def check_values(
    facts: AdapterFacts, plan: AdapterPlan, place: Callable[[str], Path], where: Where
) -> list[Finding]:
    """Findings where values are not finite, or all factors are zero. Reads every tensor once.

    A single adapter with NaN made vLLM 0.32 answer every later request with nothing, those to the
    base too, until it was started again.

    Args:
        facts: Of the adapter.
        plan: Where its tensors go.
        place: Returns where a file of the adapter is on this machine.
        where: The place for findings.

    Returns:
        Findings; none where the values can be served.

    Raises:
        OSError: A file cannot be read, or is shorter than its header says.
    """
    return check_looked(facts, plan, look(facts.headers, place), where)


def check_local_values(file: ManifestFile, adapters: Mapping[str, Opened]) -> list[Finding]:
    """:func:`check_values` of the adapters whose files are on this machine; the others are left
    out. Nothing that is wrong raises."""
    findings: list[Finding] = []
    for name, opened in adapters.items():
        facts, plan, folder = opened.facts, opened.plan, opened.folder
        if facts is None or plan is None or folder is None:
            continue
        where = file.where(("adapters", name, "source"))
        try:
            places = {path: folder.local(path) for path in facts.headers}
            here = {path: place for path, place in places.items() if place is not None}
            if len(here) == len(places):
                findings += check_values(facts, plan, here.__getitem__, where)
        except AdapterdockError as error:
            findings += error.findings
        except OSError as error:
            reason = error.strerror or str(error)
            findings.append(
                codes.TARGET_UNCHECKED.finding(
                    "Cannot read the values of this adapter",
                    where,
                    found=reason,
                    hint="Check the file.",
                )
            )
    return findings


def _differences(target: Target, file: ManifestFile, names: Collection[str]) -> Iterator[Finding]:
    """What the manifest says, and the engine decides in another way."""
    engine, most = target.engine, target.max_loras
    if most is not None and len(names) > most:
        yield codes.TARGET_DIFFERS.finding(
            f"{target.title} runs at most {most} of these {len(names)} adapters in one batch",
            file.where(("adapters",)),
            found=f"{len(names)} names",
            expected=f"at most {most}",
            hint=f"Start the server with {engine.max_loras} {len(names)}, "
            "or let requests wait for one another.",
        )
    for name, adapter in file.manifest.adapters.items():
        if adapter.dtype not in (None, "auto") and engine.dtype:
            yield codes.TARGET_DIFFERS.finding(
                f"{target.title} has one dtype for all adapters",
                file.where(("adapters", name, "dtype")),
                found=adapter.dtype,
                hint="Set the engine's own option (--lora-dtype of vLLM).",
            )
    if file.manifest.base.quantization is not None:
        yield codes.TARGET_DIFFERS.finding(
            f"{target.title} quantises the base by its own options",
            file.where(("base", "quantization")),
            hint="Set the engine's own option (--quantization of vLLM).",
        )
