"""How the package is built: setuptools, with two things of our own.

- The text of the package page is the README with absolute links, because a package index shows it
  without the files beside it.
- An editable install is something that editors understand. The checkout *is* the package
  ``adapterdock``, whatever its folder is called, so no folder on a path could say so. Setuptools
  installs an import hook, which no editor runs. Here the hook is beside a folder ``.editable``
  whose one entry, ``adapterdock``, is a link to the checkout: the running program uses the hook and
  sees real paths, and an editor follows the path to the link.
"""

from __future__ import annotations

import base64
import hashlib
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "build" / "package-page.md"
"""Where pyproject.toml says that the text of the package page is."""

HOOK = "_adapterdock_editable"
_FINDER = '''\
"""Finds the package adapterdock by the real path of the checkout that it is installed from."""

import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

CHECKOUT = {checkout!r}
LINK = CHECKOUT + "/.editable/adapterdock/__init__.py"


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "adapterdock":
            return None
        found = PathFinder.find_spec(name)  # another one may be first, as PYTHONPATH says
        if found is not None and found.origin != LINK:
            return found
        return spec_from_file_location(
            name, CHECKOUT + "/__init__.py", submodule_search_locations=[CHECKOUT]
        )


sys.meta_path.insert(0, Finder)
'''

_LINK = re.compile(r"(!?)\[([^\[\]]*)\]\((?!https?://|#|mailto:)([^)\s]+)\)")
_PICTURE = re.compile(r"^```mermaid\n.*?^```$", re.M | re.S)
_VERSION = re.compile(r'^__version__ = "(.+)"$', re.M)


def package_page(readme: str, repository: str, version: str) -> str:
    """The README as a package index can show it: links and pictures of this version, by their
    address in the repository, and no diagram that only a repository's page draws."""

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link[1] else "blob"
        return f"{link[1]}[{link[2]}]({repository}/{kind}/v{version}/{link[3]})"

    picture = f"[The picture]({repository}/blob/v{version}/README.md#how-it-works)"
    return _LINK.sub(absolute, _PICTURE.sub(picture, readme))


def version() -> str:
    """The version in ``__init__.py``, which is the only place of it."""
    found = _VERSION.search((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def _write_page() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    PAGE.parent.mkdir(exist_ok=True)
    page = package_page(readme, project["urls"]["Source"], version())
    PAGE.write_text(page, encoding="utf-8", newline="\n")


# -- the hooks of PEP 517 and PEP 660 -----------------------------------------------------------


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    _write_page()
    return build_meta.build_sdist(sdist_directory, config_settings)


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    _write_page()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    _write_page()
    return build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)


def prepare_metadata_for_build_editable(
    metadata_directory: str, config_settings: Any = None
) -> str:
    _write_page()
    return build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)


def build_editable(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Setuptools' editable wheel, with our hook in place of its own.

    Where no link can be made (Windows without that right), it stays setuptools' own.
    """
    _write_page()
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    if folder := _linked():
        lines = f"{folder}\nimport {HOOK}\n"
        finder = _FINDER.format(checkout=ROOT.as_posix())
        _exchange(Path(wheel_directory) / name, {f"{HOOK}.py": finder, f"{HOOK}.pth": lines})
    return name


def _linked() -> Path | None:
    """The folder with the link to the checkout, or None where links cannot be made."""
    link = ROOT / ".editable" / "adapterdock"
    link.parent.mkdir(exist_ok=True)
    try:
        if not link.is_symlink():
            link.symlink_to("..", target_is_directory=True)
    except OSError:
        return None
    return link.parent


def _exchange(wheel: Path, files: dict[str, str]) -> None:
    """Puts ``files`` into a wheel in place of those that setuptools wrote for its own hook."""
    with zipfile.ZipFile(wheel) as archive:
        kept = {
            name: archive.read(name)
            for name in archive.namelist()
            if not name.startswith("__editable__") and not name.endswith("/RECORD")
        }
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
    kept |= {name: text.encode() for name, text in files.items()}
    rows = [f"{name},{_digest(content)},{len(content)}" for name, content in kept.items()]
    kept[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in kept.items():
            archive.writestr(name, content)


def _digest(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.decode().rstrip('=')}"
