"""`adapterdock run`."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from .chat import Chat, Message
from .console import Printer, clean, err, out, say, status
from .mix import Mix, parse_mix, require_names
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    FrozenOption,
    JsonOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
    complete_adapter,
    importing_torch,
    open_manifest_argument,
    require_allowed,
    require_torch,
)
from .progress import shown_progress
from .render import print_findings
from .verbosity import OURS, is_verbose

if TYPE_CHECKING:
    from ..manifests.manifest import ManifestFile


SCHEMA = "adapterdock.run/1"
_CHATTY = ("torchao", "torch.utils._pytree", "transformers", "adapterdock")
"""Loggers whose warnings do not help here; our own findings are printed."""


@contextmanager
def hushed() -> Generator[None]:
    """Show only errors of these loggers during the block. With --verbose, ours say more."""
    loggers = [logging.getLogger(name) for name in _CHATTY if name != OURS or not is_verbose()]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


MAX_SEED = 2**64 - 1
"""What torch takes."""


@hushed()
def run(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    prompt: Annotated[
        str | None,
        typer.Option(
            "--prompt",
            "-p",
            metavar="TEXT",
            help="The prompt (default: a chat on a terminal, else standard input).",
        ),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            "-a",
            metavar="NAME",
            help="An adapter, a composition, a weighted sum (a=0.5,b=1), or __base__ for the base "
            "alone (default: the manifest's `active`). Repeat to compare.",
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
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, max=MAX_SEED, help="Seed for sampling.")
    ] = 0,
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
    as_json: JsonOption = False,
) -> None:
    """Load the base with its adapters, and answer a prompt, or chat.

    Needs torch and transformers: pip install 'adapterdock[torch]'. Prints the answer on standard
    output, and everything else on standard error. On a terminal without --prompt it is a chat:
    /adapter NAME switches, Ctrl-C stops an answer, /exit or Ctrl-D ends, /help shows the rest.

    Examples:

      adapterdock run -p 'What is the capital of Germany?'
      adapterdock run                                              # chat
      adapterdock run -p 'Hello' -a pirate=0.5,salesman=1          # a sum for this run
      adapterdock run -p 'Hello' -a __base__ -a tone -a formal-billing    # compare
      adapterdock run -p 'Once upon a time' --raw --temperature 0.8 --seed 7
      echo 'Hello' | adapterdock run team.yaml --frozen --offline
    """
    file = open_manifest_argument(manifest, model, dtype, policy)
    if file.manifest.base.model is None:
        raise UsageError(
            codes.NEEDS_BASE.finding("The manifest declares no base", file.where(("base",)))
        )
    names = list(dict.fromkeys(adapter or ()))
    mixes = [parse_mix(name) for name in names]
    require_names(mixes, file)
    require_torch()
    require_allowed(file, policy=policy, accept=accept, frozen=frozen, offline=offline)
    chats = prompt is None and len(names) < 2 and not as_json and _on_terminal()
    if not chats:
        prompt = _read_prompt() if prompt is None else prompt
        if not prompt.strip():
            raise UsageError(codes.NO_PROMPT.finding("The prompt is empty"))
        _require_text(prompt)
    with importing_torch():
        from ..loader.generate_text import answer, fitting, load_tokenizer
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
    if not as_json:
        print_findings(adapted.findings, err, accepted)

    def ask(
        said: str | Sequence[Mapping[str, str]],
        mix: Mix | None,
        write: Callable[[str], None] | None = None,
    ) -> str:
        return answer(
            adapted,
            tokenizer,
            said,
            adapter=mix,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            chat=chat,
            write=write,
        )

    def reply(messages: list[Message], mix: Mix | None, write: Callable[[str], None]) -> None:
        last = fitting(adapted, tokenizer, messages, chat=chat, max_new_tokens=max_new_tokens)
        ask(last, mix, write)

    if prompt is None:
        name = names[0] if names else None
        err.line(f"Chatting with {name or _active(file)}; /help shows the commands")
        Chat(file, reply, _write, name).run(_read_line)
        return
    if as_json:
        rows = zip(names or [None], mixes or [None], strict=True)
        data = {
            "prompt": prompt,
            "answers": [{"adapter": name, "text": ask(prompt, mix)} for name, mix in rows],
            "findings": [finding.as_dict() for finding in adapted.findings],
        }
        out.as_json(SCHEMA, data)
        return
    if len(names) < 2 and _is_terminal(out):
        try:
            ask(prompt, mixes[0] if mixes else None, _write)
        finally:
            _write("\n")  # also after Ctrl-C
        return
    for name, mix in zip(names or [_active(file)], mixes or [None], strict=True):
        with status(f"Asking {name}"):
            text = ask(prompt, mix)
        if len(names) > 1:
            say((f"--- {name}", "bold"))
        print(_readable(text))  # not wrapped: it may be code


def _is_terminal(printer: Printer) -> bool:
    return printer.stream is not None and printer.stream.isatty()


def _on_terminal() -> bool:
    """Whether a person types, and sees what is printed."""
    return sys.stdin is not None and sys.stdin.isatty() and _is_terminal(out)


def _read_line() -> str:
    with contextlib.suppress(ImportError):
        import_module("readline")  # input() uses it: arrows, and lines typed before
    return input("> ")


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


def _require_text(prompt: str) -> None:
    """Raise :class:`UsageError` if it has bytes that are not text in the terminal's encoding."""
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            codes.NO_PROMPT.finding("The prompt is not text", found=ascii(prompt[error.start]))
        ) from error


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
