"""The app serves a manifest at a URL, and goes on with what it served when it starts again."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.errors import AdapterdockError, UsageError
from adapterdock.registry.store.store import Store
from adapterdock.serving.app.build_app import build_app
from adapterdock.serving.app.following import Follower
from adapterdock.serving.app.loaded import load_served
from adapterdock.serving.app.settings import Settings
from support.peft_adapters import peft_saves, tiny_llama
from support.s3_server import S3Server
from support.served import ask, eventually, revision, served, write_served
from support.team import Team
from support.web import WebServer
from typer.testing import Result

TARGETS = {"target_modules": ["q_proj", "down_proj"]}
NAMES = ("adapters.yaml", "adapters.lock", "adapters.lock.samples")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A locked manifest that names nothing beside itself."""
    path = write_served(tmp_path, tiny_llama(), {"a": TARGETS, "b": TARGETS})
    data = yaml.safe_load(path.read_text())
    data["base"]["model"] = str(tmp_path / "base")
    for name in "ab":
        data["adapters"][name]["source"] = str(tmp_path / name)
    path.write_text(yaml.safe_dump(data))
    adapterdock.lock(path)
    return path


def put(manifest: Path, web: WebServer) -> str:
    """Put it on the web server; its URL."""
    for name in NAMES:
        web.files[f"/team/{name}"] = (manifest.parent / name).read_bytes()
    return f"{web.url}/team/adapters.yaml"


def away(web: WebServer) -> None:
    for name in NAMES:
        web.status[f"/team/{name}"] = 503


def loaded(place: Path | str, **settings: object) -> Follower:
    """The follower of a server that starts."""
    follower = Follower(load_served(Settings(place, **settings)))  # type: ignore[arg-type]
    follower.take_up()
    return follower


def retrain(manifest: Path) -> None:
    peft_saves(tiny_llama(), manifest.parent / "b", seed=40, **TARGETS)  # type: ignore[arg-type]
    adapterdock.lock(manifest, upgrade=["b"])


def test_a_manifest_on_a_web_server_is_served_and_followed(manifest: Path, web: WebServer) -> None:
    url = put(manifest, web)
    with served(url, period=0.1) as client:
        old = ask(client, "b")
        status = client.get("/v1/adapterdock/status").json()
        assert (status["manifest"]["location"], status["state"]) == (url, "serving")
        retrain(manifest)
        put(manifest, web)
        eventually(lambda: ask(client, "b") != old)
        web.files["/team/adapters.yaml"] = b"version: 1\n"
        eventually(lambda: client.get("/v1/adapterdock/status").json()["state"] == "behind")
        said = client.get("/v1/adapterdock/status").text
        assert url in said and tempfile.gettempdir() not in said.replace(str(manifest.parent), "")


def test_a_manifest_in_a_bucket_is_served(manifest: Path, s3: S3Server) -> None:
    bucket = s3.bucket()
    for name in NAMES:
        s3.put(bucket, f"prod/{name}", (manifest.parent / name).read_bytes())
    with served(f"s3://{bucket}/prod/adapters.yaml") as client:
        assert ask(client, "a") != ask(client, "__base__")


def test_a_manifest_out_of_reach_is_served_as_before_the_restart(
    manifest: Path, web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = put(manifest, web)
    first = loaded(url)
    first.close()
    away(web)
    again = loaded(url)
    assert again.standing.adapters.keys() == {"a", "b"}
    assert [finding.code for finding in again.standing.findings] == ["AD223"]
    assert [r.levelname for r in caplog.records if "AD223" in r.message] == ["ERROR"]
    assert again.look() == "refused" and again.standing.adapters.keys() == {"a", "b"}
    web.status.clear()
    assert again.look() == "unchanged" and not again.standing.behind
    assert caplog.messages[-1] == f"{url} is served as it says again"
    again.close()


def gone(web: WebServer) -> None:
    del web.files["/team/adapters.yaml"]


def unlocked(web: WebServer) -> None:
    del web.files["/team/adapters.lock"]


@pytest.mark.parametrize("change", [gone, unlocked])
def test_an_answer_counts_more_than_what_was_served(
    manifest: Path, web: WebServer, change: Callable[[WebServer], None]
) -> None:
    url = put(manifest, web)
    loaded(url).close()
    change(web)
    with pytest.raises(AdapterdockError):
        loaded(url)


def test_without_an_earlier_start_a_manifest_out_of_reach_is_refused(
    manifest: Path, web: WebServer
) -> None:
    url = put(manifest, web)
    away(web)
    with pytest.raises(AdapterdockError) as caught:
        loaded(url)
    assert caught.value.code == "AD223"


def test_what_cannot_be_loaded_from_a_url_is_shown_at_the_url(
    manifest: Path, web: WebServer, cli: Callable[..., Result]
) -> None:
    manifest.write_text(manifest.read_text().replace("/base", "/nowhere"))
    url = put(manifest, web)
    result = cli("serve", url)
    assert (result.exit_code, f"{url.rpartition('/')[0]}/adapters.lock" in result.stderr) == (
        1,
        True,
    )


def test_a_lock_that_is_right_again_is_told(
    manifest: Path, caplog: pytest.LogCaptureFixture
) -> None:
    follower = loaded(manifest)
    lock = manifest.with_suffix(".lock")
    good = lock.read_bytes()
    lock.write_bytes(b"version: 1\n")
    assert follower.look() == "refused" and follower.look() == "refused"
    lock.write_bytes(good)
    assert follower.look() == "unchanged" and follower.look() == "unchanged"
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
    assert caplog.messages[-1] == f"{manifest} is served as it says again"


# -- aliases -----------------------------------------------------------------------------------


@pytest.fixture
def unreachable(team: Team) -> Team:
    """2.0.0 was promoted after the lock, and served. The registry is away."""
    team.promote("2.0.0")
    first = loaded(team.project.manifest)
    assert (revision(first), first.look(), revision(first)) == ("1.0.0", "switched", "2.0.0")
    first.close()
    team.place.rename(team.place.with_name("away"))
    return team


def test_a_followed_alias_is_served_before_the_first_request(unreachable: Team) -> None:
    app = build_app(Settings(unreachable.project.manifest))
    follower: Follower = app.state.service.follower
    assert revision(follower) == "2.0.0" and not follower.standing.behind
    locked = unreachable.project.lock.adapters["tone"].digest
    assert app.state.service.status()["followed"] == {"tone": {"locked": locked}}
    assert follower.look() == "refused" and revision(follower) == "2.0.0"
    assert follower.standing.behind
    unreachable.place.with_name("away").rename(unreachable.place)
    unreachable.promote("1.0.0")
    assert (follower.look(), revision(follower)) == ("switched", "1.0.0")


def test_a_server_that_obeys_only_the_lock_forgets(
    unreachable: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_FOLLOW", "lock")
    assert revision(loaded(unreachable.project.manifest)) == "1.0.0"
    monkeypatch.delenv("ADAPTERDOCK_FOLLOW")
    assert revision(loaded(unreachable.project.manifest)) == "1.0.0"


def test_an_unknown_way_to_follow_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_FOLLOW", "yes")
    with pytest.raises(UsageError) as caught:
        load_served(Settings("nowhere.yaml"))
    assert caught.value.code == "AD956"


def test_what_cannot_be_served_any_more_leaves_the_lock_and_is_said(unreachable: Team) -> None:
    for path in (Store.default().root / "objects").rglob("*"):
        if path.is_file() and path.name not in unreachable.project.lock_file.read_text():
            path.unlink()
    follower = loaded(unreachable.project.manifest)
    assert revision(follower) == "1.0.0" and follower.standing.behind
    follower.look()
    assert revision(follower) == "1.0.0" and follower.standing.behind


def test_a_damaged_file_is_as_good_as_none(
    unreachable: Team, caplog: pytest.LogCaptureFixture
) -> None:
    [path] = (Store.default().root / "serving" / "last").iterdir()
    path.write_bytes(b"{")
    assert revision(loaded(unreachable.project.manifest)) == "1.0.0"
    assert "is ignored" in caplog.text and caplog.records[0].levelno == logging.WARNING
