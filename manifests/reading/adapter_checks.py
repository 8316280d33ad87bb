"""Checks of adapters and registries: names, sources, and fields that belong together."""

from __future__ import annotations

from collections.abc import Iterator

from ..findings import language as codes
from ..findings import training, usage
from ..findings.finding import Finding
from ..language.names import did_you_mean, listed
from ..language.source import Source
from .nodes import Path
from .subject import Subject


def check_names(subject: Subject) -> Iterator[Finding]:
    """Names of adapters and compositions that are equal, or differ only in case."""
    first: dict[str, str] = {}
    for section in ("adapters", "compositions"):
        for name in getattr(subject.manifest, section):
            other = first.setdefault(name.lower(), name)
            where = subject.locate((section, name), key=True)
            if other != name:
                message = f"{name!r} and {other!r} differ only in case"
                yield codes.NAMES_IN_CASE.finding(message, where, found=name)
            if section == "compositions" and name in subject.manifest.adapters:
                message = f"An adapter and a composition are both called {name!r}"
                yield codes.NAME_TAKEN.finding(message, where, found=name)


def check_registries(subject: Subject) -> Iterator[Finding]:
    """A registry is a folder (or an archive of one), and not in another registry."""
    for name, source in subject.manifest.registries.items():
        if source.is_registry or source.is_oci:
            what = "another registry" if source.is_registry else "an OCI repository"
            yield codes.SOURCE_NOT_HERE.finding(
                f"The address of a registry cannot be in {what}",
                subject.locate(("registries", name)),
                found=f"{source.scheme}://...",
            )


def check_adapters(subject: Subject) -> Iterator[Finding]:
    """Each adapter by itself, and two with the same source."""
    seen: dict[object, str] = {}
    for name, adapter in subject.manifest.adapters.items():
        path = ("adapters", name)
        if name not in subject.gaps.unplaced:
            yield from _origin(subject, name)
        yield from subject.not_finite(adapter.storage_options, (*path, "storage_options"))
        yield from subject.not_finite(adapter.config, (*path, "config"))
        if adapter.source is None:
            continue
        yield from _registry(subject, adapter.source, (*path, "source"))
        if adapter.mutable:
            yield from _mutable(subject, name, adapter.source)
        if adapter.lazy and adapter.trainable:
            yield usage.LAZY_TRAINABLE.finding(
                f"{name!r} is both lazy and trainable", subject.locate((*path, "lazy"))
            )
        same = (str(adapter.source), repr(adapter.storage_options), adapter.dtype)
        if same in seen:
            yield codes.SAME_SOURCE.finding(
                f"{name!r} is the same adapter as {seen[same]!r}",
                subject.locate((*path, "source")),
                found=str(adapter.source),
            )
        seen.setdefault(same, name)


def _origin(subject: Subject, name: str) -> Iterator[Finding]:
    """A source or a config, and only the fields that belong to it."""
    adapter, path = subject.manifest.adapters[name], ("adapters", name)
    config = subject.locate((*path, "config"))
    if adapter.source is None and adapter.config is None:
        yield codes.MISSING_KEY.finding(
            f"Missing key 'source' in adapters.{name}",
            subject.locate((*path, "source")),
            expected="source: ... (or config: ..., for a new adapter)",
        )
        return
    if adapter.source is not None and adapter.config is not None:
        yield training.ADAPTER_ORIGIN.finding(f"{name!r} has both a source and a config", config)
        return
    new = adapter.config is not None
    for field in ("sha256", "storage_options", "lazy", "mutable") if new else ("seed",):
        if field in adapter.model_fields_set and getattr(adapter, field) is not None:
            yield training.NEW_FIELD.finding(
                f"{field} does not apply to {name!r}, which has a {'config' if new else 'source'}",
                subject.locate((*path, field)),
            )
    if new and not adapter.trainable:
        yield training.NEW_NOT_TRAINABLE.finding(
            f"{name!r} has a `config` but lacks `trainable: true`",
            config,
            expected="trainable: true",
        )


def _registry(subject: Subject, source: Source, path: Path) -> Iterator[Finding]:
    """A manifest that names registries names all that it uses; one that names none uses those
    that the user has configured, which are looked up where the source is opened."""
    registry = source.location.partition("/")[0]
    known = list(dict.fromkeys([*subject.manifest.registries, *subject.gaps.registries]))
    if source.is_registry and known and registry not in known:
        yield codes.UNKNOWN_REGISTRY.finding(
            f"Unknown registry {registry!r}",
            subject.locate(path),
            found=str(source),
            expected=listed(known),
            hint=did_you_mean(registry, known),
        )


def _mutable(subject: Subject, name: str, source: Source) -> Iterator[Finding]:
    where = subject.locate(("adapters", name, "mutable"))
    if not source.is_local:
        yield codes.MUTABLE_REMOTE.finding(
            f"{name!r} is mutable, but its source is not a local folder",
            where,
            found=str(source),
            expected="a local folder",
        )
    digest = subject.manifest.adapters[name].sha256 is not None
    against = [f"adapters.{name}.sha256"] if digest else []
    if subject.manifest.policy.require_digest:
        against.append("policy.require_digest")
    if against:
        yield codes.MUTABLE_DIGEST.finding(
            f"{name!r} is mutable, so it cannot have the digest that {' and '.join(against)} needs",
            where,
            found="mutable: true",
        )
