"""A manifest with a tiny base and tiny adapters, in a folder, on the Hub or in a bucket.

The ``project`` fixture is a folder for one manifest::

    def test_x(project):
        project.base(); project.adapter("tone")
        manifest = project.write(adapters={"tone": "./tone"})
        report = adapterdock.validate(manifest)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapterdock.manifests.findings.finding import Finding
from adapterdock.manifests.lockfile import Lock, lock_path, read_lock
from adapterdock.registry.sources.opened import is_hidden
from adapterdock.registry.store.maintenance import entries
from adapterdock.registry.store.store import Store

from .builders import LLAMA_QV, lora_config, lora_tensors, write_adapter, write_base
from .s3_server import S3Server

NAME = "org/base"
"""What the adapters here record as their base; the manifests list it among its aliases."""


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in ``folder``, by path: what to commit to the Hub or put in a bucket."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    named = {p.relative_to(folder).as_posix(): p for p in paths}
    return {name: p.read_bytes() for name, p in named.items() if not is_hidden(name)}


def put_folder(s3: S3Server, bucket: str, prefix: str, folder: Path) -> str:
    """Put a folder into a bucket; its source."""
    for path, content in files_of(folder).items():
        s3.put(bucket, f"{prefix}/{path}", content)
    return f"s3://{bucket}/{prefix}"


def codes(findings: Iterable[Finding]) -> list[str]:
    return [finding.code for finding in findings]


class Project:
    """A folder with a manifest, ``adapters.yaml``, and what it declares."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "adapters.yaml"

    def base(self, name: str = "base", **fields: Any) -> Path:
        return write_base(self.folder / name, **fields)

    def adapter(
        self,
        name: str = "tone",
        seed: int = 0,
        modules: Mapping[str, tuple[int, int]] | None = None,
        r: int = 4,
        **fields: Any,
    ) -> Path:
        """A LoRA that records :data:`NAME` as its base; ``fields`` go into its config."""
        config = lora_config(**{"base_model_name_or_path": NAME, "r": r, **fields})
        tensors = lora_tensors(modules or LLAMA_QV, r)
        return write_adapter(self.folder / name, config, tensors, seed)

    def write(
        self,
        adapters: Mapping[str, str | Mapping[str, Any]] | None = None,
        model: str | None = "./base",
        base: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> Path:
        """The manifest; an adapter is its source, or all of its keys."""
        declared = {} if model is None else {"model": model, "aliases": [NAME]}
        rows = {
            name: {"source": row} if isinstance(row, str) else dict(row)
            for name, row in (adapters or {}).items()
        }
        data = {"version": 1, "base": {**declared, **(base or {})}, "adapters": rows, **keys}
        self.manifest.write_text(yaml.safe_dump(data, sort_keys=False))
        return self.manifest

    def change(self, old: str, new: str) -> None:
        """Replace text in the manifest, which must be there."""
        text = self.manifest.read_text()
        assert old in text
        self.manifest.write_text(text.replace(old, new))

    @property
    def lock_file(self) -> Path:
        return lock_path(self.manifest)

    @property
    def lock(self) -> Lock:
        lock = read_lock(self.lock_file)
        assert lock is not None
        return lock


def edit_config(folder: Path, **fields: Any) -> None:
    """Change fields of an ``adapter_config.json``, keeping the file's size."""
    path = folder / "adapter_config.json"
    before = path.read_text()
    after = json.dumps({**json.loads(before), **fields}, indent=2)
    assert len(after) == len(before) and after != before
    path.write_text(after)


def swap_bytes(path: Path, at: int = -4) -> None:
    """Change one byte of a file; its size and header stay."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0x01
    path.write_bytes(bytes(data))


def stored(store: Store | None = None) -> set[str]:
    """The digests of all objects in the store."""
    return {entry.digest for entry in entries(store or Store.default())}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)
