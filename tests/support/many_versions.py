"""A registry of many versions on this disk, written in a moment: for benches and tests.

Its files are those that publishing writes. Contents (blobs) are left out: a search needs none.
"""

from __future__ import annotations

import random
from pathlib import Path

from adapterdock.registry.catalogue.catalogue import Catalogue
from adapterdock.registry.catalogue.publish import entry_bytes
from adapterdock.registry.files.digests import sha256_bytes
from adapterdock.registry.records.entry import read_entry
from adapterdock.registry.records.series import canonical, file_of
from adapterdock.registry.records.snapshot import encode_snapshot, snapshot_file
from adapterdock.registry.records.thin_row import ThinRow, row_of
from adapterdock.registry.storages.layout import JOURNAL, SNAPSHOTS, entry_file

from .published import entry, registry

_TEAMS = ("sales", "support", "legal", "finance", "research", "ops")
_TASKS = ("refunds", "tone", "summaries", "triage", "claims", "routing", "extraction", "grading")
_LANGUAGES = ("en", "de", "fr", "es", "ja", "pt", "it", "pl")
_BASES = 50
VERSIONS = 5
"""Of one name."""


def many_versions(folder: Path, count: int, *, snapshot: bool = True) -> Catalogue:
    """A registry of ``count`` versions.

    Args:
        folder: Where.
        count: Of versions.
        snapshot: Whether there is one of all of them.
    """
    made = registry(folder, "Many")
    chance = random.Random(0)
    rows: list[ThinRow] = []
    previous: str | None = None
    (folder / JOURNAL).mkdir()
    for number in range(1, count + 1):
        raw = _entry(number - 1, chance)
        row = row_of(read_entry(raw, *_key(number - 1)), sha256_bytes(raw))
        path = folder / entry_file(*row.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        rows.append(row)
        line = canonical(
            {
                "what": "publish",
                "name": row.name,
                "version": row.version,
                "entry": row.entry,
                "at": row.created,
                "nonce": f"{chance.getrandbits(64):016x}",
                "previous": previous,
            }
        )
        previous = sha256_bytes(line)
        (folder / JOURNAL / file_of(number)).write_bytes(line)
    if snapshot:
        (folder / SNAPSHOTS).mkdir()
        raw = encode_snapshot(made.id, count, rows)
        (folder / SNAPSHOTS / snapshot_file(count)).write_bytes(raw)
    return made


def _key(number: int) -> tuple[str, str]:
    name, version = divmod(number, VERSIONS)
    team = _TEAMS[name % len(_TEAMS)]
    task = _TASKS[name // len(_TEAMS) % len(_TASKS)]
    language = _LANGUAGES[name // (len(_TEAMS) * len(_TASKS)) % len(_LANGUAGES)]
    return f"{team}/{task}-{language}-n{name}", f"1.{version}.0"


def _entry(number: int, chance: random.Random) -> bytes:
    name, version = _key(number)
    base = number // VERSIONS % _BASES
    digests = dict.fromkeys(("structure", "config", "tokenizer"), f"v1:sha256:{base:064x}")
    made = entry(
        version,
        (f"sha256:{chance.getrandbits(256):064x}",),
        name=name,
        created=f"2026-{1 + number % 12:02}-{1 + number % 28:02}T06:00:00Z",
        base={
            "source": f"hf://org/base-{base}",
            "aliases": (f"org/base-{base}",),
            "fingerprints": (
                {
                    "architecture": "LlamaForCausalLM",
                    "hidden_size": 4096,
                    **digests,
                    "weights": {"float32": f"v1:sha256:{base + 1:064x}"},
                },
            ),
        },
        licence=chance.choice(("Apache-2.0", "MIT", "CC-BY-4.0")),
        owner=f"person{number % 200}@example.com",
        description=f"Answers questions of {name.partition('/')[0]}, trained on set {number % 977}",
        tags=tuple(chance.sample(("production", "draft", "chat", "batch", "small"), 2)),
        metrics={"accuracy": round(chance.random(), 4)},
    )
    return entry_bytes(made)
