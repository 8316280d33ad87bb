"""An adapter that was converted to PEFT's format: is it complete, and does it mean the same?"""

from __future__ import annotations

from collections.abc import Iterator

from ...manifests.findings import fit as codes
from ...manifests.findings.finding import Finding
from ..files.facts import Layout, Origin
from ..files.wording import count, some
from .candidate import Subject


def check(subject: Subject) -> Iterator[Finding]:
    """Parts of names that were left out; for mlx-lm's adapters: layers without factors, or more
    than its config says, and an embedding that shares its weight with the output layer."""
    origin, layout = subject.adapter.origin, subject.layout
    if origin is None:
        return
    if origin.wrappers:
        parts = some(origin.wrappers)
        message = f"The adapter was saved from a wrapped model; {parts} is left out of its names"
        yield codes.FOREIGN_NOTED.finding(message)
    if layout is not None:
        yield from _layers(subject, origin, layout)
        yield from _tied(subject, origin, layout)


def _layers(subject: Subject, origin: Origin, layout: Layout) -> Iterator[Finding]:
    """mlx-lm adapts the same modules in each of the last layers; in 0.19 to 0.21 it did so in all
    layers, or in all but the first if all were selected."""
    if origin.layers is None:
        return
    adapted = {(site.module, site.settings.get("parameter")) for site in subject.plan.sites}
    places = [
        (place, parameter)
        for at, parameter in adapted
        if at in layout.modules and (place := _place(at)) is not None
    ]
    names = {(place[2], parameter) for place, parameter in places}
    names |= {(key, None) for key in origin.keys}
    missing: list[str] = []
    more: dict[str, None] = {}
    lengths = _lengths(layout)
    for inside in sorted({place[0] for place, _ in places} & lengths.keys()):
        total = lengths[inside]
        first = total - origin.layers if origin.layers > 0 else 1
        for number in range(max(first, 0), total):
            for name, parameter in names:
                at = f"{inside}.{number}.{name}"
                if (at, parameter) not in adapted and _can_be(subject, layout, at, parameter):
                    missing.append(at if parameter is None else f"{at}.{parameter}")
        more |= {f"{inside}.{n}": None for (i, n, _), _ in places if i == inside and n < first}
    if missing:
        last = f"the last {count(origin.layers, 'layer')}" if origin.layers > 0 else "all layers"
        yield codes.TARGETS_WITHOUT_TENSORS.finding(
            f"The file has no factors for {count(len(missing), 'module')} that the config selects: "
            f"{some(sorted(missing))}",
            expected=f"factors in {last}, by num_layers: {origin.layers}",
        )
    if more and origin.layers > 0:
        yield codes.FOREIGN_NOTED.finding(
            f"The adapter has factors in more layers than num_layers: {origin.layers} says: "
            f"{some(sorted(more))}; all are used"
        )


def _tied(subject: Subject, origin: Origin, layout: Layout) -> Iterator[Finding]:
    sources = set(layout.tied.values()) if origin.format == "mlx-lm" else set[str]()
    for site in subject.own_sites:
        if "embedding_A" in site.tensors and f"{site.module}.weight" in sources:
            yield codes.FOREIGN_TENSOR.finding(
                f"mlx-lm adapts {site.module} together with the output layer that shares its "
                "weight, which PEFT's format cannot express",
                found=site.module,
                expected="a base whose output layer has a weight of its own",
            )


def _place(module: str) -> tuple[str, int, str] | None:
    """(list of layers, number, name inside the layer)."""
    parts = module.split(".")
    at = next((n for n, part in enumerate(parts) if part.isdecimal()), 0)
    if not 0 < at < len(parts) - 1:
        return None
    return ".".join(parts[:at]), int(parts[at]), ".".join(parts[at + 1 :])


def _lengths(layout: Layout) -> dict[str, int]:
    """The lists of layers in the base, with how many layers each has."""
    found: dict[str, int] = {}
    for name in layout.modules:
        inside, _, last = name.rpartition(".")
        if last.isdecimal():
            found[inside] = max(found.get(inside, 0), int(last) + 1)
    return found


def _can_be(subject: Subject, layout: Layout, name: str, parameter: object) -> bool:
    """Whether the base has such a module or parameter, and it can be adapted."""
    module = layout.modules.get(name)
    if module is None or parameter is None:
        return module is not None and module.kind in subject.method.kinds
    return parameter in module.parameters
