"""`adapterdock run`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
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
    complete_adapter,
    importing_torch,
    open_manifest_argument,
    require_torch,
)
from .progress import shown_progress
from .render import print_findings

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile


_CHATTY = ("torchao", "torch.utils._pytree", "transformers", "adapterdock")
"""Loggers whose warnings do not help here; our own findings are printed."""


@contextmanager
def hushed() -> Generator[None]:
    """Show only errors of these loggers during the block."""
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
        typer.Option(
            "--prompt", "-p", metavar="TEXT", help="The prompt (default: standard input)."
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            "-a",
            metavar="NAME",
            help="An adapter, a composition, or __base__ for the base alone (default: the "
            "manifest's `active`). Repeat to compare.",
            autocompletion=complete_adapter,
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Generate at most N tokens.")
    ] = 128,
    temperature: Annotated[
        float,
        typer.Option(
            metavar="T", min=0.0, help="Sample at this temperature; 0 is greedy decoding."
        ),
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed for sampling.")] = 0,
    chat: Annotated[
        bool,
        typer.Option("--chat/--raw", help="Use the tokenizer's chat template, if it has one."),
    ] = True,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
) -> None:
    """Load the base with its adapters, and answer a prompt.

    Needs torch and transformers: pip install 'adapterdock[torch]'. Prints the answer on standard
    output, and everything else on standard error.

    Examples:

      adapterdock run -p 'What is the capital of Germany?'
      adapterdock run -p 'Hello' -a __base__ -a tone -a formal-billing    # compare
      adapterdock run -p 'Once upon a time' --raw --temperature 0.8 --seed 7
      echo 'Hello' | adapterdock run team.yaml --frozen --offline
    """
    file = open_manifest_argument(manifest, model, dtype, policy)
    if file.manifest.base.model is None:
        raise UsageError(
            codes.NEEDS_BASE.finding("The manifest declares no base", file.where(("base",)))
        )
    require_names(adapter or (), file)
    require_torch()
    prompt = _read_prompt() if prompt is None else prompt
    if not prompt.strip():
        raise UsageError(codes.NO_PROMPT.finding("The prompt is empty"))
    with importing_torch():
        from ..loader.generate_text import answer, load_tokenizer
        from ..loader.load import load

    accepted = accept or ()
    with shown_progress("Loading the base and its adapters") as progress:
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

    def ask(name: str | None, write: Callable[[str], None] | None = None) -> str:
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

    names = list(dict.fromkeys(adapter or ())) or [None]
    if len(names) == 1 and out.stream is not None and out.stream.isatty():
        try:
            ask(names[0], _write)
        finally:
            _write("\n")  # also after Ctrl-C
        return
    for name in names:
        with status(f"Asking {name or _active(file)}"):
            text = ask(name)
        if len(names) > 1:
            say((f"--- {name}", "bold"))
        print(_readable(text))  # not wrapped: it may be code


def _write(text: str) -> None:
    """Print a piece of an answer as soon as it is generated."""
    sys.stdout.write(_readable(text))
    sys.stdout.flush()


def _readable(text: str) -> str:
    return "\t".join(clean(part) for part in text.split("\t"))


def _active(file: ManifestFile) -> str:
    active = file.manifest.active
    if active is None:
        return "the base (the manifest has no `active`)"
    return active if isinstance(active, str) else ", ".join(active)


def require_names(names: Iterable[str], file: ManifestFile) -> None:
    """Raise :class:`UsageError` for names that the manifest does not declare."""
    manifest = file.manifest
    known = [*manifest.adapters, *manifest.compositions, BASE_ROW]
    unknown = [name for name in dict.fromkeys(names) if name not in known]
    if unknown:
        raise UsageError(
            *(
                loader_codes.ADAPTER_UNKNOWN.finding(
                    f"The manifest declares no adapter or composition {name!r}",
                    file.where(("adapters",)),
                    found=name,
                    expected=", ".join(known),
                    hint=did_you_mean(name, known) or "Use one of these names.",
                )
                for name in unknown
            )
        )


def _read_prompt() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        err.line("Type the prompt, and end it with Ctrl-D:")
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError as error:
        raise UsageError(
            codes.NO_PROMPT.finding("Standard input is not text", found=error)
        ) from error
