"""Which registries there are: those of the manifest, else those of the user's ``config.toml``.

::

    [registries]
    team = "s3://bucket/registry"

``ADAPTERDOCK_CONFIG`` is the file, else ``adapterdock/config.toml`` in the platform's usual place.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.findings import registry as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.names import did_you_mean
from ...manifests.language.published_names import wrong_name
from ...manifests.language.source import Source, SourceSyntaxError
from ...manifests.manifest import ManifestFile
from ...manifests.reading.bounded_file import read_at_most
from ...manifests.reading.secrets import redacted

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

CONFIG_VARIABLE = "ADAPTERDOCK_CONFIG"
FOLDER = "adapterdock"
FILE = "config.toml"
LIMIT = 1 << 20
"""Bytes of a ``config.toml``."""
TABLE = "registries"
_PLACE = re.compile(r"\(at line (\d+), column (\d+)\)\Z")


@dataclass(frozen=True)
class Configured:
    """A registry that has a local name. Relative folders start from ``directory``."""

    name: str
    source: Source
    directory: Path
    where: Where


def configured(file: ManifestFile | None = None) -> Mapping[str, Configured]:
    """The registries by their local names: the manifest's, where it names any, else those of the
    user's ``config.toml``. Raises :class:`UsageError` for an invalid one."""
    if file is not None and file.manifest.registries:
        return {
            name: Configured(name, source, file.directory, file.where((TABLE, name)))
            for name, source in file.manifest.registries.items()
        }
    path = config_path(os.environ, sys.platform)
    return {} if path is None else read_config(path)


def config_path(environ: Mapping[str, str], platform: str) -> Path | None:
    """Where the user's ``config.toml`` is on this ``platform`` (as ``sys.platform``); ``None``
    where the user has no home folder."""
    if chosen := environ.get(CONFIG_VARIABLE):
        return Path(chosen)
    try:
        return _usual_folder(environ, platform) / FOLDER / FILE
    except RuntimeError:
        return None


def _usual_folder(environ: Mapping[str, str], platform: str) -> Path:
    if platform == "win32":
        roaming = environ.get("APPDATA")
        return Path(roaming) if roaming else Path.home() / "AppData" / "Roaming"
    if platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    # The XDG specification: a relative path is invalid and is ignored.
    xdg = environ.get("XDG_CONFIG_HOME", "")
    return Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".config"


def read_config(path: Path) -> Mapping[str, Configured]:
    """The registries in a ``config.toml``. Without a file they are none, unless
    ``ADAPTERDOCK_CONFIG`` names it. Raises :class:`UsageError` with everything that is wrong."""
    where = Where(file=str(path))
    try:
        raw = read_at_most(str(path), LIMIT)
    except FileNotFoundError as error:
        if os.environ.get(CONFIG_VARIABLE) != str(path):
            return {}
        raise _refused(_wrong("The file does not exist", where, found=CONFIG_VARIABLE)) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refused(_wrong(f"Cannot read the file: {reason}", where)) from error
    found, findings = parse_config(raw, path)
    if findings:
        raise _refused(*findings)
    return found


def parse_config(raw: bytes, path: Path) -> tuple[Mapping[str, Configured], list[Finding]]:
    """The registries in the bytes of a ``config.toml`` at ``path``, and what is wrong."""
    if len(raw) > LIMIT:
        return {}, [_wrong("The file is too large", Where(str(path)), expected=f"{LIMIT} bytes")]
    try:
        data = tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:  # of TOML, and of UTF-8
        return {}, [_wrong(f"Invalid TOML: {error}", _spot(path, str(error)))]
    findings = [
        _wrong(
            f"Unknown key {key!r}",
            Where(file=str(path), path=(key,)),
            expected=TABLE,
            hint=did_you_mean(key, [TABLE]),
        )
        for key in data
        if key != TABLE
    ]
    rows = data.get(TABLE, {})
    if not isinstance(rows, dict):
        shown = type(rows).__name__
        place = Where(file=str(path), path=(TABLE,))
        findings.append(_wrong(f"{TABLE} must be a table", place, found=shown, expected=_EXAMPLE))
        return {}, findings
    found: dict[str, Configured] = {}
    for name, url in rows.items():
        where = Where(file=str(path), path=(TABLE, name))
        result = _row(name, url, path, where)
        if isinstance(result, Finding):
            findings.append(result)
        else:
            found[name] = result
    return found, findings


_EXAMPLE = 'team = "s3://bucket/folder"'


def _row(name: str, url: Any, path: Path, where: Where) -> Configured | Finding:
    problem = "it has a '/'" if "/" in name else wrong_name(name)
    if problem is not None:
        return _wrong(f"Invalid name {name[:80]!r} of a registry: {problem}", where)
    if not isinstance(url, str):
        shown = type(url).__name__
        return _wrong("The URL of a registry must be text", where, found=shown, expected=_EXAMPLE)
    try:
        source = Source.parse(url)
    except SourceSyntaxError as error:
        return _wrong(f"Invalid URL of a registry: {error}", where, found=url, expected=_EXAMPLE)
    return Configured(name, source, path.absolute().parent, where)


def _spot(path: Path, text: str) -> Where:
    match = _PLACE.search(text)
    if match is None:
        return Where(file=str(path))
    return Where(file=str(path), line=int(match[1]), column=int(match[2]))


def _wrong(
    message: str,
    where: Where,
    *,
    found: object = None,
    expected: object = None,
    hint: str | None = None,
) -> Finding:
    finding = codes.USER_CONFIG.finding(message, where, found=found, expected=expected, hint=hint)
    return redacted(finding)


def _refused(*findings: Finding) -> UsageError:
    return UsageError(*findings)
