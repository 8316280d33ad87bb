"""The complete way: a manifest, a real model, three real adapters, a composition.

    make quickstart                                      # or, with everything installed:
    python manifests/quickstart/run.py

Prepares the base (once), validates the manifest, locks it, loads base and adapters, and asks all
of them the same questions. Only the first preparation needs the network.
"""

from __future__ import annotations

import logging
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import adapterdock
from prepare_base import PrepareError, cache_folder, prepare_base
from rich.console import Console
from rich.table import Table
from rich.text import Text

HERE = Path(__file__).resolve().parent
MANIFEST = HERE / "quickstart.yaml"
ADAPTERS = ("pirate", "devil", "salesman")
COMPOSITION = "privateer"
COLOURS = {"pirate": "cyan", "devil": "red", "salesman": "yellow", COMPOSITION: "green"}
QUESTIONS = ("What is the capital of England?", "What is a bank?")
NEW_TOKENS = 32
SWITCHES = 1000

_WIDTH = 100 if not sys.stdout.isatty() and "COLUMNS" not in os.environ else None
console = Console(width=_WIDTH, highlight=False)


def main() -> int:
    started = time.perf_counter()
    say("[bold]adapterdock quickstart[/]: one base, three adapters, one composition\n")

    with step("base") as done:
        base = prepare_base(cache_folder(), say=lambda line: say(f"  [dim]{line}[/]"))
        os.environ["QUICKSTART_BASE"] = str(base)  # the manifest's ${QUICKSTART_BASE}
        done.append(f"SmolLM2-135M-Instruct, in {at_home(base.parent)}")

    with step("validate") as done:
        report = adapterdock.validate(MANIFEST)
        verdict = "every adapter fits the base" if report.ok else "NOT accepted"
        done.append(f"{verdict}; {len(report.findings)} findings, no weights read")
    for finding in report.findings:
        console.print(str(finding), markup=False)
    if not report.ok:
        return report.exit_status

    with step("lock") as done:
        adapterdock.lock(MANIFEST)
        done.append("every file pinned by its sha256, in quickstart.lock")

    with step("import") as done:
        for chatty in ("torchao", "torch.utils._pytree"):  # on import, if torchao is installed
            logging.getLogger(chatty).setLevel(logging.ERROR)
        import torch  # noqa: F401
        from transformers import AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        done.append("torch and transformers, first needed here")

    with step("load") as done:
        model = adapterdock.load(MANIFEST)
        tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
        done.append("the base in float32, with its adapters")

    for name in ADAPTERS:
        with step("attach") as done:
            model.load_adapter(str(HERE / name), f"{name}.again")
            done.append(f"{name} again, at run time, with all checks")
        model.delete_adapter(f"{name}.again")

    say(row("switch", "to another adapter", f"{switch_time(model) * 1e6:.1f} µs"))
    answers = ask_all(model, tokenizer)
    show(answers)
    say(f"\n[dim]{time.perf_counter() - started:.1f} s in total[/]")
    return 0


def switch_time(model: Any) -> float:
    """Seconds that ``set_adapter`` takes (median)."""
    taken: list[float] = []
    for turn in range(SWITCHES):
        name = ADAPTERS[turn % len(ADAPTERS)]
        started = time.perf_counter()
        model.set_adapter(name)
        taken.append(time.perf_counter() - started)
    model.set_adapter(COMPOSITION)
    return statistics.median(taken)


def ask_all(model: Any, tokenizer: Any) -> dict[str, list[str]]:
    """By name, one answer for each question (greedy decoding)."""
    inputs = tokenizer.apply_chat_template(
        [[{"role": "user", "content": question}] for question in QUESTIONS],
        add_generation_prompt=True,
        padding=True,
        return_dict=True,
        return_tensors="pt",
    )
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    answers: dict[str, list[str]] = {}
    tokens, seconds = 0, 0.0
    for name in ("base", *ADAPTERS, COMPOSITION):
        with console.status(f"{name} is thinking ..."):
            started = time.perf_counter()
            if name == "base":
                output = model.base_model.generate(**inputs, **options)
            else:
                output = model.generate(**inputs, **options, adapter=name)
            seconds += time.perf_counter() - started
        new = output[:, inputs["input_ids"].shape[1] :].tolist()
        answers[name] = [_read(tokenizer, ids) for ids in new]
        tokens += sum(len(_ended(tokenizer, ids)) for ids in new)
    rate = f"{tokens} tokens, {tokens / seconds:.0f} a second"
    say(row("generate", rate, f"{seconds:.1f} s"))
    return answers


def _ended(tokenizer: Any, ids: list[int]) -> list[int]:
    """Up to the end-of-text token, included; the rest is padding."""
    end = tokenizer.eos_token_id
    return ids[: ids.index(end) + 1] if end in ids else ids


def _read(tokenizer: Any, ids: list[int]) -> str:
    text = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return text if tokenizer.eos_token_id in ids else f"{text} ..."


def show(answers: dict[str, list[str]]) -> None:
    """Print the answers, question by question."""
    for at, question in enumerate(QUESTIONS):
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, said in answers.items():
            colour = COLOURS.get(name, "default")
            table.add_row(Text(f"  {name}", f"bold {colour}"), Text(said[at], colour))
        say(f"\n[bold]{question}[/]")
        console.print(table)
    say(f"\n[dim]{COMPOSITION} is 1.0 pirate + 1.0 salesman, as quickstart.yaml says[/]")


@contextmanager
def step(label: str) -> Iterator[list[str]]:
    """Time the block and print one line about it; the caller appends what was done."""
    said: list[str] = []
    started = time.perf_counter()
    with console.status(f"{label} ..."):
        yield said
    taken = time.perf_counter() - started
    say(row(label, " ".join(said), f"{taken:.1f} s" if taken >= 1 else f"{taken * 1000:.0f} ms"))


def at_home(path: Path) -> str:
    """The path with ``~`` for the home folder."""
    home = Path.home()
    return f"~/{path.relative_to(home).as_posix()}" if path.is_relative_to(home) else str(path)


def row(label: str, detail: str, taken: str) -> Table:
    """One line of the log: what, detail, how long."""
    line = Table.grid(padding=(0, 1))
    line.add_column(width=8, style="bold")
    line.add_column(width=8, justify="right", style="green")
    line.add_column(overflow="fold")
    line.add_row(label, taken, Text(detail))
    return line


def say(what: object) -> None:
    console.print(what)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (PrepareError, adapterdock.AdapterdockError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False, style="red")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
