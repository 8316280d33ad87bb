"""CONTRIBUTING.md shows the rooms, the sub-rooms and the walk of ``load`` as they are."""

from __future__ import annotations

import re
from pathlib import Path

import adapterdock
from test_layers import ROOMS, SUBROOMS

ROOT = Path(adapterdock.__file__).parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def table() -> dict[str, list[str]]:
    """By room, its sub-rooms, in the order of the table."""
    found: dict[str, list[str]] = {}
    room = ""
    rows = PAGE.partition("| room | sub-room |")[2].partition("\n\n")[0]
    for line in rows.splitlines():
        cells = [cell.strip().strip("`").removesuffix("/") for cell in line.strip("|").split("|")]
        if len(cells) != 3 or not any(cells[:2]) or set(cells[0]) == {"-"}:
            continue
        room = cells[0] or room
        found.setdefault(room, [])
        if cells[1]:
            found[room].append(cells[1])
    return found


def test_the_table_names_the_rooms_and_subrooms_of_the_layers_in_their_order() -> None:
    shown = table()
    assert list(shown) == [room for room in ROOMS if (ROOT / room).exists()]
    assert {room: tuple(subs) for room, subs in shown.items() if subs} == dict(SUBROOMS)


def test_every_file_in_the_picture_of_load_is_there() -> None:
    picture = PAGE.partition("```mermaid")[2].partition("```")[0]
    boxes = re.findall(r'"([^"]+)"', picture)
    assert len(boxes) == 8
    for box in boxes:
        *_, files = box.split("<br/>")
        folder = Path()
        for name in files.split(", "):
            folder = Path(name).parent if "/" in name.rstrip("/") else folder
            file = Path(name) if "/" in name else folder / name
            assert (ROOT / file).exists(), name
