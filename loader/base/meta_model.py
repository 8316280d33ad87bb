"""A base without its weights: every module, on the meta device, with the files of a checkpoint.

A value that is needed (a trained bias, a weight to compare with) is read from the file, through a
weights map like that of accelerate's offloaded modules.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from ...manifests.findings import loader as codes
from ...manifests.findings.finding import Where
from ...registry.files.facts import Header, TensorInfo
from ..weights.dtypes import TORCH_DTYPES
from .disk_names import every_tensor, live_tensors, places_on_disk, reverter, with_prefix
from .empty_model import build
from .fused_slices import Cut, cuts_of
from .model_class import class_of
from .modules import ModuleMap
from .transformers_log import failed, quiet


@dataclass(frozen=True)
class OnDisk:
    """A tensor of the checkpoint: its file, its name there, and its row of the header."""

    file: str
    name: str
    info: TensorInfo


class Skeleton:
    """``model`` has the modules of the base in ``folder`` (a checkpoint as transformers writes it,
    whose files have ``headers``)."""

    def __init__(
        self,
        folder: Path,
        headers: Mapping[str, Header],
        *,
        remote_code: bool = False,
        where: Where = Where(),  # noqa: B008 - frozen
    ) -> None:
        self.folder = folder
        self.headers = headers
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        self.model: Any = _without_weights(folder, self.config, remote_code, where)
        self.modules = ModuleMap(self.model)
        self._on_disk = {
            name: OnDisk(file, name, info)
            for file, header in headers.items()
            for name, info in header.tensors.items()
        }
        self._tensors: dict[str, Tensor] = every_tensor(self.model)
        self._live = live = live_tensors(self.model)
        self._places = {
            place.live: name
            for name, place in places_on_disk(self.model, live).items()
            if place.live is not None
        }
        self._fused = live.keys() - self._places.keys()
        for name, module in self.model.named_modules(remove_duplicate=False):
            module._hf_hook = _FromFiles(self, f"{name}." if name else "")  # pyright: ignore[reportArgumentType]

    def find(self, live: str) -> OnDisk | None:
        """The tensor of the checkpoint that becomes this live one unchanged; ``None`` where the
        live one is made of others, or shares another's."""
        if live in self._fused:
            return None
        shape = tuple(self._tensors[live].shape)
        written = self._places.get(live) or self.name_on_disk(live)
        for name in with_prefix(self.model, written, live):
            found = self._on_disk.get(name)
            if found is not None and found.info.shape == shape:
                return found
        return None

    def find_shared(self, live: str) -> OnDisk | None:
        """The same, or the tensor of a parameter that it is tied to."""
        names = (live, *self.modules.tied_to(live))
        return next((found for name in names if (found := self.find(name)) is not None), None)

    def find_parts(self, live: str) -> list[tuple[OnDisk, Cut]] | None:
        """The tensors of the checkpoint that together are this live one; ``None`` where they are
        not known, or differ on disk."""
        if live not in self._fused:
            return None
        found: list[tuple[OnDisk, Cut]] = []
        for name, cut in (cuts_of(self.model, self._live, live) or {}).items():
            spelled = (self._on_disk.get(one) for one in with_prefix(self.model, name))
            place = next((p for p in spelled if p is not None and p.info.shape == cut.shape), None)
            if place is None:
                return None
            found.append((place, cut))
        return found or None

    def name_on_disk(self, live: str) -> str:
        """The name under which transformers would write this tensor."""
        revert = reverter(self.model)
        if revert is None:
            return live
        written = revert({live: self._tensors[live]})
        return next(iter(written)) if len(written) == 1 else live

    def read(self, place: OnDisk) -> Tensor:
        """A tensor in its stored dtype, in its own memory."""
        start = self.headers[place.file].data_start + place.info.start
        with (self.folder / place.file).open("rb") as stream:
            stream.seek(start)
            return read_tensor(stream.readinto, place.info)


def read_tensor(readinto: Callable[[Any], int | None], info: TensorInfo) -> Tensor:
    """The next tensor of a file. Raises :class:`OSError` where the file ends too early."""
    data = bytearray(info.nbytes)
    got = readinto(memoryview(data)) if data else 0
    if got != info.nbytes:
        raise OSError(f"Read {got} of {info.nbytes} bytes")
    dtype = TORCH_DTYPES[info.dtype]
    if not data:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=dtype).view(info.shape)


class _FromFiles:
    """In place of accelerate's hook on an offloaded module: the hook, and its weights map."""

    execution_device = torch.device("cpu")

    def __init__(self, skeleton: Skeleton, prefix: str) -> None:
        self._skeleton = skeleton
        self._prefix = prefix

    @property
    def weights_map(self) -> _FromFiles:
        return self

    def __getitem__(self, name: str) -> Tensor:
        place = self._skeleton.find_shared(self._prefix + name)
        if place is None or place.info.dtype not in TORCH_DTYPES:
            raise KeyError(name)
        return self._skeleton.read(place)


def _without_weights(
    folder: Path, config: Mapping[str, Any], remote_code: bool, where: Where
) -> nn.Module:
    kind = class_of(config, remote_code, where)
    try:
        with quiet():
            settings = AutoConfig.from_pretrained(
                folder, trust_remote_code=remote_code, local_files_only=True
            )
            make = kind if isinstance(kind, type) and issubclass(kind, nn.Module) else None
            if make is not None:
                return build(make, settings).eval()
            with torch.device("meta"):
                model = cast(Any, kind).from_config(settings, trust_remote_code=remote_code)
            return cast(nn.Module, model).eval()
    except Exception as error:
        message = "transformers could not build the base"
        raise failed(codes.BASE_NOT_LOADED, message, error, where) from error
