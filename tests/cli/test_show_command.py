"""`adapterdock show`, `cache` and `fingerprint`: their output as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.registry.store.store import Store
from support.builders import write_adapter, write_base
from support.cache import put
from support.desks import write_desk
from support.hub_server import HubServer
from support.web import WebServer
from typer.testing import Result

Cli = Callable[..., Result]


def test_show_prints_adapters_and_their_locked_digests(cli: Cli, at_desk: Path) -> None:
    result = cli("show")
    assert result.exit_code == 0
    assert "base: ./base (LlamaForCausalLM, " in result.stdout
    assert "a0\tLORA\t4\t4.0 kB\tq_proj,v_proj\tnot locked\t./adapters/a0" in result.stdout
    cli("lock")
    data = json.loads(cli("show", "--json").stdout)
    assert data["schema"] == "adapterdock.show/1"
    assert data["adapters"]["a1"]["digest"].startswith("sha256:")
    assert data["adapters"]["a1"]["targets"] == ["q_proj", "v_proj"]
    assert {f["code"] for f in data["findings"]} == {"AD363"}


def test_show_has_the_exit_status_of_validate(cli: Cli, at_desk: Path) -> None:
    write_base(at_desk / "gpt2", "gpt2")
    result = cli("show", "--model", "./gpt2")
    assert result.exit_code == 1
    assert "AD342" in result.stderr
    (at_desk / "adapters" / "a0" / "adapter_model.safetensors").unlink()
    broken = cli("show")
    assert broken.exit_code == 1
    assert "a0\t?\t?\t?\t" in broken.stdout


def test_resolved_prints_each_value_with_its_file_and_line(
    cli: Cli, at_desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (at_desk / "mine.yaml").write_text(
        "extends: adapters.yaml\nbase:\n  dtype: ${DTYPE:-float32}\nadapters:\n  a1: null\n"
    )
    monkeypatch.setenv("DTYPE", "bfloat16")
    rows = [line.split("\t") for line in cli("show", "mine.yaml", "--resolved").stdout.splitlines()]
    assert rows[0] == ["path", "value", "from", "variables"]
    assert ["base.dtype", "bfloat16", "mine.yaml:3", "DTYPE"] in rows
    assert any(r[0] == "base.model" and r[2].endswith("adapters.yaml:4") for r in rows)
    assert not any(r[0].startswith("adapters.a1") for r in rows)
    result = cli("show", "mine.yaml", "--resolved", "--json", "--model", "./other")
    data = json.loads(result.stdout)
    assert data["schema"] == "adapterdock.resolved/1"
    model = next(v for v in data["values"] if v["path"] == "base.model")
    assert model["from"] == "--model"


def test_resolved_json_has_numbers_booleans_and_null_as_the_language_reads_them(
    cli: Cli, at_desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVICE", "cpu")
    (at_desk / "typed.yaml").write_text(
        "version: 1\ndescription: 2.10\nbase: {model: ./base, trust_remote_code: false,\n"
        "  device_map: '${DEVICE}',"
        " quantization: {bits: 4, on: no, quoted: '4'}}\n"
        "adapters: {a0: {source: ./adapters/a0, tags: [2024, on], lazy: true}}\n"
        "compositions: {both: {of: {a0: 0.5}}}\nrules: {max_active: 2}\nactive: null\n"
    )
    told = json.loads(cli("show", "typed.yaml", "--resolved", "--json").stdout)["values"]
    values = {row["path"]: row["value"] for row in told}
    assert values["version"] == 1 and type(values["version"]) is int
    assert values["description"] == "2.10", "text is expected there"
    assert values["base.trust_remote_code"] is False
    assert values["base.quantization.bits"] == 4 and values["base.quantization.quoted"] == "4"
    assert values["base.quantization.on"] == "no"
    assert values["base.device_map"] == "cpu"
    assert values["adapters.a0.tags[0]"] == "2024"
    assert values["adapters.a0.lazy"] is True
    assert values["compositions.both.of.a0"] == 0.5
    assert values["rules.max_active"] == 2
    assert values["active"] is None


def test_fingerprint_prints_yaml_that_can_be_pasted_and_json(cli: Cli, at_desk: Path) -> None:
    import yaml

    printed = yaml.safe_load(cli("fingerprint").stdout)["fingerprint"]
    data = json.loads(cli("fingerprint", "--json").stdout)
    assert data["schema"] == "adapterdock.fingerprint/1"
    assert data["fingerprint"] == printed
    assert printed["architecture"] == "LlamaForCausalLM"
    assert cli("fingerprint", "base").stdout == cli("fingerprint", "./base").stdout
    assert yaml.safe_load(cli("fingerprint", "./base").stdout)["fingerprint"] == printed


def test_fingerprint_writes_into_the_manifest_and_keeps_its_comments(
    cli: Cli, at_desk: Path
) -> None:
    manifest = at_desk / "adapters.yaml"
    before = manifest.read_text()
    manifest.chmod(0o640)
    result = cli("fingerprint", "--write")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    text = manifest.read_text()
    assert "model: ./base   # kept\n" in text
    assert [
        line for line in text.splitlines() if line in before.splitlines()
    ] == before.splitlines()
    assert manifest.stat().st_mode & 0o777 == 0o640
    assert sorted(p.name for p in at_desk.iterdir()) == ["adapters", "adapters.yaml", "base"]
    assert cli("validate").exit_code == 0
    write_base(at_desk / "base", seed=2)
    assert "AD4" in cli("validate").stdout
    again = cli("fingerprint", "--write", "--json")
    assert json.loads(again.stdout)["fingerprint"]["architecture"] == "LlamaForCausalLM"
    assert cli("validate").exit_code == 0


def test_fingerprint_follows_a_link_to_the_manifest(cli: Cli, at_desk: Path) -> None:
    (at_desk / "real").mkdir()
    write_desk(at_desk / "real")
    (at_desk / "linked.yaml").symlink_to(at_desk / "real" / "adapters.yaml")
    assert cli("fingerprint", "linked.yaml", "--write").exit_code == 0
    assert (at_desk / "linked.yaml").is_symlink()
    assert "fingerprint:" in (at_desk / "real" / "adapters.yaml").read_text()


@pytest.mark.parametrize("target", ["org/name", "./nowhere", "hf://", "s3://"])
def test_a_target_without_a_fingerprint_is_a_finding(cli: Cli, at_desk: Path, target: str) -> None:
    result = cli("fingerprint", target)
    assert result.exit_code in (1, 2)
    assert "error AD" in result.stderr


def test_fingerprint_needs_a_base(cli: Cli, at_desk: Path) -> None:
    (at_desk / "adapters.yaml").write_text("version: 1\nbase: {}\n")
    result = cli("fingerprint")
    assert result.exit_code == 2
    assert "AD908" in result.stderr
    assert "AD908" in cli("fingerprint", "./base", "--write").stderr


def test_the_cache_can_be_listed_verified_and_emptied(cli: Cli) -> None:
    store = Store.default()
    digests = [put(store, bytes([n]) * 1000, origin=f"s3://team/a{n}") for n in range(3)]
    rows = [line.split("\t") for line in cli("cache", "ls").stdout.splitlines()]
    assert {row[0] for row in rows[1:]} == set(digests)
    data = json.loads(cli("cache", "ls", "--json").stdout)
    assert data["schema"] == "adapterdock.cache/1"
    assert (data["size"], {f["origin"] for f in data["files"]}) == (
        3000,
        {f"s3://team/a{n}" for n in range(3)},
    )
    assert cli("cache", "verify").exit_code == 0
    path = store.object_path(digests[0])
    path.chmod(0o644)
    path.write_bytes(b"x" * 1000)
    damaged = cli("cache", "verify")
    assert damaged.exit_code == 1
    assert "AD6" in damaged.stdout
    young = cli("cache", "gc", "--max-size", "0B")
    assert young.exit_code == 0
    assert "minutes ago" in young.stderr


@pytest.mark.parametrize("size", ["", "lots", "5", "-1GB", "1e9B", "nanB", "5XB", "9" * 99 + "GB"])
def test_an_invalid_size_is_wrong_usage(cli: Cli, size: str) -> None:
    result = cli("cache", "gc", f"--max-size={size}")
    assert result.exit_code == 2, result.output


@pytest.mark.parametrize("size", ["0B", "10 GiB", "500mb", "1.5gib"])
def test_sizes_are_read_in_any_case(cli: Cli, size: str) -> None:
    assert cli("cache", "gc", "--max-size", size).exit_code == 0


def test_pull_fetches_everything_and_prints_where(cli: Cli, at_desk: Path, hub: HubServer) -> None:
    files = {p.name: p.read_bytes() for p in write_adapter(at_desk / "tone").iterdir()}
    hub.commit("acme/tone", files)
    with (at_desk / "adapters.yaml").open("a") as stream:
        stream.write("  tone:\n    source: hf://acme/tone\n")
    without = cli("pull", "--frozen")
    assert (without.exit_code, "AD504" in without.stderr) == (1, True)
    noted = cli("pull")
    assert noted.exit_code == 0
    assert "AD512" in noted.stderr
    cli("lock")
    result = cli("pull", "--frozen", "--offline")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == ["name", "base", "a0", "a1", "tone"]
    assert all(Path(row[3]).is_dir() for row in rows[1:])
    assert "base" not in cli("pull", "--no-base").stdout


def test_an_error_while_editing_names_the_manifest(cli: Cli, at_desk: Path) -> None:
    manifest = at_desk / "adapters.yaml"
    manifest.write_text("version: 1\nbase: &b\n  model: ./base\nx-k: *b\n")
    result = cli("fingerprint", "--write")
    assert result.exit_code == 1
    assert "adapters.yaml:2:1: error AD160" in result.stderr
    assert "change the file by hand" in result.stderr


def test_pull_prints_the_cache_or_the_local_folder(cli: Cli, at_desk: Path, web: WebServer) -> None:
    for path in write_adapter(at_desk / "tone").iterdir():
        web.files[f"/tone/{path.name}"] = path.read_bytes()
    with (at_desk / "adapters.yaml").open("a") as stream:
        stream.write(f"  tone:\n    source: {web.url}/tone\n")
    rows = {r.split("\t")[0]: r.split("\t")[3] for r in cli("pull").stdout.splitlines()}
    assert rows["tone"] == str(Store.default().root)
    assert rows["a0"] == str(at_desk / "adapters" / "a0")


def test_an_error_in_a_policy_says_policy(cli: Cli, at_desk: Path) -> None:
    (at_desk / "platform.yaml").write_text("allow_source: []\n")
    shown = cli("validate", "--policy", "platform.yaml").stdout
    assert "Unknown key 'allow_source' in the policy" in shown


def test_verify_fails_for_a_folder_that_is_not_a_cache(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(tmp_path))
    result = cli("cache", "verify")
    assert (result.exit_code, "AD399" in result.stdout) == (1, True), result.output
    monkeypatch.setenv("ADAPTERDOCK_CACHE", str(tmp_path / "new"))
    result = cli("cache", "verify")
    assert result.exit_code == 0
    assert "nothing was verified" in result.output
