"""Loading a checkpoint whose tensors are converted (another dtype, quantised) one at a time.

transformers maps a complete file until its last tensor is loaded. If all tensors are converted, the
pages of the file and the model are in memory together at the end. Here each tensor has its own
mapping, which is released with it. Without a conversion the file's pages *are* the model, and
transformers' own loading is used.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
import transformers

from ...manifests.language.schema import Base
from ...registry.files.facts import TensorInfo
from ...registry.files.header import read_local_header
from ...registry.files.names import BASE_INDEX, BASE_WEIGHTS
from ..weights.dtypes import FLOATS, TORCH_DTYPES, as_dtype
from .meta_model import read_tensor

_OFTEN = 16 << 20
"""Bytes of a checkpoint after which freed memory is returned to the system."""


class Taken:
    """Counts the bytes read from a checkpoint, and now and then returns freed memory to the system.
    glibc keeps freed blocks of up to 32 MB (``M_MMAP_THRESHOLD`` grows with use), and converting or
    quantising frees as much as a model."""

    def __init__(self) -> None:
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._bytes += count
            if self._bytes < _OFTEN:
                return
            self._bytes = 0
        give_back()


def give_back() -> None:
    """Return freed memory to the system, where the C library can (glibc's ``malloc_trim``)."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class MappedTensor:
    """A tensor in a safetensors file, with the methods of safetensors' ``PySafeSlice`` that
    transformers uses: ``[...]`` maps it."""

    def __init__(self, file: Path, start: int, info: TensorInfo, taken: Taken) -> None:
        self._file = file
        self._start = start
        self._info = info
        self._taken = taken

    def get_shape(self) -> list[int]:
        return list(self._info.shape)

    def get_dtype(self) -> str:
        return self._info.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The tensor, or a part of it, in the file's dtype, over its own private mapping."""
        self._taken.add(self._info.nbytes)
        return self._mapped()[index]

    def read(self) -> torch.Tensor:
        """The tensor in its own memory."""
        with self._file.open("rb", buffering=0) as stream:
            stream.seek(self._start)
            return read_tensor(stream.readinto, self._info)

    def _mapped(self) -> torch.Tensor:
        info = self._info
        if not info.nbytes:
            return torch.empty(info.shape, dtype=TORCH_DTYPES[info.dtype])
        before = self._start % mmap.ALLOCATIONGRANULARITY
        with self._file.open("rb") as stream:
            pages = mmap.mmap(
                stream.fileno(),
                before + info.nbytes,
                access=mmap.ACCESS_COPY,
                offset=self._start - before,
            )
        data = torch.frombuffer(pages, dtype=torch.uint8)
        return as_dtype(data, info.dtype, before, before + info.nbytes).view(info.shape)


def tensors_on_disk(folder: Path) -> dict[str, MappedTensor]:
    """Every tensor of the checkpoint in ``folder``, in one file or several, by its name on disk.
    Raises :class:`OSError` for a missing checkpoint, :class:`SourceError` for a damaged one."""
    files = [BASE_WEIGHTS]
    if not (folder / BASE_WEIGHTS).exists():
        files = sorted(set(json.loads((folder / BASE_INDEX).read_bytes())["weight_map"].values()))
    found: dict[str, MappedTensor] = {}
    taken = Taken()
    for file in files:
        path = folder / file
        header = read_local_header(path, file)
        for name, info in header.tensors.items():
            found[name] = MappedTensor(path, header.data_start + info.start, info, taken)
    return found


def converting_options(
    kind: Any,
    config: Mapping[str, Any],
    base: Base,
    folder: Path,
    labels: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any] | None:
    """The options of ``from_pretrained`` that replace ``folder`` where tensors are converted at
    loading. ``None`` where none is converted, and where transformers needs the folder itself (its
    code, weights that are already quantised, parts that stay on disk). ``labels`` go into the
    model's config.
    """
    if base.trust_remote_code or "quantization_config" in config or "disk" in _devices(base):
        return None
    settings_of = getattr(kind, "config_class", None)
    if settings_of is None or getattr(settings_of, "extra_files", None):
        return None
    dtype = base.dtype if base.dtype != "auto" else config.get("dtype", config.get("torch_dtype"))
    found = tensors_on_disk(folder)
    stored = {tensor.get_dtype() for tensor in found.values()}
    if not isinstance(dtype, str) or not stored <= TORCH_DTYPES.keys():
        return None
    floats = {FLOATS[name] for name in stored if name in FLOATS}
    if base.quantization is None and floats <= {_dtype(dtype)}:
        return None
    settings = settings_of.from_pretrained(folder, local_files_only=True, **labels)
    options: dict[str, Any] = {"config": settings, "state_dict": found}
    if kind.can_generate():
        options["generation_config"] = _generation(folder, config)
    return options


def _dtype(name: str) -> torch.dtype | None:
    found = getattr(torch, name.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else None


def _devices(base: Base) -> tuple[Any, ...]:
    parts = base.device_map
    return tuple(parts.values()) if isinstance(parts, Mapping) else (parts,)


def _generation(folder: Path, config: Mapping[str, Any]) -> transformers.GenerationConfig:
    """As in ``from_pretrained``: from its own file, else from config.json."""
    try:
        return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        return transformers.GenerationConfig.from_model_config(cast(Any, dict(config)))
