"""How long it takes to find an adapter: resolving a name, and searching, in registries of many
versions on this disk. Also runs by itself: ``python benchmarks/find.py``."""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from statistics import median

from adapterdock.manifests.language.selector import Selector, parse_selector
from adapterdock.registry.catalogue.catalogue import Catalogue, open_catalogue
from adapterdock.registry.catalogue.search_index import Query
from adapterdock.registry.search import search
from adapterdock.registry.storages.local_storage import LocalStorage
from adapterdock.registry.store.store import Store
from table import Row
from timing import Times, timed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.many_versions import many_versions

SIZES = (10, 1_000, 100_000)
ROUNDS = 20
NAME = "sales/refunds-en-n0"
QUERY = Query("refunds", tags=("chat",), limit=50)


def find_rounds(times: Times, folder: Path) -> None:
    """Resolve and search in a registry of each size: the first search has an empty cache."""
    for size in SIZES:
        print(f"a registry of {size:,} versions ...", file=sys.stderr)
        place = folder / f"registry-{size}"
        many_versions(place, size)
        version, range_ = _selector("1.1.0"), _selector("^1.0")
        for number in range(ROUNDS):
            timed(times, f"resolve version {size}", partial(_resolve, place, version))
            timed(times, f"resolve range {size}", partial(_resolve, place, range_))
            if number < 3:
                store = Store(folder / f"cache-{size}-{number}")
                timed(times, f"first search {size}", partial(_search, place, store))
            timed(times, f"search {size}", partial(_search, place, store))


def rows_of_find(times: Times) -> list[Row]:
    """The table's rows."""
    rows: list[Row] = []
    for what, shown, goal, largest in (
        ("resolve version", "resolve `NAME@1.1.0`", "under 50 ms", ""),
        ("resolve range", "resolve `NAME@^1.0`", "under 50 ms", ""),
        ("first search", "search, first (empty cache)", "", "under 5 s"),
        ("search", "search, again", "", "under 0.2 s"),
    ):
        smallest = median(times[f"{what} {SIZES[0]}"])
        for size in SIZES:
            taken = median(times[f"{what} {size}"])
            beside = "" if size == SIZES[0] else f"{taken / smallest:.1f}x that of {SIZES[0]}"
            held = largest if size == SIZES[-1] and largest else goal
            rows.append(
                Row(f"{shown}, {size:,} published versions", f"{1000 * taken:.1f} ms", beside, held)
            )
    return rows


def _open(place: Path) -> Catalogue:
    return open_catalogue(LocalStorage(place))


def _resolve(place: Path, selector: Selector) -> None:
    assert _open(place).resolve(NAME, selector).entry.name == NAME


def _search(place: Path, store: Store) -> None:
    assert search(_open(place), QUERY, store).total >= 0


def _selector(text: str) -> Selector:
    selector = parse_selector(text)
    assert selector is not None
    return selector


def main() -> None:
    times: Times = defaultdict(list)
    with tempfile.TemporaryDirectory() as temporary:
        find_rounds(times, Path(temporary))
        print("| what | median | beside | goal |\n|---|---|---|---|")
        for row in rows_of_find(times):
            print(f"| {row.what} | {row.value} | {row.ratio} | {row.goal} |", flush=True)


if __name__ == "__main__":
    main()
