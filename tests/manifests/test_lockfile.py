"""The lock's text: written the same each time, read back strictly."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from adapterdock.manifests.findings.errors import LockError
from adapterdock.manifests.language.schema import Fingerprint, WeightDigests
from adapterdock.manifests.lockfile import (
    Lock,
    LockedAdapter,
    LockedBase,
    LockedComposition,
    LockedFile,
    lock_path,
    read_lock,
    render_lock,
    write_lock,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DIGEST = "sha256:" + "0123456789abcdef" * 4
PRINT = "v1:" + DIGEST


def make(**changes: Any) -> Lock:
    file = LockedFile(size=3, sha256=DIGEST)
    values: dict[str, Any] = {
        "version": 1,
        "generator": "adapterdock 0.1.0",
        "inputs": DIGEST,
        "overrides": {"dtype": "float32"},
        "base": LockedBase(
            declared="hf://org/base@main",
            source="hf://org/base@" + "1" * 40,
            revision="1" * 40,
            files={"model.safetensors": LockedFile(size=9, version="etag:no")},
            fingerprint=Fingerprint(structure=PRINT, weights=WeightDigests(float32=PRINT)),
            samples="samples/1:QlpoOTFBWSZTWQntoOg",
        ),
        "adapters": {
            "tone": LockedAdapter(
                declared="./tone",
                source="./tone",
                digest=DIGEST,
                files={"adapter_config.json": file},
                method="LORA",
                rank=4,
                targets=("q_proj", "v_proj"),
            ),
            "draft": LockedAdapter(
                declared="./draft", source="./draft", method="LORA", rank=4, mutable=True
            ),
        },
        "compositions": {"both": LockedComposition(combine="sum", digest=DIGEST)},
        "accepted": ("AD257",),
    }
    return Lock(**{**values, **changes})


def refused(path: Path) -> tuple[str, ...]:
    with pytest.raises(LockError) as caught:
        read_lock(path)
    assert all(str(path) == finding.where.file for finding in caught.value.findings)
    return tuple(finding.code for finding in caught.value.findings)


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    write_lock(make(), tmp_path / "a.lock")
    assert read_lock(tmp_path / "a.lock") == make()


words = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=30)
odd = ["no", "1.0", "2.10", "1e5", "null", "~", "on", "0x1", "1_000", "a: b", "# c", "- d", " e "]
plain = words | st.sampled_from(odd)
plain |= st.from_regex(r"[0-9a-f]{40}", fullmatch=True) | st.from_regex(
    r"[0-9]{40}", fullmatch=True
)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
names = st.from_regex(r"[a-w][a-z0-9._-]{0,20}", fullmatch=True)
files = st.dictionaries(
    words.filter(lambda t: t != "<<" and not t.startswith("x-")),
    st.builds(
        LockedFile,
        size=st.integers(0, 1 << 60),
        sha256=st.none() | digests,
        version=st.none() | plain,
    ),
    max_size=3,
)
adapters = st.builds(
    LockedAdapter,
    declared=plain,
    options=st.none() | digests,
    source=plain,
    revision=st.none() | plain,
    digest=st.none() | digests,
    files=files,
    method=plain,
    rank=st.integers(0, 4096),
    targets=st.lists(plain, max_size=3).map(tuple),
    mutable=st.booleans(),
)
bases = st.builds(LockedBase, declared=plain, source=plain, revision=st.none() | plain, files=files)
compositions = st.builds(LockedComposition, combine=plain, digest=st.none() | digests)
locks = st.builds(
    Lock,
    version=st.just(1),
    generator=plain,
    inputs=digests,
    overrides=st.dictionaries(st.sampled_from(["model", "dtype"]), plain),
    base=st.none() | bases,
    adapters=st.dictionaries(names, adapters, max_size=3),
    compositions=st.dictionaries(names, compositions, max_size=2),
    accepted=st.lists(plain, max_size=2).map(tuple),
)


@given(lock=locks)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_lock_is_read_back_as_it_was_written(
    lock: Lock, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.lock"
    path.write_text(render_lock(lock), encoding="utf-8")
    assert read_lock(path) == lock


@given(cut=st.integers(0, len(render_lock(make()).encode()) - 2))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_lock_that_was_cut_off_anywhere_is_refused(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.lock"
    path.write_bytes(render_lock(make()).encode()[:cut])
    assert set(refused(path)) <= {"AD501"}


def test_the_text_does_not_depend_on_the_order_of_entries(tmp_path: Path) -> None:
    lock = make()
    turned = make(adapters=dict(reversed(lock.adapters.items())))
    assert render_lock(turned) == render_lock(lock)
    assert render_lock(lock).splitlines()[-1] == "version: 1"  # so that a cut is noticed


def test_the_text_has_no_default_values(tmp_path: Path) -> None:
    text = render_lock(make(overrides={}, accepted=(), compositions={}, base=None))
    for word in ("null", "{}", "[]", "mutable: false", "overrides", "accepted", "base"):
        assert word not in text


def test_a_lock_of_a_later_version_is_refused_with_its_own_code(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    path.write_text(render_lock(make()).replace("version: 1\n", "version: 2\nnew: thing\n"))
    assert refused(path) == ("AD502",)


CONFLICT = f"<<<<<<< HEAD\ninputs: {DIGEST}\n=======\ninputs: {DIGEST}\n>>>>>>> branch\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (f"inputs: {DIGEST}\n", ""),
        (f"inputs: {DIGEST}\n", "inputs: sha256:12\n"),
        ("version: 1\n", ""),
        ("version: 1\n", "version: one\n"),
        ("rank: 4", "rank: four"),
        ("rank: 4", "rank: 4\n    colour: red"),
        ("size: 9", "size: -9"),
        ("size: 9", "size: 9\n      size: 8"),
        ("  tone:\n", "  To ne:\n"),
        (DIGEST, DIGEST.upper()),
        ("adapters:\n", "- adapters\n"),
        ("version: 1\n", "version: 1\n---\nversion: 1\n"),
    ],
)
def test_a_lock_that_was_edited_by_hand_is_refused(old: str, new: str, tmp_path: Path) -> None:
    text = render_lock(make())
    assert old in text
    (tmp_path / "a.lock").write_text(text.replace(old, new))
    assert set(refused(tmp_path / "a.lock")) == {"AD501"}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("size: ", "size: big", "expected: a whole number"),
        ("size: ", "size: -", "expected: at least 0"),
        ("version: 1\n", "version: 1\nextra: 2\n", "unknown key 'extra'"),
        ("generator:", "generated:", "missing key 'generator'"),
        ("rank: ", "rank: [1] #", "expected: a whole number"),
        ("inputs: sha256:", "inputs: sha1:", "expected: sha256: followed by 64 digits"),
    ],
)
def test_what_is_wrong_with_a_lock_is_said_in_plain_words(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    text = render_lock(make())
    assert old in text
    (tmp_path / "a.lock").write_text(text.replace(old, new))
    with pytest.raises(LockError) as caught:
        read_lock(tmp_path / "a.lock")
    assert said in str(caught.value)
    for word in ("Input should", "Extra inputs", "Field required", "valid integer", "pydantic"):
        assert word not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"[]", b"a", b"\xff\xfe", b"%PDF", b"\0" * 100])
def test_a_file_that_is_not_a_lock_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_bytes(content)
    assert refused(tmp_path / "a.lock") == ("AD501",)


def test_a_folder_in_the_lock_s_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.lock").mkdir()
    assert refused(tmp_path / "a.lock") == ("AD501",)


def test_a_missing_lock_is_none(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "a.lock") is None


def test_a_code_that_was_accepted_under_an_earlier_id_is_read_as_the_code_of_today(
    tmp_path: Path,
) -> None:
    path = tmp_path / "adapters.lock"
    text = render_lock(make(accepted=("AD257", "AD342")))
    path.write_text(text.replace("AD342", "AD710"), encoding="utf-8")
    lock = read_lock(path)
    assert lock is not None
    assert lock.accepted == ("AD257", "AD342")
    assert make(accepted=("AD710", "AD342")).accepted == ("AD342",)
    assert make(accepted=("AD000",)).accepted == ("AD000",)


def test_the_lock_of_a_large_catalogue_is_read(tmp_path: Path) -> None:
    row = make().adapters["tone"]
    lock = make(adapters={f"a{n}": row for n in range(4000)})
    path = tmp_path / "a.lock"
    path.write_text(_fast(lock))
    assert path.stat().st_size > 1 << 20
    assert read_lock(path) == lock


def _fast(lock: Lock) -> str:
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(lock.model_dump(mode="json", exclude_defaults=True), Dumper=dumper)


def test_a_lock_is_written_completely_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.lock"
    write_lock(make(), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LockError) as caught:
        write_lock(make(accepted=()), path)
    assert caught.value.code == "AD503"
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"a.lock", "a.lock.samples"}


def test_a_lock_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(LockError) as caught:
        write_lock(make(), tmp_path / "nowhere" / "a.lock")
    assert (caught.value.code, caught.value.findings[0].found) == (
        "AD503",
        "No such file or directory",
    )


def test_others_may_read_a_lock(tmp_path: Path) -> None:
    write_lock(make(), tmp_path / "a.lock")
    assert stat.S_IMODE((tmp_path / "a.lock").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("manifest", "lock"),
    [
        ("adapters.yaml", "adapters.lock"),
        ("dir/team.v2.yml", "dir/team.v2.lock"),
        ("team.v2", "team.v2.lock"),
        ("adapters", "adapters.lock"),
        ("odd.lock", "odd.lock.lock"),
    ],
)
def test_a_lock_is_beside_its_manifest(manifest: str, lock: str) -> None:
    assert lock_path(manifest) == Path(lock)
