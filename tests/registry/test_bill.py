"""Bills of materials: what they list, which licences they know, and that they are CycloneDX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapterdock
import pytest
from adapterdock.manifests.findings.errors import LockError, PolicyError, UsageError
from adapterdock.registry.bill import bill
from adapterdock.registry.cyclonedx import cyclonedx
from adapterdock.registry.pushing import push
from packageurl import PackageURL
from support.hub_server import HubServer
from support.oci_server import OciServer
from support.project import Project, codes, files_of
from support.published import registry


def card(folder: Path, licence: str) -> None:
    (folder / "README.md").write_text(f"---\nlicense: {licence}\n---\n# Card\n")


@pytest.fixture
def ready(project: Project) -> Project:
    card(project.base(), "apache-2.0")
    card(project.adapter("tone"), "mit")
    project.adapter("legal", seed=1)
    project.write(
        {"tone": "./tone", "legal": {"source": "./legal", "licence": "CC-BY-NC-4.0"}},
        name="desk",
        compositions={"both": {"of": {"tone": 1.0, "legal": 0.5}}},
    )
    adapterdock.lock(project.manifest)
    return project


def made(project: Project, **options: Any) -> Any:
    return json.loads(cyclonedx(bill(project.manifest, **options)))


def by_ref(data: Any) -> dict[str, Any]:
    return {component["bom-ref"]: component for component in data["components"]}


def test_everything_that_the_lock_pins_is_listed_with_its_digest(ready: Project) -> None:
    data = made(ready)
    parts = by_ref(data)
    assert list(parts) == ["adapter:legal", "adapter:tone", "base", "composition:both"]
    assert {part["type"] for part in parts.values()} == {"machine-learning-model"}
    for ref, files in (
        ("adapter:tone", ready.lock.adapters["tone"].files),
        ("base", ready.lock.base.files if ready.lock.base else {}),
    ):
        hashes = {one["name"]: one["hashes"][0]["content"] for one in parts[ref]["components"]}
        expected = {p: (f.sha256 or "").removeprefix("sha256:") for p, f in files.items()}
        assert hashes == expected
    assert parts["adapter:tone"]["version"] == ready.lock.adapters["tone"].digest
    assert data["metadata"]["component"]["name"] == "desk"


def test_adapters_depend_on_the_base_and_compositions_on_their_members(ready: Project) -> None:
    data = made(ready)
    found = {one["ref"]: one.get("dependsOn", []) for one in data["dependencies"]}
    assert found["adapter:tone"] == found["adapter:legal"] == ["base"]
    assert found["composition:both"] == ["adapter:legal", "adapter:tone"]
    assert found["base"] == []
    assert sorted(found["setup"]) == sorted(by_ref(data))
    (whole,) = data["compositions"]
    assert whole["aggregate"] == "complete"
    assert sorted(whole["assemblies"]) == sorted(["setup", *by_ref(data)])


def test_licences_are_those_of_the_manifest_and_of_the_cards(ready: Project) -> None:
    parts = by_ref(made(ready))
    ids = {ref: part.get("licenses", [{}])[0].get("license") for ref, part in parts.items()}
    assert ids == {
        "adapter:legal": {"id": "CC-BY-NC-4.0"},
        "adapter:tone": {"id": "MIT"},
        "base": {"id": "Apache-2.0"},
        "composition:both": None,
    }


def test_licences_that_need_a_look_together_are_warned_of(ready: Project) -> None:
    (finding,) = bill(ready.manifest).findings
    assert finding.code == "AD837"
    assert "commercially" in finding.message
    assert finding.found == "CC-BY-NC-4.0 on apache-2.0"
    assert "legal" in str(finding.where)


def test_an_unknown_licence_is_said_to_be_unknown(ready: Project) -> None:
    (ready.folder / "base/README.md").unlink()
    (ready.folder / "tone/README.md").write_text("no metadata")
    found = bill(ready.manifest)
    assert codes(found.findings) == ["AD838", "AD838"]
    assert "licenses" not in by_ref(made(ready))["base"]


def test_a_name_that_is_no_spdx_id_stays_a_name(ready: Project) -> None:
    card(ready.folder / "base", "llama3.1")
    assert by_ref(made(ready))["base"]["licenses"] == [{"license": {"name": "llama3.1"}}]
    card(ready.folder / "base", "[mit, apache-2.0]")
    assert by_ref(made(ready))["base"]["licenses"] == [{"expression": "mit AND apache-2.0"}]


def test_the_same_lock_gives_the_same_bytes_and_another_one_another_number(
    ready: Project,
) -> None:
    first = cyclonedx(bill(ready.manifest))
    assert cyclonedx(bill(ready.manifest)) == first
    ready.adapter("tone", seed=7)
    card(ready.folder / "tone", "mit")
    adapterdock.lock(ready.manifest, upgrade=["tone"])
    again = cyclonedx(bill(ready.manifest))
    assert json.loads(again)["serialNumber"] != json.loads(first)["serialNumber"]


def test_it_is_valid_cyclonedx(ready: Project) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(
        cyclonedx(bill(ready.manifest)).decode()
    )
    assert problem is None, problem


def test_models_on_the_hub_have_a_purl_at_their_commit_and_the_card_of_that_commit(
    project: Project, hub: HubServer
) -> None:
    base, tone = project.base(), project.adapter("tone")
    card(base, "apache-2.0")
    card(tone, "mit")
    hub.commit("org/base", files_of(base))
    hub.commit("acme/tone", files_of(tone))
    project.write({"tone": "hf://acme/tone"}, model="hf://org/base")
    lock = adapterdock.lock(project.manifest)
    card(tone, "cc-by-nc-4.0")
    hub.commit("acme/tone", files_of(tone))  # later: another licence
    part = by_ref(made(project))["adapter:tone"]
    revision = lock.adapters["tone"].revision
    assert part["purl"] == f"pkg:huggingface/acme/tone@{revision}"
    assert part["version"] == revision
    assert part["licenses"] == [{"license": {"id": "MIT"}}]
    assert part["externalReferences"][0]["url"] == "https://huggingface.co/acme/tone"


def test_an_adapter_of_a_registry_has_the_licence_and_digest_of_its_entry(
    project: Project,
) -> None:
    card(project.base(), "apache-2.0")
    project.adapter("tone")
    project.write(registries={"team": "./registry"})
    registry(project.folder / "registry")
    options: dict[str, Any] = {"manifest": project.manifest, "licence": "MIT"}
    done = adapterdock.publish(project.folder / "tone", "team/tone@1.0.0", **options)
    project.write({"tone": "registry://team/tone@^1"}, registries={"team": "./registry"})
    adapterdock.lock(project.manifest)
    part = by_ref(made(project))["adapter:tone"]
    about = {one["name"]: one["value"] for one in part["properties"]}
    assert part["licenses"] == [{"license": {"id": "MIT"}}]
    assert about["adapterdock:entry"] == done.resolved.digest
    assert about["adapterdock:source"] == "registry://team/tone@1.0.0"


def test_an_adapter_in_an_oci_registry_has_a_purl_with_its_digest(
    project: Project, oci: OciServer
) -> None:
    card(project.base(), "apache-2.0")
    card(project.adapter("tone"), "mit")
    project.write({})
    target = f"oci://{oci.host}/team/tone:1.0.0"
    pushed = push(str(project.folder / "tone"), target, manifest=project.manifest)
    project.write({"tone": target})
    adapterdock.lock(project.manifest)
    part = by_ref(made(project))["adapter:tone"]
    purl = PackageURL.from_string(part["purl"])
    assert (purl.type, purl.name, purl.version) == ("oci", "tone", pushed.digest)
    assert purl.qualifiers == {"repository_url": f"{oci.host}/team/tone", "tag": "1.0.0"}
    assert part["licenses"] == [{"license": {"id": "MIT"}}]


def test_offline_a_licence_that_needs_the_network_is_unknown(
    project: Project, hub: HubServer
) -> None:
    base = project.base()
    card(base, "apache-2.0")
    hub.commit("org/base", files_of(base))
    project.adapter("tone")
    project.write({"tone": {"source": "./tone", "licence": "MIT"}}, model="hf://org/base")
    adapterdock.lock(project.manifest)
    assert codes(bill(project.manifest).findings) == []
    hub.close()
    assert codes(bill(project.manifest, offline=True).findings) == ["AD838"]


def test_a_missing_and_a_stale_lock_are_refused(ready: Project) -> None:
    ready.change("legal: 0.5", "legal: 0.6")
    with pytest.raises(LockError):
        bill(ready.manifest)
    ready.lock_file.unlink()
    with pytest.raises(LockError):
        bill(ready.manifest)


def test_a_policy_that_forbids_a_source_forbids_its_bill(ready: Project) -> None:
    policy = ready.folder / "policy.yaml"
    policy.write_text("allow_sources: ['hf://**']\n")
    with pytest.raises(PolicyError):
        bill(ready.manifest, policy=policy)


def test_without_the_library_the_extra_is_named(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from adapterdock.registry.cyclonedx import _library

    _library.cache_clear()
    monkeypatch.setitem(sys.modules, "cyclonedx.output.json", None)
    with pytest.raises(UsageError) as caught:
        cyclonedx(bill(ready.manifest))
    assert caught.value.code == "AD836"
    assert "adapterdock[sbom]" in str(caught.value)
