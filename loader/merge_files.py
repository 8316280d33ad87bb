"""From a manifest to a plain transformers model on disk, with its adapters in the weights.

What no adapter changes is copied byte for byte under the checkpoint's own names; what one changes
is merged in float32 and rounded once, experts which transformers fuses when it loads one by one.
Nothing larger than one tensor of the base is in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..manifests.findings import fit as fit_codes
from ..manifests.findings import merging as codes
from ..manifests.findings import training
from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import AdapterdockError, AttachError, RoutingError, UsageError
from ..manifests.findings.finding import Finding, Where
from ..manifests.language.rules import flatten
from ..manifests.language.weights import ModuleWeights, Weight, shown
from ..manifests.lockfile import LoadedAs
from ..manifests.manifest import ManifestFile
from ..registry.files.digests import folder_digest
from ..registry.files.facts import Header
from ..registry.files.header import read_header
from ..registry.files.new_folder import MARK, check_free, replacing
from ..registry.files.progress import Progress, Silent
from ..registry.locks.project import ManifestSource, open_manifest
from ..registry.pull import Pulled, pull_file
from ..registry.session import session_for
from ..registry.store.store import Store
from .base.meta_model import Skeleton
from .build.from_files import AdapterFiles
from .lifecycle.attach_files import attach_files
from .lifecycle.choose import define_rules
from .lifecycle.pulled_base import base_folder, check_declared, loaded_as_of, require
from .merge.merge import Terms
from .merge.on_disk import WEIGHTS, DiskMerge
from .model.host import AdapterHost
from .weights.dtypes import DTYPES


@dataclass(frozen=True)
class MergedFolder:
    """What was written: the files with their sizes (bytes), the adapters (and compositions that
    are adapters of their own) that are in the weights, and warnings."""

    folder: Path
    files: Mapping[str, int]
    weights: Mapping[str, Weight]
    notes: tuple[Finding, ...] = ()


def merge_to_folder(
    manifest: ManifestSource,
    out: Path,
    *,
    selection: str | None = None,
    safe: bool = False,
    dtype: str | None = None,
    max_shard_size: int | None = None,
    model: str | None = None,
    policy: str | os.PathLike[str] | None = None,
    accept: Iterable[str] = (),
    frozen: bool = False,
    offline: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
) -> MergedFolder:
    """Write the manifest's base with ``selection`` (an adapter or a composition; else what is
    active) in its weights into the folder ``out``, as a plain transformers model. A composition
    that is no ``sum`` is computed first, in float32.

    Every tensor keeps its dtype, or with ``dtype`` all floating ones get that. Files are the
    base's own, or with ``max_shard_size`` (bytes) as large as that. ``safe`` refuses NaN and
    infinity. Obeys lock, policy and rules as ``load`` does, and raises the same
    errors; ``out`` is then as it was. The same inputs give the same bytes.
    """
    check_free(out)
    file = open_manifest(manifest, model=model)
    chosen = _chosen(file, selection)
    where = file.where(("base", "model"))
    if file.manifest.base.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("the manifest declares no base", file.where(("base",)))
        )
    if file.manifest.base.quantization is not None:
        raise AttachError(
            codes.MERGE_QUANTIZED.finding(
                "the manifest quantises its base", file.where(("base", "quantization"))
            )
        )
    session = session_for(
        file,
        policy=policy,
        accept=accept,
        frozen=frozen,
        offline=offline,
        store=store,
        progress=progress,
    )
    pulled = pull_file(file, session)
    session, store = session.after(pulled.lock), session.store
    require(check_declared(pulled), session.accepted)
    if (loaded_as := loaded_as_of(pulled)) != LoadedAs():
        said = ", ".join(
            f"{k}: {v}" for k, v in loaded_as.model_dump(exclude_defaults=True).items()
        )
        message = "The base's files cannot be merged as they are"
        raise AttachError(fit_codes.MERGE_LOADED_AS.finding(message, where, found=said))
    with store.hold(f.fact.sha256 for f in pulled.base.values() if f.fact.sha256), _one_thread():
        job = _Job(pulled, store, where)
        terms, notes = job.attach(chosen, session.accepted)
        merge = DiskMerge(job.skeleton, DTYPES.get(dtype or ""), where)
        merge.decide(terms)
        with replacing(out) as folder:
            try:
                merge.write(
                    folder,
                    pulled.base,
                    job.metadata(),
                    safe=safe,
                    limit=max_shard_size,
                    progress=progress or Silent(),
                )
            except (AdapterdockError, OSError):
                raise
            except Exception as error:
                raise AttachError(
                    codes.MERGE_FAILED.finding(
                        f"merging broke off: {type(error).__name__}: {error}", where
                    )
                ) from error
            files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
            sizes = {name: path.stat().st_size for name, path in sorted(files.items())}
    return MergedFolder(
        out, sizes, {a.name: w for a, w in terms}, tuple(dict.fromkeys((*pulled.notes, *notes)))
    )


@dataclass(frozen=True)
class _Chosen:
    """What is to be merged, with its weights; the compositions ``made`` of ``adapters`` first."""

    weights: Mapping[str, Weight]
    made: tuple[str, ...]
    adapters: tuple[str, ...]


def _chosen(file: ManifestFile, selection: str | None) -> _Chosen:
    """What ``selection`` means: a ``sum`` is its members at their weights, any other composition
    an adapter of its own."""
    manifest = file.manifest
    chosen = manifest.active if selection is None else selection
    names = [chosen] if isinstance(chosen, str) else list(chosen or ())
    known = manifest.compositions
    made = tuple(n for n in names if n in known and known[n].combine != "sum")
    summed = flatten(manifest, [name for name in names if name not in made])
    weights = {name: weight for name, weight in summed.items() if weight}
    if not weights and not made:
        raise RoutingError(codes.MERGE_NOTHING.finding("no adapter is active or named"))
    adapters = tuple(dict.fromkeys((*weights, *(n for one in made for n in known[one].of))))
    return _Chosen({**weights, **dict.fromkeys(made, 1.0)}, made, adapters)


@contextmanager
def _one_thread() -> Generator[None]:
    """The order in which a product is summed up depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _Job:
    """One merge on its way: the base without weights, and the adapters on it."""

    pulled: Pulled
    store: Store
    where: Where
    skeleton: Skeleton = field(init=False)
    host: AdapterHost = field(init=False)
    terms: Terms = ()

    def __post_init__(self) -> None:
        base = self.pulled.file.manifest.base
        self.skeleton = Skeleton(
            base_folder(self.pulled, self.store),
            self._headers(),
            remote_code=base.trust_remote_code,
            where=self.where,
        )
        if "quantization_config" in self.skeleton.config:
            raise AttachError(
                codes.MERGE_QUANTIZED.finding("config.json has a quantization_config", self.where)
            )
        self.host = AdapterHost(self.skeleton.model)

    def _headers(self) -> dict[str, Header]:
        found: dict[str, Header] = {}
        for name, fetched in sorted(self.pulled.base.items()):
            if name.endswith(WEIGHTS):
                with fetched.path.open("rb") as stream:

                    def read(start: int, length: int, stream: Any = stream) -> bytes:
                        stream.seek(start)
                        return stream.read(length)

                    found[name] = read_header(read, fetched.fact.size, self.where, name)
        return found

    def attach(self, chosen: _Chosen, accepted: frozenset[str]) -> tuple[Terms, list[Finding]]:
        """The adapters, attached to the base without weights with all the checks of a live one,
        in float32 unless the manifest says in what; and what compositions make of them."""
        file = self.pulled.file
        notes: list[Finding] = []
        for name in chosen.adapters:
            adapter = file.manifest.adapters[name]
            if adapter.config is not None:
                message = f"{name!r} is begun from a config, and has nothing to merge yet"
                where = file.where(("adapters", name, "config"))
                hint = "train and save it first, and name the folder as its `source`"
                raise AttachError(training.FRESH_NOT_TRAINABLE.finding(message, where, hint=hint))
            files = AdapterFiles(
                name,
                self.pulled.adapters[name],
                self.store.verified,
                source=adapter.source,
                base=file.manifest.base,
                directory=file.directory,
                accepted=accepted,
                dtype=DTYPES.get(adapter.dtype or "", torch.float32),
                where=file.where(("adapters", name, "source")),
            )
            notes += attach_files(self.host, files)
        define_rules(self.host, file)
        for name in chosen.made:
            recipe, where = file.manifest.compositions[name], file.where(("compositions", name))
            of = flatten(file.manifest, name)
            self.host.compositions.attach(name, recipe, of, dtype=torch.float32, where=where)
        self.terms = self.host.choice.routing(chosen.weights).terms
        self.host.adapters.delete([n for n in chosen.adapters if n not in chosen.weights])
        return self.terms, notes

    def metadata(self) -> dict[str, str]:
        """What the written files say of themselves: the base, and what is merged into it."""
        adapters = {
            adapter.name: {
                "digest": self._digest(adapter.name),
                "weight": shown(weight) if isinstance(weight, ModuleWeights) else weight,
            }
            for adapter, weight in self.terms
        }
        base = folder_digest(f.fact for f in self.pulled.base.values())
        told = {"adapters": adapters, "base": base, "version": 1}
        return {"format": "pt", MARK: json.dumps(told, sort_keys=True)}

    def _digest(self, name: str) -> str | None:
        """Of an adapter's files, or of a composition's recipe (none if a member may change)."""
        files = self.pulled.adapters.get(name)
        if files is not None:
            return folder_digest(f.fact for f in files.values())
        locked = self.pulled.lock.compositions.get(name)
        return None if locked is None else locked.digest
