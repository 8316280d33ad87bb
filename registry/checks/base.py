"""Is there a base to check against, is its architecture known, and is it the adapter's?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..base.architectures import architecture_table
from ..base.packed import quantisation_of
from ..files.facts import AdapterPlan, BaseFacts, Layout, SitePlan
from ..files.wording import count, shown, some
from .candidate import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """A missing base, an architecture that is unknown or another one, and quantisation."""
    base, layout = subject.base, subject.layout
    if base is None:
        if layout is None:
            message = f"{subject.name} was checked without a base model"
            yield codes.BASE_UNDECLARED.finding(message)
        return
    yield from _architecture(subject, base)
    if layout is None:
        yield _unknown(subject, base)
    quantisation = quantisation_of(base.config)
    if quantisation or (layout is not None and layout.packed):
        method = quantisation.get("quant_method", "unnamed")
        yield codes.BASE_QUANTISED.finding(f"The base is quantised ({method})")
        if needing := _needing(subject.plan, layout):
            yield codes.WEIGHT_QUANTISED.finding(
                f"{subject.name} needs the base's own weights of {count(len(needing), 'module')} "
                "(DoRA, target_parameters, modules_to_save), which are quantised: "
                f"{some(needing)}"
            )


def _needing(plan: AdapterPlan, layout: Layout | None) -> list[str]:
    """Modules where the adapter acts on a packed weight itself, or replaces one; where it is not
    known what is packed, those where it acts on any."""
    packed = None if layout is None else layout.packed
    acting = {
        f"{site.module}.{parameter}": site.module
        for site in plan.sites
        if (parameter := _parameter(site)) is not None
    }
    needing = [module for name, module in acting.items() if packed is None or name in packed]
    replaced = (*plan.saved, *plan.tuned, *plan.embeddings)
    inside = {name[:at] for name in packed or () for at, dot in enumerate(name) if dot == "."}
    return list(dict.fromkeys([*needing, *(module for module in replaced if module in inside)]))


def _parameter(site: SitePlan) -> str | None:
    """The parameter whose own values a site needs."""
    named = site.settings.get("parameter")
    return named if named is not None else "weight" if "magnitude" in site.tensors else None


def _unknown(subject: Subject, base: BaseFacts) -> Finding:
    """Why the modules of the base are not known, and what to do in this case."""
    name, table = base.architecture, architecture_table()
    accept = (
        "accept this with `adapterdock lock --accept AD341`: the loaded model is then checked "
        "before anything is attached"
    )
    if name is None:
        why = "config.json names no class under `architectures`"
        hint = f"Name the model's class there, or {accept}."
    elif name in table["rows"]:
        why = f"the base's tensors or parts do not match {name} in the table"
        hint = f"Check with transformers by `adapterdock validate --deep`, or {accept}."
    elif isinstance(base.config.get("auto_map"), dict):
        why = f"{name} comes from the repository's own code (auto_map in config.json)"
        hint = (
            "Pin the base to a commit whose code you have read (base.model: ...@COMMIT), set "
            f"base.trust_remote_code: true, and {accept}."
        )
    else:
        why = f"the table does not know {name} as a class of transformers {table['transformers']}"
        hint = (
            "Correct `architectures` in config.json, check with an installed transformers that has "
            f"the class by `adapterdock validate --deep`, or {accept}."
        )
    message = f"Cannot check whether {subject.name} fits: {why}"
    found = name or base.model_type or "no architecture in config.json"
    return codes.ARCHITECTURE_UNKNOWN.finding(message, found=found, hint=hint)


def _architecture(subject: Subject, base: BaseFacts) -> Iterator[Finding]:
    """``auto_mapping`` names the class that was adapted, and its library's module."""
    mapping = subject.adapter.config.get("auto_mapping")
    ours, family = base.architecture, base.model_type
    if not isinstance(mapping, dict) or ours is None or family is None:
        return
    entries = cast("dict[str, object]", mapping)
    theirs, library = entries.get("base_model_class"), entries.get("parent_library")
    if not isinstance(theirs, str) or not isinstance(library, str) or theirs == ours:
        return
    parts = library.split(".")
    if parts[:2] != ["transformers", "models"] or len(parts) < 3:
        return
    if parts[2] != family.replace("-", "_"):
        yield codes.ARCHITECTURE_MISMATCH.finding(
            f"The adapter was trained on {shown(theirs, 80)}, but the base is {ours}",
            found=f"{shown(theirs, 80)} ({shown(library)})",
            expected=f"{ours} ({family})",
        )
