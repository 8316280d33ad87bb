"""Builds what is published, checks it, and tries the wheel in a bare environment without torch.

``make release-check`` runs it; so does the release workflow, before it publishes ``dist/``. With
``--python``, which may be given more than once, the wheel is tried with these interpreters too.
Exits 1 at the first thing that is not right.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

from backend import ROOT, version

DIST = ROOT / "dist"
RELATIVE = re.compile(r"\]\((?!https?://|#|mailto:)[^)]*\)")
FOR_GITHUB = {
    "citation-file-format": ("CITATION.cff",),
    "github-workflows": (".github/workflows/*.yml",),
    "github-issue-forms": (".github/ISSUE_TEMPLATE/[!c]*.yml",),
    "github-issue-config": (".github/ISSUE_TEMPLATE/config.yml",),
    "dependabot": (".github/dependabot.yml",),
}
"""By the schema that check-jsonschema has for them."""


class NotReadyError(Exception):
    """The release is not ready; the message says why."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    more = "another interpreter to try the wheel with (may be given more than once)"
    parser.add_argument("--python", action="append", default=[], help=more)
    parser.add_argument("--tag", help="the tag that is released; it must be v and the version")
    options = parser.parse_args()
    try:
        _say("the version is the same everywhere")
        same_version(version(), options.tag)
        _say("the files that GitHub reads")
        for schema, patterns in FOR_GITHUB.items():
            files = [str(path) for pattern in patterns for path in sorted(ROOT.glob(pattern))]
            _run("check_jsonschema", "--builtin-schema", f"vendor.{schema}", *files)
        zizmor = str(Path(sys.executable).with_name("zizmor"))
        _command(zizmor, "--offline", "--quiet", str(ROOT / ".github"))
        _say("build")
        sdist, wheel = build()
        _say("twine check, check-wheel-contents")
        _run("twine", "check", "--strict", str(sdist), str(wheel))
        _run("check_wheel_contents", str(wheel))
        _say("the package page has no relative link, the source archive no tests")
        no_relative_link(wheel)
        no_tests(sdist)
        for python in [sys.executable, *options.python]:
            _say(f"the wheel in a bare environment of {python}")
            print(smoke(python, wheel), flush=True)
    except NotReadyError as error:
        print(f"not ready: {error}", file=sys.stderr)
        return 1
    print(f"ready: {sdist.relative_to(ROOT)}, {wheel.relative_to(ROOT)}")
    return 0


def _say(text: str) -> None:
    print(f"- {text}", flush=True)


def _run(module: str, *arguments: str) -> str:
    return _command(sys.executable, "-m", module, *arguments)


def _command(*command: str) -> str:
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise NotReadyError(f"{' '.join(command[:4])} ...: exit {done.returncode}\n{said[-4000:]}")
    return done.stdout.strip()


def same_version(wanted: str, tag: str | None = None, root: Path = ROOT) -> None:
    """Raises :class:`NotReadyError` where a file names another version than ``__init__.py``.

    Only what a tool reads has to repeat it: CITATION.cff, and the newest section of the changelog.
    """
    cited = re.search(r"^version: (.+)$", (root / "CITATION.cff").read_text("utf-8"), re.M)
    newest = re.search(r"^## (\d\S*)", (root / "CHANGELOG.md").read_text("utf-8"), re.M)
    for place, found in (
        ("CITATION.cff", cited and cited[1]),
        ("the newest section of CHANGELOG.md", newest and newest[1]),
        ("the tag", tag.removeprefix("v") if tag else wanted),
    ):
        if found != wanted:
            raise NotReadyError(f"{place} has version {found}, __init__.py has {wanted}")


def build() -> tuple[Path, Path]:
    """The source archive in ``dist/``, and the wheel made from it."""
    shutil.rmtree(DIST, ignore_errors=True)
    _run("build", "--outdir", str(DIST))
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    return sdist, wheel


def no_relative_link(wheel: Path) -> None:
    """Raises :class:`NotReadyError` where the package page links to a file beside it."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (x for x in archive.namelist() if x.endswith(".dist-info/METADATA"))
        page = message_from_bytes(archive.read(name)).get_payload()
    if found := RELATIVE.findall(str(page)):
        raise NotReadyError(f"relative links on the package page: {found}")


def no_tests(sdist: Path) -> None:
    """Raises :class:`NotReadyError` where the source archive has tests, which cannot run there."""
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    if found := [name for name in names if name.startswith("tests")]:
        raise NotReadyError(f"the source archive has tests: {found[:3]}")


def smoke(python: str, wheel: Path) -> str:
    """Installs the wheel into a fresh environment of this interpreter, with the newest of what it
    depends on, and runs ``smoke.py`` there. Returns what it says."""
    with tempfile.TemporaryDirectory() as place:
        _command(python, "-m", "venv", place)
        inside = str(Path(place, "Scripts" if os.name == "nt" else "bin", "python"))
        pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _command(*pip, str(wheel))
        return _command(inside, str(ROOT / "release" / "smoke.py"), version())


if __name__ == "__main__":
    sys.exit(main())
