"""From a manifest to a plain transformers model on disk, with its adapters in the weights.

Tensors without an adapter are copied byte for byte under the checkpoint's own names; the others are
merged in float32 and rounded once (experts that transformers fuses at load, one by one). Nothing
larger than one tensor of the base is in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..manifests.findings import fit as fit_codes
from ..manifests.findings import merging as codes
from ..manifests.findings import training
from ..manifests.findings import usage as usage_codes
from ..manifests.findings.errors import AdapterdockError, AttachError, RoutingError, UsageError
from ..manifests.findings.finding import Finding, Where
from ..manifests.language.rules import answering, flatten, is_made
from ..manifests.language.weights import ModuleWeights, Weight, shown
from ..manifests.lockfile import LoadedAs
from ..manifests.manifest import ManifestFile
from ..registry.access.session import Session, session_for
from ..registry.files.digests import folder_digest
from ..registry.files.header import read_local_header
from ..registry.files.new_folder import MARK, check_free, replacing
from ..registry.files.progress import Progress, Silent
from ..registry.locks.project import ManifestSource, open_manifest
from ..registry.pull import Pulled, pull_file
from ..registry.store.store import Store
from .adapter.adapter import Terms
from .base.meta_model import Skeleton
from .build.from_files import AdapterFiles
from .lifecycle.attach_files import attach_files
from .lifecycle.choose import define_rules
from .lifecycle.pulled_base import base_folder, check_declared, loaded_as_of, require
from .merge.merge import merge_failed
from .merge.on_disk import WEIGHTS, DiskMerge
from .model.host import AdapterHost
from .weights.dtypes import DTYPES


@dataclass(frozen=True)
class MergedFolder:
    """A merged model on disk.

    Attributes:
        folder: The folder that was written.
        files: The size of each file (bytes), by its path in the folder.
        weights: The adapters in the weights (and compositions that are adapters of their own), each
            with its weight.
        notes: Warnings.
    """

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
    """Merge adapters into the manifest's base, and write it as a plain transformers model.

    Obeys lock, policy and rules as :func:`load` does. The same inputs give the same bytes.

    Args:
        manifest: A manifest, as :func:`load` takes it.
        out: The folder to write; it is replaced only on success.
        selection: An adapter or a composition; by default what the manifest names as ``active``. A
            composition by another method than ``sum`` is computed first, in float32.
        safe: Refuse NaN and infinity.
        dtype: The dtype of all floating tensors; by default each keeps its own.
        max_shard_size: The largest size of a file of weights (bytes); by default the base's files
            are kept.
        model: A base in place of the manifest's.
        policy: A policy file, beside those in force.
        accept: Codes of checks that could not run and are accepted.
        frozen: Refuse a lock that is not current.
        offline: Use only files that are on this machine.
        store: The cache; by default the user's.
        progress: Where to report progress.

    Returns:
        The folder, its files, and what is in its weights.

    Raises:
        AdapterdockError: As :func:`load` raises it, and :class:`AttachError` for an adapter or a
            base that cannot be merged. ``out`` is then as it was.
    """
    check_free(out)
    file = open_manifest(manifest, model=model)
    chosen = _chosen(file, selection)
    where = file.where(("base", "model"))
    if file.manifest.base.model is None:
        raise UsageError(
            usage_codes.NEEDS_BASE.finding("The manifest has no base", file.where(("base",)))
        )
    if file.manifest.base.quantization is not None:
        raise AttachError(
            codes.MERGE_QUANTIZED.finding(
                "The manifest quantises its base", file.where(("base", "quantization"))
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
        options = loaded_as.model_dump(exclude_defaults=True)
        found = ", ".join(f"{name}: {value}" for name, value in options.items())
        message = "The base's files cannot be merged as they are"
        raise AttachError(fit_codes.MERGE_LOADED_AS.finding(message, where, found=found))
    with store.hold(f.fact.sha256 for f in pulled.base.values() if f.fact.sha256), _one_thread():
        skeleton = _skeleton(pulled, store, where)
        terms, notes = _attached(AdapterHost(skeleton.model), pulled, chosen, session)
        merge = DiskMerge(skeleton, DTYPES.get(dtype or ""), where)
        merge.decide(terms)
        with replacing(out) as folder:
            try:
                merge.write(
                    folder,
                    pulled.base,
                    _metadata(pulled, terms),
                    safe=safe,
                    limit=max_shard_size,
                    progress=progress or Silent(),
                )
            except (AdapterdockError, OSError):
                raise
            except Exception as error:
                raise merge_failed(error, where) from error
            files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
            sizes = {name: path.stat().st_size for name, path in sorted(files.items())}
    return MergedFolder(
        out, sizes, {a.name: w for a, w in terms}, tuple(dict.fromkeys((*pulled.notes, *notes)))
    )


def _chosen(file: ManifestFile, selection: str | None) -> dict[str, Weight]:
    """The weights of ``selection``: a ``sum`` is its members at theirs, any other composition an
    adapter of its own."""
    manifest = file.manifest
    chosen = manifest.active if selection is None else selection
    weights = answering(manifest, () if chosen is None else chosen)
    weights = {name: weight for name, weight in weights.items() if weight}
    if not weights:
        raise RoutingError(codes.MERGE_NOTHING.finding("No adapter is active or selected"))
    return weights


@contextmanager
def _one_thread() -> Generator[None]:
    """The order in which a product is summed depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _skeleton(pulled: Pulled, store: Store, where: Where) -> Skeleton:
    """The base without weights."""
    headers = {
        name: read_local_header(file.path, name, where)
        for name, file in sorted(pulled.base.items())
        if name.endswith(WEIGHTS)
    }
    remote_code = pulled.file.manifest.base.trust_remote_code
    skeleton = Skeleton(base_folder(pulled, store), headers, remote_code=remote_code, where=where)
    if "quantization_config" in skeleton.config:
        raise AttachError(
            codes.MERGE_QUANTIZED.finding("config.json has a quantization_config", where)
        )
    return skeleton


def _attached(
    host: AdapterHost, pulled: Pulled, chosen: Mapping[str, Weight], session: Session
) -> tuple[Terms, list[Finding]]:
    """The adapters to merge, attached with all the checks of a live base, in float32 unless the
    manifest gives a dtype; and the warnings about them."""
    file, store = pulled.file, session.store
    manifest = file.manifest
    notes: list[Finding] = []
    made = [name for name in chosen if is_made(manifest, name)]
    members = (member for name in made for member in manifest.compositions[name].of)
    needed = list(dict.fromkeys((*(name for name in chosen if name not in made), *members)))
    for name in needed:
        adapter = manifest.adapters[name]
        if adapter.config is not None:
            message = f"{name!r} is a new adapter, and has no trained weights to merge"
            where = file.where(("adapters", name, "config"))
            hint = "Train and save it first, then name the folder as its `source`."
            raise AttachError(training.NEW_NOT_TRAINABLE.finding(message, where, hint=hint))
        files = AdapterFiles(
            name,
            pulled.adapters[name],
            store.verified,
            source=adapter.source,
            base=manifest.base,
            directory=file.directory,
            accepted=session.accepted,
            dtype=DTYPES.get(adapter.dtype or "", torch.float32),
            where=file.where(("adapters", name, "source")),
        )
        notes += attach_files(host, files)
    define_rules(host, file)
    for name in made:
        recipe, where = manifest.compositions[name], file.where(("compositions", name))
        of = flatten(manifest, name)
        host.compositions.attach(name, recipe, of, dtype=torch.float32, where=where)
    terms = host.choice.routing(chosen).terms
    host.adapters.delete([name for name in needed if name not in chosen])
    return terms, notes


def _metadata(pulled: Pulled, terms: Terms) -> dict[str, str]:
    """The metadata of the written files: the base, and the adapters in it."""

    def digest(name: str) -> str | None:
        """Of an adapter's files, or of a composition's recipe (none if a member may change)."""
        if (files := pulled.adapters.get(name)) is not None:
            return folder_digest(f.fact for f in files.values())
        locked = pulled.lock.compositions.get(name)
        return None if locked is None else locked.digest

    adapters = {
        adapter.name: {
            "digest": digest(adapter.name),
            "weight": shown(weight) if isinstance(weight, ModuleWeights) else weight,
        }
        for adapter, weight in terms
    }
    base = folder_digest(f.fact for f in pulled.base.values())
    record = {"adapters": adapters, "base": base, "version": 1}
    return {"format": "pt", MARK: json.dumps(record, sort_keys=True)}
