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
from ..registry.files.names import BASE_CONFIG, BASE_INDEX
from ..registry.files.new_folder import MARK, check_free, replacing
from ..registry.files.progress import Progress, Silent
from ..registry.files.shards import Tensor, index_of, lay_out, packed
from ..registry.lock import accepted_codes
from ..registry.locks.project import ManifestSource, open_manifest
from ..registry.pull import Pulled, pull
from ..registry.store.store import Store
from .base.disk_names import DTYPES as DTYPE_NAMES
from .base.fused_slices import Cut
from .base.meta_model import OnDisk, Skeleton
from .build.from_files import AdapterFiles
from .lifecycle.attach_files import attach_files
from .lifecycle.choose import define_rules
from .lifecycle.pulled_base import base_folder, check_declared, loaded_as_of, require
from .merge.checkpoint_writer import CheckpointWriter, Item
from .merge.fold import PLAIN, CutFold, Fold, folds
from .merge.merge import Terms
from .merge.untie import parted, untied, untied_as_written
from .model.host import AdapterHost
from .weights.dtypes import DTYPES, TORCH_DTYPES

WEIGHTS = ".safetensors"


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
    store = store or Store.default()
    accepted = accepted_codes(accept)
    pulled = pull(
        file,
        policy=policy,
        accept=accepted,
        frozen=frozen,
        offline=offline,
        store=store,
        progress=progress,
    )
    accepted |= frozenset(pulled.lock.accepted)
    require(check_declared(pulled), accepted)
    if (loaded_as := loaded_as_of(pulled)) != LoadedAs():
        said = ", ".join(
            f"{k}: {v}" for k, v in loaded_as.model_dump(exclude_defaults=True).items()
        )
        message = "The base's files cannot be merged as they are"
        raise AttachError(fit_codes.MERGE_LOADED_AS.finding(message, where, found=said))
    with store.hold(f.fact.sha256 for f in pulled.base.values() if f.fact.sha256), _one_thread():
        job = _Job(pulled, store, DTYPES.get(dtype or ""), where)
        terms, notes = job.attach(chosen, accepted)
        job.decide(terms)
        with replacing(out) as folder:
            try:
                job.write(folder, safe, max_shard_size, progress or Silent())
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
    """One merge on its way: what is known of the base, and then what becomes of its tensors."""

    pulled: Pulled
    store: Store
    dtype: torch.dtype | None
    where: Where
    skeleton: Skeleton = field(init=False)
    host: AdapterHost = field(init=False)
    items: list[Item] = field(default_factory=list)
    groups: list[tuple[str, ...]] = field(default_factory=list)
    terms: Terms = ()
    problems: list[Finding] = field(default_factory=list)

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

    def decide(self, terms: Terms) -> None:
        """What becomes of every tensor of the checkpoint. Raises :class:`AttachError`."""
        skeleton = self.skeleton
        changes = folds(skeleton.model, skeleton.modules, terms, self.where)
        self.groups = untied(
            skeleton.model,
            parted(changes, skeleton.modules),
            skeleton.modules,
            self.where,
            skeleton.config,
        )
        alone = {name for group in self.groups for name in group}
        of_disk: dict[str, Fold | CutFold] = {}
        more: dict[str, list[Item]] = {}
        for name in dict.fromkeys((*changes, *sorted(alone))):
            change = changes.get(name)
            place = skeleton.find(name)
            if place is not None:
                if change is not None and self._mergeable(name, place, change):
                    of_disk[place.name] = change
                continue
            shared = skeleton.find_shared(name)
            parts = skeleton.find_parts(name) if change is not None and shared is None else None
            if change is not None and parts is not None:
                if self._cut(change, parts):
                    live = tuple(skeleton.model.get_parameter(name).shape)
                    of_disk.update({p.name: CutFold(change, cut, live) for p, cut in parts})
            elif shared is None:
                self.problems.append(
                    codes.MERGE_NOT_ON_DISK.finding(f"{name} is no tensor on disk", self.where)
                )
            elif name in alone and (change is None or self._mergeable(name, shared, change)):
                written = skeleton.name_on_disk(name)
                out = Tensor(written, self._dtype_of(shared), shared.info.shape)
                more.setdefault(shared.name, []).append(Item(out, shared, change))
        if self.problems:
            raise AttachError(*self.problems)
        for file, header in skeleton.headers.items():
            for name, info in sorted(header.tensors.items(), key=lambda one: one[1].start):
                place = OnDisk(file, name, info)
                out = Tensor(name, self._dtype_of(place), info.shape)
                self.items.append(Item(out, place, of_disk.get(name)))
                self.items += more.get(name, ())

    def _cut(self, change: Fold, parts: Iterable[tuple[OnDisk, Cut]]) -> bool:
        """Whether the parts of a parameter can be merged into one by one."""
        if change.of_base:
            self.problems.append(
                codes.MERGE_NOT_ON_DISK.finding(
                    f"{change.name} is several tensors on disk, and a delta is made of all of it",
                    self.where,
                )
            )
            return False
        return all(self._mergeable(change.name, place, change) for place, _ in parts)

    def _mergeable(self, name: str, place: OnDisk, change: Fold) -> bool:
        dtype = TORCH_DTYPES.get(place.info.dtype)
        if dtype in PLAIN or (dtype is not None and not change.additions):
            return True
        self.problems.append(
            codes.MERGE_WEIGHT.finding(
                f"{name} cannot be merged into", self.where, found=place.info.dtype
            )
        )
        return False

    def _dtype_of(self, place: OnDisk) -> str:
        stored = place.info.dtype
        if self.dtype is None or TORCH_DTYPES.get(stored) not in PLAIN:
            return stored
        return DTYPE_NAMES[self.dtype]

    def write(self, folder: Path, safe: bool, limit: int | None, progress: Progress) -> None:
        """The whole folder."""
        files = self._files(limit)
        layouts = [lay_out(file, tensors, self._metadata()) for file, tensors in files.items()]
        writer = CheckpointWriter(folder, layouts, self.items, safe, self.where)
        for file, header in self.skeleton.headers.items():
            writer.take(file, header, self.pulled.base[file], progress)
        writer.finish()
        index = index_of(files)
        if index is not None:
            (folder / BASE_INDEX).write_bytes(index)
        for name, fetched in self.pulled.base.items():
            if name.endswith(WEIGHTS) or name == BASE_INDEX:
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = fetched.path.read_bytes()
            path.write_bytes(self._config(data) if name == BASE_CONFIG else data)

    def _files(self, limit: int | None) -> dict[str, list[Tensor]]:
        if limit is not None:
            return packed((item.out for item in self.items), limit)
        files: dict[str, list[Tensor]] = {}
        for item in self.items:
            files.setdefault(item.source.file, []).append(item.out)
        return files

    def _metadata(self) -> dict[str, str]:
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

    def _config(self, data: bytes) -> bytes:
        """config.json, untouched unless the tie or the dtype is another one now."""
        if not self.groups and self.dtype is None:
            return data
        fields: dict[str, Any] = json.loads(data)
        if self.groups:
            fields = untied_as_written(fields, self.skeleton.model.config)
        if self.dtype is not None:
            fields = _with_dtype(fields, str(self.dtype).removeprefix("torch."))
        return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def _with_dtype(fields: Mapping[str, Any], dtype: str, top: bool = True) -> dict[str, Any]:
    """A config's fields with this dtype wherever one is told, and at the top."""
    found = {
        key: _with_dtype(value, dtype, False) if isinstance(value, dict) else value
        for key, value in fields.items()
    }
    for key in ("dtype", "torch_dtype"):
        if isinstance(found.get(key), str):
            found[key] = dtype
    if top and not {"dtype", "torch_dtype"} & found.keys():
        found["dtype"] = dtype
    return found
