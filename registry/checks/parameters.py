"""Does every parameter that ``target_parameters`` selects have factors, and is it clear which of
its sides they are for?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout
from ..files.wording import count, listed, shown, some
from ..methods.lora_parameters import IN_FIRST, is_ambiguous, selected, turned_since
from .candidate import Subject


def check(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """One finding for all selected parameters without factors, and one for all entries of the
    config that select none."""
    config = subject.config
    if not config.parameters:
        return
    present = {(s.module, s.settings.get("parameter")) for s in subject.plan.sites}
    missing: list[str] = []
    unused = dict.fromkeys(config.parameters)
    for live, module in layout.modules.items():
        author = subject.naming.author(live)
        names = [*module.parameters, *layout.unsized.get(live, ())]
        for name in selected(author, config.parameters, names):
            if (live, name) not in present:
                missing.append(f"{live}.{name}")
        for target in list(unused):
            if selected(author, (target,), names):
                del unused[target]
    if missing:
        yield codes.TARGETS_WITHOUT_TENSORS.finding(
            f"The file has no factors for {count(len(missing), 'parameter')} that the config "
            f"selects: {some(missing)}",
            expected=f"factors, by target_parameters: {some(config.parameters)}",
        )
    if unused and (subject.plan.leftovers or len(unused) == len(set(config.parameters))):
        message = f"target_parameters names parameters that the base does not have: {some(unused)}"
        yield codes.PARAMETER_MISSING.finding(message)
    elif unused:  # all factors have a place: PEFT trained none for these
        message = f"Entries of target_parameters match no parameter of the base: {some(unused)}"
        yield codes.PATTERN_UNUSED.finding(message)
    yield from _unclear_sides(subject, layout)


def _unclear_sides(subject: Subject, layout: Layout) -> Iterator[Finding]:
    """One finding for all factors of experts for which it is unclear which side is `in`."""
    found: list[str] = []
    renamed: set[str] = set()
    for site in subject.plan.sites:
        name = site.settings.get("parameter")
        module = layout.modules.get(site.module)
        shape = () if module is None else module.parameters.get(name or "", ())
        if not is_ambiguous(shape):
            continue
        full = f"{site.module}.{name}"
        if turned_since(full, layout):
            renamed.add(full)
        elif IN_FIRST in site.settings:
            continue
        found.append(full)
    if not found:
        return
    said = subject.adapter.config.get("peft_version")
    why = f"peft_version: {shown(str(said), 40)}" if said is not None else "no peft_version"
    expected = "the version of PEFT that trained the adapter"
    if renamed:
        why = f"{why}, and transformers 5 has transposed these parameters"
        expected = "a released PEFT, and parameters with one layout in every transformers"
    yield codes.EXPERTS_UNCLEAR.finding(
        f"Cannot tell which side of these square experts A is for: {listed(found, 'parameter')}",
        found=why,
        expected=expected,
    )
