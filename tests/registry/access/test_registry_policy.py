"""Which registries a policy allows, and what its globs mean for adapters in one."""

from __future__ import annotations

from pathlib import Path

import adapterdock
import pytest
import yaml
from adapterdock.manifests.findings.finding import Where
from adapterdock.manifests.language.schema import Policy
from adapterdock.manifests.language.source import Source
from adapterdock.manifests.manifest import read_manifest, read_policy
from adapterdock.registry.access.policy import (
    allowed_registries,
    check_registry,
    check_registry_road,
    check_source,
)
from adapterdock.registry.sources.roads import Road
from pydantic import ValidationError
from support.project import Project, codes
from support.web import WebServer

ID, OTHER = "0123456789abcdef", "fedcba9876543210"
DESK = Path("/desk")


def allowed(glob: str, registry: str, source: str = "registry://team/refunds@^2.1") -> bool:
    policies = [Policy(allow_sources=(glob,))]
    place = Source.parse(registry)
    return not check_source(Source.parse(source), policies, DESK, Where(), place)


@pytest.mark.parametrize(
    ("glob", "registry"),
    [
        ("s3://models/registry/*", "s3://models/registry"),
        ("s3://models/registry/refunds", "s3://models/registry/"),
        ("s3://models/registry/refunds@*", "s3://models/registry"),
        ("./registry/*", "./registry"),
        ("./registry/*", "/desk/registry"),
        ("../shared/*", "../shared/registry"),
        ("/srv/*", "/srv/registry"),
        ("*", "gs://bucket/r"),
    ],
)
def test_a_glob_allows_an_adapter_below_the_registrys_place(glob: str, registry: str) -> None:
    assert allowed(glob, registry)


@pytest.mark.parametrize(
    ("glob", "registry"),
    [
        ("registry://team/*", "s3://models/registry"),
        ("registry://*", "s3://models/registry"),
        ("s3://models/registry/*", "s3://models/registry-evil"),
        ("s3://models/registry/*", "s3://other/registry"),
        ("s3://models/registry/tone", "s3://models/registry"),
        ("./registry/*", "../registry"),
    ],
)
def test_a_glob_allows_nothing_by_the_local_name_or_elsewhere(glob: str, registry: str) -> None:
    assert not allowed(glob, registry)


def test_a_glob_by_the_local_name_is_answered_with_what_to_write() -> None:
    policies = [Policy(allow_sources=("registry://team/*",))]
    place, source = Source.parse("s3://b/r"), Source.parse("registry://team/refunds@^2.1")
    (finding,) = check_source(source, policies, DESK, Where(), place)
    assert "s3://b/r/refunds@^2.1" in str(finding.hint)
    assert "registry's URL" in str(finding.hint)


def listing(*rows: dict[str, str]) -> Policy:
    return Policy.model_validate({"registries": list(rows)}, strict=False)


def refused(policies: list[Policy], registry: str, id_: str | None = ID) -> list[str]:
    place = Source.parse(registry)
    return codes(check_registry(place, id_, policies, DESK, Where()))


def test_a_registry_is_allowed_by_its_place_and_id() -> None:
    s3 = listing({"url": "s3://b/r", "id": ID}, {"url": "/srv/r"})
    for registry, id_ in (("s3://b/r/", ID), ("s3://b/r", None), ("../srv/r", OTHER)):
        assert refused([s3], registry, id_) == []
    for registry, id_ in (("s3://b/r", OTHER), ("s3://b/r2", ID), ("./srv/r", None)):
        assert refused([s3], registry, id_) == ["AD856"]


def test_each_policy_must_list_a_registry_and_an_empty_list_has_none() -> None:
    both = [listing({"url": "s3://b/r"}), listing({"url": "s3://b/r", "id": ID})]
    assert refused(both, "s3://b/r") == []
    assert refused([*both, Policy()], "s3://b/r") == []
    assert refused([*both, listing({"url": "s3://c/r"})], "s3://b/r") == ["AD856"]
    assert refused([Policy(registries=())], "s3://b/r") == ["AD856"]


def test_empty_keys_do_not_mean_that_no_signature_is_needed() -> None:
    with pytest.raises(ValidationError, match="keys"):
        Policy.model_validate({"registries": [{"url": "s3://b/r", "keys": []}]}, strict=False)
    assert listing({"url": "s3://b/r"}).registries is not None


def test_a_registry_of_another_id_is_not_the_one_that_is_listed() -> None:
    policy = listing({"url": "s3://b/r", "id": ID}, {"url": "s3://b/r"})
    place = Source.parse("s3://b/r")
    assert len(allowed_registries(policy, place, ID, DESK)) == 2
    assert len(allowed_registries(policy, place, OTHER, DESK)) == 1
    assert allowed_registries(policy, Source.parse("s3://b"), None, DESK) == []


def test_a_manifest_that_points_an_allowed_registrys_name_elsewhere_is_refused(
    project: Project, web: WebServer
) -> None:
    project.base()
    project.write({"tone": "registry://team/tone@^1"}, registries={"team": f"{web.url}/registry"})
    policy = project.folder / "policy.yaml"
    policy.write_text(yaml.safe_dump({"registries": [{"url": "https://models.acme.example/r"}]}))
    report = adapterdock.validate(project.manifest, policy=policy)
    assert "AD856" in codes(report.errors)
    policy.write_text(yaml.safe_dump({"allow_sources": ["registry://team/*", "./*"]}))
    report = adapterdock.validate(project.manifest, policy=policy)
    assert "AD851" in codes(report.errors)
    assert web.requests == []


def test_paths_of_a_policy_are_relative_to_the_file_that_has_them(tmp_path: Path) -> None:
    platform = tmp_path / "platform"
    platform.mkdir()
    rows = {
        "require_signature": {"keys": ["a.pub", "/etc/b.pub", "-----BEGIN PUBLIC KEY-----\n"]},
        "registries": [{"url": "./r", "keys": ["c.pub"]}, {"url": "s3://b/r"}],
    }
    (platform / "policy.yaml").write_text(yaml.safe_dump(rows))
    (platform / "base.yaml").write_text(yaml.safe_dump({"version": 1, "policy": rows}))
    over = tmp_path / "m.yaml"
    over.write_text(
        "version: 1\nextends: platform/base.yaml\npolicy: {require_signature: {keys: [mine.pub]}}\n"
    )
    archive = tmp_path / "archive.yaml"
    archive.write_text("registries: [{url: 'oci-archive:r.tar'}]\n")
    listed = read_policy(archive)
    assert allowed_registries(listed, Source.parse("oci-archive:./r.tar"), None, tmp_path)
    assert not allowed_registries(listed, Source.parse("oci-archive:./r.tar"), None, platform)
    memory = read_manifest({"version": 1, "policy": rows}).manifest.policy
    file = read_manifest(over)
    base = f"{platform.as_posix()}/"
    for policy in (read_policy(platform / "policy.yaml"), file.extended[0].policy):
        assert policy.require_signature is not None and policy.registries is not None
        assert policy.require_signature.keys[:2] == (f"{base}a.pub", "/etc/b.pub")
        assert policy.require_signature.keys[2].startswith("-----BEGIN PUBLIC KEY-----")
        assert [str(one.url) for one in policy.registries] == [f"{base}r", "s3://b/r"]
        assert policy.registries[0].keys == (f"{base}c.pub",)
    merged = file.manifest.policy
    assert merged.require_signature is not None and merged.registries is not None
    assert merged.require_signature.keys == (f"{tmp_path.as_posix()}/mine.pub",)
    assert str(merged.registries[0].url) == f"{base}r"
    assert memory.require_signature is not None
    assert memory.require_signature.keys[0] == (Path.cwd() / "a.pub").as_posix()


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({"registries": [{"url": "s3://models/registry"}]}, ["AD856"]),
        ({"registries": [{"url": "https://evil.example/models/registry"}]}, []),
        ({"allow_sources": ["s3://models/registry/*"]}, ["AD851"]),
        ({"allow_sources": ["https://evil.example/models/registry/team/refunds"]}, []),
        ({}, []),
    ],
)
def test_storage_options_that_lead_elsewhere_must_be_allowed_too(
    rule: dict[str, object], wanted: list[str]
) -> None:
    policies = [Policy.model_validate(rule, strict=False)]
    place = Source.parse("s3://models/registry")
    options = {"client_kwargs": {"endpoint_url": "https://evil.example"}, "profile": "me"}
    road = Road(place, options, None, frozenset())
    assert codes(check_registry_road(road, "team/refunds", policies, Where())) == wanted
    by_user = Road(place, options, None, frozenset({"https://evil.example"}))
    assert check_registry_road(by_user, "team/refunds", policies, Where()) == []
