"""Arguments and options that several commands share, and the checks on them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from ..manifests.findings import language
from ..manifests.findings import usage as codes
from ..manifests.findings.errors import AdapterdockError, UsageError
from ..manifests.findings.finding import Finding, Severity, Where
from ..manifests.language.names import did_you_mean
from .console import status

if TYPE_CHECKING:
    from ..manifests.language.source import Source
    from ..manifests.manifest import ManifestFile

DEFAULT_MANIFEST = Path("adapters.yaml")
SHOWN_NEARBY = 5
"""How many files a hint names."""


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

    # The parser drops everything before an option without a value, so we read the line itself,
    # which typer's scripts pass on (bash in the one variable, zsh and fish in the other).
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS") or ""
    paths = [word for word in line.split() if word.endswith((".yaml", ".yml"))]
    try:
        manifest = open_manifest(Path(paths[0]) if paths else DEFAULT_MANIFEST).manifest
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
        help="Use another base model in this run: ./folder, hf://org/name, s3://bucket/folder. "
        "`lock` records it.",
    ),
]
DtypeOption = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="DTYPE",
        help="Use another dtype for the base in this run: auto, float32, float16 or bfloat16. "
        "`lock` records it.",
    ),
]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="Apply this policy too, besides the manifest's and $ADAPTERDOCK_POLICY.",
    ),
]
OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Do not use the network; fail if something needs it.")
]
DeepOption = Annotated[
    bool,
    typer.Option(
        "--deep",
        help="Ask transformers about architectures that are not in the table, and PEFT about "
        "methods that only PEFT knows (imports torch).",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="ENGINE==VERSION",
        help="Check what this engine can serve too: vllm==0.32, sglang, nim, ray-llm, llama.cpp "
        "or mlx.",
    ),
]
MaxRankOption = Annotated[
    int | None,
    typer.Option(
        "--max-rank",
        metavar="N",
        help="The largest rank that the server of --target is started with.",
        show_default=False,
    ),
]
MaxLorasOption = Annotated[
    int | None,
    typer.Option(
        "--max-loras",
        metavar="N",
        help="How many adapters the server of --target runs in one batch.",
        show_default=False,
    ),
]
FrozenOption = Annotated[
    bool, typer.Option("--frozen", help="Fail if the lock is missing, stale or incomplete.")
]
AcceptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--accept",
        metavar="CODE",
        help="Accept unchecked findings with this code (repeat for more).",
        autocompletion=complete_code,
    ),
]
ManyOption = Annotated[
    bool,
    typer.Option(
        "--many",
        help="Treat one file as a list of one: skip it if it is not a manifest, and print a list "
        "as JSON. For hooks and scripts.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object with a versioned `schema`.")
]


def folder_argument(text: str) -> str:
    """Where to write: a bare name is a folder here, since nothing is written to the Hub."""
    bare = text and not text.startswith((".", "~")) and not set(text) & {"/", ":", os.sep}
    return f"./{text}" if bare else text


def manifest_argument(path: Path, *, several: bool = False) -> Path:
    """``path``, if it can be a manifest. Raises :class:`UsageError` that says what is there.
    ``several``: a folder may be named as well."""
    where = Where(file=str(path))
    if str(path) == "-":
        raise UsageError(
            codes.NO_SUCH_FILE.finding(
                "Cannot read a manifest from standard input",
                found="-",
                hint="Name a file. Its lock is beside it, and relative sources start there.",
            )
        )
    try:
        if path.is_dir():
            inside = path / DEFAULT_MANIFEST
            if not inside.is_file() and (path / "adapter_config.json").is_file():
                from ..registry.locks.project import adapter_as_manifest

                if (adapter := adapter_as_manifest(path)) is not None:
                    raise UsageError(adapter)
            hint = f"Name the manifest in it: {inside}" if inside.is_file() else _nearby(path, path)
            raise UsageError(codes.NO_SUCH_FILE.finding("This is a folder", where, hint=hint))
        if not path.exists():
            reason = "The link's target does not exist" if path.is_symlink() else "No such manifest"
            raise UsageError(
                codes.NO_SUCH_FILE.finding(
                    reason, where, hint=_nearby(path.parent, path, several=several)
                )
            )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            codes.NO_SUCH_FILE.finding("Cannot access this path", where, found=reason)
        ) from error
    return path


def check_arguments(model: str | None, dtype: str | None, policy: Path | None) -> None:
    """Raise :class:`UsageError` for an invalid --model, --dtype or --policy."""
    from ..manifests.language.schema import Dtype

    findings: list[Finding] = []
    if model is not None:
        try:
            model_argument(model)
        except UsageError as error:
            findings += error.findings
    choices = get_args(Dtype)
    if dtype is not None and dtype not in choices:
        findings.append(
            language.NOT_A_CHOICE.finding(
                "Invalid --dtype",
                found=dtype,
                expected=", ".join(choices),
                hint=did_you_mean(dtype, choices),
            )
        )
    if policy is not None and not policy.is_file():
        findings.append(
            language.UNREADABLE.finding(
                "The file of --policy does not exist",
                Where(file=str(policy)),
                hint="Check the path.",
            )
        )
    if findings:
        raise UsageError(*findings)


def model_argument(model: str) -> Source:
    """The source that ``--model`` names. Raises :class:`UsageError` if it is invalid."""
    from ..manifests.language.source import Source, SourceSyntaxError
    from ..manifests.reading.secrets import redacted

    try:
        return Source.parse(model)
    except SourceSyntaxError as error:
        hint = None if error.instead is None else f"Write --model {error.instead}"
        finding = codes.BAD_MODEL.finding("Invalid --model", found=model, expected=error, hint=hint)
        raise UsageError(redacted(finding)) from error


def open_manifest_argument(
    path: Path, model: str | None, dtype: str | None, policy: Path | None
) -> ManifestFile:
    """The manifest at ``path``, once the arguments are checked."""
    from ..registry.locks.project import open_manifest

    manifest_argument(path)
    check_arguments(model, dtype, policy)
    return open_manifest(path, model=model, dtype=dtype)


def require_allowed(
    file: ManifestFile,
    *,
    policy: Path | None,
    accept: Iterable[str] | None,
    frozen: bool,
    offline: bool,
) -> None:
    """Raise what loading would raise of the lock, the policies and --accept, before torch is
    imported, which takes seconds."""
    from ..registry.access.session import session_for
    from ..registry.locks.project import lock_of
    from ..registry.locks.state import require_lock
    from ..registry.pull import require_policy

    session = session_for(file, policy=policy, accept=accept or (), frozen=frozen, offline=offline)
    lock = lock_of(file)
    require_lock(file, lock, frozen=frozen)
    require_policy(file, lock, session.access)


def require_torch() -> None:
    """Raise :class:`UsageError` if torch or transformers is not installed; imports neither."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(codes.NEEDS_TORCH.finding(f"{' and '.join(missing)} {verb} not installed"))


@contextmanager
def importing_torch() -> Generator[None]:
    """Raise :class:`UsageError` if what the block imports lacks torch or transformers."""
    require_torch()
    try:
        with status("Importing torch and transformers"):
            yield
    except ImportError as error:
        raise UsageError(
            codes.NEEDS_TORCH.finding("Cannot import torch and transformers", found=error)
        ) from error


def refuse_with(option: str, others: Mapping[str, object]) -> None:
    """Raise :class:`UsageError` if another of these options is used together with ``option``."""
    used = [name for name, value in others.items() if value]
    if used:
        raise UsageError(
            codes.OPTIONS_CONFLICT.finding(
                f"{option} and {', '.join(used)} cannot be combined", found=", ".join(used)
            )
        )


def as_argument(manifest: Path) -> str:
    """The manifest as an argument of a command, with a space before it; none for the default."""
    return "" if manifest == DEFAULT_MANIFEST else f" {shlex.quote(str(manifest))}"


def _nearby(folder: Path, wanted: Path, *, several: bool = False) -> str | None:
    """A hint with the manifests in ``folder``: the one whose name is like ``wanted``, or all; and
    how to create it. With ``several``, a folder with a name like that counts too."""
    from ..manifests.find import SUFFIXES, is_manifest

    try:
        entries = sorted(folder.iterdir())
        found = [p.name for p in entries if p.suffix in SUFFIXES and p.is_file() and is_manifest(p)]
        folders = [p.name for p in entries if several and p.is_dir()]
    except OSError:
        found, folders = [], []
    named = wanted if wanted.suffix in SUFFIXES else folder / DEFAULT_MANIFEST
    create = f"create one with `adapterdock init{as_argument(named)}`."
    near = did_you_mean(wanted.name, found if wanted.suffix in SUFFIXES else [*found, *folders])
    if near:
        return near
    if several and folders and wanted == DEFAULT_MANIFEST:
        create += " A folder, such as `.`, means all manifests in it."
    if not found:
        return f"Check the path, or {create}"
    more = f" and {len(found) - SHOWN_NEARBY} more" if len(found) > SHOWN_NEARBY else ""
    names = f"{', '.join(found[:SHOWN_NEARBY])}{more}"
    return f"Name a manifest of {folder.absolute()} ({names}), or {create}"
