"""Runs what the pages in ``docs/`` (and a part of the README) show, and puts in what it prints.

``python docs/print.py`` rewrites the outputs. ``--check`` writes nothing, shows what differs and
exits 1. Both take the paths of single pages; those of :data:`IN_CHECKOUT` and :data:`ON_QUICKSTART`
are run only when named.
Each page runs from top to bottom, in a process of its own and in a fresh folder that
``docs/example.py`` has filled:

- ``python`` blocks share their names. The ``text`` block after one shows what it prints: output, an
  ``AdapterWarning``, a warning in the log of adapterdock, and the :class:`AdapterdockError` that
  ends it. Any other exception is a mistake in the page.
- ``console`` blocks: each line that starts with ``$`` is run, and its output follows. Only the
  commands of :data:`COMMANDS` are run; ``export NAME=VALUE`` sets what the next ones see.
- ``yaml NAME`` (or any language with a file's name) writes that file.
- ``no-run`` after the language: the block is not run, and must not show an output.

A page is run if a block in it has an output; start with an empty ``text`` block, or any line after
a command.
Where a page has the lines of :data:`BEGIN` and :data:`END`, only the blocks between them are run;
the README is run only there. The pages of ``docs/servers.py`` have a server while they run.
``docs/still.py`` keeps clock and random numbers the same; :func:`normal` replaces what else differs
between machines, and nothing more.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import logging
import multiprocessing
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ("cli.md",)
IN_CHECKOUT = ("place-a-model.md",)
"""Pages that need the base of `make quickstart`: run where they are named, in the checkout."""
ON_QUICKSTART = ("vllm.md", "ray.md")
"""Pages that need it too: run where they are named, in a fresh folder with the quickstart's
adapters."""
COMMANDS = ("adapterdock", "cat", "ls", "export")
BEGIN, END = "<!-- printed: begin -->", "<!-- printed: end -->"
_SHOWN: dict[str, str] = {}
"""What a page calls a place that has another name in each run: the address of a server."""
_FENCE = re.compile(r"^```([\w-]*)[ ]*(.*?)[ ]*$")


class PageError(Exception):
    """A page that cannot be printed; the text says where."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, what stands after it, and its lines.

    ``line`` is that of the opening fence, from 1. ``output`` are the lines of the block of output
    after it, if there is one; ``end`` is the number of the line after all of it.
    """

    language: str
    rest: str
    line: int
    text: tuple[str, ...]
    end: int
    output: tuple[str, ...] | None = None

    @property
    def runs(self) -> bool:
        return self.language in ("python", "console") and self.rest == ""

    @property
    def shows(self) -> bool:
        """Whether it has an output."""
        commands = ("$ ", "> ")
        inside = self.language == "console" and any(not x.startswith(commands) for x in self.text)
        return self.output is not None or inside


def blocks_of(page: str, text: str) -> list[Block]:
    """The blocks of a page, each with its output. Raises :class:`PageError` for one that is not
    closed, and for an output of what is not run."""
    lines = text.splitlines()
    whole = BEGIN not in lines
    first, last = (0, len(lines)) if whole else (lines.index(BEGIN), lines.index(END))
    found: list[Block] = []
    at = first
    while at < last:
        if not (match := _FENCE.match(lines[at])):
            at += 1
            continue
        try:
            close = lines.index("```", at + 1, last)
        except ValueError:
            raise PageError(f"{page}:{at + 1}: this block is not closed") from None
        block = Block(match[1], match[2], at + 1, tuple(lines[at + 1 : close]), close + 1)
        last_one = found[-1] if found else None
        between = lines[last_one.end : at] if last_one else ["text"]
        if block.language in ("", "text") and last_one and not any(between):
            if last_one.language == "python":
                found[-1] = replace(last_one, output=block.text, end=block.end)
        else:
            found.append(block)
        at = block.end
    for block in found:
        if block.shows and not block.runs:
            raise PageError(f"{page}:{block.line}: a block that is not run has an output")
    return found


def is_run(page: str, text: str) -> bool:
    """Whether the page shows outputs. Raises :class:`PageError` as :func:`blocks_of`."""
    marked = page != "README.md" or BEGIN in text.splitlines()
    return marked and any(block.shows for block in blocks_of(page, text))


def printed(page: str, text: str) -> str:
    """The page with what its blocks print now, if it is run: in the current folder."""
    if not is_run(page, text):
        return text
    blocks = blocks_of(page, text)
    names: dict[str, Any] = {"__name__": "__main__"}
    lines, made, done = text.splitlines(), list[str](), 0
    for block in blocks:
        made += lines[done : block.line]
        done = block.end
        if block.language == "console" and block.runs:
            made += [*_console(page, block), "```"]
            continue
        made += [*block.text, "```"]
        if block.language == "python" and block.runs:
            if output := _python(page, block, names):
                made += ["```text", *output, "```"]
        elif block.rest and block.rest != "no-run":
            path = Path(block.rest)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(block.text) + "\n", encoding="utf-8")
    return "\n".join([*made, *lines[done:]]) + "\n"


def _python(page: str, block: Block, names: dict[str, Any]) -> list[str]:
    from adapterdock import AdapterdockError

    code = compile("\n" * block.line + "\n".join(block.text), page, "exec")
    with _captured() as out:
        try:
            exec(code, names)
        except AdapterdockError as error:
            print(f"{type(error).__name__}: {error}")
        except BaseException as error:
            said = "".join(traceback.format_exception(error))
            raise PageError(f"{page}:{block.line}: {said}") from None
    return normal(out.getvalue())


def _console(page: str, block: Block) -> Iterator[str]:
    """The block with the outputs of its commands; a line that begins with ``>`` goes on."""
    if block.text and not block.text[0].startswith("$ "):
        raise PageError(f"{page}:{block.line}: a console block begins with a command, after `$ `")
    commands = [line for line in block.text if line.startswith(("$ ", "> "))]
    while commands:
        shown = [commands.pop(0)]
        while commands and commands[0].startswith("> "):
            shown.append(commands.pop(0))
        yield from shown
        command = " ".join(line[2:].removesuffix("\\") for line in shown)
        if command.split(" ")[0] not in COMMANDS:
            said = f"only {', '.join(COMMANDS)} are run; say no-run, and show no output"
            raise PageError(f"{page}:{block.line}: {said}")
        yield from normal(_command(command))


def _command(text: str) -> str:
    """What a command prints, to both streams. Ours runs in this process, which has torch."""
    for real, shown in _SHOWN.items():
        text = text.replace(shown, real)
    words = shlex.split(text, comments=True)
    if words[0] == "export":
        os.environ.update(word.split("=", 1) for word in words[1:])
        return ""
    if words[0] != "adapterdock":
        done = subprocess.run(words, stdout=-1, stderr=-2, encoding="utf-8", check=False)
        return done.stdout
    from adapterdock.cli.main import main

    said, sys.argv = sys.argv, words
    with _captured() as out, contextlib.redirect_stderr(out), contextlib.suppress(SystemExit):
        main()
    sys.argv = said
    # what a terminal takes away again when it is done
    return "".join(x for x in out.getvalue().splitlines(True) if not x.endswith(" ...\n"))


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    """What is printed, warned of and logged by adapterdock, in its order."""

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print(record.getMessage())

    out, log, said = io.StringIO(), logging.getLogger("adapterdock"), Said(logging.WARNING)
    log.addHandler(said)
    with warnings.catch_warnings(), contextlib.redirect_stdout(out):
        warnings.simplefilter("always")
        warnings.showwarning = _show
        try:
            yield out
        finally:
            log.removeHandler(said)


def _show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if category.__module__.startswith("adapterdock."):  # others' are theirs to explain
        print(f"{category.__name__}: {message}")


def normal(text: str) -> list[str]:
    """Lines without what is another on another machine: where the folder and the cache are, and
    spaces at ends."""
    text = text.replace(str(Path.cwd()), "~/desk")
    for real, shown in _SHOWN.items():
        text = text.replace(real, shown)
    if cache := os.environ.get("ADAPTERDOCK_CACHE"):
        text = text.replace(cache, "~/.cache/adapterdock")
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    if any(line.startswith("```") for line in lines):
        raise PageError("what was printed has the line of a fence in it")
    if any("error AD990 " in line for line in lines):
        raise PageError(f"what was printed is a bug: {lines}")
    return lines


def run(path: Path) -> tuple[str, str]:
    """A page as it would be printed now, or an empty text, and what is wrong."""
    page = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    text = path.read_text(encoding="utf-8")
    try:
        if not is_run(page, text):
            return text, ""
        _silence()
        if path.name in IN_CHECKOUT:
            os.chdir(ROOT)
            return printed(page, text), ""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
            folder = Path(place).resolve() / "desk"
            _prepare(folder, Path(place) / "cache", quickstart=path.name in ON_QUICKSTART)
            import servers  # beside this file

            with servers.serving(path.name, Path(place), folder) as shown:
                _SHOWN.update(shown)
                return printed(page, text), ""
    except PageError as error:
        return "", str(error)
    finally:
        _SHOWN.clear()
        os.chdir(ROOT)


def _silence() -> None:
    """Libraries that say nothing, and one thread."""
    import torch
    import transformers

    transformers.logging.set_verbosity(logging.CRITICAL)
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)


def _prepare(folder: Path, cache: Path, *, quickstart: bool) -> None:
    """The example or the quickstart's adapters, in the current folder, and a cache of its own."""
    sys.path.insert(0, str(Path(__file__).parent))
    import example
    import still

    still.hold_still()
    os.environ["ADAPTERDOCK_CACHE"] = str(cache)
    os.environ["ADAPTERDOCK_CONFIG"] = str(cache.with_name("config.toml"))  # nobody's
    folder.mkdir(parents=True)
    os.chdir(folder)
    if quickstart:
        for name in ("pirate", "devil", "salesman"):
            shutil.copytree(ROOT / "manifests" / "quickstart" / name, name)
    else:
        example.make(folder)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Run the pages and put in what they print.")
    pages_help = "default: every page in docs/, and README.md"
    parser.add_argument("pages", nargs="*", type=Path, help=pages_help)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    options = parser.parse_args(arguments)
    every = [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"]
    not_usual = (*GENERATED, *IN_CHECKOUT, *ON_QUICKSTART)
    usual = [page for page in every if page.name not in not_usual]
    paths = [page.resolve() for page in options.pages or usual]
    os.environ.update(NO_COLOR="1", HF_HUB_OFFLINE="1")  # read when the libraries are imported
    for name in [name for name in os.environ if name.startswith("ADAPTERDOCK_")]:
        del os.environ[name]
    method = "fork" if sys.platform == "linux" else "spawn"
    if method == "fork":  # what every page needs is there already; elsewhere a fork is not safe
        import example  # noqa: F401
        from transformers import Trainer, pipeline  # noqa: F401
    with multiprocessing.get_context(method).Pool(
        min(len(paths), os.cpu_count() or 1), maxtasksperchild=1
    ) as pool:
        results = pool.map(run, paths, chunksize=1)
        pool.close()
        pool.join()  # else they are ended by a signal, which our commands handle
    bad = 0
    for path, (text, problem) in zip(paths, results, strict=True):
        before = path.read_text(encoding="utf-8")
        if problem:
            bad += 1
            print(problem, file=sys.stderr)
        elif text != before and options.check:
            bad += 1
            lines = (before.splitlines(), text.splitlines())
            print(*difflib.unified_diff(*lines, f"{path.name} as it is", "printed now"), sep="\n")
        elif text != before:
            path.write_text(text, encoding="utf-8", newline="\n")
            print(f"wrote {path}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
