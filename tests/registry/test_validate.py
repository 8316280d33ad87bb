"""The verdict: what it says, that it never raises, and how little it reads."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapterdock
import fsspec
import jsonschema
import pytest
from adapterdock.manifests.findings.finding import REPORT_SCHEMA, Report, Severity
from adapterdock.registry.store.store import Store
from adapterdock.registry.validate import check_lock
from support.builders import (
    base_config,
    base_tensors,
    lora_config,
    lora_tensors,
    safetensors_bytes,
)
from support.hub_server import HubServer
from support.project import NAME, Project, codes, files_of, put_folder, stored
from support.s3_server import S3Server
from support.web import WebServer

WIDE = {f"model.layers.{n}.self_attn.q_proj": (2048, 2048) for n in range(2)}
"""Sites of a model with another hidden size."""


@pytest.fixture
def ready(project: Project) -> Project:
    project.base(tokenizer=True)
    project.adapter("tone")
    project.write({"tone": "./tone"})
    return project


def test_an_adapter_that_fits_passes_with_its_facts(ready: Project) -> None:
    report = adapterdock.validate(ready.manifest)
    assert (report.ok, report.exit_status, report.findings) == (True, 0, ())
    facts = report.adapters["tone"]
    assert (facts["method"], facts["rank"], facts["sites"]) == ("LORA", 4, 4)
    assert facts["targets"] == ["q_proj", "v_proj"]
    assert facts["source"] == "./tone"
    sizes = [p.stat().st_size for p in (ready.folder / "tone").iterdir()]
    assert facts["bytes"] == sum(sizes)


def test_each_verdict_has_its_exit_status(ready: Project) -> None:
    ready.adapter("wide", modules=WIDE)
    ready.base("strange", architectures=["NobodyKnowsForCausalLM"])
    assert adapterdock.validate(ready.write({"tone": "./tone"})).exit_status == 0
    assert adapterdock.validate(ready.write({"wide": "./wide"})).exit_status == 1
    report = adapterdock.validate(ready.write({"tone": "./tone"}, model="./strange"))
    assert report.exit_status == 3 and not report.ok and report.errors == ()
    report = adapterdock.validate(ready.write({"wide": "./wide"}, model="hf://org/../none"))
    assert report.exit_status == 1


def test_everything_that_is_wrong_is_said_at_once(ready: Project) -> None:
    ready.adapter("wide", modules=WIDE)
    (ready.folder / "empty").mkdir()
    manifest = ready.write(
        {"tone": "./tone", "wide": "./wide", "empty": "./empty", "gone": "./gone"},
        policy={"max_adapter_bytes": "1KB"},
    )
    found = {(f.where.path[1], f.code) for f in adapterdock.validate(manifest).errors}
    assert {("empty", "AD251"), ("gone", "AD201"), ("tone", "AD854"), ("wide", "AD854")} <= found
    assert any(name == "wide" and code.startswith("AD3") for name, code in found)


def test_a_manifest_s_own_warnings_are_in_the_report(ready: Project) -> None:
    manifest = ready.write({"tone": "./tone", "twin": "./tone"})
    report = adapterdock.validate(manifest)
    assert report.ok and len(report.warnings) == 1
    assert report.warnings[0].where.dotted == "adapters.twin.source"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "[]",
        "version: 2",
        "version: 1\nbase: {modle: x}",
        "version: 1\nadapters: {A: {}}",
        "{",
    ],
)
def test_a_wrong_manifest_is_a_report_and_no_exception(text: str, ready: Project) -> None:
    ready.manifest.write_text(text)
    report = adapterdock.validate(ready.manifest)
    assert report.exit_status == 1 and report.errors
    assert report.subject == str(ready.manifest)


def test_a_missing_manifest_policy_or_home_is_a_report(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert adapterdock.validate(ready.folder / "none.yaml").exit_status == 1
    assert adapterdock.validate(ready.manifest, policy="none.yaml").exit_status == 1
    ready.lock_file.write_text("nonsense")
    assert codes(adapterdock.validate(ready.manifest).errors) == ["AD501"]


def test_a_mapping_is_validated_as_a_file_is(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ready.folder)
    data = {
        "version": 1,
        "base": {"model": "./base", "aliases": [NAME]},
        "adapters": {"tone": {"source": "./tone"}},
    }
    report = adapterdock.validate(data)
    assert report.ok and report.subject == "<manifest>"


# The shape of the report.

TEXT = {"type": ["string", "null"]}
COUNT = {"type": ["integer", "null"]}
FINDING = {
    "type": "object",
    "additionalProperties": False,
    "required": ["code", "name", "severity", "message", "where", "found", "expected", "hint"],
    "properties": {
        "code": {"type": "string", "pattern": "^AD[0-9]{3}$"},
        "name": {"type": "string", "pattern": "^[a-z][a-z0-9-]+$"},
        "severity": {"enum": ["error", "unchecked", "warning"]},
        "message": {"type": "string", "minLength": 1},
        "where": {
            "type": "object",
            "additionalProperties": False,
            "required": ["file", "path", "line", "column"],
            "properties": {"file": TEXT, "path": TEXT, "line": COUNT, "column": COUNT},
        },
        "found": TEXT,
        "expected": TEXT,
        "hint": TEXT,
    },
}
ADAPTER = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "source": {"type": "string"},
        "method": TEXT,
        "rank": COUNT,
        "sites": COUNT,
        "targets": {"type": "array", "items": {"type": "string"}},
        "bytes": {"type": "integer"},
        "bytes_read": {"type": "integer"},
    },
}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "subject", "ok", "exit_status", "accepted", "findings", "adapters"],
    "properties": {
        "schema": {"const": "adapterdock.report/1"},
        "subject": {"type": "string"},
        "ok": {"type": "boolean"},
        "exit_status": {"enum": [0, 1, 3]},
        "accepted": {"type": "array", "items": {"type": "string"}},
        "findings": {"type": "array", "items": FINDING},
        "adapters": {"type": "object", "additionalProperties": ADAPTER},
    },
}


def test_the_report_s_json_keeps_its_schema(ready: Project) -> None:
    assert REPORT_SCHEMA == "adapterdock.report/1"  # another shape needs another name
    ready.adapter("wide", modules=WIDE)
    ready.base("strange", architectures=["NobodyKnowsForCausalLM"])
    adapters = {"tone": "./tone", "wide": "./wide", "gone": "./gone", "twin": "./tone"}
    reports = [
        adapterdock.validate(ready.write({"tone": "./tone"})),
        adapterdock.validate(ready.write(adapters)),
        adapterdock.validate(ready.write(adapters, model="./strange"), accept=["AD341"]),
        adapterdock.validate(ready.folder / "none.yaml"),
    ]
    for report in reports:
        data = json.loads(json.dumps(report.as_dict()))
        jsonschema.validate(data, SCHEMA)
        assert data["exit_status"] == report.exit_status
    severities = {f.severity for report in reports for f in report.findings}
    assert severities == set(Severity)


# Bytes.


def far(project: Project, kind: str, request: pytest.FixtureRequest, name: str) -> str:
    """The folder ``name`` of the project, on the Hub or in a bucket."""
    if kind == "hub":
        hub: HubServer = request.getfixturevalue("hub")
        hub.commit(f"acme/{name}", files_of(project.folder / name))
        return f"hf://acme/{name}"
    if kind == "web":
        web: WebServer = request.getfixturevalue("web")
        for path, content in files_of(project.folder / name).items():
            web.files[f"/{name}/{path}"] = content
        return f"{web.url}/{name}"
    s3: S3Server = request.getfixturevalue("s3")
    return put_folder(s3, s3.bucket(), name, project.folder / name)


@pytest.mark.parametrize("kind", ["hub", "web", "s3"])
@pytest.mark.parametrize("misfit", ["another hidden size", "another architecture"])
def test_a_misfit_costs_its_header_and_64_kib_at_most(
    kind: str, misfit: str, ready: Project, request: pytest.FixtureRequest
) -> None:
    modules = WIDE
    if misfit == "another architecture":
        modules = {f"transformer.h.{n}.attn.c_attn": (768, 2304) for n in range(12)}
    folder = ready.adapter("bad", modules=modules, r=64)
    (folder / "tokenizer.json").write_text("{}" + " " * (1 << 20))  # not needed to tell it
    weights = folder / "adapter_model.safetensors"
    header = 8 + struct.unpack("<Q", weights.read_bytes()[:8])[0]
    assert weights.stat().st_size > 1 << 20
    manifest = ready.write({"bad": far(ready, kind, request, "bad")})
    report = adapterdock.validate(manifest)
    assert report.exit_status == 1
    allowance = header + (64 << 10) + (folder / "adapter_config.json").stat().st_size
    assert report.adapters["bad"]["bytes_read"] <= allowance
    if kind == "hub":
        assert request.getfixturevalue("hub").bytes_sent <= allowance
    if kind == "web":
        assert request.getfixturevalue("web").bytes_sent <= allowance
    with pytest.raises(adapterdock.FitError):
        adapterdock.lock(manifest)
    with pytest.raises(adapterdock.FitError):
        adapterdock.pull(manifest)
    assert stored() == set() and not ready.lock_file.exists()


@pytest.mark.parametrize("kind", ["hub", "s3"])
def test_a_fit_is_told_without_reading_the_base_s_weights(
    kind: str, ready: Project, request: pytest.FixtureRequest
) -> None:
    tensors = {**{f"extra.{n}": ("F32", (1024, 1024)) for n in range(2)}}
    weights = ready.folder / "base" / "model.safetensors"
    weights.write_bytes(safetensors_bytes({**base_tensors("llama"), **tensors}))
    ready.write({"tone": "./tone"}, model=far(ready, kind, request, "base"))
    adapterdock.validate(ready.manifest)
    if kind == "hub":
        assert request.getfixturevalue("hub").bytes_sent < 128 << 10
    assert stored() == set()


# Out of reach.


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_not_well_leaves_it_unchecked(
    status: int, ready: Project, hub: HubServer
) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    hub.fail(status)
    report = adapterdock.validate(ready.write({"tone": "hf://acme/tone"}))
    assert (report.exit_status, codes(report.unchecked)) == (3, ["AD257"])
    assert report.unchecked[0].where.dotted == "adapters.tone.source"
    assert adapterdock.validate(ready.manifest, accept=["AD257"]).exit_status == 0


def test_a_source_that_says_no_is_an_error(ready: Project, hub: HubServer) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    hub.gated.add("acme/tone")
    for source in ("hf://acme/tone", "hf://acme/none", "hf://acme/tone@none"):
        assert adapterdock.validate(ready.write({"tone": source})).exit_status == 1


def test_nobody_at_the_endpoint_leaves_it_unchecked(
    ready: Project, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    report = adapterdock.validate(ready.write({"tone": "s3://bucket/tone"}))
    assert (report.exit_status, codes(report.unchecked)) == (3, ["AD257"])


def test_an_unreachable_base_leaves_every_adapter_unchecked(ready: Project, hub: HubServer) -> None:
    hub.fail(503)
    report = adapterdock.validate(ready.write({"tone": "./tone"}, model="hf://org/base"))
    assert report.exit_status == 3
    assert [(f.code, f.where.dotted) for f in report.unchecked] == [
        ("AD257", "base.model"),
        ("AD259", "adapters.tone.source"),
    ]
    # Accepting that the base is out of reach accepts nothing of the adapters.
    assert adapterdock.validate(ready.manifest, accept=["AD257"]).exit_status == 3


def test_a_misfit_that_the_adapter_alone_shows_is_an_error_all_the_same(
    ready: Project, hub: HubServer
) -> None:
    hub.fail(503)
    ready.adapter("tone", use_dora=True)  # says DoRA, and has no magnitudes
    report = adapterdock.validate(ready.write({"tone": "./tone"}, model="hf://org/base"))
    assert report.exit_status == 1


# The base that an adapter records.


def test_the_recorded_base_is_compared_by_its_id(ready: Project) -> None:
    ready.adapter("tone", base_model_name_or_path="org/other")
    report = adapterdock.validate(ready.write({"tone": "./tone"}))
    assert codes(report.errors) == ["AD360"]
    assert adapterdock.validate(ready.write({"tone": "./tone"}, base={"aliases": ["org/other"]})).ok


def test_a_recorded_folder_is_looked_into(ready: Project) -> None:
    gpt2 = ready.base("gpt2", kind="gpt2")
    ready.adapter("tone", base_model_name_or_path=str(gpt2))
    assert codes(adapterdock.validate(ready.manifest).errors) == ["AD361"]
    same = ready.base("same", seed=9)
    ready.adapter("tone", base_model_name_or_path=str(same))
    assert adapterdock.validate(ready.manifest).ok
    ready.adapter("tone", base_model_name_or_path="/nowhere/at/all")
    report = adapterdock.validate(ready.manifest)
    assert report.ok and codes(report.warnings) == ["AD362"]


def test_the_very_folder_of_the_base_is_the_same_base(ready: Project) -> None:
    for name in (ready.folder / "base", ready.folder / "tone" / ".." / "base"):
        ready.adapter("tone", base_model_name_or_path=str(name))
        assert adapterdock.validate(ready.manifest).findings == ()


# Fingerprints.


def declared(ready: Project) -> dict[str, Any]:
    lock = adapterdock.lock(ready.manifest)
    ready.lock_file.unlink()
    assert lock.base is not None and lock.base.fingerprint is not None
    return lock.base.fingerprint.model_dump(mode="json", exclude_none=True)


def test_a_base_is_the_one_that_its_fingerprint_declares(ready: Project) -> None:
    fingerprint = declared(ready)
    assert (
        adapterdock.validate(
            ready.write({"tone": "./tone"}, base={"fingerprint": fingerprint})
        ).findings
        == ()
    )


def rope(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("10000.0", "20000.0"))


def weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    data[start:] = bytes(len(data) - start)
    path.write_bytes(bytes(data))


def tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"w9"', '"nine"'))


@pytest.mark.parametrize("change", [rope, weights, tokenizer])
def test_a_base_of_the_same_shape_that_differs_at_a_level_is_refused(
    change: Callable[[Path], None], ready: Project
) -> None:
    fingerprint = declared(ready)
    change(ready.folder / "base")
    report = adapterdock.validate(
        ready.write({"tone": "./tone"}, base={"fingerprint": fingerprint})
    )
    level = {"rope": "config", "weights": "weights", "tokenizer": "tokenizer"}[change.__name__]
    places = {f.where.dotted for f in report.errors}
    assert f"base.fingerprint.{level}" in places
    assert all(place.startswith("base.fingerprint.") for place in places)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "MistralForCausalLM"),
        ("hidden_size", 17),
        ("structure", "v1:sha256:" + "0" * 64),
        ("heads", "v1:sha256:" + "0" * 64),
        ("config", "v1:sha256:" + "0" * 64),
        ("weights", {"float32": "v1:sha256:" + "0" * 64}),
        ("tokenizer", "v1:sha256:" + "0" * 64),
    ],
)
def test_every_level_of_a_fingerprint_is_compared(key: str, value: Any, ready: Project) -> None:
    fingerprint = {**declared(ready), key: value}
    manifest = ready.write({"tone": "./tone"}, base={"fingerprint": fingerprint})
    report = adapterdock.validate(manifest)
    assert [f.where.dotted for f in report.errors] == [f"base.fingerprint.{key}"]


def test_a_remote_base_is_compared_in_what_config_and_headers_tell(
    ready: Project, hub: HubServer
) -> None:
    fingerprint = declared(ready)
    hub.commit("org/base", files_of(ready.folder / "base"))
    keys = {"fingerprint": {**fingerprint, "weights": {"float32": "v1:sha256:" + "0" * 64}}}
    manifest = ready.write({"tone": "./tone"}, model="hf://org/base", base=keys)
    assert adapterdock.validate(manifest).ok
    with pytest.raises(adapterdock.FingerprintError):  # `lock` reads a little of every tensor
        adapterdock.lock(manifest)
    rope(ready.folder / "base")
    hub.commit("org/base", files_of(ready.folder / "base"))
    assert adapterdock.validate(manifest).exit_status == 1


# Under a lock.


def test_a_lock_is_obeyed_while_a_branch_moves(ready: Project, hub: HubServer) -> None:
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    ready.write({"tone": "hf://acme/tone"})
    adapterdock.lock(ready.manifest)
    ready.adapter("tone", modules=WIDE)
    hub.commit("acme/tone", files_of(ready.folder / "tone"))
    assert adapterdock.validate(ready.manifest).ok
    ready.lock_file.unlink()
    assert adapterdock.validate(ready.manifest).exit_status == 1


def test_under_a_stale_lock_the_rest_keeps_its_pins_and_it_is_said(
    ready: Project, hub: HubServer
) -> None:
    commit = hub.commit("acme/tone", files_of(ready.folder / "tone"))
    ready.write({"tone": "hf://acme/tone"})
    adapterdock.lock(ready.manifest)
    ready.adapter("new", seed=4)
    hub.commit("acme/tone", files_of(ready.adapter("wide", modules=WIDE)))
    report = adapterdock.validate(ready.write({"tone": "hf://acme/tone", "new": "./new"}))
    assert report.ok and codes(report.warnings) == ["AD514"]
    assert report.adapters["tone"]["source"] == f"hf://acme/tone@{commit}"
    report = adapterdock.validate(ready.manifest, frozen=True)
    assert codes(report.errors) == ["AD505"]


def test_frozen_needs_a_lock(ready: Project) -> None:
    assert codes(adapterdock.validate(ready.manifest, frozen=True).errors) == ["AD504"]
    adapterdock.lock(ready.manifest)
    assert adapterdock.validate(ready.manifest, frozen=True).ok


# Rules, against ranks that only the files tell.


def test_rules_bind_by_rank(ready: Project) -> None:
    ready.adapter("legal", seed=2, r=8)
    manifest = ready.write(
        {"tone": "./tone", "legal": "./legal"},
        compositions={"both": {"of": {"tone": 1.0, "legal": 1.0}}},
        rules={"max_total_rank": 11},
    )
    report = adapterdock.validate(manifest)
    assert [f.where.dotted for f in report.errors] == ["compositions.both"]
    ready.change("max_total_rank: 11", "max_total_rank: 12")
    assert adapterdock.validate(manifest).ok


# Whatever an artefact says.


GARBAGE: list[Any] = [
    None, True, -1, 0, 1e308, 2**70, "", "x", "../..", [], [None], {}, {"a": {}}, "\u0000", [[]],
]  # fmt: skip


def mutations(value: dict[str, Any], seed: int, count: int) -> list[dict[str, Any]]:
    """``value`` with one field, or a few, replaced by what nobody expects."""
    dice = random.Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(count):
        other = copy.deepcopy(value)
        for key in dice.sample(sorted(other), dice.randint(1, 3)):
            other[key] = dice.choice(GARBAGE)
        made.append(other)
    return made


def judged(project: Project) -> Report:
    report = adapterdock.validate(project.manifest)
    assert report.exit_status in (0, 1, 3)
    json.dumps(report.as_dict())
    return report


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_no_config_of_a_base_makes_it_raise(kind: str, ready: Project) -> None:
    ready.base(kind=kind)
    ready.write({"tone": "./tone"}, base={"fingerprint": {"config": "v1:sha256:" + "0" * 64}})
    path = ready.folder / "base" / "config.json"
    for config in mutations(base_config(kind), 1, 120):
        path.write_text(json.dumps(config))
        judged(ready)
    for config in (
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "text_config": 5},
        {},
    ):
        path.write_text(json.dumps(config))
        judged(ready)


def test_no_config_of_an_adapter_makes_it_raise(ready: Project) -> None:
    path = ready.folder / "tone" / "adapter_config.json"
    for config in mutations(lora_config(), 2, 200):
        path.write_text(json.dumps(config))
        judged(ready)


def test_no_tokenizer_makes_it_raise(ready: Project) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = ready.folder / "base" / name
        whole = json.loads(path.read_text())
        for content in mutations(whole, 3, 40):
            path.write_text(json.dumps(content))
            judged(ready)
        path.write_text(json.dumps(whole))


def test_no_header_makes_it_raise(ready: Project) -> None:
    path = ready.folder / "tone" / "adapter_model.safetensors"
    whole = safetensors_bytes(lora_tensors(WIDE, r=1))
    dice = random.Random(4)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(min(len(data), 600))] = dice.randrange(256)
        path.write_bytes(bytes(data[: dice.choice([len(data), dice.randrange(len(data))])]))
        judged(ready)


def test_a_store_that_cannot_be_used_is_no_traceback(
    ready: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapterdock.lock(ready.manifest)
    monkeypatch.setenv("ADAPTERDOCK_CACHE", "/dev/null/cache")
    assert adapterdock.validate(ready.manifest).ok  # everything is local
    with pytest.raises(adapterdock.AdapterdockError), Store.default().temporary():
        pass


def test_offline_a_lock_is_checked_with_what_was_pulled(project: Project) -> None:
    fs = fsspec.filesystem("memory")
    for name, folder in (("base", project.base()), ("tone", project.adapter("tone"))):
        for path, content in files_of(folder).items():
            fs.pipe_file(f"/checked/{name}/{path}", content)
    project.write({"tone": "memory://checked/tone"}, model="memory://checked/base")
    adapterdock.lock(project.manifest)
    before = check_lock(project.manifest, offline=True)
    assert (before.exit_status, before.errors) == (3, ())  # the base is not on this machine yet
    adapterdock.pull(project.manifest)
    assert check_lock(project.manifest, offline=True).findings == ()
    assert check_lock(project.manifest).exit_status == 0
    fs.rm("/checked/tone", recursive=True)  # online, the sources are asked
    assert check_lock(project.manifest, offline=True).exit_status == 0
    assert check_lock(project.manifest).exit_status == 1
