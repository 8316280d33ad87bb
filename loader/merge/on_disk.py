"""A merge into a checkpoint on disk: decided for each tensor, then written as a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ...manifests.findings import merging as codes
from ...manifests.findings.errors import AttachError
from ...manifests.findings.finding import Finding, Where
from ...registry.files.names import BASE_CONFIG, BASE_INDEX
from ...registry.files.progress import Progress
from ...registry.files.shards import Tensor, index_of, lay_out, packed
from ...registry.sources.fetch import Fetched
from ..adapter.adapter import Terms
from ..base.fused_slices import Cut
from ..base.meta_model import OnDisk, Skeleton
from ..weights.dtypes import FLOAT_NAMES, TORCH_DTYPES
from .checkpoint_writer import CheckpointWriter, Item
from .fold import PLAIN, CutFold, Fold, folds
from .untie import untied_as_written, untied_groups

WEIGHTS = ".safetensors"


@dataclass
class DiskMerge:
    """Adapters merged into the checkpoint of a base without weights: first decided for every
    tensor, then written tensor by tensor. All floating tensors get ``dtype`` if there is one."""

    skeleton: Skeleton
    dtype: torch.dtype | None
    where: Where
    items: list[Item] = field(default_factory=list)
    groups: list[tuple[str, ...]] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)

    def decide(self, terms: Terms) -> None:
        """Decide what is written for every tensor of the checkpoint. Raises
        :class:`AttachError`."""
        skeleton = self.skeleton
        changes = folds(skeleton.model, skeleton.modules, terms, self.where)
        self.groups = untied_groups(
            skeleton.model, changes, skeleton.modules, self.where, skeleton.config
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
                    codes.MERGE_NOT_ON_DISK.finding(f"{name} is not a tensor on disk", self.where)
                )
            elif name in alone and (change is None or self._mergeable(name, shared, change)):
                written = skeleton.name_on_disk(name)
                out = Tensor(written, self._dtype_of(shared), shared.info.shape)
                more.setdefault(shared.name, []).append(Item(out, shared, change))
        if self.problems:
            raise AttachError(*self.problems)
        for file, header in skeleton.headers.items():
            for name, info in sorted(header.tensors.items(), key=lambda item: item[1].start):
                place = OnDisk(file, name, info)
                out = Tensor(name, self._dtype_of(place), info.shape)
                self.items.append(Item(out, place, of_disk.get(name)))
                self.items += more.get(name, ())

    def _cut(self, change: Fold, parts: Iterable[tuple[OnDisk, Cut]]) -> bool:
        """Whether a parameter can be merged into part by part."""
        if change.of_base:
            self.problems.append(
                codes.MERGE_NOT_ON_DISK.finding(
                    f"{change.name} is several tensors on disk, and its delta needs all of it",
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
                f"Cannot merge into {name}", self.where, found=place.info.dtype
            )
        )
        return False

    def _dtype_of(self, place: OnDisk) -> str:
        stored = place.info.dtype
        if self.dtype is None or TORCH_DTYPES.get(stored) not in PLAIN:
            return stored
        return FLOAT_NAMES[self.dtype]

    def write(
        self,
        folder: Path,
        base: Mapping[str, Fetched],
        metadata: Mapping[str, str],
        *,
        safe: bool,
        limit: int | None,
        progress: Progress,
    ) -> None:
        """Write the complete folder: ``base`` are the files of the checkpoint, ``limit`` is the
        largest size of a file of weights (bytes; without one, files are as large as the base's)."""
        files = self._files(limit)
        layouts = [lay_out(file, tensors, dict(metadata)) for file, tensors in files.items()]
        writer = CheckpointWriter(folder, layouts, self.items, safe, self.where)
        for file, header in self.skeleton.headers.items():
            writer.take(file, header, base[file], progress)
        if writer.problems:
            raise AttachError(*writer.problems)
        index = index_of(files)
        if index is not None:
            (folder / BASE_INDEX).write_bytes(index)
        for name, fetched in base.items():
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

    def _config(self, data: bytes) -> bytes:
        """config.json, unchanged unless the ties or the dtype changed."""
        if not self.groups and self.dtype is None:
            return data
        fields: dict[str, Any] = json.loads(data)
        if self.groups:
            fields = untied_as_written(fields, self.skeleton.model.config)
        if self.dtype is not None:
            fields = _with_dtype(fields, str(self.dtype).removeprefix("torch."))
        return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def _with_dtype(fields: Mapping[str, Any], dtype: str, top: bool = True) -> dict[str, Any]:
    """A config's fields with this dtype wherever they have one, and at the top."""
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
