"""A manifest at a URL, with its lock beside it."""

from __future__ import annotations

from pathlib import Path

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import (
    AdapterdockError,
    LockError,
    ManifestError,
    SourceError,
)
from adapterdock.serving.served.location import is_url
from adapterdock.serving.served.served import Served
from support.hub_server import HubServer
from support.project import Project, codes, files_of
from support.s3_server import S3Server
from support.web import WebServer

NAMES = ("adapters.yaml", "adapters.lock", "adapters.lock.samples")


@pytest.fixture
def site(project: Project, web: WebServer) -> Project:
    """A manifest whose adapter is on a web server, where the manifest is put too."""
    project.base()
    project.adapter("tone", seed=1)
    put_adapter(project, web)
    project.write({"tone": f"{web.url}/tone"}, model=str(project.folder / "base"))
    adapterdock.lock(project.manifest)
    put(project, web)
    return project


def put_adapter(project: Project, web: WebServer) -> None:
    files = files_of(project.folder / "tone")
    web.files |= {f"/tone/{path}": content for path, content in files.items()}


def put(project: Project, web: WebServer, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        path = project.folder / name
        web.files[f"/team/{name}"] = path.read_bytes()


def follower(web: WebServer) -> Served:
    return Served(f"{web.url}/team/adapters.yaml")


def test_a_manifest_on_a_web_server_is_served_and_followed(site: Project, web: WebServer) -> None:
    served = follower(web)
    served.start()
    first = served.current()["tone"]
    assert first.digest == site.lock.adapters["tone"].digest
    assert served.status()["manifest"]["location"] == f"{web.url}/team/adapters.yaml"
    assert served.look().result == "unchanged"
    retrain(site, web)
    put(site, web)
    assert served.look().changed == ("tone",)
    assert served.current()["tone"].digest == site.lock.adapters["tone"].digest != first.digest
    served.close()


def retrain(site: Project, web: WebServer) -> None:
    site.adapter("tone", seed=9)
    put_adapter(site, web)
    adapterdock.lock(site.manifest, upgrade=["tone"])


def test_a_manifest_that_cannot_be_reached_leaves_the_old(site: Project, web: WebServer) -> None:
    served = follower(web)
    served.start()
    before = served.current()
    web.status["/team/adapters.yaml"] = 404
    del web.files["/team/adapters.yaml"]
    looked = served.look()
    assert looked.result == "refused" and codes(looked.findings) == ["AD951"]
    assert served.current() is before and served.status()["state"] == "behind"
    web.status.clear()
    put(site, web)
    assert served.look().result == "unchanged" and served.status()["state"] == "serving"


def test_a_server_that_is_down_leaves_the_old(
    site: Project, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = follower(web)
    served.start()
    before = served.current()
    web.auth = "Bearer nobody has this"
    looked = served.look()
    assert looked.result == "refused" and looked.findings[0].code.startswith("AD2")
    assert served.current() is before and served.status()["state"] == "behind"


def test_a_manifest_that_is_not_there_is_refused_at_the_start(web: WebServer) -> None:
    with pytest.raises(AdapterdockError) as caught:
        follower(web).start()
    assert codes(caught.value.findings) == ["AD951"]
    assert caught.value.findings[0].where.file == f"{web.url}/team/adapters.yaml"


def test_a_manifest_without_its_lock_is_refused(site: Project, web: WebServer) -> None:
    del web.files["/team/adapters.lock"]
    with pytest.raises(LockError) as caught:
        follower(web).start()
    assert codes(caught.value.findings) == ["AD504"]
    assert caught.value.findings[0].where.file == f"{web.url}/team/adapters.lock"


def test_a_manifest_that_came_before_its_lock_waits_for_it(site: Project, web: WebServer) -> None:
    served = follower(web)
    served.start()
    before = served.current()
    site.write({"voice": f"{web.url}/tone"}, model=str(site.folder / "base"))
    adapterdock.lock(site.manifest)
    put(site, web, ("adapters.yaml",))
    assert codes(served.look().findings) == ["AD505"] and served.current() is before
    put(site, web)
    assert served.look().changed == ("voice",)


@pytest.mark.parametrize("what", ["base", "adapter", "registry"])
def test_a_manifest_at_a_url_names_nothing_beside_itself(
    site: Project, web: WebServer, what: str
) -> None:
    source = "./tone" if what == "adapter" else f"{web.url}/tone"
    model = "./base" if what == "base" else str(site.folder / "base")
    more = {"registries": {"team": "./registry"}} if what == "registry" else {}
    site.write({"tone": source}, model=model, **more)
    adapterdock.lock(site.manifest)
    put(site, web)
    with pytest.raises(ManifestError) as caught:
        follower(web).start()
    assert codes(caught.value.findings) == ["AD952"]
    assert f"{web.url}/team/adapters.yaml" in str(caught.value.findings[0].where)


def test_a_manifest_in_a_bucket_is_served(project: Project, s3: S3Server) -> None:
    project.base()
    project.adapter("tone", seed=1)
    bucket = s3.bucket()
    for path, content in files_of(project.folder / "tone").items():
        s3.put(bucket, f"tone/{path}", content)
    project.write({"tone": f"s3://{bucket}/tone"}, model=str(project.folder / "base"))
    adapterdock.lock(project.manifest)
    for name in NAMES:
        s3.put(bucket, f"prod/{name}", (project.folder / name).read_bytes())
    with Served(f"s3://{bucket}/prod/adapters.yaml") as served:
        served.start()
        assert served.current()["tone"].digest == project.lock.adapters["tone"].digest
        assert served.look().result == "unchanged"


def test_a_manifest_on_the_hub_is_served_and_followed(project: Project, hub: HubServer) -> None:
    project.base()
    hub.commit("org/tone", files_of(project.adapter("tone", seed=1)))
    project.write({"tone": "hf://org/tone"}, model=str(project.folder / "base"))
    adapterdock.lock(project.manifest)
    hub.commit("org/desk", {f"prod/{name}": (project.folder / name).read_bytes() for name in NAMES})
    with Served("hf://org/desk/prod/adapters.yaml") as served:
        served.start()
        assert served.current()["tone"].digest == project.lock.adapters["tone"].digest
        project.write({"voice": "hf://org/tone"}, model=str(project.folder / "base"))
        adapterdock.lock(project.manifest)
        hub.commit(
            "org/desk", {f"prod/{name}": (project.folder / name).read_bytes() for name in NAMES}
        )
        assert served.look().changed == ("voice",)


def test_without_a_network_a_url_is_refused(web: WebServer) -> None:
    with pytest.raises(AdapterdockError) as caught:
        Served(f"{web.url}/team/adapters.yaml", offline=True).start()
    assert caught.value.findings[0].code.startswith("AD2")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://host/adapters.yaml", True),
        ("s3://bucket/adapters.yaml", True),
        ("hf://org/name/adapters.yaml", True),
        ("adapters.yaml", False),
        ("file:///srv/adapters.yaml", False),
        ("C:/desk/adapters.yaml", False),
    ],
)
def test_what_is_a_url(text: str, wanted: bool) -> None:
    assert is_url(text) is wanted


def test_a_file_url_and_a_folder_are_read_from_the_disk(project: Project, tmp_path: Path) -> None:
    project.base()
    project.adapter("tone", seed=1)
    project.manifest = project.folder / "adapterdock.yaml"
    project.write({"tone": "./tone"})
    adapterdock.lock(project.manifest)
    for text in (project.manifest.as_uri(), str(project.folder)):
        served = Served(text)
        served.start()
        assert sorted(served.current()) == ["tone"]


@pytest.mark.parametrize(
    "text",
    [
        "registry://team/refunds@prod",
        "https://host",
        "https://user:hunter22@host/team/adapters.yaml",
        "https://host/team/adapters.yaml?token=secret",
        "hf://org",
    ],
)
def test_a_url_that_cannot_name_a_manifest_is_refused(text: str) -> None:
    served = Served(text)
    with pytest.raises(SourceError) as caught:
        served.start()
    assert codes(caught.value.findings) == ["AD958"]
    said = f"{caught.value} {served.status()}"
    assert "hunter22" not in said and "secret" not in said
