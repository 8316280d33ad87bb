"""`adapterdock lock`: what it prints, what it writes, and which options go together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.builders import lora_config, write_adapter
from support.hub_server import HubServer
from typer.testing import Result

Cli = Callable[..., Result]


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_first_lock_lists_its_pins(cli: Cli, at_desk: Path) -> None:
    result = cli("lock")
    assert result.exit_code == 0, result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["name", "method", "rank", "digest", "source"]
    assert [row[0] for row in rows[1:]] == ["base", "a0", "a1"]
    assert rows[2][3].startswith("sha256:") and len(rows[2][3]) == 71
    assert "Wrote adapters.lock: 2 adapters and the base pinned" in result.stderr
    assert (at_desk / "adapters.lock").is_file()


def test_a_current_lock_is_not_rewritten(cli: Cli, at_desk: Path) -> None:
    cli("lock")
    before = (at_desk / "adapters.lock").stat()
    result = cli("lock")
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "adapters.lock is current" in result.stderr
    after = (at_desk / "adapters.lock").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_check_distinguishes_missing_current_and_stale_locks(cli: Cli, at_desk: Path) -> None:
    missing = cli("lock", "--check")
    assert (missing.exit_code, "AD504" in missing.stdout) == (1, True)
    cli("lock")
    assert cli("lock", "--check").exit_code == 0
    text = (at_desk / "adapters.yaml").read_text()
    (at_desk / "adapters.yaml").write_text(text.replace("./adapters/a1", "./adapters/a0"))
    stale = cli("lock", "--check")
    assert (stale.exit_code, "AD505" in stale.stdout) == (1, True)
    assert json.loads(cli("lock", "--check", "--json").stdout)["schema"] == "adapterdock.report/1"


def test_the_verdict_says_what_is_wrong_with_the_lock(cli: Cli, at_desk: Path) -> None:
    lock, manifest = at_desk / "adapters.lock", at_desk / "adapters.yaml"
    assert "adapters.yaml: not locked: 1 error" in cli("lock", "--check").stdout
    cli("lock")
    good, text = lock.read_text(), manifest.read_text()
    manifest.write_text(text.replace("./adapters/a1", "./adapters/a0"))
    assert "adapters.yaml: lock is not current: 1 error" in cli("lock", "--check").stdout
    manifest.write_text(text)
    lock.write_text(f"<<<<<<< ours\n{good}=======\n{good}>>>>>>> theirs\n")
    result = cli("lock", "--check")
    assert "adapters.yaml: lock has a merge conflict: 1 error" in result.stdout
    assert "do: Run `adapterdock lock`, and review" in result.stdout
    lock.write_text(good)
    (at_desk / "adapters" / "a1" / "adapter_config.json").write_text("{}")
    assert "adapters.yaml: changed since it was locked: " in cli("lock", "--check").stdout
    lock.unlink()
    assert "adapters.yaml: does not fit: " in cli("validate").stdout
    manifest.write_text(text.replace("./adapters/a1", "./adapters/none"))
    assert "adapters.yaml: cannot be read: " in cli("validate").stdout
    manifest.write_text(text.replace("source: ./adapters/a0", "sorce: ./adapters/a0"))
    assert "adapters.yaml: invalid manifest: " in cli("validate").stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--check", "--diff"),
        ("--check", "--upgrade", "a0"),
        ("--check", "--upgrade-all"),
        ("--check", "--accept", "AD364"),
        ("--upgrade-all", "--upgrade", "a0"),
    ],
)
def test_conflicting_options_are_refused(cli: Cli, at_desk: Path, options: tuple[str, ...]) -> None:
    result = cli("lock", *options)
    assert result.exit_code == 2
    assert "AD914" in result.stderr


def test_check_uses_the_base_of_model(cli: Cli, at_desk: Path) -> None:
    cli("lock")
    result = cli("lock", "--check", "--model", "./elsewhere")
    assert (result.exit_code, "AD505" in result.stdout) == (1, True)


def test_an_unknown_name_cannot_be_upgraded(cli: Cli, at_desk: Path) -> None:
    result = cli("lock", "--upgrade", "a9")
    assert result.exit_code == 2
    assert "AD510" in result.stderr


def test_changes_are_printed_by_entry(cli: Cli, at_desk: Path) -> None:
    manifest = at_desk / "adapters.yaml"
    with manifest.open("a") as stream:
        stream.write("  a1.v2:\n    source: ./adapters/a1\n  gone:\n    source: ./adapters/a0\n")
    assert cli("lock").exit_code == 0
    text = manifest.read_text().replace("  gone:", "  new:")
    manifest.write_text(text)
    write_adapter(at_desk / "adapters" / "a1", lora_config(lora_alpha=16), seed=9)
    result = cli("lock", "--upgrade", "a1", "--upgrade", "a1.v2", "--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert data["schema"] == "adapterdock.lock/1" and data["wrote"] is True
    changed = {change["path"] for change in data["changes"]}
    assert {"adapters.a1.digest", "adapters.a1.v2.digest"} <= changed
    write_adapter(at_desk / "adapters" / "a1", lora_config(), seed=1)
    manifest.write_text(text.replace("  new:", "  newer:"))
    result = cli("lock", "--upgrade-all")
    lines = result.stdout.splitlines()
    assert "~ adapters.a1" in lines and "~ adapters.a1.v2" in lines
    assert any(line.startswith("    ~ digest: sha256:") and " -> sha256:" in line for line in lines)
    assert any(line.startswith("+ adapters.newer: ") for line in lines)
    assert any(line.startswith("- adapters.new: ") for line in lines)
    assert not any("inputs" in line for line in lines)


def test_diff_shows_changes_and_writes_nothing(cli: Cli, at_desk: Path, hub: HubServer) -> None:
    tone = folder_bytes(write_adapter(at_desk / "tone"))
    hub.commit("acme/tone", tone)
    text = (at_desk / "adapters.yaml").read_text() + "  tone:\n    source: hf://acme/tone\n"
    (at_desk / "adapters.yaml").write_text(text)
    assert cli("lock").exit_code == 0
    before = (at_desk / "adapters.lock").read_bytes()
    assert cli("lock", "--diff").stdout == ""
    moved = hub.commit("acme/tone", folder_bytes(write_adapter(at_desk / "tone", seed=5)))
    assert cli("lock").stdout == "", "a pin stays where it is"
    result = cli("lock", "--diff")
    assert result.exit_code == 0
    assert f" -> {moved}" in result.stdout
    assert "Nothing was written" in result.stderr
    assert (at_desk / "adapters.lock").read_bytes() == before
    assert json.loads(cli("lock", "--diff", "--json").stdout)["wrote"] is False
    assert cli("lock", "--upgrade", "tone").exit_code == 0
    assert moved in (at_desk / "adapters.lock").read_text()


def test_a_lock_that_cannot_be_written_is_a_finding(cli: Cli, at_desk: Path) -> None:
    (at_desk / "adapters.lock").mkdir()
    result = cli("lock")
    assert result.exit_code == 1
    assert "AD50" in result.stderr


@pytest.fixture
def teams(at_desk: Path) -> Path:
    """Two manifests in a folder, beside a YAML file that is none."""
    text = (at_desk / "adapters.yaml").read_text().replace("./", "../../")
    for name in ("ads", "bank"):
        place = at_desk / "teams" / name
        place.mkdir(parents=True)
        (place / "adapters.yaml").write_text(text)
    (at_desk / "teams" / "compose.yaml").write_text("services: {}\n")
    return at_desk / "teams"


def test_each_manifest_of_a_folder_is_locked_though_one_cannot_be(teams: Path, cli: Cli) -> None:
    wrong = teams / "ads" / "adapters.yaml"
    good = wrong.read_text()
    wrong.write_text(good.replace("adapters/a1", "adapters/a9"))
    done = cli("lock", "teams")
    assert done.exit_code == 1
    assert not (teams / "ads" / "adapters.lock").exists()
    assert (teams / "bank" / "adapters.lock").is_file()
    assert "teams/ads/adapters.yaml: not locked" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("2 manifests: 1 lock written, 1 cannot be locked. Skipped 1 other YAML")
    assert "teams/bank/adapters.yaml:" in done.stdout.splitlines()
    wrong.write_text(good)
    data = json.loads(cli("lock", "teams/*/adapters.yaml", "--json").stdout)
    assert (data["schema"], data["exit_status"]) == ("adapterdock.locks/1", 0)
    assert data["counts"] == {"locked": 2, "wrote": 1, "failed": 0, "skipped": 0}
    assert [(one["manifest"], one["wrote"]) for one in data["locks"]] == [
        ("teams/ads/adapters.yaml", True),
        ("teams/bank/adapters.yaml", False),
    ]


def test_two_manifests_with_one_lock_are_not_locked(teams: Path, cli: Cli) -> None:
    one, other = teams / "ads" / "adapters.yaml", teams / "ads" / "adapters.yml"
    other.write_text("services: {}\n")  # of another tool
    assert cli("lock", str(one)).exit_code == 0
    before = one.with_suffix(".lock").read_bytes()
    other.write_text(one.read_text() + "description: other\n")
    for inputs in ([str(one)], [str(other)], [str(teams / "ads")]):
        done = cli("lock", *inputs)
        assert done.exit_code == 1
        assert "adapters.yml would have the same lock, adapters.lock" in done.stderr or (
            "adapters.yaml would have the same lock, adapters.lock" in done.stderr
        )
    assert one.with_suffix(".lock").read_bytes() == before
    other.unlink()
    other.symlink_to(one)  # one manifest by two names has one lock
    assert cli("lock", str(other)).exit_code == 0


def test_of_several_manifests_no_adapter_is_upgraded_but_the_base_may_be(
    teams: Path, cli: Cli
) -> None:
    cli("lock", "teams")
    refused = cli("lock", "teams", "--upgrade", "a0")
    assert (refused.exit_code, "AD914" in refused.stderr) == (2, True)
    assert cli("lock", "teams", "--upgrade", "base").exit_code == 0
    diff = cli("lock", "teams", "--diff")
    assert diff.exit_code == 0
    assert "2 manifests: 0 locks written, 2 unchanged" in diff.stderr


def test_a_check_of_locks_has_the_formats_of_validate(teams: Path, cli: Cli) -> None:
    cli("lock", "teams")
    passed = cli("lock", "--check", "teams")
    assert passed.stdout.splitlines()[-1].startswith("2 manifests: 2 locks pass. Skipped")
    (teams / "ads" / "adapters.lock").unlink()
    github = cli("lock", "--check", "teams", "--format", "github")
    assert github.exit_code == 1
    assert github.stdout.startswith("::error file=")
    assert "title=AD504 lock-missing::" in github.stdout
    assert "adapterdock: 2 manifests: 1 lock passes, 1 does not" in github.stdout
    junit = cli("lock", "--check", "teams", "--format", "junit")
    assert 'classname="adapterdock.lock-check"' in junit.stdout
    assert json.loads(cli("lock", "--check", "teams", "--format", "sarif").stdout)["runs"]
    wrong = cli("lock", "teams", "--format", "github")
    assert (wrong.exit_code, "--check" in wrong.stderr) == (2, True)


def test_a_check_may_leave_out_manifests_without_a_lock(teams: Path, cli: Cli) -> None:
    names = sorted(str(path) for path in Path().rglob("*.yaml"))
    assert cli("lock", names[0]).exit_code == 0
    assert cli("lock", "--check", ".").exit_code == 1
    done = cli("lock", "--check", "--locked-only", ".")
    assert done.exit_code == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 manifest: 1 lock passes")
    assert cli("lock", "--check", "--locked-only", names[0]).exit_code == 0
    assert cli("lock", "--check", names[1], "--locked-only").exit_code == 0
    assert "AD914" in cli("lock", "--locked-only").stderr


@pytest.mark.parametrize("command", ["validate", "plan", "show", "matrix"])
def test_a_lock_is_not_taken_for_a_manifest(command: str, teams: Path, cli: Cli) -> None:
    name = sorted(path for path in Path().rglob("*.yaml"))[0]
    lock = str(name.with_suffix(".lock"))
    assert cli("lock", str(name)).exit_code == 0
    assert cli("lock", lock).exit_code == 0 and cli("lock", "--check", lock).exit_code == 0
    done = cli(command, lock)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.exit_code and "AD901 no-such-manifest: This is a lock, not a manifest" in said
    assert f"Name its manifest: {name}" in said and "AD120" not in said
    name.unlink()
    done = cli("lock", "--check", lock)
    assert done.exit_code == 2 and "There is no manifest beside this lock" in done.stderr


def test_a_check_of_several_uses_the_base_of_model(teams: Path, cli: Cli) -> None:
    cli("lock", "teams")
    done = cli("lock", "--check", "teams", "--model", "./elsewhere")
    assert (done.exit_code, "base.model" in done.stdout) == (1, True)


@pytest.mark.parametrize("several", [False, True])
def test_hints_name_the_manifest_so_that_they_can_be_copied(
    teams: Path, cli: Cli, several: bool
) -> None:
    manifest = "teams/ads/adapters.yaml"
    one = cli("lock", "--check", *([manifest, "adapters.yaml"] if several else [manifest]))
    assert f"do: Run `adapterdock lock {manifest}` and commit the lock." in one.stdout
    pulled = cli("pull", "--frozen", manifest)
    assert f"do: Run `adapterdock lock {manifest}` and commit the lock." in pulled.stderr
    default = cli("lock", "--check")
    assert "do: Run `adapterdock lock` and commit the lock." in default.stdout
    planned = cli("plan", manifest)
    assert f"`adapterdock lock {manifest}` writes" in planned.stderr


def test_hints_on_one_pin_name_the_manifest_too(teams: Path, cli: Cli) -> None:
    cli("lock", "teams")
    (teams.parent / "adapters" / "a1" / "adapter_config.json").write_text("{}")
    done = cli("lock", "--check", "teams/bank/adapters.yaml", "--json")
    hints = [finding["hint"] for finding in json.loads(done.stdout)["findings"]]
    assert any("`adapterdock lock teams/bank/adapters.yaml --upgrade a1`" in hint for hint in hints)


def test_a_misspelt_folder_or_manifest_is_named(teams: Path, cli: Cli) -> None:
    assert "do: Did you mean 'teams'?" in cli("validate", "team").stderr
    assert "do: Did you mean 'teams'?" in cli("lock", "--check", "team").stderr
    assert "teams" not in cli("pull", "team").stderr  # it takes one manifest
    (teams.parent / "adapters.yaml").rename(teams.parent / "mine.yaml")
    (teams.parent / "values.yaml").write_text("base: {}\n")
    hint = cli("validate").stderr
    assert "(mine.yaml)" in hint and "such as `.`, means all manifests in it" in hint
