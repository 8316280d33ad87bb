"""Helpers for tests of the store: put something in, look at what is there, other processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.store.store import Store


def put(store: Store, content: bytes, origin: str = "") -> str:
    """Publish ``content``; its digest."""
    with store.temporary() as path:
        path.write_bytes(content)
        store.publish(path, sha256_bytes(content), len(content), origin=origin)
    return sha256_bytes(content)


def files(root: Path) -> set[str]:
    """The store's files, links and remains, without its memos and notes."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.name != "CACHEDIR.TAG"
        and path.relative_to(root).parts[0] not in ("verified", "notes")
        and (path.is_file() or path.is_symlink() or path.parent.name == "tmp")
    }


def objects(*digests: str) -> set[str]:
    """What :func:`files` says of a store that holds just these."""
    return {f"objects/sha256/{digest[7:9]}/{digest[7:]}" for digest in digests}


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process, running ``code`` with ``arguments`` in ``sys.argv``."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )
