"""The folder of an export, with one adapter after another taking its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.registry.files import exchange as exchange_module
from adapterdock.serving.export import out_folder, record
from adapterdock.serving.export.out_folder import Outcome, opened, written_files
from adapterdock.serving.export.record import Exported, Locked, Origin, read_record
from support.killed import killed_at_every_line
from support.project import files_of

DIGEST = "sha256:" + "0" * 64
ORIGIN, LOCKED = Origin(location="adapters.yaml", sha256=DIGEST), Locked(sha256=DIGEST)


def put(out: Path, contents: dict[str, str], *, keep: bool = False) -> Outcome:
    """Export adapters that are two files with this content each."""

    def write(name: str, text: str, folder: Path) -> Exported:
        (folder / name).mkdir()
        for file in ("a", "b"):
            (folder / name / file).write_text(f"{text} {file}")
        return Exported(format="peft", digest=DIGEST, files=written_files(folder))

    with opened(out) as folder:
        folder.require_free({*contents})
        for name, text in contents.items():
            folder.stage(name, lambda place, name=name, text=text: write(name, text, place))
        return folder.publish(ORIGIN, LOCKED, keep=keep)


def shown(out: Path) -> dict[str, set[str]]:
    """By adapter, the texts in its files."""
    found: dict[str, set[str]] = {}
    for path, content in files_of(out).items():
        if "/" in path:
            found.setdefault(path.split("/")[0], set()).add(content.decode().split()[0])
    return found


def test_a_killed_export_leaves_each_adapter_old_or_new_and_the_next_one_completes_it(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    old, new = (
        {"one": "old", "two": "old", "gone": "old"},
        {"one": "new", "two": "new", "more": "new"},
    )
    killed = 0
    for _ in killed_at_every_line(
        lambda: put(out, new), (out_folder, record, exchange_module), lambda: put(out, old), step=23
    ):
        killed += 1
        there = shown(out)
        assert all(len(texts) == 1 for texts in there.values())
        assert all(len([*(out / name).iterdir()]) == 2 for name in there)
        assert {"one", "two"} <= there.keys()
        said = read_record(out)
        assert said is not None
        assert there.keys() <= said.own().keys()
        put(out, new)
        assert shown(out) == {name: {"new"} for name in new}
        assert not read_record(out).replacing  # type: ignore[union-attr]
        assert sorted(p.name for p in out.iterdir()) == sorted([*new, record.RECORD])
    assert killed > 10


def test_after_a_killed_export_only_leaves_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    put(out, {"one": "old", "two": "old"})

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        count = iter([None, stop])
        write = out_folder.write_record
        patch.setattr(out_folder, "write_record", lambda *a: (next(count) or write)(*a))
        with pytest.raises(KeyboardInterrupt):
            put(out, {"one": "new", "two": "new"})
    assert shown(out) == {"one": {"new"}, "two": {"new"}}
    put(out, {"one": "newer"}, keep=True)
    said = read_record(out)
    assert said is not None
    assert shown(out) == {"one": {"newer"}, "two": {"new"}}
    files = {path: file for row in said.adapters.values() for path, file in row.files.items()}
    assert files == {p: f for p, f in written_files(out).items() if p != record.RECORD}


def test_without_an_atomic_exchange_folders_take_their_places_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "exchange", lambda left, right: False)
    put(tmp_path / "out", {"one": "old"})
    put(tmp_path / "out", {"one": "new"})
    assert shown(tmp_path / "out") == {"one": {"new"}}


def test_two_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    with opened(tmp_path / "out"), pytest.raises(UsageError) as caught, opened(tmp_path / "out"):
        pass
    assert caught.value.code == "AD987"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"schema": "adapterdock.export/9"}',
        "\x00",
        '{"schema": "adapterdock.export/1", "manifest": 3}',
    ],
)
def test_an_invalid_record_is_refused(text: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, {"one": "old"})
    (out / record.RECORD).write_text(text)
    with pytest.raises(UsageError) as caught:
        put(out, {"one": "new"})
    assert caught.value.code == "AD982"
    assert shown(out) == {"one": {"old"}}


@pytest.mark.parametrize(
    "path",
    ["../mine", "/mine", "one/../../mine", ".hidden/a", "adapterdock-export.json", "one\\a/"],
)
def test_a_record_that_names_other_places_is_refused(path: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, {"one": "old"})
    said = json.loads((out / record.RECORD).read_text())
    row = said["adapters"]["one"]
    said["adapters"]["two"] = {**row, "files": {path: {"size": 1, "sha256": DIGEST}}}
    (out / record.RECORD).write_text(json.dumps(said))
    with pytest.raises(UsageError) as caught:
        put(out, {"one": "new"})
    assert caught.value.code == "AD982"


def test_a_full_disk_leaves_the_old_adapters(tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, {"one": "old"})
    before = files_of(out)

    def full(folder: Path) -> Exported:
        raise OSError(28, "No space left on device")

    with pytest.raises(UsageError) as caught, opened(out) as folder:
        folder.stage("one", full)
    assert caught.value.code == "AD986"
    assert files_of(out) == before
    assert sorted(p.name for p in out.iterdir()) == [record.RECORD, "one"]


def test_a_damaged_file_of_the_export_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    put(out, {"one": "old"})
    (out / "one" / "a").chmod(0o644)
    (out / "one" / "a").write_text("damaged")
    assert put(out, {"one": "old"}).written == ("one",)
    assert shown(out) == {"one": {"old"}}
