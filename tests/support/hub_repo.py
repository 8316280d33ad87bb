"""What a repository on the test Hub holds, and how the Hub lists it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

LFS_SUFFIXES = (".safetensors", ".bin")


@dataclass
class Repo:
    """Commits by hash, with their whole content; branches, tags and pull requests by name."""

    name: str
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By commit, the summary and the description that it came with."""

    def commit(
        self, files: Mapping[str, bytes], ref: str, message: tuple[str, str] = ("", "")
    ) -> str:
        """Make ``files`` the whole content of ``ref``; the new commit's hash."""
        text = f"{self.name} {len(self.commits)} {sorted(files)}".encode()
        commit = hashlib.sha1(text, usedforsecurity=False).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[ref] = commit
        self.messages[commit] = message
        return commit

    def files(self, ref: str = "main") -> dict[str, bytes]:
        return self.commits[self.refs.get(ref, ref)]


def blob_id(content: bytes) -> str:
    """git's name for a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def is_lfs(name: str) -> bool:
    return name.endswith(LFS_SUFFIXES)


def sibling(name: str, content: bytes, blobs: bool) -> dict[str, object]:
    """A file in the answer about a revision."""
    if not blobs:
        return {"rfilename": name}
    row: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": blob_id(content)}
    if is_lfs(name):
        pointer = _pointer(content)
        row["blobId"] = blob_id(pointer)
        row["lfs"] = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": len(pointer),
        }
    return row


def tree_row(name: str, content: bytes) -> dict[str, object]:
    """A file in the answer of ``tree`` and ``paths-info``."""
    row: dict[str, object] = {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": blob_id(_pointer(content) if is_lfs(name) else content),
    }
    if is_lfs(name):
        row["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": len(_pointer(content)),
        }
    return row


def _pointer(content: bytes) -> bytes:
    digest = hashlib.sha256(content).hexdigest()
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
    ).encode()
