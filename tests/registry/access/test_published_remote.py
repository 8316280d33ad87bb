"""Adapters of a registry in a bucket and on a web server: how many requests, and which bytes."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import adapterdock
import pytest
from adapterdock.manifests.language.schema import Policy
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.access.access import Access, open_adapter_folder
from adapterdock.registry.catalogue.publish import publish_entry
from adapterdock.registry.storages.layout import BLOBS
from adapterdock.registry.store.store import Store
from support.faulty_proxy import FaultyProxy, faulty_proxy
from support.project import Project, codes
from support.published import contents, entry
from support.s3_server import S3Server
from support.signing import make_signer
from support.team import Team
from support.web import WebServer


@pytest.fixture
def team(project: Project) -> Team:
    made = Team(project)
    made.publish("1.0.0")
    made.publish("1.1.0", rank=4)
    made.promote("1.0.0")
    made.promote("1.1.0")
    return made


@pytest.fixture
def bucket(team: Team, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The registry is in a bucket; the proxy counts the requests."""
    name = s3.bucket()
    for path in team.place.rglob("*"):
        if path.is_file():
            s3.put(name, f"registry/{path.relative_to(team.place)}", path.read_bytes())
    with faulty_proxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        team.url = f"s3://{name}/registry"
        yield proxy


def asked(proxy: FaultyProxy) -> list[str]:
    """Requests in order, such as ``GET registry.json`` and ``LIST adapters/refunds/``."""
    found: list[str] = []
    for method, url in proxy.requests:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        if "list-type" in query:
            found.append(f"LIST {query['prefix'][0].removeprefix('registry/')}")
        else:
            found.append(f"{method} {parts.path.partition('/registry/')[2]}")
    proxy.requests.clear()
    return found


JSON = "GET registry.json"
NAMES = "LIST adapters/refunds/"
ENTRY = "GET adapters/refunds/versions/1.1.0.json"
ALIAS = "GET adapters/refunds/aliases/prod/00000002.json"


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("1.1.0", [JSON, ENTRY]),
        ("^1.0", [JSON, NAMES, ENTRY]),
        ("prod", [JSON, NAMES, ALIAS, ENTRY]),
    ],
)
def test_resolving_takes_the_fewest_requests(
    team: Team, bucket: FaultyProxy, selector: str, expected: list[str]
) -> None:
    team.use(selector, registries={"team": team.url})
    file = read_manifest(team.project.manifest)
    folder = open_adapter_folder(file, "tone", Access().started())
    assert folder.revision == "1.1.0"
    assert asked(bucket) == expected


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("1.2.0", [JSON, "GET ENTRY", NAMES, "GET SIGNATURE"]),
        ("^1.2", [JSON, NAMES, "GET ENTRY", "GET SIGNATURE"]),
    ],
)
def test_a_demanded_signature_takes_one_request_more(
    team: Team, bucket: FaultyProxy, s3: S3Server, selector: str, expected: list[str]
) -> None:
    signer = make_signer()
    files = contents(team.project.folder / "files", "weights")
    publish_entry(team.catalogue, entry("1.2.0", files), files, signer=signer)
    for path in team.place.rglob("*"):
        if path.is_file():
            name = f"registry/{path.relative_to(team.place)}"
            s3.put(team.url.split("/")[2], name, path.read_bytes())
    team.use(selector, registries={"team": team.url})
    policies = (
        Policy.model_validate({"require_signature": {"keys": [signer.key.pem]}}, strict=False),
    )
    file = read_manifest(team.project.manifest)
    folder = open_adapter_folder(file, "tone", Access(policies=policies).started())
    assert folder.revision == "1.2.0"
    kinds = {"/versions/": "GET ENTRY", "/signatures/": "GET SIGNATURE"}
    found = [
        next((short for part, short in kinds.items() if part in request), request)
        for request in asked(bucket)
    ]
    assert found == expected


@pytest.mark.parametrize(("selector", "expected"), [("^1.0", [ENTRY]), ("prod", [ALIAS, ENTRY])])
def test_a_lock_needs_no_listing_and_one_look_at_the_journal(
    team: Team, bucket: FaultyProxy, selector: str, expected: list[str]
) -> None:
    team.use(selector, registries={"team": team.url})
    adapterdock.lock(team.project.manifest)
    bucket.requests.clear()
    pulled = adapterdock.pull(team.project.manifest)
    assert asked(bucket) == []
    assert pulled.notes == ()
    empty = Store(team.project.folder / "empty")
    adapterdock.pull(team.project.manifest, store=empty)
    found = asked(bucket)
    assert found[:3] == [JSON, "GET journal/00000004.json", expected[0]]
    rest = [request for request in found[2:] if BLOBS not in request]
    assert rest == [*expected, NAMES]  # whether it is yanked
    assert [request.split()[0] for request in found if BLOBS in request] == ["GET", "GET"]


def test_a_bucket_is_listed_once_to_validate(team: Team, bucket: FaultyProxy) -> None:
    team.use("^1.0", registries={"team": team.url})
    report = adapterdock.validate(team.project.manifest)
    assert codes(report.findings) == []
    found = asked(bucket)
    assert found.count(NAMES) == 1
    assert not [request for request in found if request.startswith("HEAD")]


def test_a_bucket_gives_the_bytes_of_the_folder_that_it_is_a_copy_of(
    team: Team, bucket: FaultyProxy
) -> None:
    here = adapterdock.lock(team.project.manifest)
    team.use("^1.0", registries={"team": team.url})
    empty = Store(team.project.folder / "empty")
    pulled = adapterdock.pull(team.project.manifest, store=empty, frozen=True)
    assert pulled.lock == here


@pytest.fixture
def site(team: Team, web: WebServer) -> WebServer:
    copy(team, web)
    return web


def copy(team: Team, web: WebServer) -> None:
    for path in team.place.rglob("*"):
        if path.is_file():
            web.files[f"/registry/{path.relative_to(team.place)}"] = path.read_bytes()


def paths(web: WebServer) -> list[str]:
    found = [path.removeprefix("/registry/") for _, path, _ in web.requests]
    web.requests.clear()
    return found


@pytest.mark.parametrize("selector", ["1.1.0", "^1.0", "prod", "digest"])
def test_a_registry_on_a_web_server_is_used_without_a_listing(
    team: Team, site: WebServer, selector: str
) -> None:
    if selector == "digest":
        selector = team.catalogue.entry("refunds", "1.1.0").digest
    team.use(selector, registries={"team": f"{site.url}/registry"})
    locked = adapterdock.lock(team.project.manifest).adapters["tone"]
    assert locked.registry is not None
    assert locked.registry.version == "1.1.0"
    assert locked.registry.journal is not None
    assert locked.registry.journal.serial == 4
    empty = Store(team.project.folder / "empty")
    adapterdock.pull(team.project.manifest, store=empty, frozen=True)


def test_an_alias_on_a_web_server_is_probed_from_the_value_that_the_lock_has(
    team: Team, site: WebServer
) -> None:
    team.use("prod", registries={"team": f"{site.url}/registry"})
    adapterdock.lock(team.project.manifest)
    team.publish("1.2.0")
    team.promote("1.2.0")
    copy(team, site)
    paths(site)
    moved = adapterdock.lock(team.project.manifest, upgrade=["tone"]).adapters["tone"].registry
    assert moved is not None
    assert moved.alias is not None
    assert (moved.version, moved.alias.serial) == ("1.2.0", 3)
    probed = [path for path in paths(site) if "/aliases/" in path]
    assert not [path for path in probed if path.endswith("00000001.json")]


def test_weights_are_not_downloaded_to_validate(team: Team, site: WebServer) -> None:
    team.publish("1.2.0", rank=20_000)
    copy(team, site)
    team.use("1.2.0", registries={"team": f"{site.url}/registry"})
    report = adapterdock.validate(team.project.manifest)
    assert codes(report.findings) == []
    entry = team.catalogue.entry("refunds", "1.2.0").entry
    weights = next(file.size for file in entry.files if file.role == "weights")
    assert 0 < report.adapters["tone"]["bytes_read"] < weights / 2


def test_yanked_versions_on_a_web_server_are_skipped(team: Team, site: WebServer) -> None:
    team.mark("1.1.0", "yank")
    copy(team, site)
    team.use("^1.0", registries={"team": f"{site.url}/registry"})
    report = adapterdock.validate(team.project.manifest)
    assert report.adapters["tone"]["source"] == "registry://team/refunds@1.0.0"
    team.use("1.1.0", registries={"team": f"{site.url}/registry"})
    assert codes(adapterdock.validate(team.project.manifest).findings) == ["AD869"]
