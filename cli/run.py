"""`adapterdock run`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import loader as loader_codes
from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.language.names import BASE_ROW, did_you_mean
from .console import clean, err, out, say, status
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    FrozenOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    accepted_codes,
    check_arguments,
    complete_adapter,
    manifest_argument,
)
from .progress import shown_progress
from .render import print_findings

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile


_CHATTY = ("torchao", "torch.utils._pytree", "transformers", "adapterdock")
"""Loggers whose warnings help nobody here; what ours says is printed as findings."""


@contextmanager
def hushed() -> Generator[None]:
    """Only errors of these loggers are shown meanwhile."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@hushed()
def run(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt; else standard input."),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            "-a",
            metavar="NAME",
            help="An adapter, a composition, or __base__ for the base alone; repeat it to compare. "
            "Without it: what the manifest says is active.",
            autocompletion=complete_adapter,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many tokens to write at most.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0.0, help="Sample at this temperature; 0 is greedy.")
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Of the sampling, where there is one.")
    ] = 0,
    chat: Annotated[
        bool,
        typer.Option("--chat/--raw", help="Through the tokenizer's chat template, if it has one."),
    ] = True,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
) -> None:
    """Load the base with its adapters, and answer a prompt.

    Needs torch and transformers: pip install 'adapterdock[torch]'. The answer goes to standard
    output, everything else to standard error.

    Examples:

      adapterdock run -p 'What is the capital of Germany?'
      adapterdock run -p 'Hello' -a __base__ -a tone -a formal-billing    # compare
      adapterdock run -p 'Once upon a time' --raw --temperature 0.8 --seed 7
      echo 'Hello' | adapterdock run team.yaml --frozen --offline
    """
    from ..registry.locks.project import open_manifest

    path = manifest_argument(manifest)
    check_arguments(model, dtype, policy)
    accepted = accepted_codes(accept)
    file = open_manifest(path, model=model, dtype=dtype)
    if file.manifest.base.model is None:
        raise UsageError(
            codes.NEEDS_BASE.finding("the manifest declares no base", file.where(("base",)))
        )
    require_names(adapter or (), file)
    require_torch()
    prompt = _read_prompt() if prompt is None else prompt
    if not prompt.strip():
        raise UsageError(codes.NO_PROMPT.finding("there is no prompt"))
    try:
        with status("importing torch and transformers"):
            from ..loader.generate_text import answer, load_tokenizer
            from ..loader.load import load
    except ImportError as error:
        raise UsageError(
            codes.NEEDS_TORCH.finding("torch and transformers cannot be imported", found=error)
        ) from error

    with shown_progress("loading the base and its adapters") as progress:
        adapted = load(
            file,
            policy=policy,
            accept=accepted,
            frozen=frozen,
            offline=offline,
            progress=progress,
        )
        tokenizer = load_tokenizer(adapted)
    print_findings(adapted.findings, err, accepted)

    def ask(name: str | None, write: Callable[[str], None] | None) -> str:
        return answer(
            adapted,
            tokenizer,
            prompt,
            adapter=name,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            chat=chat,
            write=write,
        )

    names = list(dict.fromkeys(adapter or ()))
    if len(names) > 1:
        _compare(ask, names)
    elif out.stream is not None and out.stream.isatty():
        _stream(ask, names[0] if names else None)
    else:
        with status(f"asking {names[0] if names else _active(file)}"):
            text = ask(names[0] if names else None, None)
        _print_answer(text)


def _compare(
    ask: Callable[[str | None, Callable[[str], None] | None], str], names: Iterable[str]
) -> None:
    for name in names:
        with status(f"asking {name}"):
            text = ask(name, None)
        say((f"--- {name}", "bold"))
        _print_answer(text)


def _stream(
    ask: Callable[[str | None, Callable[[str], None] | None], str], name: str | None
) -> None:
    """Each word as it is written."""

    def write(text: str) -> None:
        sys.stdout.write(_readable(text))
        sys.stdout.flush()

    try:
        ask(name, write)
    finally:
        write("\n")  # also where Ctrl-C ends it


def _print_answer(text: str) -> None:
    # As it is, not wrapped: it may be code.
    print(_readable(text))


def _readable(text: str) -> str:
    return "\t".join(clean(part) for part in text.split("\t"))


def _active(file: ManifestFile) -> str:
    active = file.manifest.active
    if active is None:
        return "the base (the manifest activates nothing)"
    return active if isinstance(active, str) else ", ".join(active)


def require_names(names: Iterable[str], file: ManifestFile) -> None:
    """Raise :class:`UsageError` for a name that is no adapter or composition of the manifest."""
    manifest = file.manifest
    known: Mapping[str, object] = {**manifest.adapters, **manifest.compositions, BASE_ROW: None}
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        raise UsageError(
            *(
                loader_codes.ADAPTER_UNKNOWN.finding(
                    f"the manifest declares no adapter or composition {name!r}",
                    file.where(("adapters",)),
                    found=name,
                    expected=", ".join(known),
                    hint=did_you_mean(name, known) or "Name one of these.",
                )
                for name in unknown
            )
        )


def require_torch() -> None:
    """Raise :class:`UsageError` where torch or transformers is not installed; imports neither."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise UsageError(codes.NEEDS_TORCH.finding(f"{' and '.join(missing)} {verb} not installed"))


def _read_prompt() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        err.line("type the prompt, and end it with Ctrl-D:")
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise UsageError(
            codes.NO_PROMPT.finding("standard input is not text", found=str(error))
        ) from error
