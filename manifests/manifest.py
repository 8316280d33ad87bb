"""The only way to read a manifest: from a file (or a mapping) to a checked :class:`Manifest`.

Read, follow ``extends``, remove ``x-`` keys, expand variables, look for secrets, validate against
the schema, check references. Everything that is wrong is raised at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .bounds import MANIFEST_BYTES
from .findings import language as codes
from .findings import policy as policy_codes
from .findings.errors import ManifestError
from .findings.finding import Finding, Severity, Where
from .language.frozen import FrozenDict
from .language.schema import Manifest, Policy
from .reading.bounded_file import read_at_most
from .reading.complaints import explain_invalid, salvage
from .reading.conform import conform, set_aside, shape_of
from .reading.document import Document, compose
from .reading.expand import expand
from .reading.final_findings import final_findings
from .reading.memory import from_python
from .reading.nodes import (
    Locate,
    Map,
    Path,
    Scalar,
    describe,
    is_null,
    plain_data,
    scalars,
    where,
)
from .reading.overlay import Layers, layers_in_memory, layers_of_file, rebase
from .reading.overrides import override
from .reading.policy_paths import absolute_paths
from .reading.secret_search import in_manifest
from .reading.secrets import redacted
from .reading.semantics import check
from .reading.subject import Gaps

M = TypeVar("M", bound=BaseModel)

_MAY_BE_ELSEWHERE = frozenset(
    {codes.MISSING_KEY.id, codes.UNKNOWN_ADAPTER.id, codes.UNKNOWN_REGISTRY.id}
)
"""What is not known while a part of the manifest could not be read."""


@dataclass(frozen=True)
class ExtendedPolicy:
    """The ``policy`` of a file that a manifest extends, and where its values are written."""

    policy: Policy
    root: Map = field(repr=False)


@dataclass(frozen=True)
class ManifestFile:
    """A valid manifest, and where everything in it is written.

    Relative sources are relative to ``directory``. ``file`` is the manifest's path as the caller
    wrote it (``None`` in memory), ``files`` are all files that were read. ``variables`` are the
    environment variables that were expanded, with their values (never a secret). ``extras`` are
    the ``x-`` keys, by their dotted paths. ``warnings`` are findings that do not prevent its use.
    """

    manifest: Manifest
    directory: FilePath
    file: str | None
    files: tuple[FilePath, ...]
    overrides: Mapping[str, str]
    variables: Mapping[str, str]
    extras: Mapping[str, Any]
    warnings: tuple[Finding, ...]
    root: Map = field(repr=False)
    """The resolved tree, with the place of every key and value."""
    extended: tuple[ExtendedPolicy, ...] = ()
    """The policies of the files that it extends: they hold, whatever this manifest says."""

    @cached_property
    def from_user(self) -> frozenset[str]:
        """Values that are one complete environment variable whose name says that it is a place
        (``S3_ENDPOINT``, ``HUB_MIRROR``): the user chose them, not the manifest."""
        return frozenset(scalar.text for _, scalar in scalars(self.root) if scalar.by_user)

    @cached_property
    def only_where(self) -> frozenset[Path]:
        """Paths of values that are one complete environment variable whose name says that it is a
        place, set or not: they say where something is, not what."""
        return frozenset(path for path, scalar in scalars(self.root) if scalar.only_where)

    def where(self, path: Path = (), *, key: bool = False) -> Where:
        """Where the value (or the key) at ``path`` is written, else its nearest ancestor's key."""
        return where(self.root, self.file, path, key=key)


def read_manifest(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    model: str | None = None,
    dtype: str | None = None,
    content: bytes | None = None,
) -> ManifestFile:
    """Read and check a manifest.

    Args:
        source: The manifest's path, or its data in memory.
        environ: Where variables are looked up; ``os.environ`` by default.
        model: Replaces ``base.model``; if relative, relative to the current folder.
        dtype: Replaces ``base.dtype``.
        content: What is read as the content of the file at ``source``: what it would have after
            a change.

    Raises:
        ManifestError: With everything that is wrong, and its places.
    """
    layers = _layers(source, content)
    findings = layers.findings
    overrides = {k: v for k, v in (("model", model), ("dtype", dtype)) if v is not None}
    root, notes = set_aside(layers.root, shape_of(Manifest))
    expanded = expand(override(root, overrides), os.environ if environ is None else environ)
    root = rebase(expanded.root, layers.folders, layers.directory)

    def folder_of(scalar: Scalar) -> FilePath:
        return layers.folders.get(scalar.spot.file, layers.directory)

    root = _with_absolute_policy(root, folder_of)
    secrets = in_manifest(layers.documents, root, notes, layers.root)
    findings += [secret.finding for secret in secrets]
    findings += expanded.findings
    locate = partial(where, root, layers.file)
    manifest, wrong = _validate(Manifest, root, locate)
    findings += wrong
    extended = _extended_policies(layers, folder_of, findings)
    own = [manifest.policy] if manifest is not None else []
    findings += _granting([*own, *(below.policy for below in extended)], locate)
    warnings: list[Finding] = []
    if manifest is not None:
        for finding in check(manifest, locate, Gaps.between(root, manifest, wrong)):
            (warnings if finding.severity is Severity.WARNING else findings).append(finding)
    if not layers.complete:
        findings = [finding for finding in findings if finding.code not in _MAY_BE_ELSEWHERE]
    if findings or manifest is None:
        raise ManifestError(*final_findings(findings, secrets))
    return ManifestFile(
        manifest=manifest,
        directory=layers.directory,
        file=layers.file,
        files=tuple(layers.files),
        overrides=FrozenDict(overrides),
        variables=FrozenDict(expanded.used),
        extras=FrozenDict({Where(path=p).dotted: plain_data(node) for p, node in notes.items()}),
        warnings=tuple(redacted(finding) for finding in warnings),
        root=root,
        extended=tuple(extended),
    )


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """A platform's policy file: the keys of ``policy:`` at its top, under the same YAML rules.

    Raises :class:`ManifestError`.
    """
    document, findings = _read_file(path)
    root, notes = set_aside(document.root, shape_of(Policy))
    secrets = in_manifest([document], root, notes, document.root)
    folder = FilePath(path).parent
    root = absolute_paths(root, lambda _: folder)
    policy, wrong = _validate(Policy, root, document.where)
    findings += [*(secret.finding for secret in secrets), *expand(root, {}).findings, *wrong]
    if findings or policy is None:
        raise ManifestError(*final_findings(findings, secrets))
    return policy


def _layers(
    source: str | os.PathLike[str] | Mapping[str, Any], content: bytes | None = None
) -> Layers:
    if isinstance(source, Mapping):
        root = from_python(source)
        assert isinstance(root, Map)
        return layers_in_memory(root, FilePath.cwd())
    document, findings = _read_file(source, content)
    path = FilePath(os.path.abspath(source))  # noqa: PTH100 - keeps links as they are
    layers = layers_of_file(document, path)
    layers.findings[:0] = findings
    return layers


def _read_file(
    path: str | os.PathLike[str], content: bytes | None = None
) -> tuple[Document, list[Finding]]:
    """What can be read of a file, and what is wrong. Raises :class:`ManifestError`."""
    name = os.fspath(path)
    try:
        data = read_at_most(name, MANIFEST_BYTES) if content is None else content
        document, findings = compose(data, name)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        if "\n" in name:
            said = "this is the text of a manifest, not a path; pass a path or a mapping"
            name = name.partition("\n")[0][:80]
        finding = codes.UNREADABLE.finding(f"Cannot read the file: {said}", Where(name))
        raise ManifestError(*final_findings([finding])) from error
    if document is None:
        raise ManifestError(*final_findings(findings))
    return document, findings


def _validate(model: type[M], root: Map, where: Locate) -> tuple[M | None, list[Finding]]:
    """The model, and what is wrong; if anything is, the model of what remains without it."""
    shape = shape_of(model)
    data = conform(root, shape)
    try:
        return model.model_validate(data, strict=True), []
    except ValidationError as error:
        return salvage(model, data, error, root), explain_invalid(error, root, shape, where)


def _with_absolute_policy(root: Map, folder_of: Callable[[Scalar], FilePath]) -> Map:
    entry = root.entries.get("policy")
    if entry is None or not isinstance(entry.value, Map):
        return root
    value = absolute_paths(entry.value, folder_of)
    return replace(root, entries={**root.entries, "policy": replace(entry, value=value)})


def _extended_policies(
    layers: Layers, folder_of: Callable[[Scalar], FilePath], findings: list[Finding]
) -> list[ExtendedPolicy]:
    """The policy of each extended file, whatever the files that extend it say."""
    found: list[ExtendedPolicy] = []
    for entry in layers.policies:
        if is_null(entry.value):
            continue
        if not isinstance(entry.value, Map):
            place, shown = entry.spot.at(("policy",)), describe(entry.value)
            wrong = "policy must be a mapping"
            findings.append(codes.WRONG_TYPE.finding(wrong, place, found=shown))
            continue
        node, _ = set_aside(absolute_paths(entry.value, folder_of), shape_of(Policy))

        def within(path: Path, *, key: bool = False, node: Map = node) -> Where:
            return replace(where(node, None, path, key=key), path=("policy", *path))

        policy, problems = _validate(Policy, node, within)
        findings += problems
        if policy is not None:
            found.append(ExtendedPolicy(policy, node))
    return found


def _granting(policies: Iterable[Policy], locate: Locate) -> list[Finding]:
    return [
        policy_codes.CREDENTIALS_BY_MANIFEST.finding(
            "A manifest cannot allow your credentials to be sent to a host",
            locate(("policy", "allow_credentials")),
        )
        for policy in policies
        if policy.allow_credentials is not None
    ][:1]
