"""A fleet: every replica asked at once, again until all serve what the lock says."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ...manifests.lockfile import Lock
from ...registry.files.pool import each
from .address import Address, Replica, replicas_of
from .answers import Asked, NoAnswer
from .asking import Line, ask_replica
from .compare import ReplicaRow, compare, exit_status
from .probe import PROMPTS, Probed, findings_of, probe

WORKERS = 64
"""Replicas that are asked at the same time."""
PAUSE = 2.0
"""Seconds between two rounds."""

OnRound = Callable[[Sequence[ReplicaRow]], None]


@dataclass(frozen=True)
class Round:
    """All replicas, asked once."""

    replicas: tuple[Replica, ...]
    rows: tuple[ReplicaRow, ...]


def ask_fleet(lock: Lock, addresses: Sequence[Address], line: Line) -> Round:
    """Ask every replica at these addresses. A replica that two addresses name is asked once; a
    name without an address is a row."""
    asked = [
        one for group in each(partial(_replicas, line=line), addresses, WORKERS) for one in group
    ]
    unique = list({_identity(one): one for one in asked}.values())
    answers = each(
        lambda one: one if isinstance(one, Asked) else ask_replica(one, line), unique, WORKERS
    )
    return Round(tuple(one.replica for one in answers), compare(lock, answers))


def wait_for_fleet(
    lock: Lock,
    addresses: Sequence[Address],
    line: Line,
    seconds: float = 0.0,
    on_round: OnRound | None = None,
) -> Round:
    """Ask until every replica serves what the lock says, for at most ``seconds``; the last round.

    Names are resolved in each round, so that new replicas are waited for too.
    """
    until = time.monotonic() + seconds
    while True:
        result = ask_fleet(lock, addresses, line)
        left = until - time.monotonic()
        if exit_status(result.rows) == 0 or left <= 0:
            return result
        if on_round is not None:
            on_round(result.rows)
        time.sleep(min(PAUSE, left))


def probe_fleet(
    fleet: Round, line: Line, prompts: Sequence[str] = PROMPTS
) -> tuple[ReplicaRow, ...]:
    """The rows, with what a probe of the adapters that are served adds."""

    def act(pair: tuple[Replica, ReplicaRow]) -> Probed | None:
        replica, row = pair
        served = [one.name for one in row.adapters if one.state in ("same", "differs", "unknown")]
        if row.asked is None or not served:
            return None
        known = {one.name for one in row.adapters}
        return probe(replica, served, line, prompts, adapters=known)

    pairs = list(zip(fleet.replicas, fleet.rows, strict=True))
    return tuple(
        row if probed is None else with_probe(row, probed)
        for row, probed in zip(fleet.rows, each(act, pairs, WORKERS), strict=True)
    )


def with_probe(row: ReplicaRow, probed: Probed) -> ReplicaRow:
    """The row after a probe: what does not act, differs."""
    acting = tuple(replace(one, acts=probed.differs.get(one.name)) for one in row.adapters)
    state = row.state
    if not all(probed.differs.values()):
        state = "differs"
    elif probed.stopped is not None and state == "same":
        state = "unknown"
    findings = (*row.findings, *findings_of(row, probed))
    return replace(row, state=state, adapters=acting, findings=findings)


def _replicas(address: Address, line: Line) -> list[Replica | Asked]:
    try:
        return [*replicas_of(address, line.seconds)]
    except OSError as error:
        reason = (
            f"the name {address.host} has no address ({error.strerror or type(error).__name__})"
        )
        return [Asked(Replica(address), NoAnswer(reason))]


def _identity(one: Replica | Asked) -> tuple[object, ...]:
    replica = one if isinstance(one, Replica) else one.replica
    address = replica.address
    return replica.ip or address.host, address.port, address.tls, address.prefix, address.host
