"""Put files back as they were if what changes them fails."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from .owner import made_beside


@contextmanager
def put_back_on_error(*paths: Path) -> Generator[None]:
    """If the block raises, each of these files has its content of now again, or is not there."""
    before = [_content(path) for path in paths]
    try:
        yield
    except BaseException:
        for path, content in zip(paths, before, strict=True):
            if _content(path) != content:
                _put_back(path, content)
        raise


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _put_back(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
        return
    path = path.resolve()
    temporary = made_beside(path, "")
    try:
        temporary.write_bytes(content)
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
