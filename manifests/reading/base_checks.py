"""Checks of the base model, and of mirrors."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import language as codes
from ..findings.finding import Finding
from ..language.devices import bad_devices
from ..language.mirrors import mirror_problem
from .subject import Subject


def check_base(subject: Subject) -> Iterator[Finding]:
    """The fields of ``base`` that the schema alone cannot check."""
    base = subject.manifest.base
    if base.model is not None and base.model.is_registry:
        yield codes.SOURCE_NOT_HERE.finding(
            "A base model cannot come from a registry",
            subject.locate(("base", "model")),
            found="registry://...",
        )
    yield from subject.repeated(base.aliases, ("base", "aliases"))
    for field in ("aliases", "float32_modules"):
        for index, text in enumerate(getattr(base, field)):
            if not text or text != text.strip():
                path = ("base", field, index)
                yield subject.bad_value(path, text, "text without spaces around it")
    yield from _labels(subject)
    yield from subject.not_finite(base.quantization, ("base", "quantization"))
    yield from subject.not_finite(base.storage_options, ("base", "storage_options"))
    for path, found, expected in bad_devices(base.device_map):
        where = subject.locate(("base", "device_map", *path))
        message = "Invalid device" if path else "Invalid device_map"
        yield codes.BAD_DEVICE_MAP.finding(message, where, found=found, expected=expected)


def _labels(subject: Subject) -> Iterator[Finding]:
    """``id2label`` has a different name for each label 0, 1, ..., as many as ``num_labels``."""
    base = subject.manifest.base
    names = base.id2label
    if names is None:
        return
    count = len(names) if base.num_labels is None else base.num_labels
    if set(names) != {str(n) for n in range(count)} or len({*names.values()}) < len(names):
        expected = f"a different name for each of 0 to {count - 1}"
        yield subject.bad_value(("base", "id2label"), dict(names), expected)


def check_mirrors(subject: Subject) -> Iterator[Finding]:
    """Mirrors whose prefix and replacement cannot be exchanged."""
    for prefix, target in subject.manifest.mirrors.items():
        problem = mirror_problem(prefix, target)
        if problem is not None:
            where = subject.locate(("mirrors", prefix))
            yield codes.BAD_MIRROR.finding(problem, where, found=f"{prefix}: {target}")
