"""API keys, and which adapters each of them may use."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding
from ...manifests.language.names import NAME_PATTERN
from ...manifests.language.schema import Policy
from ...manifests.reading.bounded_file import read_at_most

VARIABLE = "ADAPTERDOCK_API_KEYS"
FILE_PREFIX = "file:"
SHORTEST = 16
"""Fewest characters of a key."""
_KEY = re.compile(rf"[!-~]{{{SHORTEST},4096}}")
_FILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Caller:
    """Who sends a request: the name of its key, ``None`` where the server has no keys.

    ``lists`` are the globs of each policy that restricts keys: each of them must allow an adapter.
    """

    name: str | None = None
    lists: tuple[tuple[str, ...], ...] = ()

    @property
    def restricted(self) -> bool:
        """Whether there may be adapters that it may not use."""
        return any("*" not in globs for globs in self.lists)

    def may_use(self, adapter: str) -> bool:
        """Whether every policy allows the adapter."""
        return all(any(fnmatchcase(adapter, glob) for glob in globs) for globs in self.lists)


@dataclass(frozen=True)
class Keys:
    """The keys of a server: only their digests are kept. No keys: everyone is answered."""

    names: Mapping[bytes, str] = field(default_factory=dict, repr=False)

    def __bool__(self) -> bool:
        return bool(self.names)

    def caller(self, authorization: str | None, policies: Iterable[Policy]) -> Caller | None:
        """Who sends a request with this header; ``None`` for no key that is known."""
        if not self.names:
            return Caller(None, allowed(None, policies))
        scheme, _, key = (authorization or "").partition(" ")
        # a digest is looked up, so that the time says nothing about the keys
        name = self.names.get(_digest(key.strip())) if scheme.lower() == "bearer" else None
        return None if name is None else Caller(name, allowed(name, policies))


def allowed(name: str | None, policies: Iterable[Policy]) -> tuple[tuple[str, ...], ...]:
    """The globs of each policy that restricts keys, for the key ``name``. Without a key, a policy
    that restricts keys allows nothing."""
    lists = (policy.allow_keys for policy in policies)
    return tuple(one.get(name, ()) if name else () for one in lists if one is not None)


def read_keys(text: str | None) -> Keys:
    """The keys in the value of ``ADAPTERDOCK_API_KEYS``, or in the file that it names.

    Raises:
        UsageError: The value or the file is invalid. No finding shows a key.
    """
    if text is None:
        return Keys()
    if text.startswith(FILE_PREFIX):
        text = _read(Path(text.removeprefix(FILE_PREFIX)).expanduser())
    names: dict[bytes, str] = {}
    problems: list[Finding] = []
    for number, entry in enumerate(_entries(text), start=1):
        name, equals, key = entry.partition("=")
        name, key = name.strip(), key.strip()
        if not equals or not re.fullmatch(NAME_PATTERN, name):
            problems.append(_invalid(number, "it has no NAME=", "NAME=KEY"))
        elif not _KEY.fullmatch(key):
            problems.append(
                _invalid(
                    number,
                    f"the key of {name!r} is too short, too long or has other characters",
                    f"at least {SHORTEST} ASCII characters without spaces",
                )
            )
        elif names.setdefault(_digest(key), name) != name:
            problems.append(_invalid(number, f"{name!r} has the key of another name", "one name"))
    if not names and not problems:
        problems.append(
            codes.KEYS_INVALID.finding(f"{VARIABLE} is empty", expected="NAME=KEY, or unset")
        )
    if problems:
        raise UsageError(*problems)
    return Keys(names)


def _entries(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.lstrip().startswith("#"):
            yield from (entry.strip() for entry in line.split(",") if entry.strip())


def _read(path: Path) -> str:
    try:
        content = read_at_most(path, _FILE_BYTES)
        if len(content) > _FILE_BYTES:
            raise OSError(f"more than {_FILE_BYTES} bytes")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:  # its text would show the file
        raise _unread(path, "bytes that are not UTF-8") from error
    except (OSError, ValueError) as error:
        raise _unread(path, getattr(error, "strerror", None) or str(error)) from error


def _unread(path: Path, found: str) -> UsageError:
    return UsageError(codes.KEYS_INVALID.finding(f"Cannot read the keys in {path}", found=found))


def _invalid(number: int, found: str, expected: str) -> Finding:
    return codes.KEYS_INVALID.finding(
        f"Invalid entry {number} of {VARIABLE}", found=found, expected=expected
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
