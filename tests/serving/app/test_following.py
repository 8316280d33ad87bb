"""The manifest is followed while requests are answered."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import yaml
from adapterdock.registry.base import tokenizer
from adapterdock.serving.app.following import Follower
from adapterdock.serving.app.loaded import load_served
from adapterdock.serving.app.settings import Settings
from support.peft_adapters import peft_saves, tiny_llama
from support.served import ask, eventually, revision, served, write_served
from support.team import Team

TARGETS = {"target_modules": ["q_proj", "down_proj"]}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = write_served(tmp_path, tiny_llama(), {"a": TARGETS, "b": TARGETS})
    adapterdock.lock(path)
    return path


@pytest.fixture
def follower(manifest: Path) -> Iterator[Follower]:
    follower = Follower(load_served(Settings(manifest)), period=0.1)
    yield follower
    follower.close()


def change(manifest: Path, edit: Callable[[dict[str, dict[str, object]]], object]) -> None:
    data = yaml.safe_load(manifest.read_text())
    edit(data["adapters"])
    manifest.write_text(yaml.safe_dump(data, sort_keys=False))


def test_a_look_without_a_change_changes_nothing(follower: Follower) -> None:
    before = follower.standing
    assert follower.look() == "unchanged"
    assert follower.standing.adapters == before.adapters
    assert follower.standing.checked >= before.checked


def test_a_locked_change_is_served_and_keeps_since_of_the_others(
    follower: Follower, manifest: Path
) -> None:
    before = follower.standing
    peft_saves(tiny_llama(), manifest.parent / "b2", seed=40, **TARGETS)  # type: ignore[arg-type]
    change(manifest, lambda adapters: adapters.update(b={"source": "./b2"}, c={"source": "./b"}))
    adapterdock.lock(manifest)
    assert follower.look() == "switched"
    now = follower.standing
    assert now.adapters["a"] == before.adapters["a"]
    assert now.adapters["c"][0] == before.adapters["b"][0]
    assert now.adapters["b"][0] != before.adapters["b"][0]
    assert {name: digest for name, (digest, _) in now.adapters.items()} == now.wanted
    assert (now.behind, now.lock_digest != before.lock_digest) == (False, True)


def test_a_stale_lock_keeps_the_old_and_says_why_until_it_is_locked(
    follower: Follower, manifest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "adapterdock")
    before = follower.standing
    shutil.copytree(manifest.parent / "b", manifest.parent / "b2")
    change(manifest, lambda adapters: adapters.update(c={"source": "./b2"}))
    assert follower.look() == "refused"
    now = follower.standing
    assert (now.behind, now.adapters) == (True, before.adapters)
    assert now.findings[0].code == "AD505"
    adapterdock.lock(manifest)
    assert follower.look() == "switched"
    assert (follower.standing.behind, "c" in follower.engine.names) == (False, True)
    told: Any = [vars(record) for record in caplog.records if hasattr(record, "result")]
    assert [(one["result"], one["state"], one["codes"]) for one in told] == [
        ("refused", "behind", ["AD505"]),
        ("switched", "serving", []),
        ("unchanged", "serving", []),
    ]


def test_a_broken_adapter_keeps_the_old_and_status_says_what_is_wanted(
    follower: Follower, manifest: Path
) -> None:
    before = follower.standing
    other = tiny_llama(hidden_size=8, num_attention_heads=2)
    peft_saves(other, manifest.parent / "b2", **TARGETS)  # type: ignore[arg-type]
    change(manifest, lambda adapters: adapters.update(b={"source": "./b2"}))
    manifest.with_suffix(".lock").unlink()
    assert follower.look() == "refused"
    assert follower.standing.adapters == before.adapters
    assert follower.standing.findings


@pytest.mark.parametrize("text", ["", "version: [", "version: 1\nadapters: 5\n", None])
def test_a_manifest_that_cannot_be_read_keeps_the_old(
    follower: Follower, manifest: Path, text: str | None
) -> None:
    before = follower.standing
    if text is None:
        manifest.unlink()
    else:
        manifest.write_text(text)
    assert follower.look() == "refused"
    assert follower.standing.adapters == before.adapters


def test_a_changed_policy_counts_from_the_next_look(follower: Follower, manifest: Path) -> None:
    data = yaml.safe_load(manifest.read_text())
    manifest.write_text(yaml.safe_dump({**data, "policy": {"allow_keys": {"mobile": ["a"]}}}))
    assert follower.look() in ("unchanged", "switched")
    assert follower.standing.policies[0].allow_keys == {"mobile": ("a",)}


def test_a_promotion_is_served_without_a_new_lock_and_back_again(team: Team) -> None:
    manifest = Path(team.project.manifest)
    follower = Follower(load_served(Settings(manifest)))
    first = follower.standing.adapters["tone"][0]
    assert (revision(follower), follower.look()) == ("1.0.0", "unchanged")
    team.promote("2.0.0")
    assert (follower.look(), revision(follower)) == ("switched", "2.0.0")
    assert follower.standing.wanted["tone"] == follower.standing.adapters["tone"][0] != first
    assert follower.look() == "unchanged"
    team.promote("1.0.0")
    assert (follower.look(), follower.standing.adapters["tone"][0]) == ("switched", first)


def test_promotions_do_not_read_the_tokenizer_of_the_same_base_again(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Path(team.project.manifest)
    follower = Follower(load_served(Settings(manifest)))
    team.promote("2.0.0")
    assert follower.look() == "switched"  # the first one may read it
    reads: list[str] = []
    parse = tokenizer._object  # pyright: ignore[reportPrivateUsage]

    def counted(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
        reads.append(name)
        return parse(files, name)

    monkeypatch.setattr(tokenizer, "_object", counted)
    team.promote("1.0.0")
    assert (follower.look(), revision(follower)) == ("switched", "1.0.0")
    assert "tokenizer.json" not in reads


def test_aliases_are_not_followed_where_the_lock_alone_counts(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_FOLLOW", "lock")
    manifest = Path(team.project.manifest)
    follower = Follower(load_served(Settings(manifest)))
    team.promote("2.0.0")
    assert (follower.look(), revision(follower)) == ("unchanged", "1.0.0")


def test_the_app_serves_a_change_without_a_restart(manifest: Path) -> None:
    with served(manifest, period=0.1) as client:
        old = ask(client, "b")
        assert ask(client, "a") != old
        change(manifest, lambda adapters: adapters.update(new={"source": "./b"}))
        adapterdock.lock(manifest)
        eventually(lambda: len(client.get("/v1/models").json()["data"]) == 4)
        assert ask(client, "new") == old
        change(manifest, lambda adapters: adapters.pop("b"))
        adapterdock.lock(manifest)
        gone = {"model": "b", "prompt": "w5"}
        eventually(lambda: client.post("/v1/completions", json=gone).status_code == 404)
        status = client.get("/v1/adapterdock/status").json()
        assert set(status["adapters"]) == {"a", "new"} == set(status["wanted"])
        assert (status["state"], status["schema"]) == ("serving", "adapterdock.status/1")
        manifest.write_text("version: 1\n")
        eventually(lambda: client.get("/v1/adapterdock/status").json()["state"] == "behind")
        status = client.get("/v1/adapterdock/status").json()
        assert status["findings"][0]["code"]
        assert ask(client, "new") == old
        assert "adapterdock_behind 1.0" in client.get("/v1/adapterdock/metrics").text
