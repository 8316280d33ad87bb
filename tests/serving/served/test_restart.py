"""A server that starts again goes on with what it served."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.errors import AdapterdockError
from adapterdock.registry.catalogue.promote import promote
from adapterdock.registry.store.store import Store
from adapterdock.serving.served.served import Served
from adapterdock.serving.targets.target import Target
from support.hub_server import HubServer
from support.project import Project, codes
from support.s3_server import S3Server
from support.team import NAME, Team
from support.web import WebServer

NAMES = ("adapters.yaml", "adapters.lock", "adapters.lock.samples")
LAST = Path("serving") / "last"


def remembered() -> Path:
    """The one file of what was served last."""
    [path] = (Store.default().root / LAST).iterdir()
    return path


def started(manifest: Path | str, **options: Any) -> Served:
    served = Served(manifest, **options)
    served.start()
    return served


def served_once(manifest: Path | str, **options: Any) -> None:
    """A process that served this, and ended."""
    started(manifest, **options).close()


# -- a manifest at a URL -----------------------------------------------------------------------


@pytest.fixture
def site(project: Project, web: WebServer) -> Project:
    """A manifest on a web server, which was served, with its adapter on this machine."""
    project.base()
    project.adapter("tone", seed=1)
    project.write({"tone": str(project.folder / "tone")}, model=str(project.folder / "base"))
    adapterdock.lock(project.manifest)
    for name in NAMES:
        web.files[f"/team/{name}"] = (project.folder / name).read_bytes()
    return project


def url(web: WebServer) -> str:
    return f"{web.url}/team/adapters.yaml"


def away(web: WebServer) -> None:
    for name in NAMES:
        web.status[f"/team/{name}"] = 503


def test_a_manifest_out_of_reach_is_served_as_before_the_restart(
    site: Project, web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    served_once(url(web))
    away(web)
    caplog.set_level(logging.INFO, "adapterdock")
    served = started(url(web))
    status = served.status()
    assert status["adapters"]["tone"]["digest"] == site.lock.adapters["tone"].digest
    assert (status["state"], codes_of(status)) == ("behind", ["AD223"])
    assert [r.levelname for r in caplog.records if "AD223" in r.message] == ["ERROR"]
    assert web.url in str(status["findings"][0])
    before = served.current()
    assert served.look().result == "refused" and served.current() is before
    web.status.clear()
    assert served.look().result == "unchanged" and served.current() is before
    assert served.status()["state"] == "serving"
    assert caplog.messages[-1] == f"{url(web)} is served as it says again"


def codes_of(status: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in status["findings"]]


def test_a_server_that_is_gone_is_out_of_reach(site: Project, web: WebServer) -> None:
    served_once(url(web))
    web.close()
    served = started(url(web))
    assert sorted(served.current()) == ["tone"] and served.status()["state"] == "behind"


def test_without_a_network_the_remembered_manifest_is_served(site: Project, web: WebServer) -> None:
    served_once(url(web))
    served = started(url(web), offline=True)
    assert (sorted(served.current()), codes_of(served.status())) == (["tone"], ["AD233"])


def test_a_lock_out_of_reach_leaves_the_manifest_that_was_served(
    site: Project, web: WebServer
) -> None:
    served_once(url(web))
    web.files["/team/adapters.yaml"] += b"# newer\n"
    web.status["/team/adapters.lock"] = 503
    first = served_digest(site)
    served = started(url(web))
    assert served.status()["manifest"]["sha256"] == first


def served_digest(site: Project) -> str:
    import hashlib

    return f"sha256:{hashlib.sha256(site.manifest.read_bytes()).hexdigest()}"


def gone(web: WebServer) -> None:
    del web.files["/team/adapters.yaml"]


def refused(web: WebServer) -> None:
    web.auth = "Bearer nobody has this"


def invalid(web: WebServer) -> None:
    web.files["/team/adapters.yaml"] = b"version: ["


def unlocked(web: WebServer) -> None:
    del web.files["/team/adapters.lock"]


@pytest.mark.parametrize("change", [gone, refused, invalid, unlocked])
def test_an_answer_counts_more_than_what_was_served(
    site: Project, web: WebServer, change: Callable[[WebServer], None]
) -> None:
    served_once(url(web))
    change(web)
    with pytest.raises(AdapterdockError):
        Served(url(web)).start()


def test_without_an_earlier_start_a_manifest_out_of_reach_is_refused(
    site: Project, web: WebServer
) -> None:
    away(web)
    with pytest.raises(AdapterdockError) as caught:
        Served(url(web)).start()
    assert caught.value.code == "AD223"


def test_what_is_remembered_is_checked_again(site: Project, web: WebServer) -> None:
    served_once(url(web), target=Target.parse("vllm", max_rank=8))
    away(web)
    with pytest.raises(AdapterdockError) as caught:
        started(url(web), target=Target.parse("vllm", max_rank=1))
    assert codes(caught.value.findings) == ["AD223", "AD946"]


def test_content_that_was_changed_is_not_served(site: Project, web: WebServer) -> None:
    served_once(url(web))
    away(web)
    shutil.rmtree(Store.default().root / "serving" / "adapters")
    site.adapter("tone", seed=9)
    with pytest.raises(AdapterdockError):
        started(url(web))


def test_another_engine_remembers_for_itself(site: Project, web: WebServer) -> None:
    served_once(url(web))
    away(web)
    with pytest.raises(AdapterdockError):
        started(url(web), target=Target.parse("vllm", max_rank=8))


def test_only_this_user_can_read_what_is_remembered(site: Project, web: WebServer) -> None:
    served_once(url(web))
    assert remembered().stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\x00\xff\xfe",
        b"[" * 200_000,
        b"{}",
        b'{"schema": "adapterdock.last/9"}',
        b'{"schema": "adapterdock.last/1", "content": {"manifest": "!"}}',
        b'{"schema": "adapterdock.last/1", "content": {"manifest": "dmVyc2lvbjogWw=="}}',
        b'{"schema": "adapterdock.last/1", "followed": {"tone": {"digest": 5}}}',
        None,
    ],
)
def test_a_damaged_file_is_as_good_as_none(
    site: Project, web: WebServer, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    served_once(url(web))
    path = remembered()
    path.unlink()
    if damage is None:
        path.mkdir()
    else:
        path.write_bytes(damage)
    away(web)
    with pytest.raises(AdapterdockError) as caught:
        started(url(web))
    assert caught.value.code == "AD223" and "is ignored" in caplog.text
    web.status.clear()
    served = started(url(web))
    assert served.status()["state"] == "serving" and "Traceback" not in caplog.text


def test_a_place_that_cannot_be_written_is_told_once(
    site: Project, web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Store.default().root / LAST
    folder.parent.mkdir(parents=True)
    folder.write_text("not a folder")
    served = started(url(web))
    for seed in (5, 6):
        site.adapter("tone", seed=seed)
        adapterdock.lock(site.manifest, upgrade=["tone"])
        for name in NAMES:
            web.files[f"/team/{name}"] = (site.folder / name).read_bytes()
        assert served.look().changed == ("tone",)
    assert served.status()["state"] == "serving"
    assert caplog.text.count("Cannot remember") == 1


# -- aliases -----------------------------------------------------------------------------------


@pytest.fixture
def team(project: Project) -> Team:
    """Version 1.0.0 is locked; 2.0.0 was promoted since, and served."""
    team = Team(project)
    team.publish("1.0.0")
    team.publish("2.0.0", rank=16)
    team.promote("1.0.0")
    team.use("prod")
    team.lock()
    team.promote("2.0.0")
    served_once(project.manifest)
    return team


def close_registry(team: Team) -> None:
    team.place.rename(team.place.with_name("away"))


def revisions(served: Served) -> dict[str, str]:
    return {name: one.revision for name, one in served.current().items()}


def test_a_followed_alias_is_served_again_without_its_registry(team: Team) -> None:
    close_registry(team)
    served = started(team.project.manifest)
    assert revisions(served) == {"tone": "2.0.0"} and served.status()["state"] == "behind"
    assert list(served.status()["followed"]) == ["tone"]


def test_a_promotion_back_while_the_server_was_down_is_served(team: Team) -> None:
    team.promote("1.0.0")
    served = started(team.project.manifest)
    assert revisions(served) == {"tone": "1.0.0"} and served.status()["state"] == "serving"


def test_a_lock_that_moved_on_counts_more(team: Team) -> None:
    team.publish("3.0.0")
    team.promote("3.0.0")
    adapterdock.lock(team.project.manifest, upgrade=["tone"])
    close_registry(team)
    assert revisions(started(team.project.manifest)) == {"tone": "3.0.0"}


def test_a_server_that_obeys_only_the_lock_forgets(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_registry(team)
    monkeypatch.setenv("ADAPTERDOCK_FOLLOW", "lock")
    served = started(team.project.manifest)
    assert revisions(served) == {"tone": "1.0.0"} and served.status()["state"] == "serving"
    monkeypatch.delenv("ADAPTERDOCK_FOLLOW")
    assert revisions(started(team.project.manifest)) == {"tone": "1.0.0"}


def test_another_source_under_the_same_name_is_not_the_followed_one(team: Team) -> None:
    team.use("1.0.0")
    team.lock()
    close_registry(team)
    assert revisions(started(team.project.manifest)) == {"tone": "1.0.0"}


def test_an_entry_that_contradicts_itself_is_not_taken_up(team: Team) -> None:
    close_registry(team)
    data = json.loads(remembered().read_text())
    data["followed"]["tone"]["digest"] = "sha256:" + "0" * 64
    remembered().write_text(json.dumps(data))
    assert revisions(started(team.project.manifest)) == {"tone": "1.0.0"}


@pytest.mark.parametrize(("most", "revision"), [("8kB", "1.0.0"), ("1MB", "2.0.0")])
def test_a_policy_counts_for_what_is_remembered(team: Team, most: str, revision: str) -> None:
    close_registry(team)
    policy = team.project.folder / "policy.yaml"
    policy.write_text(yaml.safe_dump({"max_adapter_bytes": most}))
    assert revisions(started(team.project.manifest, policy=policy)) == {"tone": revision}


def test_what_can_not_be_served_any_more_does_not_hold_up_the_rest(team: Team) -> None:
    for version in ("1.0.0", "2.0.0"):
        team.publish(version, name="billing")
    promote(team.catalogue, "billing", "1.0.0", "prod")
    team.project.write(
        {"tone": f"registry://team/{NAME}@prod", "bill": "registry://team/billing@prod"},
        registries={"team": "./registry"},
        compositions={"both": {"combine": "sum", "of": {"tone": 1.0, "bill": 1.0}}},
    )
    adapterdock.lock(team.project.manifest)
    team.promote("1.0.0")
    for name in (NAME, "billing"):
        promote(team.catalogue, name, "2.0.0", "prod")
    served_once(team.project.manifest, target=Target.parse("vllm", max_rank=16))
    close_registry(team)
    entry = json.loads(max_file().read_text())["followed"]["tone"]
    for file in entry["files"].values():
        Store.default().object_path(file["sha256"]).unlink()
    shutil.rmtree(Store.default().root / "serving" / "adapters")
    served = started(team.project.manifest, target=Target.parse("vllm", max_rank=16))
    found = revisions(served)
    assert (found["tone"], found["bill"], "both" in found) == ("1.0.0", "2.0.0", True)
    assert served.status()["state"] == "behind"


def max_file() -> Path:
    """What was remembered last."""
    return max((Store.default().root / LAST).iterdir(), key=lambda path: path.stat().st_mtime_ns)


def test_a_manifest_on_the_hub_is_served_as_before_while_the_hub_is_away(
    site: Project, hub: HubServer
) -> None:
    hub.commit("org/desk", {f"prod/{name}": (site.folder / name).read_bytes() for name in NAMES})
    served_once("hf://org/desk/prod/adapters.yaml")
    hub.fail(503)
    served = started("hf://org/desk/prod/adapters.yaml")
    assert sorted(served.current()) == ["tone"] and served.status()["state"] == "behind"


def test_a_manifest_in_a_bucket_is_served_as_before_while_the_bucket_is_away(
    site: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.bucket()
    for name in NAMES:
        s3.put(bucket, f"prod/{name}", (site.folder / name).read_bytes())
    served_once(f"s3://{bucket}/prod/adapters.yaml")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    served = started(f"s3://{bucket}/prod/adapters.yaml")
    assert sorted(served.current()) == ["tone"] and served.status()["state"] == "behind"
