"""From a manifest and its lock to a folder of adapters that others read."""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ...manifests.findings import loader as loader_codes
from ...manifests.findings import serving as codes
from ...manifests.findings import usage as usage_codes
from ...manifests.findings.errors import FitError, LockError, UsageError
from ...manifests.findings.finding import Finding, Where, refused
from ...manifests.language.names import did_you_mean
from ...manifests.language.schema import Adapter, Composition
from ...manifests.lockfile import Lock, lock_path
from ...manifests.manifest import ManifestFile
from ...registry.access.session import Session, session_for
from ...registry.checks.check_adapter import plan_on
from ...registry.files.digests import sha256_file
from ...registry.files.disk import guarded, output_path, remove
from ...registry.files.facts import AdapterFacts, BaseFacts, FileFact, Layout
from ...registry.files.progress import Progress
from ...registry.files.scratch import scratch_folder
from ...registry.locks.project import lock_of, open_manifest
from ...registry.locks.state import kept, mutable, require_lock
from ...registry.pull import require_policy
from ...registry.read_facts import gather_adapter
from ...registry.resolve import resolve_base
from ...registry.store.store import Store
from ..copies.copies import Copies
from ..copies.private_file import copy_verified
from ..served.prepare import Prepared, Preparing, folder_at
from .architectures import ARCHITECTURES, Architecture
from .computed import compute, require_torch
from .dense import DenseLora, dense_lora
from .gguf_file import SUFFIX, unnamed, write_gguf
from .mlx_folder import layers_in, outside, write_mlx
from .out_folder import Outcome, opened, written_files
from .record import Exported, Format, Locked, Origin

SHOWN: Mapping[Format, str] = {"peft": "a PEFT folder", "gguf": "GGUF", "mlx": "MLX"}
"""The formats, in words."""
_PACKAGES: Mapping[Format, tuple[str, ...]] = {"gguf": ("gguf", "numpy"), "mlx": ("numpy",)}


@dataclass(frozen=True)
class Done:
    """What an export did. ``base`` is the declared base model, ``notes`` are warnings."""

    outcome: Outcome
    base: str | None
    notes: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class _Ready:
    """One adapter to write: its verified files, and what is said of it."""

    name: str
    folder: Path
    digest: str
    revision: str
    rank: int | None
    lora: DenseLora | None = None


@dataclass(frozen=True)
class _Base:
    """What a format must know of the base."""

    facts: BaseFacts
    layout: Layout
    architecture: Architecture


def export(
    manifest: str | os.PathLike[str] | ManifestFile,
    out: str | os.PathLike[str],
    *,
    form: Format = "peft",
    only: Collection[str] = (),
    take_over: bool = False,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    offline: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> Done:
    """Write a manifest's adapters into a folder, verified against its lock.

    Each adapter takes its place in one step. What an earlier export wrote is replaced; adapters
    that are no longer in the manifest are removed, unless ``only`` names some. Compositions are
    written as one adapter each.

    Args:
        manifest: The manifest's path. Its lock must be there and current.
        out: The folder.
        form: ``peft`` (``NAME/``), ``gguf`` (``NAME.gguf``) or ``mlx`` (``NAME/``).
        only: Adapters and compositions to write; all others stay as they are.
        take_over: Export into the folder also where it has the export of another manifest.
        policy: A policy file that must allow everything too.
        accept: Codes (id or name) of unchecked findings to accept.
        offline: Use no network.
        store: Where fetched files are kept; the user's cache by default.
        progress: Gets what is fetched.

    Returns:
        What was written, left as it was, and removed.

    Raises:
        LockError: The lock is missing, stale or incomplete, or an adapter is mutable.
        FitError: An adapter does not fit, or the format cannot hold it.
        UsageError: ``out`` has something else where the export must write, cannot be written, or a
            package is missing.
        PolicyError, SourceError, IntegrityError, StoreError: As :func:`pull`.
    """
    out = output_path(out)
    _require_packages(form)
    file = manifest if isinstance(manifest, ManifestFile) else open_manifest(manifest)
    session = session_for(
        file, policy=policy, accept=accept, offline=offline, store=store, progress=progress
    )
    lock = lock_of(file)
    require_lock(file, lock, frozen=lock is None)
    assert lock is not None
    names = (*file.manifest.adapters, *file.manifest.compositions)
    _require_known(only, names, file)
    wanted = [name for name in names if not only or name in only]
    whole, file = file, _reduced(file, wanted)
    if findings := mutable(file):
        raise LockError(*findings)
    require_policy(file, lock, session.access)
    base = None if form == "peft" else _base_of(file, lock, session, form)
    origin, locked = _origin(file, out)
    with opened(out) as folder, _scratch() as scratch:
        if not take_over:
            folder.require_of(origin, locked)
        folder.require_free({_entry(name, form) for name in wanted})
        prepared, places = _prepared(file, whole, lock, session, wanted, scratch)
        ready = [_ready(name, places[name], prepared, lock) for name in wanted]
        ready = _checked(ready, file, base, form)
        for one in ready:
            folder.stage(one.name, partial(_write, one, base, form))
        outcome = folder.publish(origin, locked, keep=bool(only))
    model = file.manifest.base.model
    return Done(outcome, None if model is None else str(model), prepared.findings)


def _prepared(
    file: ManifestFile,
    whole: ManifestFile,
    lock: Lock,
    session: Session,
    wanted: Collection[str],
    scratch: Path,
) -> tuple[Prepared, Mapping[str, Path]]:
    """Verified copies of everything, and the folder of each wanted name. Compositions that are not
    joined without torch are computed below ``scratch``, from the ``whole`` manifest: the lock is
    that one's."""
    prepared = Preparing(Copies(session.store), None).prepare(file, lock, session)
    kept_back = [(n, findings) for n, findings in prepared.refused.items() if n in wanted]
    computed = [(n, f) for n, f in kept_back if n in file.manifest.compositions]
    wrong = [f for name, found in kept_back if (name, found) not in computed for f in found]
    broken = [f for _, found in computed for f in found if f.code != codes.NOT_JOINED.id]
    if wrong or broken:
        raise FitError(*wrong, *broken)
    places = {name: one.path for name, one in prepared.adapters.items()}
    if computed:
        require_torch(file, computed)
        compute(whole, session, [name for name, _ in computed], scratch)
        places |= {name: scratch / name for name, _ in computed}
    return prepared, places


def _ready(name: str, place: Path, prepared: Prepared, lock: Lock) -> _Ready:
    served = prepared.adapters.get(name)
    if served is not None:
        return _Ready(name, place, served.digest, served.revision, served.rank)
    digest = lock.compositions[name].digest
    assert digest is not None  # no member is mutable
    return _Ready(name, place, digest, "", None)


def _checked(
    ready: Iterable[_Ready], file: ManifestFile, base: _Base | None, form: Format
) -> list[_Ready]:
    """What can be written in the format. Raises :class:`FitError` with all that cannot."""
    found: list[_Ready] = []
    wrong: list[Finding] = []
    for one in ready:
        kind = "adapters" if one.name in file.manifest.adapters else "compositions"
        where = file.where((kind, one.name))
        facts = gather_adapter(one.name, folder_at(one.folder), where)
        if base is None:
            wrong += _foreign(one.name, facts, where)
            plan = plan_on(facts, None) if one.rank is None else None
            found.append(one if plan is None else replace(one, rank=plan.rank))
            continue
        lora, findings = _lora(one, facts, base, form, where)
        wrong += findings
        found.append(replace(one, lora=lora))
    if wrong:
        raise FitError(*wrong)
    return found


def _foreign(name: str, facts: AdapterFacts, where: Where) -> Iterator[Finding]:
    if facts.origin is not None:
        yield codes.FORMAT_LACKS.finding(
            f"Cannot write {name!r} as a PEFT folder: its files have another format",
            where,
            found=facts.origin.format,
            expected="files that PEFT wrote",
            hint="Load it and save it with `save_pretrained`, and declare the result.",
        )


def _lora(
    one: _Ready, facts: AdapterFacts, base: _Base, form: Format, where: Where
) -> tuple[DenseLora | None, list[Finding]]:
    """The adapter as pairs of factors, or why it cannot be written."""
    plan = plan_on(facts, base.layout)
    if plan is None:
        raise FitError(
            codes.FORMAT_LACKS.finding(
                f"Cannot write {one.name!r} as {SHOWN[form]}", where, found=facts.peft_type
            )
        )
    places = {path: one.folder / path for path in facts.headers}
    lora, wrong = dense_lora(one.name, facts, plan, places, base.layout, SHOWN[form], where)
    if lora is not None and form == "gguf":
        wrong = unnamed(lora, base.architecture, base.facts.config, where)
    elif lora is not None:
        wrong = outside(lora, base.architecture, where)
    return lora, wrong


def _write(one: _Ready, base: _Base | None, form: Format, folder: Path) -> Exported:
    """Write one adapter below ``folder``; its row."""
    if one.lora is not None and base is not None and form == "gguf":
        write_gguf(folder / _entry(one.name, form), one.lora, base.architecture, base.facts.config)
    else:
        inside = folder / one.name
        inside.mkdir()
        if one.lora is not None and base is not None:
            layers = layers_in(base.facts.config)
            assert layers is not None  # the base was looked at
            source = base.facts.source
            model = source.path if source is not None and source.is_hub else None
            write_mlx(inside, one.lora, layers, model)
        else:
            _copy(one.folder, inside)
    return Exported(
        format=form,
        digest=one.digest,
        revision=one.revision,
        rank=one.rank if one.lora is None else one.lora.rank,
        files=written_files(folder),
    )


def _copy(source: Path, target: Path) -> None:
    """Copy every file of a verified folder, as it is read once."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            name = path.relative_to(source).as_posix()
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            copy_verified(path, place, FileFact(name, path.stat().st_size, sha256_file(path)))


def _base_of(file: ManifestFile, lock: Lock, session: Session, form: Format) -> _Base:
    """The base, whose architecture is in the table.

    Raises:
        FitError: There is no base, it cannot be read, or the format is not proved for it.
    """
    where = file.where(("base", "model"))
    if file.manifest.base.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("The manifest has no base", file.where(("base",)))
        )
    access = replace(session.access, store=session.store).started()
    resolution = resolve_base(file, access.under(lock, {None} & kept(file, lock)))
    facts = resolution.base
    if facts is None:
        raise FitError(*(refused(resolution.findings) or resolution.findings))
    name = facts.architecture or ""
    row = ARCHITECTURES.get(name)
    known = [n for n, one in ARCHITECTURES.items() if form == "gguf" or one.mlx]
    if row is None or name not in known or facts.layout is None or layers_in(facts.config) is None:
        raise FitError(
            codes.FORMAT_UNPROVED.finding(
                f"{SHOWN[form]} is not proved for this base",
                where,
                found=name or "no architecture in config.json",
                expected=", ".join(known),
            )
        )
    return _Base(facts, facts.layout, row)


def _require_known(only: Collection[str], names: Collection[str], file: ManifestFile) -> None:
    findings = [
        loader_codes.ADAPTER_UNKNOWN.finding(
            f"The manifest declares no adapter or composition {name!r}",
            file.where(("adapters",)),
            found=name,
            expected=", ".join(names),
            hint=did_you_mean(name, names) or "Use one of these names.",
        )
        for name in dict.fromkeys(only)
        if name not in names
    ]
    if findings:
        raise UsageError(*findings)


def _require_packages(form: Format) -> None:
    missing = [name for name in _PACKAGES.get(form, ()) if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        extra = "gguf" if form == "gguf" else "inspect"
        raise UsageError(
            codes.EXPORT_NEEDS.finding(
                f"{' and '.join(missing)} {verb} not installed, and an export to {SHOWN[form]} "
                "needs it",
                hint=f"Install it with `pip install 'adapterdock[{extra}]'`.",
            )
        )


def _reduced(file: ManifestFile, wanted: Collection[str]) -> ManifestFile:
    """The manifest with these names and their members alone."""
    manifest = file.manifest
    found = [*wanted]
    for name in found:
        if name in manifest.compositions:
            found += [member for member in manifest.compositions[name].of if member not in found]
    adapters: dict[str, Adapter] = {n: a for n, a in manifest.adapters.items() if n in found}
    compositions: dict[str, Composition] = {
        n: c for n, c in manifest.compositions.items() if n in found
    }
    changes = {"adapters": adapters, "compositions": compositions, "active": None}
    return replace(file, manifest=manifest.model_copy(update=changes))


def _origin(file: ManifestFile, out: Path) -> tuple[Origin, Locked]:
    """What is exported: the manifest's and the lock's file."""
    assert file.file is not None  # it has a lock
    path = lock_path(file.file)
    with guarded(path):
        return (
            Origin(location=_seen_from(out, Path(file.file)), sha256=sha256_file(Path(file.file))),
            Locked(sha256=sha256_file(path)),
        )


def _seen_from(folder: Path, file: Path) -> str:
    """The path of the file from the folder; links stay, since what they name may change."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return file.absolute().as_posix()


def _entry(name: str, form: Format) -> str:
    return f"{name}{SUFFIX}" if form == "gguf" else name


@contextmanager
def _scratch() -> Generator[Path]:
    folder = scratch_folder()
    try:
        yield folder
    finally:
        remove(folder)
