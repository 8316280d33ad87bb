"""Writing a checkpoint from another one, tensor by tensor.

Every file of the old one is read once, from start to end, and hashed on the way: what is written
is made of the verified bytes, or it is thrown away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from ...manifests.findings import lock as lock_codes
from ...manifests.findings import merging as codes
from ...manifests.findings.errors import IntegrityError
from ...manifests.findings.finding import Finding, Where
from ...registry.files.digests import PREFIX
from ...registry.files.facts import Header
from ...registry.files.progress import Progress
from ...registry.files.shards import ShardLayout
from ...registry.files.shards import Tensor as Planned
from ...registry.sources.fetch import Fetched
from ..base.meta_model import OnDisk, read_tensor
from ..weights.dtypes import TORCH_DTYPES
from .fold import CutFold, Fold, is_finite

ReadInto = Callable[[memoryview], int]
_CHUNK = 8 << 20


@dataclass(frozen=True)
class Item:
    """One tensor of the new checkpoint, made of ``source`` in the old one, and changed by ``fold``
    if an adapter changes it."""

    out: Planned
    source: OnDisk
    fold: Fold | CutFold | None = None

    @property
    def is_a_copy(self) -> bool:
        return self.fold is None and self.out.dtype == self.source.info.dtype

    def value(self, old: Tensor) -> Tensor:
        dtype = TORCH_DTYPES[self.out.dtype]
        return old.to(dtype) if self.fold is None else self.fold.of(old, dtype)


class CheckpointWriter:
    """Writes ``items`` into ``folder`` as ``layouts`` say. ``safe`` refuses merged values that are
    not finite."""

    def __init__(
        self,
        folder: Path,
        layouts: Iterable[ShardLayout],
        items: Iterable[Item],
        safe: bool,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        self._folder = folder
        self._layouts = {name: layout for layout in layouts for name in layout.starts}
        self._items: dict[str, list[Item]] = {}
        for item in items:
            self._items.setdefault(item.source.name, []).append(item)
        self._safe = safe
        self._where = where
        self.problems: list[Finding] = []
        for layout in {layout.file: layout for layout in self._layouts.values()}.values():
            with (folder / layout.file).open("wb") as stream:
                stream.write(layout.head)
                stream.truncate(layout.size)

    def take(self, file: str, header: Header, old: Fetched, progress: Progress) -> None:
        """Write all tensors that are made of one file of the old checkpoint. Raises
        :class:`IntegrityError` if it changed after it was verified."""
        digest = hashlib.sha256()
        progress.start(file, header.size)
        try:
            with old.path.open("rb", buffering=0) as stream:
                digest.update(stream.read(header.data_start))
                read = _hashing(stream, digest, progress, file)
                for name, info in sorted(header.tensors.items(), key=lambda item: item[1].start):
                    self._take_tensor(OnDisk(file, name, info), read)
                digest.update(stream.read())  # nothing, if the header describes the file
        finally:
            progress.done(file)
        found = PREFIX + digest.hexdigest()
        if old.fact.sha256 not in (None, found):
            raise IntegrityError(
                lock_codes.CHANGED_UNDER_LOCK.finding(
                    f"{file} changed after it was verified",
                    self._where,
                    found=found,
                    expected=old.fact.sha256,
                )
            )

    def _take_tensor(self, place: OnDisk, read: ReadInto) -> None:
        items = self._items.get(place.name, ())
        if all(item.is_a_copy for item in items):
            self._copy(items, place.info.nbytes, read)
            return
        old = read_tensor(read, place.info)
        for item in items:
            new = item.value(old)
            if self._safe and not is_finite(new):
                self.problems.append(codes.MERGE_NOT_FINITE.finding(item.out.name, self._where))
            with self._at(item) as stream:
                stream.write(_bytes_of(new))
            del new

    def _copy(self, items: Iterable[Item], size: int, read: ReadInto) -> None:
        chunk = bytearray(min(size, _CHUNK))
        done = 0
        while done < size:
            piece = memoryview(chunk)[: size - done]
            if read(piece) != len(piece):
                raise OSError("the file ends inside a tensor")
            for item in items:
                with self._at(item, done) as stream:
                    stream.write(piece)
            done += len(piece)

    @contextmanager
    def _at(self, item: Item, offset: int = 0) -> Generator[BinaryIO]:
        layout = self._layouts[item.out.name]
        with (self._folder / layout.file).open("r+b", buffering=0) as stream:
            stream.seek(layout.starts[item.out.name] + offset)
            yield cast(BinaryIO, stream)


def _hashing(stream: Any, digest: Any, progress: Progress, file: str) -> ReadInto:
    """Reads the file from where it is, and hashes the bytes; fills a view, or less at the end."""

    def read(view: memoryview) -> int:
        done = 0
        while done < len(view):
            got = stream.readinto(view[done:])
            if not got:
                break
            done += got
        digest.update(view[:done])
        progress.advance(file, done)
        return done

    return read


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().contiguous().flatten().view(torch.uint8)
    return memoryview(cast(Any, flat.numpy()))
