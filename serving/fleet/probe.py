"""Whether each adapter of a replica acts: its answers beside those of the base."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ...manifests.findings import serving as codes
from ...manifests.findings.finding import Finding, Where
from ...registry.files.wording import some
from .address import Replica
from .answers import BadAnswerError, read_completion
from .asking import Line, list_models
from .compare import ReplicaRow
from .http import NotAnsweredError, ask

PROMPTS = (
    "Question: What can you do for me?\nAnswer:",
    "Once upon a time",
    "Write one sentence about the sea.\n",
)
"""Where none is given. The first at which the answers differ is enough."""
TOKENS = 32
"""Of each answer."""
PROBE_SECONDS = 60.0
"""For one answer."""
REPLICA_SECONDS = 600.0
"""For all answers of one replica."""


@dataclass(frozen=True)
class Probed:
    """What the probe of one replica found.

    Args:
        differs: By adapter, whether an answer of it differs from the base's. Adapters that were
            not probed are absent.
        empty: Adapters whose answers are all empty.
        stopped: Why not all were probed.
    """

    differs: Mapping[str, bool]
    empty: frozenset[str] = frozenset()
    stopped: str | None = None


def probe(
    replica: Replica,
    names: Sequence[str],
    line: Line,
    prompts: Sequence[str] = PROMPTS,
    *,
    adapters: Collection[str] = (),
) -> Probed:
    """Ask the base and each of ``names`` the prompts, with temperature 0.

    The base is a model without a parent that is none of ``names`` and no other of ``adapters``:
    not every server says what the parent of an adapter is.
    """
    differs: dict[str, bool] = {}
    empty: set[str] = set()
    until = time.monotonic() + REPLICA_SECONDS
    of_base: dict[str, str] = {}

    def answer(model: str, prompt: str) -> str:
        left = until - time.monotonic()
        if left <= 0:
            raise NotAnsweredError(f"probing it took more than {REPLICA_SECONDS:g} seconds")
        return _complete(replica, model, prompt, line, min(left, PROBE_SECONDS))

    try:
        bases = list_models(replica, line).bases - {*names, *adapters}
        if not bases:
            raise NotAnsweredError("its list of models has no base to compare with")
        base = min(bases)
        for name in names:
            texts: list[str] = []
            for prompt in prompts:
                if prompt not in of_base:
                    of_base[prompt] = answer(base, prompt)
                texts.append(answer(name, prompt))
                if acts(of_base[prompt], texts[-1]):
                    break
            differs[name] = acts(of_base[prompts[len(texts) - 1]], texts[-1])
            if not any(text.strip() for text in texts):
                empty.add(name)
    except (NotAnsweredError, BadAnswerError) as error:
        return Probed(differs, frozenset(empty), line.hide(str(error)))
    return Probed(differs, frozenset(empty))


def acts(base: str, adapter: str) -> bool:
    """Whether an answer shows that the adapter acts. An empty one does not: values that are not
    finite give one too."""
    return bool(adapter.strip()) and adapter != base


def findings_of(row: ReplicaRow, probed: Probed) -> tuple[Finding, ...]:
    """What the probe of a replica adds to its findings."""
    where = Where(file=row.replica)
    findings: list[Finding] = []
    silent = sorted(name for name in probed.empty)
    alike = sorted(name for name, one in probed.differs.items() if not one and name not in silent)
    if alike:
        findings.append(
            codes.ADAPTER_WITHOUT_EFFECT.finding(
                "Adapters answer exactly as the base", where, found=some(alike, 10)
            )
        )
    if silent:
        findings.append(
            codes.ADAPTER_WITHOUT_EFFECT.finding(
                "Adapters answer with nothing",
                where,
                found=some(silent, 10),
                expected="text that differs from the base's",
            )
        )
    if probed.stopped is not None:
        findings.append(
            codes.REPLICA_UNKNOWN.finding(f"Cannot probe the replica: {probed.stopped}", where)
        )
    return tuple(findings)


def _complete(replica: Replica, model: str, prompt: str, line: Line, seconds: float) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    answer = ask(replica, "/v1/completions", key=line.key, body=body, seconds=seconds)
    if answer.status != 200:
        raise NotAnsweredError(
            f"it answered HTTP {answer.status} for a completion of {model[:60]!r}"
        )
    return read_completion(answer.body, line.hide)
