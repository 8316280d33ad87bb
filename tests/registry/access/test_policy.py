"""What a platform's policy forbids, and the roads around it."""

from __future__ import annotations

from pathlib import Path

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.errors import ManifestError, PolicyError
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.schema import Policy
from adapterdock.manifests.language.source import Source
from adapterdock.registry.access.policy import check_base, check_size, check_source
from adapterdock.registry.files.facts import FileFact
from support.hub_server import HubServer
from support.project import Project, codes, files_of
from support.web import WebServer


def allowed(glob: str, source: str, directory: Path = Path("/desk")) -> bool:
    policies = [Policy(allow_sources=(glob,), allow_bases=(glob,))]
    parsed = Source.parse(source)
    found = check_source(parsed, policies, directory, Where())
    bases = check_base(parsed, policies, directory, Where())
    assert [codes(found), codes(bases)] in ([[], []], [["AD851"], ["AD852"]])
    return not found


@pytest.mark.parametrize(
    ("glob", "source"),
    [
        ("s3://team/*", "s3://team/tone/v7"),
        ("hf://acme/*", "hf://acme/tone"),
        ("hf://acme/*", "hf://acme/tone@v2"),
        ("hf://acme/*", "hf://acme/tone@v2/checkpoint-1000"),
        ("hf://acme/tone", "hf://acme/tone@v2"),
        ("hf://acme/tone/checkpoint-*", "hf://acme/tone@v2/checkpoint-1000"),
        ("hf://acme/tone@v2", "hf://acme/tone@v2"),
        ("./*", "./adapters/legal"),
        ("./*", "./a/../b"),
        ("./*", "/desk/adapters/legal"),
        ("/srv/*", "/srv/adapters/tone"),
        ("../shared/*", "../shared/tone"),
        ("https://models.acme.example/*", "HTTPS://Models.ACME.example:443/tone"),
        ("*", "gs://bucket/tone"),
    ],
)
def test_a_glob_allows_what_it_spells(glob: str, source: str) -> None:
    assert allowed(glob, source)


@pytest.mark.parametrize(
    ("glob", "source"),
    [
        ("s3://team/*", "s3://team-evil/tone"),
        ("s3://team/*", "s3://TEAM/tone"),
        ("s3://team/*", "s3a://team/tone"),
        ("s3://team/*", "gs://team/tone"),
        ("hf://acme/*", "hf://other/acme"),
        ("hf://acme/*", "hf://other/x@acme"),
        ("hf://acme/*", "hf://acme-evil/tone"),
        ("hf://acme/*", "hf://ACME/tone"),
        ("hf://acme/tone@v2", "hf://acme/tone@v3"),
        ("hf://acme/tone@v2", "hf://acme/tone"),
        ("./*", "../elsewhere/tone"),
        ("./*", "./inside/../../outside"),
        ("./*", "/srv/tone"),
        ("../shared/*", "../shared/../other"),
        ("../shared/*", "../shared-evil/tone"),
        ("./*", "/desktop/tone"),
        ("./adapters/*", "./adapters/../secret"),
        ("./adapters/*", "./adapters-evil/x"),
        ("https://models.acme.example/*", "https://models.acme.example.evil.net/tone"),
        ("https://models.acme.example/*", "http://models.acme.example/tone"),
        ("https://models.acme.example/*", "https://models.acme.example:8443/tone"),
    ],
)
def test_a_glob_does_not_allow_what_only_looks_like_it(glob: str, source: str) -> None:
    assert not allowed(glob, source)


def test_steps_that_lead_elsewhere_cannot_be_written_into_a_url() -> None:
    for text in (
        "s3://team/../other/tone",
        "s3://team/%2e%2e/other",
        "hf://acme/tone/../../other",
        "https://models.acme.example/a/%2E%2E/b",
    ):
        with pytest.raises(ValueError):
            Source.parse(text)


def test_a_link_is_where_it_leads(tmp_path: Path) -> None:
    inside, outside = tmp_path / "desk", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    (inside / "real").mkdir()
    (inside / "near").symlink_to(inside / "real")
    assert not allowed("./*", "./link", inside)
    assert allowed("./*", "./near", inside)
    assert allowed(f"{tmp_path.resolve()}/outside", "./link", inside)


def test_every_policy_must_allow_and_an_empty_list_allows_nothing() -> None:
    source, where = Source.parse("s3://team/tone"), Where()
    wide, narrow = Policy(allow_sources=("*",)), Policy(allow_sources=("hf://*",))
    silent, nothing = Policy(), Policy(allow_sources=())
    assert check_source(source, [wide, silent], Path(), where) == []
    assert len(check_source(source, [wide, narrow, nothing], Path(), where)) == 2


def test_the_tightest_limit_on_size_counts() -> None:
    files = [FileFact("a", 600), FileFact("b", 500)]
    limits = [Policy(max_adapter_bytes="1GiB"), Policy(max_adapter_bytes="1KB"), Policy()]
    found = check_size(files, limits, "tone", Where())
    assert codes(found) == ["AD854"]
    assert (found[0].found, found[0].expected) == ("1100 bytes", "at most 1KB")
    assert check_size(files, [Policy(max_adapter_bytes="1.1KB")], "tone", Where()) == []


# Through the commands.


@pytest.fixture
def ready(project: Project) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"})
    return project


def policy_file(project: Project, name: str = "policy.yaml", **keys: object) -> Path:
    path = project.folder / name
    path.write_text(yaml.safe_dump(keys))
    return path


def verdict(project: Project, policy: Path | None = None) -> list[str]:
    report = adapterdock.validate(project.manifest, policy=policy)
    return codes(report.errors)


def test_the_manifest_s_policy_a_file_and_the_variable_all_bind(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = policy_file(ready, allow_sources=["s3://*"])
    other = policy_file(ready, "other.yaml", allow_bases=["hf://*"])
    assert verdict(ready) == []
    assert verdict(ready, tight) == ["AD851"]
    monkeypatch.setenv("ADAPTERDOCK_POLICY", str(other))
    assert verdict(ready) == ["AD852"]
    assert sorted(verdict(ready, tight)) == ["AD851", "AD852"]
    ready.write({"tone": "./tone"}, policy={"allow_sources": ["*"], "allow_bases": ["*"]})
    assert sorted(verdict(ready, tight)) == ["AD851", "AD852"]  # it cannot loosen


def test_a_policy_that_cannot_be_read_is_no_permission(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_POLICY", str(ready.folder / "gone.yaml"))
    assert adapterdock.validate(ready.manifest).exit_status == 1
    with pytest.raises(ManifestError):
        adapterdock.lock(ready.manifest)
    monkeypatch.setenv("ADAPTERDOCK_POLICY", str(policy_file(ready, allow_source=["*"])))
    assert adapterdock.validate(ready.manifest).exit_status == 1  # an unknown key


def test_a_forbidden_source_is_never_contacted(ready: Project, hub: HubServer) -> None:
    hub.commit("evil/tone", files_of(ready.folder / "tone"))
    hub.commit("evil/base", files_of(ready.folder / "base"))
    ready.write({"tone": "hf://evil/tone"}, model="hf://evil/base")
    policy = policy_file(ready, allow_sources=["hf://acme/*"], allow_bases=["hf://acme/*"])
    assert sorted(verdict(ready, policy)) == ["AD851", "AD852"]
    for act in (adapterdock.lock, adapterdock.pull):
        with pytest.raises(PolicyError) as caught:
            act(ready.manifest, policy=policy)
        assert sorted(codes(caught.value.findings)) == ["AD851", "AD852"]
    assert hub.requests == []


def test_a_policy_tightened_after_the_lock_binds_at_pull(ready: Project, hub: HubServer) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    ready.write({"tone": "hf://acme/tone"})
    adapterdock.lock(ready.manifest)
    adapterdock.pull(ready.manifest)
    hub.requests.clear()
    for tight, code in (
        ({"allow_sources": ["s3://*"]}, "AD851"),
        ({"allow_bases": ["s3://*"]}, "AD852"),
        ({"max_adapter_bytes": "1KB"}, "AD854"),
    ):
        policy = policy_file(ready, **tight)
        assert verdict(ready, policy) == [code]
        for frozen in (False, True):
            with pytest.raises(PolicyError) as caught:
                adapterdock.pull(ready.manifest, policy=policy, frozen=frozen)
            assert codes(caught.value.findings) == [code]
    assert hub.requests == []


def test_a_required_digest_is_satisfied_by_the_manifest_or_by_the_lock(ready: Project) -> None:
    policy = policy_file(ready, require_digest=True)
    assert verdict(ready, policy) == ["AD853"]
    with pytest.raises(PolicyError):
        adapterdock.pull(ready.manifest, policy=policy)
    lock = adapterdock.lock(ready.manifest, policy=policy)
    assert verdict(ready, policy) == []
    adapterdock.pull(ready.manifest, policy=policy)
    ready.lock_file.unlink()
    ready.write({"tone": {"source": "./tone", "sha256": lock.adapters["tone"].digest}})
    assert verdict(ready, policy) == []
    adapterdock.pull(ready.manifest, policy=policy)


def test_a_lock_for_another_source_is_no_digest_of_this_one(ready: Project) -> None:
    policy = policy_file(ready, require_digest=True)
    adapterdock.lock(ready.manifest)
    ready.adapter("other")
    ready.change("./tone", "./other")
    assert verdict(ready, policy) == ["AD853"]


def test_a_mutable_adapter_is_refused_where_a_digest_is_required(ready: Project) -> None:
    policy = policy_file(ready, require_digest=True)
    ready.write({"tone": {"source": "./tone", "mutable": True}})
    assert verdict(ready, policy) == ["AD853"]
    with pytest.raises(PolicyError):
        adapterdock.lock(ready.manifest, policy=policy)
    adapterdock.lock(ready.manifest)
    with pytest.raises(PolicyError):
        adapterdock.pull(ready.manifest, policy=policy)


def test_a_mutable_adapter_that_grew_is_measured_as_it_is(ready: Project) -> None:
    ready.write({"tone": {"source": "./tone", "mutable": True}})
    adapterdock.lock(ready.manifest)
    policy = policy_file(ready, max_adapter_bytes="5KB")
    adapterdock.pull(ready.manifest, policy=policy)
    ready.adapter("tone", r=16)
    with pytest.raises(PolicyError) as caught:
        adapterdock.pull(ready.manifest, policy=policy)
    assert caught.value.code == "AD854"


def test_too_large_an_adapter_is_refused_before_it_is_downloaded(
    ready: Project, hub: HubServer
) -> None:
    ready.adapter("large", r=1024)
    hub.commit("acme/large", files_of(ready.folder / "large"))
    ready.write({"large": "hf://acme/large"})
    policy = policy_file(ready, max_adapter_bytes="100KB")
    assert verdict(ready, policy) == ["AD854"]
    with pytest.raises(PolicyError):
        adapterdock.lock(ready.manifest, policy=policy)
    assert hub.bytes_sent < (1 << 16) + 4096


def mirrored(project: Project, web: WebServer, folder: str = "tone") -> None:
    for path, content in files_of(project.folder / folder).items():
        web.files[f"/hf/acme/{folder}/main/{path}"] = content


def test_a_mirror_does_not_change_what_a_source_is_called(
    ready: Project, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrored(ready, web)
    ready.write({"tone": "hf://acme/tone"}, mirrors={"hf://": "${MIRROR}"})
    monkeypatch.setenv("MIRROR", f"{web.url}/hf/")
    assert verdict(ready, policy_file(ready, allow_sources=["hf://acme/*"])) == []
    assert verdict(ready, policy_file(ready, allow_sources=[f"{web.url}/*"])) == ["AD851"]


# Every way to name a place. Beside what the manifest declares, a place that the manifest chose must
# be allowed; one that the environment chose need not.


def test_a_mirror_of_the_manifest_must_be_allowed_too(ready: Project, web: WebServer) -> None:
    mirrored(ready, web)
    ready.write({"tone": "hf://acme/tone"}, mirrors={"hf://": f"{web.url}/hf/"})
    narrow = policy_file(ready, allow_sources=["hf://acme/*"])
    assert verdict(ready, narrow) == ["AD851"]
    with pytest.raises(PolicyError):
        adapterdock.lock(ready.manifest, policy=narrow)
    with pytest.raises(PolicyError):
        adapterdock.pull(ready.manifest, policy=narrow)
    assert web.requests == []
    both = policy_file(ready, allow_sources=["hf://acme/*", f"{web.url}/hf/acme/*"])
    assert verdict(ready, both) == []
    lock = adapterdock.lock(ready.manifest, policy=both)
    entry = lock.adapters["tone"]
    assert (entry.declared, entry.fetched_from) == (
        "hf://acme/tone",
        f"{web.url}/hf/acme/tone/main",
    )
    narrow = policy_file(ready, allow_sources=["hf://acme/*"])
    with pytest.raises(PolicyError):  # though all of it is in the store by now
        adapterdock.pull(ready.manifest, policy=narrow, frozen=True)


@pytest.mark.parametrize("mirror", ["./evil", "../evil", "{folder}/evil", "hf://evil", "s3://evil"])
def test_a_mirror_of_any_kind_must_be_allowed(ready: Project, hub: HubServer, mirror: str) -> None:
    mirror = mirror.replace("{folder}", str(ready.folder))
    ready.write({"tone": "hf://acme/tone"}, mirrors={"hf://acme": mirror})
    assert verdict(ready, policy_file(ready, allow_sources=["hf://acme/*"])) == ["AD851"]
    assert hub.requests == []


def test_a_base_s_mirror_and_endpoint_must_be_allowed_too(
    ready: Project, web: WebServer, hub: HubServer
) -> None:
    mirrored(ready, web, "base")
    ready.write({}, model="hf://acme/base", mirrors={"hf://": f"{web.url}/hf/"})
    assert verdict(ready, policy_file(ready, allow_bases=["hf://acme/*"])) == ["AD852"]
    both = policy_file(ready, allow_bases=["hf://acme/*", f"{web.url}/hf/*"])
    assert verdict(ready, both) == []
    lock = adapterdock.lock(ready.manifest, policy=both)
    assert lock.base is not None and lock.base.fetched_from == f"{web.url}/hf/acme/base/main"
    endpoint = {"storage_options": {"endpoint": "http://stranger.invalid"}}
    ready.write({}, model="hf://acme/base", base=endpoint)
    assert verdict(ready, policy_file(ready, allow_bases=["hf://acme/*"])) == ["AD852"]


def test_an_endpoint_of_the_manifest_must_be_allowed_too(ready: Project, hub: HubServer) -> None:
    stranger = HubServer()
    try:
        stranger.commit("acme/tone", files_of(ready.folder / "tone"))
        row = {"source": "hf://acme/tone", "storage_options": {"endpoint": stranger.endpoint}}
        ready.write({"tone": row})
        assert verdict(ready, policy_file(ready, allow_sources=["hf://acme/*"])) == ["AD851"]
        assert stranger.requests == []
        globs = ["hf://acme/*", f"{stranger.endpoint}/acme/*"]
        assert verdict(ready, policy_file(ready, allow_sources=globs)) == []
        globs[1] = f"{stranger.endpoint}/other/*"
        assert verdict(ready, policy_file(ready, allow_sources=globs)) == ["AD851"]
    finally:
        stranger.close()


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint_url": "https://stranger.invalid"},
        {"client_kwargs": {"endpoint_url": "https://stranger.invalid"}},
        {"client_kwargs": {"verify": False}},
        {"config_kwargs": {"proxies": {"https": "http://stranger.invalid"}}},
    ],
    ids=str,
)
def test_an_option_that_leads_elsewhere_needs_leave(ready: Project, options: object) -> None:
    ready.write({"tone": {"source": "s3://team/tone", "storage_options": options}})
    assert verdict(ready, policy_file(ready, allow_sources=["s3://team/*"])) == ["AD851"]


def test_an_endpoint_of_the_environment_needs_no_leave(
    ready: Project, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    policy = policy_file(ready, allow_sources=["hf://acme/*"])
    ready.write({"tone": "hf://acme/tone"})  # HF_ENDPOINT is not the Hub's own
    assert verdict(ready, policy) == []
    ready.write(
        {"tone": {"source": "hf://acme/tone", "storage_options": {"endpoint": "${OUR_HUB}"}}}
    )
    monkeypatch.setenv("OUR_HUB", hub.endpoint)
    assert verdict(ready, policy) == []
    lock = adapterdock.lock(ready.manifest, policy=policy)
    assert lock.adapters["tone"].fetched_from == f"{hub.endpoint}/acme/tone"


def test_an_endpoint_that_moves_stales_no_lock(ready: Project, hub: HubServer) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    row = {"source": "hf://acme/tone", "storage_options": {"endpoint": hub.endpoint}}
    ready.write({"tone": row})
    lock = adapterdock.lock(ready.manifest)
    ready.change(hub.endpoint, "http://moved.invalid")
    adapterdock.pull(ready.manifest, frozen=True)
    assert adapterdock.lock(ready.manifest, offline=True) == lock
    ready.change("hf://acme/tone", "hf://acme/other")
    with pytest.raises(adapterdock.LockError):
        adapterdock.pull(ready.manifest, frozen=True)


def test_a_variable_and_an_override_name_a_place_like_the_manifest(
    ready: Project, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.write({"tone": "${TONE}"})
    monkeypatch.setenv("TONE", "hf://evil/tone")
    policy = policy_file(ready, allow_sources=["./*"], allow_bases=["./*"])
    assert verdict(ready, policy) == ["AD851"]
    ready.write({"tone": "./tone"})
    report = adapterdock.validate(ready.manifest, policy=policy, model="hf://evil/base")
    assert codes(report.errors) == ["AD852"]
    assert hub.requests == []


def test_a_registry_must_be_allowed_and_is_not_opened(ready: Project, web: WebServer) -> None:
    ready.write({"tone": "registry://team/tone@^1"}, registries={"team": f"{web.url}/registry"})
    assert verdict(ready, policy_file(ready, allow_sources=["./*"])) == ["AD851"]
    assert web.requests == []


def test_a_lock_that_was_edited_leads_nowhere(ready: Project, hub: HubServer) -> None:
    commit = hub.commit("acme/tone", files_of(ready.folder / "tone"))
    ready.write({"tone": "hf://acme/tone"})
    adapterdock.lock(ready.manifest)
    text = ready.lock_file.read_text()
    pinned, reached = f"source: hf://acme/tone@{commit}", f"fetched_from: {hub.endpoint}/acme/tone"
    assert pinned in text and reached in text
    text = text.replace(pinned, f"source: hf://evil/tone@{commit}")
    ready.lock_file.write_text(text.replace(reached, "fetched_from: http://stranger.invalid/x"))
    hub.requests.clear()
    adapterdock.pull(ready.manifest, policy=policy_file(ready, allow_sources=["hf://acme/*"]))
    assert hub.count("evil") == 0


def test_a_mirror_may_redirect_only_where_a_policy_allows(
    ready: Project, web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = WebServer()
    try:
        mirrored(ready, other)
        for path in other.files:
            web.redirects[path] = other.url + path
        ready.write({"tone": "hf://acme/tone"}, mirrors={"hf://": f"{web.url}/hf/"})
        narrow = policy_file(ready, allow_sources=["hf://acme/*", f"{web.url}/*"])
        assert verdict(ready, narrow) == ["AD855"]
        assert other.requests == []
        ready.write({"tone": "hf://acme/tone"}, mirrors={"hf://": "${MIRROR}"})
        monkeypatch.setenv("MIRROR", f"{web.url}/hf/")
        assert (
            verdict(ready, narrow) == []
        )  # where the platform's mirror sends on is its own affair
    finally:
        other.close()


@pytest.mark.parametrize("above", ["policy: null", "policy: {allow_sources: ['*']}", "policy: {}"])
def test_a_policy_that_is_extended_stays_in_force(ready: Project, above: str) -> None:
    ready.write({"tone": "./tone"}, policy={"allow_sources": ["s3://*"], "require_digest": True})
    over = ready.folder / "over.yaml"
    over.write_text(f"extends: adapters.yaml\n{above}\n")
    assert sorted(codes(adapterdock.validate(over).errors)) == ["AD851", "AD853"]
    middle = ready.folder / "middle.yaml"
    middle.write_text(f"extends: over.yaml\n{above}\n")
    assert sorted(codes(adapterdock.validate(middle).errors)) == ["AD851", "AD853"]


def test_a_policy_over_another_may_only_be_tighter(ready: Project) -> None:
    ready.write({"tone": "./tone"}, policy={"allow_sources": ["./*"]})
    over = ready.folder / "over.yaml"
    for globs, expected in (("['./tone']", []), ("['*']", []), ("['./other']", ["AD851"])):
        over.write_text(f"extends: adapters.yaml\npolicy: {{allow_sources: {globs}}}\n")
        assert codes(adapterdock.validate(over).errors) == expected


def test_a_policy_that_is_extended_must_be_one(ready: Project) -> None:
    ready.write({"tone": "./tone"}, policy={"allow_source": ["./*"]})
    over = ready.folder / "over.yaml"
    over.write_text("extends: adapters.yaml\npolicy: null\n")
    assert codes(adapterdock.validate(over).errors) == ["AD120"]
    ready.manifest.write_text(ready.manifest.read_text().replace("allow_source:", "x-a:"))
    assert codes(adapterdock.validate(over).errors) == []
    ready.write({"tone": "./tone"}, policy=["./*"])
    assert codes(adapterdock.validate(over).errors) == ["AD121"]


def test_a_redirection_must_be_allowed_too(ready: Project, web: WebServer) -> None:
    other = WebServer()
    try:
        for path, content in files_of(ready.folder / "tone").items():
            other.files[f"/cdn/{path}"] = content
            web.redirects[f"/tone/{path}"] = f"{other.url}/cdn/{path}?Signature=abc"
        ready.write({"tone": f"{web.url}/tone"})
        assert verdict(ready) == []
        asked = len(other.requests)
        assert asked > 0
        narrow = policy_file(ready, allow_sources=[f"{web.url}/*"])
        assert verdict(ready, narrow) == ["AD855"]
        with pytest.raises(adapterdock.AdapterdockError):
            adapterdock.lock(ready.manifest, policy=narrow)
        assert len(other.requests) == asked  # the other host was not even asked
        both = policy_file(ready, allow_sources=[f"{web.url}/*", f"{other.url}/cdn/*"])
        assert verdict(ready, both) == []
        adapterdock.lock(ready.manifest, policy=both)
    finally:
        other.close()


def test_a_glob_for_the_folder_above_leads_no_further_up(tmp_path: Path) -> None:
    desk = tmp_path / "shelf[1]" / "desk"
    desk.mkdir(parents=True)
    assert allowed("../*", "../tone", desk)
    assert not allowed("../*", "../../tone", desk)
    assert allowed("../../*", "../../tone", desk)
