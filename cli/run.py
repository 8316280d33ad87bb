"""`adapterdock run`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from ..manifests.codes import usage as codes
from ..manifests.errors import UsageError
from .console import err, say, status
from .options import (
    DEFAULT_MANIFEST,
    AcceptOption,
    DtypeOption,
    FrozenOption,
    ManifestArgument,
    ModelOption,
    OfflineOption,
    PolicyOption,
)
from .render import print_findings


def run(
    manifest: ManifestArgument = DEFAULT_MANIFEST,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The prompt; else read from stdin.")
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            "--adapter",
            "-a",
            metavar="NAME",
            help="An adapter, a composition, or __base__ for the base alone; repeat it to compare. "
            "Default: what the manifest says is active.",
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How much to write at most.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    chat: Annotated[
        bool, typer.Option("--chat/--raw", help="Use the tokenizer's chat template, if any.")
    ] = True,
    model: ModelOption = None,
    dtype: DtypeOption = None,
    policy: PolicyOption = None,
    accept: AcceptOption = None,
    frozen: FrozenOption = False,
    offline: OfflineOption = False,
) -> None:
    """Load the base with its adapters and answer a prompt.

    Examples:

      adapterdock run -p 'What is the capital of Germany?'

      adapterdock run -p 'Hello' -a __base__ -a tone -a formal-billing

      echo 'Hello' | adapterdock run team.yaml --frozen --offline
    """
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise UsageError(codes.NEEDS_TORCH.finding(f"{package} is not installed"))
    if prompt is None:
        if sys.stdin.isatty():
            err().print("reading the prompt from the terminal; end it with Ctrl-D", markup=False)
        prompt = sys.stdin.read().strip()
    if not prompt:
        raise UsageError(codes.NO_PROMPT.finding("there is no prompt"))
    import transformers

    from ..loader.chat import answer, load_tokenizer
    from ..loader.load import load

    transformers.utils.logging.disable_progress_bar()  # ours tells what takes long
    with status("loading the base and its adapters"):
        adapted = load(
            Path(manifest),
            model=model,
            dtype=dtype,
            policy=policy,
            accept=accept or (),
            frozen=frozen,
            offline=offline,
        )
        tokenizer = load_tokenizer(adapted)
    print_findings(adapted.findings, err())
    names = list(adapter or [None])
    for name in names:
        with status(f"asking {name or 'the active adapters'}"):
            text = answer(
                adapted,
                tokenizer,
                prompt,
                adapter=name,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                chat=chat,
            )
        if len(names) > 1:
            say(f"--- {name}")
        say(text)
