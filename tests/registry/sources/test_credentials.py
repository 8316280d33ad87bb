"""The user's credentials go where the user's environment sends them, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.errors import SourceError
from adapterdock.manifests.language.source import Source
from adapterdock.registry.sources.open import open_source
from adapterdock.registry.sources.ways import origin_of, strange_ways, ways_of
from support.hub_server import HubServer
from support.project import Project, codes, files_of, put_folder
from support.s3_server import S3Server
from support.web import WebServer

TOKEN = "hf_TestTokenThatMustNeverBeShown"
SESSION = "a-session-token-of-the-user"
SECRET_HEADERS = {"authorization", "x-amz-security-token", "cookie", "x-team"}


@pytest.fixture
def stranger() -> Iterator[WebServer]:
    """A host that only manifests name; it keeps every request."""
    server = WebServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def strange_hub() -> Iterator[HubServer]:
    server = HubServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def ready(project: Project) -> Project:
    project.base()
    project.adapter("tone")
    return project


@pytest.fixture
def signed_in(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The user has AWS credentials, and no endpoint of their own."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    return s3


def secrets_seen(requests: list[Any]) -> set[str]:
    """The names of the headers that arrived and may hold a credential."""
    told = [r[2] if isinstance(r, tuple) else r.headers for r in requests]
    return {name.lower() for headers in told for name in headers} & SECRET_HEADERS


def declared(project: Project, source: str, options: Mapping[str, Any]) -> Path:
    return project.write({"tone": {"source": source, "storage_options": dict(options)}})


def verdict(project: Project, policy: Path | None = None) -> list[str]:
    return codes(adapterdock.validate(project.manifest, policy=policy).errors)


def policy_file(project: Project, **keys: object) -> Path:
    path = project.folder / "policy.yaml"
    path.write_text(yaml.safe_dump(keys))
    return path


# The Hub.


def test_a_hub_that_only_the_manifest_names_gets_no_token_and_fills_no_cache(
    ready: Project, hub: HubServer, strange_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    strange_hub.commit("acme/tone", files_of(ready.folder / "tone"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    declared(ready, "hf://acme/tone", {"endpoint": strange_hub.endpoint})
    lock = adapterdock.lock(ready.manifest)
    assert strange_hub.requests != [] and hub.count("acme") == 0
    assert secrets_seen(strange_hub.requests) == set()
    assert lock.adapters["tone"].fetched_from == f"{strange_hub.endpoint}/acme/tone"
    assert not list(Path(constants.HF_HUB_CACHE).glob("models--acme*"))
    adapterdock.pull(ready.manifest)
    assert secrets_seen(strange_hub.requests) == set()


def test_a_private_repository_at_such_a_hub_is_refused_with_a_way_out(
    ready: Project, hub: HubServer, strange_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in (hub, strange_hub):
        server.commit("acme/tone", files_of(ready.folder / "tone"))
        server.private.add("acme/tone")
        server.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    declared(ready, "hf://acme/tone", {"endpoint": strange_hub.endpoint})
    report = adapterdock.validate(ready.manifest)
    assert codes(report.errors) == ["AD389"]
    assert "allow_credentials" in (report.errors[0].hint or "")
    assert strange_hub.endpoint in str(report.errors[0])
    assert secrets_seen(strange_hub.requests) == set()
    # its near-twins: the user's own Hub, the same one named by the manifest, a whole variable
    for options in ({}, {"endpoint": hub.endpoint}, {"endpoint": hub.endpoint + "/"}):
        declared(ready, "hf://acme/tone", options)
        assert verdict(ready) == []
    declared(ready, "hf://acme/tone", {"endpoint": "${TEAM_HUB}"})
    monkeypatch.setenv("TEAM_HUB", strange_hub.endpoint)
    assert verdict(ready) == []


@pytest.mark.parametrize(
    "endpoint",
    ["${UNSET_HUB:-{url}}", "${EMPTY}{url}", "{url}${EMPTY}", "{url}", "${CI_COMMIT_TITLE}"],
)
def test_a_host_that_is_not_one_whole_variable_counts_as_chosen_by_the_manifest(
    ready: Project,
    hub: HubServer,
    strange_hub: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
) -> None:
    strange_hub.commit("acme/tone", files_of(ready.folder / "tone"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("CI_COMMIT_TITLE", strange_hub.endpoint)
    declared(ready, "hf://acme/tone", {"endpoint": endpoint.replace("{url}", strange_hub.endpoint)})
    assert verdict(ready) == []
    assert strange_hub.requests != []
    assert secrets_seen(strange_hub.requests) == set()


def test_only_a_policy_from_outside_lets_credentials_go(
    ready: Project, hub: HubServer, strange_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange_hub.commit("acme/tone", files_of(ready.folder / "tone"))
    strange_hub.private.add("acme/tone")
    strange_hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    declared(ready, "hf://acme/tone", {"endpoint": strange_hub.endpoint})
    for glob in (strange_hub.endpoint, f"{strange_hub.endpoint}/*", "http://127.0.0.1:*"):
        assert verdict(ready, policy_file(ready, allow_credentials=[glob])) == []
    for glob in ("https://*", "http://127.0.0.1", "http://127.0.0.1:1/*"):
        assert verdict(ready, policy_file(ready, allow_credentials=[glob])) == ["AD389"]
    monkeypatch.setenv("ADAPTERDOCK_POLICY", str(policy_file(ready, allow_credentials=[])))
    narrow = ready.folder / "narrow.yaml"
    narrow.write_text(yaml.safe_dump({"allow_credentials": [strange_hub.endpoint]}))
    assert verdict(ready, narrow) == ["AD389"]  # every policy must list it
    monkeypatch.delenv("ADAPTERDOCK_POLICY")
    ready.write({"tone": "./tone"}, policy={"allow_credentials": ["*"]})
    assert verdict(ready) == ["AD393"]


def test_the_base_and_a_mirror_at_such_a_hub_get_no_token_either(
    ready: Project, hub: HubServer, strange_hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange_hub.commit("acme/base", files_of(ready.folder / "base"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    options = {"storage_options": {"endpoint": strange_hub.endpoint}}
    ready.write({"tone": "./tone"}, model="hf://acme/base", base=options)
    assert verdict(ready) == []
    ready.write(
        {"tone": "./tone"},
        model="hf://other/base",
        base=options,
        mirrors={"hf://other": "hf://acme"},
    )
    strange_hub.commit("acme/base", files_of(ready.folder / "base"))
    assert verdict(ready) == []
    assert secrets_seen(strange_hub.requests) == set()


def test_the_store_of_large_files_is_never_sent_the_token(
    ready: Project, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    hub.private.add("acme/tone")
    hub.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    ready.write({"tone": "hf://acme/tone"})
    adapterdock.lock(ready.manifest)
    there = [r for r in hub.requests if r.host.startswith("localhost")]
    assert any(r.method == "GET" for r in there)
    assert secrets_seen(there) == set()
    assert secrets_seen([r for r in hub.requests if r not in there]) == {"authorization"}


# S3.

TO_THE_STRANGER: list[dict[str, Any]] = [
    {"endpoint_url": "{url}"},
    {"endpoint_url": "{url}", "anon": False},
    {"client_kwargs": {"endpoint_url": "{url}"}},
    {"endpoint_url": "{url}", "profile": "default"},
    {"endpoint_url": "{url}", "client_kwargs": {"region_name": "eu-west-1"}},
    {"use_ssl": False, "config_kwargs": {"proxies": {"http": "{url}"}}},
    {"config_kwargs": {"proxies": {"http": "{url}"}}, "client_kwargs": {"use_ssl": False}},
]


@pytest.mark.parametrize("options", TO_THE_STRANGER, ids=str)
def test_an_s3_endpoint_that_only_the_manifest_names_gets_nothing_signed(
    ready: Project,
    signed_in: S3Server,
    stranger: WebServer,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    config = Path.home() / ".aws" / "config"
    config.parent.mkdir()
    config.write_text("[default]\nregion = us-east-1\n")
    text = yaml.safe_dump(options).replace("{url}", stranger.url)
    declared(ready, "s3://team/tone", yaml.safe_load(text))
    assert adapterdock.validate(ready.manifest).exit_status != 0
    assert stranger.requests != []
    assert secrets_seen(stranger.requests) == set()


def test_a_private_bucket_there_is_refused_with_a_way_out(
    ready: Project, signed_in: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put_folder(signed_in, signed_in.bucket(), "tone", ready.folder / "tone")
    declared(ready, source, {"endpoint_url": signed_in.endpoint})
    assert verdict(ready) == ["AD389"]
    allowing = policy_file(ready, allow_credentials=[signed_in.endpoint])
    assert verdict(ready, allowing) == []
    declared(ready, source, {"endpoint_url": "${S3_ENDPOINT:-}"})
    monkeypatch.setenv("S3_ENDPOINT", signed_in.endpoint)
    assert verdict(ready) == []
    # and the endpoint that every AWS tool of this user goes to, named or not
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", signed_in.endpoint)
    for options in ({}, {"endpoint_url": signed_in.endpoint}):
        declared(ready, source, options)
        assert verdict(ready) == []


def test_a_profile_of_the_user_s_own_config_names_its_endpoint(
    ready: Project, signed_in: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put_folder(signed_in, signed_in.bucket(), "tone", ready.folder / "tone")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    folder = Path.home() / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        f"[store]\naws_access_key_id = {signed_in.access_key}\n"
        f"aws_secret_access_key = {signed_in.secret_key}\n"
    )
    (folder / "config").write_text(
        f"[profile store]\nservices = here\n[services here]\ns3 =\n"
        f"  endpoint_url = {signed_in.endpoint}\n"
    )
    for options in ({"profile": "store"}, {"profile": "store", "endpoint_url": signed_in.endpoint}):
        declared(ready, source, options)
        assert verdict(ready) == []
    (folder / "config").write_text("[profile store]\nregion = us-east-1\n")
    assert verdict(ready) == ["AD389"]


def test_an_s3_service_cannot_redirect_signed_requests(
    ready: Project, s3: S3Server, web: WebServer, stranger: WebServer, monkeypatch: Any
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    for path in ("/team", "/team/", "/team/tone", "/team/tone/adapter_config.json"):
        web.redirects[path] = f"{stranger.url}{path}"
    ready.write({"tone": "s3://team/tone"})
    assert verdict(ready) != []
    assert secrets_seen(web.requests) == {"authorization", "x-amz-security-token"}
    assert stranger.requests == []


# Web servers.


def netrc(text: str) -> None:
    path = Path.home() / ".netrc"
    path.write_text(text)
    path.chmod(0o600)


def serve(project: Project, web: WebServer) -> str:
    for path, content in files_of(project.folder / "tone").items():
        web.files[f"/tone/{path}"] = content
    return f"{web.url}/tone"


def test_a_host_that_netrc_names_gets_its_login_and_no_other_host_the_default(
    ready: Project, web: WebServer
) -> None:
    ready.write({"tone": serve(ready, web)})
    netrc("machine models.example login me password of-models\ndefault login me password hush1234")
    assert verdict(ready) == []
    assert secrets_seen(web.requests) == set()
    netrc("machine 127.0.0.1 login me password of-this-host\ndefault login x password y")
    web.auth = "Basic bWU6b2YtdGhpcy1ob3N0"
    assert verdict(ready) == []


def test_a_proxy_that_the_manifest_names_does_not_see_the_login(
    ready: Project, web: WebServer, stranger: WebServer
) -> None:
    netrc("machine 127.0.0.1 login me password of-this-host")
    declared(ready, serve(ready, web), {"proxy": stranger.url})
    assert verdict(ready) != []
    assert stranger.requests != []
    assert secrets_seen(stranger.requests) == set()


def test_what_the_options_hold_does_not_follow_a_redirection_to_another_host(
    ready: Project, web: WebServer, stranger: WebServer
) -> None:
    source = serve(ready, stranger)
    for path in stranger.files:
        web.redirects[path] = stranger.url + path
    options = {
        "headers": {"Authorization": "Bearer abcdef-secret", "X-Team": "abcdef"},
        "cookies": {"session": "abcdef"},
        "client_kwargs": {"headers": {"X-Team": "abcdef"}},
    }
    folder = open_source(
        Source.parse(source.replace(stranger.url, web.url)),
        directory=ready.folder,
        storage_options=options,
    )
    assert b"peft_type" in folder.read("adapter_config.json")
    assert secrets_seen(web.requests) == {"authorization", "x-team", "cookie"}
    assert stranger.requests != []
    assert secrets_seen(stranger.requests) == set()


def test_a_redirection_within_a_host_keeps_what_the_options_hold(
    ready: Project, web: WebServer
) -> None:
    serve(ready, web)
    web.auth = "Bearer abcdef-secret"
    for path in list(web.files):
        web.redirects[path.replace("/tone/", "/old/")] = web.url + path
    options = {"headers": {"Authorization": web.auth}}
    old = Source.parse(f"{web.url}/old")
    folder = open_source(old, directory=ready.folder, storage_options=options)
    assert b"peft_type" in folder.read("adapter_config.json")


def test_a_login_that_the_options_name_wins_over_netrc(ready: Project, web: WebServer) -> None:
    netrc("machine 127.0.0.1 login me password of-this-host")
    web.auth = "Bearer abcdef-secret"
    options = {"headers": {"Authorization": web.auth}}
    source = Source.parse(serve(ready, web))
    folder = open_source(source, directory=ready.folder, storage_options=options)
    assert b"peft_type" in folder.read("adapter_config.json")


# Every other kind.


@pytest.mark.parametrize(
    ("source", "options"),
    [
        ("az://box/tone", {"account_name": "stranger"}),
        ("az://box/tone", {"account_host": "stranger.example"}),
        ("abfss://box@stranger.dfs.core.windows.net/tone", {}),
        ("oss://bucket/tone", {"endpoint": "https://stranger.example"}),
        ("sftp://host/tone", {"sock": "stranger.example"}),
        ("lakefs://repo/main", {"host": "stranger.example"}),
        ("webdav://host/tone", {"base_url": "https://stranger.example"}),
        ("smb://stranger/share/tone", {}),
    ],
)
def test_a_driver_without_anonymous_access_is_not_used(
    ready: Project, source: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared(ready, source, options)
    assert verdict(ready) == ["AD389"]
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "Stranger")
    if options.get("account_name") or "@" in source:
        assert "AD389" not in verdict(ready)  # the driver is not installed, which is said instead


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        ("s3://b/x", {"anon": True, "client_kwargs": {"region_name": "eu"}}, []),
        ("s3://b/x", {"endpoint_url": None, "use_ssl": True, "profile": "p"}, []),
        ("s3://b/x", {"client_kwargs": {"verify": False}}, [None]),
        ("s3://b/x", {"endpoint_url": "HTTPS://Me:x@Host:443/a?b#c"}, ["https://host/a"]),
        ("s3://b/x", {"endpoint_url": "https://host/a/../b"}, [None]),
        ("s3://b/x", {"endpoint_url": "https://host/a/%2e%2e/b"}, [None]),
        ("gs://b/x", {"project": "p", "token": "anon"}, []),
        ("gs://b/x", {"endpoint_url": "http://h:4443"}, ["http://h:4443"]),
        ("gs://b/x", {"session_kwargs": {"trust_env": True}}, [None]),
        ("hf://a/b", {"token": "t"}, []),
        ("https://h/x", {"headers": {"A": "b"}, "block_size": 5}, []),
        ("https://h/x", {"ssl": False}, [None]),
        ("memory://x", {"client": "first"}, []),
    ],
)
def test_an_option_counts_as_a_way_unless_it_is_known_as_harmless(
    source: str, options: dict[str, Any], expected: list[str | None]
) -> None:
    assert [way.url for way in ways_of(Source.parse(source), options)] == expected


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("s3.amazonaws.com", True),
        ("s3.eu-west-1.amazonaws.com", True),
        ("s3.dualstack.us-gov-west-1.amazonaws.com", True),
        ("s3.cn-north-1.amazonaws.com.cn", True),
        ("team.s3.amazonaws.com", False),
        ("ec2-1-2-3-4.eu-west-1.compute.amazonaws.com", False),
        ("s3.amazonaws.com.stranger.example", False),
        ("s3-website-eu-west-1.amazonaws.com", False),
    ],
)
def test_only_aws_endpoints_get_aws_credentials(host: str, own: bool) -> None:
    source = Source.parse("s3://b/x")

    def strange(scheme: str) -> bool:
        options = {"endpoint_url": f"{scheme}://{host}"}
        return strange_ways(source, options, lambda _: False) != ()

    assert (strange("https"), strange("http")) == (not own, True)


def test_an_origin_has_one_spelling() -> None:
    assert origin_of("HTTP://[::1]:80/x") == "http://[::1]"
    assert origin_of("https://h:8443") == "https://h:8443"
    for text in ("", "host", "http://", "http://h:99999", "http://[::1"):
        assert origin_of(text) is None


def test_a_program_that_names_a_host_itself_is_the_user(
    signed_in: S3Server, ready: Project
) -> None:
    source = put_folder(signed_in, signed_in.bucket(), "tone", ready.folder / "tone")
    options = {"endpoint_url": signed_in.endpoint}
    folder = open_source(Source.parse(source), directory=ready.folder, storage_options=options)
    assert "adapter_config.json" in folder.files()
    with pytest.raises(SourceError) as caught:
        open_source(
            Source.parse(source),
            directory=ready.folder,
            storage_options=options,
            vouches=lambda _: False,
        ).files()
    assert caught.value.code == "AD389"
