"""The one way in: a manifest file (or a mapping) to a checked :class:`Manifest`.

Read, follow ``extends``, set ``x-`` keys aside, expand variables, look for secrets, validate
against the schema, check what refers to what. All that is wrong is raised at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from .bounds import FINDINGS, MANIFEST_BYTES, MANIFEST_DEPTH, MANIFEST_VALUES
from .findings import language as codes
from .findings import policy as policy_codes
from .findings.errors import ManifestError
from .findings.finding import Finding, Severity, Where
from .language.frozen import FrozenDict
from .language.names import is_name
from .language.schema import Manifest, Policy
from .language.source import Source, SourceSyntaxError
from .reading import secrets
from .reading.bounded_file import read_at_most
from .reading.complaints import explain_invalid, salvage
from .reading.conform import conform, from_python, set_aside, shape_of
from .reading.document import Document, compose
from .reading.expand import expand
from .reading.nodes import (
    Entry,
    Locate,
    Map,
    Node,
    Path,
    Scalar,
    Spot,
    describe,
    find,
    locate,
    plain_data,
    scalars,
)
from .reading.overlay import Layers, read_layers, rebase
from .reading.semantics import Gaps, check

M = TypeVar("M", bound=BaseModel)

_MAY_BE_ELSEWHERE = frozenset(
    {codes.MISSING_KEY.id, codes.UNKNOWN_ADAPTER.id, codes.UNKNOWN_REGISTRY.id}
)
"""What cannot be told while a part of the manifest could not be read."""
_SECRETS = frozenset({codes.SECRET.id, codes.SECRET_OPTION.id})
_VARIABLES = frozenset(
    code.id
    for code in (
        codes.VARIABLE_UNSET,
        codes.VARIABLE_MISPLACED,
        codes.VARIABLE_SYNTAX,
        codes.VARIABLE_SECRET,
    )
)


@dataclass(frozen=True)
class Origin:
    """Where one value of the resolved manifest came from.

    ``text`` is the value as it is read, ``written`` as it stands in ``file`` (before variables
    were expanded), ``variables`` the names of those. ``file`` is ``None`` for a manifest handed
    over in memory, ``--model`` or ``--dtype`` for an override.
    """

    text: str
    written: str
    file: str | None
    line: int | None
    variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExtendedPolicy:
    """The ``policy`` of a file that a manifest extends, and where its values are written."""

    policy: Policy
    root: Map = field(repr=False)


@dataclass(frozen=True)
class ManifestFile:
    """A manifest that was read and found right, and where everything in it came from.

    ``directory`` is what relative sources count from. ``file`` is the manifest's path as it was
    given (``None`` in memory), ``files`` are all files that were read. ``variables`` are the
    environment variables that were expanded, with what they stood for (never a secret).
    ``extras`` are the ``x-`` keys, by their dotted places. ``warnings`` are findings that do not
    keep it from being used.
    """

    manifest: Manifest
    directory: FilePath
    file: str | None
    files: tuple[FilePath, ...]
    overrides: Mapping[str, str]
    variables: Mapping[str, str]
    extras: Mapping[str, Any]
    warnings: tuple[Finding, ...]
    document: Document | None
    root: Map = field(repr=False)
    """The resolved tree, with the place of every key and value."""
    extended: tuple[ExtendedPolicy, ...] = ()
    """The policies of the files that it extends: they bind, whatever stands over them."""

    @property
    def text(self) -> str | None:
        """The manifest's own text (without what it extends)."""
        return self.document.text if self.document is not None else None

    @property
    def origins(self) -> dict[Path, Origin]:
        """Where each single value came from, by its path."""
        return {
            path: Origin(
                scalar.text,
                scalar.text if scalar.written is None else scalar.written,
                scalar.spot.file,
                scalar.spot.line,
                scalar.variables,
            )
            for path, scalar in scalars(self.root)
        }

    @property
    def given(self) -> frozenset[str]:
        """The values that are one whole environment variable whose name says that it is a place
        (``S3_ENDPOINT``, ``HUB_MIRROR``): the user chose them, not the manifest."""
        return frozenset(scalar.text for _, scalar in scalars(self.root) if scalar.given)

    def where(self, path: Path = (), *, key: bool = False) -> Where:
        """Where the value (or the key) at ``path`` is written, else its nearest ancestor."""
        return _where(self.root, self.file, path, key=key)


def read_manifest(
    source: str | os.PathLike[str] | Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    model: str | None = None,
    dtype: str | None = None,
) -> ManifestFile:
    """Read and check a manifest: a path, or its data in memory.

    ``environ`` is where variables are looked up (``os.environ`` without it). ``model`` and
    ``dtype`` replace ``base.model`` and ``base.dtype`` for this once; a relative ``model`` counts
    from the current folder.

    Raises :class:`ManifestError` with everything that is wrong, each with its place.
    """
    layers, document = _read(source)
    directory = layers.folders[document.file if document is not None else None]
    file = document.file if document is not None else None
    findings = layers.findings
    shape = shape_of(Manifest)
    overrides = {k: v for k, v in (("model", model), ("dtype", dtype)) if v is not None}
    root, aside = set_aside(layers.root, shape)
    expanded = expand(_overridden(root, overrides), os.environ if environ is None else environ)
    root = rebase(expanded.root, layers.folders, directory)
    typed = _secrets(layers.documents, root, aside, layers.root)
    findings += [secret.finding for secret in typed]
    findings += expanded.findings

    def where(path: Path, *, key: bool = False) -> Where:
        return _where(root, file, path, key=key)

    manifest, wrong = _validate(Manifest, root, where)
    findings += wrong
    extended = _extended_policies(layers, findings)
    own = [manifest.policy] if manifest is not None else []
    findings += _granting([*own, *(below.policy for below in extended)], where)
    warnings: list[Finding] = []
    if manifest is not None:
        for finding in check(manifest, where, _gaps(root, manifest, wrong)):
            (warnings if finding.severity is Severity.WARNING else findings).append(finding)
    if not layers.whole:
        findings = [finding for finding in findings if finding.code not in _MAY_BE_ELSEWHERE]
    if findings or manifest is None:
        raise ManifestError(*_all(findings, typed))
    return ManifestFile(
        manifest=manifest,
        directory=directory,
        file=file,
        files=tuple(layers.files),
        overrides=FrozenDict(overrides),
        variables=FrozenDict(expanded.used),
        extras=FrozenDict({Where(path=p).dotted: plain_data(node) for p, node in aside.items()}),
        warnings=tuple(secrets.redacted(finding) for finding in warnings),
        document=document,
        root=root,
        extended=tuple(extended),
    )


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """A platform's policy file: the keys of ``policy:`` at its top, under the same YAML rules.

    Raises :class:`ManifestError`.
    """
    document, findings = _read_file(path)
    if document is None:
        raise ManifestError(*_all(findings, []))
    root, aside = set_aside(document.root, shape_of(Policy))
    typed = _secrets([document], root, aside, document.root)
    expanded = expand(root, {})
    policy, wrong = _validate(Policy, root, document.where)
    findings = [*findings, *(secret.finding for secret in typed), *expanded.findings, *wrong]
    if findings or policy is None:
        raise ManifestError(*_all(findings, typed))
    return policy


# --- reading --------------------------------------------------------------------------------------


def _read(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[Layers, Document | None]:
    if isinstance(source, Mapping):
        _check_memory(source)
        root = from_python(source)
        assert isinstance(root, Map)
        return read_layers(root, FilePath.cwd(), None, None), None
    document, findings = _read_file(source)
    if document is None:
        raise ManifestError(*_all(findings, []))
    path = FilePath(os.path.abspath(source))  # noqa: PTH100 - keeps links as they are
    layers = read_layers(document.root, path.parent, document, path)
    layers.findings[:0] = findings
    return layers, document


def _read_file(path: str | os.PathLike[str]) -> tuple[Document | None, list[Finding]]:
    name = os.fspath(path)
    try:
        data = read_at_most(name, MANIFEST_BYTES)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        if "\n" in name:
            said = "this is the text of a manifest, not a path; give a path or a mapping"
            name = name.partition("\n")[0][:80]
        return None, [codes.UNREADABLE.finding(f"The file could not be read: {said}.", Where(name))]
    return compose(data, name)


def _check_memory(source: Mapping[str, Any]) -> None:
    """The bounds of the YAML reader for data in memory, which may even hold itself."""
    count = 0
    level: list[tuple[Path, Any]] = [((), source)]
    for _ in range(MANIFEST_DEPTH):
        below: list[tuple[Path, Any]] = []
        for path, value in level:
            if isinstance(value, Mapping):
                for key, inner in value.items():
                    if not isinstance(key, str):
                        raise ManifestError(
                            codes.KEY_NOT_TEXT.finding(
                                "A key is not text.", Where(path=path), found=repr(key)[:80]
                            )
                        )
                    below.append(((*path, key), inner))
            elif isinstance(value, (list, tuple)):
                below += [((*path, index), inner) for index, inner in enumerate(value)]
        count += len(below)
        if count > MANIFEST_VALUES:
            raise ManifestError(codes.TOO_MANY_NODES.finding("The mapping holds too many values."))
        if not below:
            return
        level = below
    raise ManifestError(
        codes.TOO_DEEP.finding(
            "Mappings or lists are nested too deep.", Where(path=level[0][0][:8])
        )
    )


def _overridden(root: Map, overrides: Mapping[str, str]) -> Map:
    """``root`` with ``base.model`` and ``base.dtype`` replaced for this once."""
    if not overrides:
        return root
    base = root.entries.get("base")
    if base is not None and not isinstance(base.value, Map) and not _is_null(base.value):
        return root  # validation says so
    entries: dict[str, Entry] = {}
    if base is not None and isinstance(base.value, Map):
        entries = dict(base.value.entries)
    for key, text in overrides.items():
        spot = Spot(f"--{key}")
        if key == "model":
            text = _from_here(text)
        scalar = Scalar(text.replace("$", "$$"), False, spot)
        entries[key] = Entry(Scalar(key, True, spot), scalar, spot)
    whole = Entry(
        base.key if base is not None else Scalar("base", True),
        Map(entries, base.spot if base is not None else Spot()),
        base.spot if base is not None else Spot(),
    )
    return replace(root, entries={**root.entries, "base": whole})


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.is_null


def _from_here(text: str) -> str:
    try:
        source = Source.parse(text)
    except SourceSyntaxError:
        return text  # validation says so
    return str(source.local_path(FilePath.cwd())) if source.is_local else text


# --- checking -------------------------------------------------------------------------------------


def _where(root: Map, file: str | None, path: Path, *, key: bool = False) -> Where:
    place = locate(root, path)
    whole = len(place.path) == len(path)
    spot = place.key if place.key is not None and (key or not whole) else place.value
    if spot.line is None and spot.file is None:
        return Where(file, path)
    return spot.at(path)


def _secrets(
    documents: Iterable[Document], root: Map, aside: Mapping[Path, Node], whole: Map
) -> list[secrets.Secret]:
    typed: list[secrets.Secret] = []
    for document in documents:
        typed += secrets.in_text(document.text, document.file, document.root)
    seen = {(secret.finding.where.file, secret.text) for secret in typed}
    resolved = secrets.in_tree(root)
    for path, node in aside.items():
        resolved += secrets.in_tree(node, path)
    typed += [s for s in resolved if (s.finding.where.file, s.text) not in seen]
    for path in _option_places(whole):
        options = find(whole, path)
        if options is not None:
            typed += secrets.in_options(options, path)
    return typed


def _option_places(root: Map) -> list[Path]:
    places: list[Path] = [("base", "storage_options")]
    adapters = find(root, ("adapters",))
    if isinstance(adapters, Map):
        places += [("adapters", name, "storage_options") for name in adapters.entries]
    return places


def _validate(model: type[M], root: Map, where: Locate) -> tuple[M | None, list[Finding]]:
    """The model, and what is wrong; beside errors, the model of what is left without them."""
    shape = shape_of(model)
    data = conform(root, shape)
    try:
        return model.model_validate(data, strict=True), []
    except ValidationError as error:
        return salvage(model, data, error, root), explain_invalid(error, root, shape, where)


def _extended_policies(layers: Layers, findings: list[Finding]) -> list[ExtendedPolicy]:
    """The policy of each file that is extended, whatever the files over it say of theirs."""
    found: list[ExtendedPolicy] = []
    for entry in layers.policies:
        if isinstance(entry.value, Scalar) and entry.value.is_null:
            continue
        if not isinstance(entry.value, Map):
            wrong = "A policy is not a mapping."
            where = entry.spot.at(("policy",))
            findings.append(codes.WRONG_TYPE.finding(wrong, where, found=describe(entry.value)))
            continue
        node, _ = set_aside(entry.value, shape_of(Policy))

        def place(path: Path, *, key: bool = False, node: Map = node) -> Where:
            return replace(_where(node, None, path, key=key), path=("policy", *path))

        policy, problems = _validate(Policy, node, place)
        findings += problems
        if policy is not None:
            found.append(ExtendedPolicy(policy, node))
    return found


def _granting(policies: Iterable[Policy], where: Locate) -> list[Finding]:
    return [
        policy_codes.CREDENTIALS_BY_MANIFEST.finding(
            "A manifest cannot allow that your credentials are sent somewhere.",
            where(("policy", "allow_credentials")),
        )
        for policy in policies
        if policy.allow_credentials is not None
    ][:1]


def _gaps(root: Map, manifest: Manifest, wrong: Iterable[Finding]) -> Gaps:
    """What stands in the file and not in ``manifest``, because of what is ``wrong`` with it."""

    def declared(section: str) -> list[str]:
        node = find(root, (section,))
        return [name for name in node.entries if is_name(name)] if isinstance(node, Map) else []

    paths = [finding.where.path for finding in wrong]
    here = {*manifest.adapters, *manifest.compositions}
    names = dict.fromkeys([*declared("adapters"), *declared("compositions")])
    return Gaps(
        names=tuple(name for name in names if name not in here),
        registries=tuple(declared("registries")),
        unsure=frozenset(
            str(path[1])
            for path in paths
            if len(path) > 2 and path[0] == "compositions" and path[2] != "of"
        ),
        unplaced=frozenset(
            str(path[1])
            for path in paths
            if path[:1] == ("adapters",) and path[2:3] in (("source",), ("config",))
        ),
    )


def _all(findings: Iterable[Finding], typed: Iterable[secrets.Secret]) -> list[Finding]:
    """Each finding once, without secrets, in the order of the files.

    Of a place that holds a secret or a variable that could not be expanded, nothing else is said.
    """
    findings = list(findings)
    hidden = {secret.text for secret in typed if len(secret.text) > 3}
    longest_first = sorted(hidden, key=len, reverse=True)
    settled = {f.where.path: f.code for f in findings if f.code in _VARIABLES and f.where.path}
    settled |= {f.where.path: "" for f in findings if f.code in _SECRETS and f.where.path}
    kept = dict.fromkeys(
        finding
        for finding in findings
        if finding.code in _SECRETS or settled.get(finding.where.path, finding.code) == finding.code
    )
    order: dict[str | None, int] = {}
    for finding in kept:
        order.setdefault(finding.where.file, len(order))
    told = sorted(kept, key=lambda f: (order[f.where.file], f.where.line or 0, f.where.column or 0))
    clean = [secrets.redacted(finding, longest_first) for finding in told[:FINDINGS]]
    if len(told) > FINDINGS:
        message = f"There are at least {len(told) - FINDINGS} more findings."
        clean.append(codes.MORE.finding(message, Where(told[0].where.file)))
    return clean
