"""Which files are manifests: those that were named, those in a folder, those that match a glob."""

from __future__ import annotations

import codecs
import glob
import os
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from .bounds import MANIFEST_BYTES
from .findings import usage as codes
from .findings.errors import UsageError
from .findings.finding import Finding, Where
from .reading.bounded_file import read_at_most
from .reading.document import compose

SUFFIXES = (".yaml", ".yml")
_IGNORED = frozenset({"node_modules", "__pycache__", "site-packages"})
_WORD = re.compile(r"version|base|extends")
_KEY = re.compile(r"^[\"']?(version|base|extends)[\"']?[ \t]*:", re.MULTILINE)
_BRACES = re.compile(r"\A(?:\s|#.*\n|---)*\{")


@dataclass(frozen=True)
class Found:
    """The manifests among some files, sorted as they were found, and the YAML files that are
    none."""

    manifests: tuple[str, ...]
    skipped: tuple[str, ...]


def find_manifests(inputs: Sequence[Path]) -> Found:
    """The manifests that ``inputs`` name, each once: files, folders (recursively) and globs.

    A manifest is a YAML file with the keys ``version`` and ``base`` or ``extends`` at its top.
    Hidden files and folders, and linked folders, are not looked into.

    Raises:
        UsageError: One of ``inputs`` does not exist, or cannot be read.
    """
    problems: list[Finding] = []
    files: dict[str, Path] = {}
    for given in inputs:
        try:
            for path in _files_of(given):
                files.setdefault(place_of(path), path)
        except OSError as error:
            where = Where(file=str(error.filename or given))
            reason = error.strerror or str(error)
            problems.append(
                codes.NO_SUCH_FILE.finding("Cannot access this path", where, found=reason)
            )
        except UsageError as error:
            problems += error.findings
    if problems:
        raise UsageError(*problems)
    manifests: list[str] = []
    skipped: list[str] = []
    for path in files.values():
        (manifests if is_manifest(path) else skipped).append(str(path))
    return Found(tuple(manifests), tuple(skipped))


def names_several(path: Path) -> bool:
    """Whether an argument may name several manifests: it is a folder or a glob."""
    try:
        return path.is_dir() or (glob.has_magic(str(path)) and not path.exists())
    except OSError:  # as of a name that is too long: what reads it says so
        return False


def is_manifest(path: Path) -> bool:
    """Whether the file has the keys of a manifest at its top. One that cannot be read may be one:
    reading it then says what is wrong."""
    try:
        if not path.is_file():
            return True  # a pipe can be read only once
        data = read_at_most(path, MANIFEST_BYTES)
    except OSError:
        return True
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # reading it says so
    text = data.decode("utf-16" if utf16 else "utf-8", errors="replace").removeprefix("\ufeff")
    if not _are_of_manifest(set(_WORD.findall(text))):
        return False
    if not _BRACES.match(text) and _are_of_manifest(set(_KEY.findall(text))):
        return True
    # YAML has more ways to write a key: indented, after an anchor, a tag, `---` or `?`
    return _are_of_manifest(_keys_in(data))


def place_of(path: Path) -> str:
    """What tells a manifest from others. Two links to one file are two manifests: the paths in each
    start from the folder that the link is in, and its lock is beside it."""
    return os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118


def _are_of_manifest(keys: Set[str]) -> bool:
    return "version" in keys and not keys.isdisjoint({"base", "extends"})


def _keys_in(data: bytes) -> set[str]:
    document, _ = compose(data)
    return set() if document is None else set(document.root.entries)


def _files_of(path: Path) -> Iterator[Path]:
    if not names_several(path):
        path.stat()
        yield path
        return
    if path.is_dir():
        yield from _in_folder(path)
        return
    matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - may be absolute
    if not matches:
        message = "No file matches this pattern"
        raise UsageError(codes.NO_MANIFESTS.finding(message, Where(file=str(path))))
    for match in map(Path, matches):
        if match.is_dir():
            yield from _in_folder(match)
        elif match.suffix in SUFFIXES:
            yield match


def _in_folder(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in _IGNORED)
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix in SUFFIXES and not name.startswith(".") and may_be_read(path):
                yield path


def may_be_read(path: Path) -> bool:
    """Whether it is a file, and not a folder or a pipe. A link that leads nowhere counts as one:
    reading it then says so."""
    return path.is_file() or (path.is_symlink() and not path.exists())
