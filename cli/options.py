"""Arguments and options that several commands share, and what is checked of them first."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, get_args

import typer

from ..manifests.findings import language
from ..manifests.findings import lock as lock_codes
from ..manifests.findings import usage as codes
from ..manifests.findings.catalogue import find_code
from ..manifests.findings.errors import AdapterdockError, UsageError
from ..manifests.findings.finding import Finding, Severity, Where
from ..manifests.language.names import did_you_mean

DEFAULT_MANIFEST = Path("adapters.yaml")


def complete_code(incomplete: str) -> list[str]:
    """Codes of unchecked findings, for the shell."""
    from ..manifests.findings.catalogue import all_codes

    return [
        code.id
        for code in all_codes().values()
        if code.severity is Severity.UNCHECKED and code.id.startswith(incomplete.upper())
    ]


def complete_adapter(incomplete: str) -> list[str]:
    """Names that the manifest on the command line declares, for the shell."""
    from ..registry.locks.project import open_manifest

    # The parser drops everything before an option that has no value yet, so the line itself is
    # read, which typer's scripts pass on (bash in the one variable, zsh and fish in the other).
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    given = [word for word in line.split() if word.endswith((".yaml", ".yml"))]
    try:
        manifest = open_manifest(Path(given[0]) if given else DEFAULT_MANIFEST).manifest
    except AdapterdockError:
        return []
    names = [*manifest.adapters, *manifest.compositions]
    return [name for name in names if name.startswith(incomplete)]


ManifestArgument = Annotated[
    Path,
    typer.Argument(
        help="The manifest (default: adapters.yaml).", show_default=False, metavar="MANIFEST"
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="SOURCE",
        help="Another base model, for this run: ./folder, hf://org/name, s3://bucket/folder. "
        "`lock` records it.",
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Another dtype for the base, for this run: auto, float32, float16 or bfloat16. "
        "`lock` records it.",
    ),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A platform's policy, on top of the manifest's and $ADAPTERDOCK_POLICY's.",
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Touch no network; what it would need is an error.")
]
DeepOption = Annotated[
    bool,
    typer.Option(
        "--deep",
        help="Ask transformers about an architecture that is not in the table, and PEFT about a "
        "method that only it knows (imports torch).",
    ),
]
FrozenOption = Annotated[
    bool, typer.Option("--frozen", help="Refuse a missing, stale or partial lock.")
]
AcceptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="CODE",
        help="Take responsibility for this unchecked finding (repeat it for more).",
        autocompletion=complete_code,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object with a versioned `schema`.")
]


def manifest_argument(path: Path) -> Path:
    """``path``, if it can be a manifest. Raises :class:`UsageError` that says what is there."""
    where = Where(file=str(path))
    if str(path) == "-":
        raise UsageError(
            codes.NO_SUCH_FILE.finding(
                "a manifest is not read from standard input",
                found="-",
                hint="name a file: its lock lies beside it, and relative sources count from its "
                "folder",
            )
        )
    try:
        if path.is_dir():
            inside = path / DEFAULT_MANIFEST
            hint = f"name the manifest in it: {inside}" if inside.is_file() else _nearby(path, "")
            raise UsageError(codes.NO_SUCH_FILE.finding("this is a folder", where, hint=hint))
        if not path.exists():
            said = "this link leads nowhere" if path.is_symlink() else "there is no such manifest"
            raise UsageError(
                codes.NO_SUCH_FILE.finding(said, where, hint=_nearby(path.parent, path.name))
            )
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            codes.NO_SUCH_FILE.finding("this path cannot be looked at", where, found=said)
        ) from error
    return path


def check_arguments(model: str | None, dtype: str | None, policy: Path | None) -> None:
    """Raises :class:`UsageError` where --model, --dtype or --policy names nothing that can be
    meant: then the command line is wrong, and not the manifest."""
    from ..manifests.language.schema import Dtype
    from ..manifests.language.source import Source, SourceSyntaxError
    from ..manifests.reading.secrets import redacted

    findings: list[Finding] = []
    if model is not None:
        try:
            Source.parse(model)
        except SourceSyntaxError as error:
            said = codes.BAD_MODEL.finding("--model is no source", found=model, expected=str(error))
            findings.append(redacted(said))
    choices = get_args(Dtype)
    if dtype is not None and dtype not in choices:
        findings.append(
            language.NOT_A_CHOICE.finding(
                "--dtype takes one of a few words",
                found=dtype,
                expected=", ".join(choices),
                hint=did_you_mean(dtype, choices),
            )
        )
    if policy is not None and not policy.is_file():
        findings.append(
            language.UNREADABLE.finding(
                "--policy names no file", Where(file=str(policy)), hint="check the path"
            )
        )
    if findings:
        raise UsageError(*findings)


def accepted_codes(texts: Iterable[str] | None) -> list[str]:
    """The codes that ``--accept`` names, by id. Raises :class:`UsageError` for any other text."""
    accepted: list[str] = []
    for text in texts or ():
        code = find_code(text)
        if code is None or code.severity is not Severity.UNCHECKED:
            raise UsageError(
                lock_codes.ACCEPT_NOT_UNCHECKED.finding(
                    f"{text} cannot be accepted",
                    found="no such code" if code is None else f"a code of severity {code.severity}",
                    expected="the code of an unchecked finding",
                )
            )
        accepted.append(code.id)
    return accepted


def _nearby(folder: Path, name: str) -> str | None:
    """A hint with the manifests that are in ``folder``, the one that ``name`` resembles first."""
    try:
        found = sorted(
            p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file()
        )
    except OSError:
        return None
    near = did_you_mean(name, found)
    if near or not found:
        return near
    return f"{folder.absolute()} has {', '.join(found[:5])}; or start one with `adapterdock init`"
