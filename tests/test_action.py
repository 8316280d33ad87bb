"""The GitHub Action and the hooks of pre-commit, run here as a runner and pre-commit run them."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapterdock
import pytest
import yaml
from adapterdock.cli.main import app
from support.builders import lora_config, write_adapter, write_base
from support.project import NAME
from support.terminal import environment
from typer.testing import CliRunner

ROOT = Path(adapterdock.__file__).resolve().parent
FAKE_GH = """#!/usr/bin/env bash
printf '%s\\n' "$*" >> "$GH_LOG"
for argument in "$@"; do
  case "$argument" in body=@*) cp "${argument#body=@}" "$GH_LOG.body" ;; esac
done
[[ "$*" == *--paginate* && -n "${GH_FIRST:-}" ]] && echo "$GH_FIRST"
exit 0
"""


class Checkout:
    """A repository with a manifest that fits and is locked, and the tools of a runner."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        self.tools = folder / "tools"
        self.tools.mkdir()
        call = f'#!/usr/bin/env bash\nexec {shlex.quote(sys.executable)} -m adapterdock "$@"\n'
        for name, text in (("adapterdock", call), ("gh", FAKE_GH)):
            (self.tools / name).write_text(text)
            (self.tools / name).chmod(0o755)
        self.root.mkdir()
        self.git("init", "-q")
        write_base(self.root / "base")
        write_adapter(self.root / "tone", {**lora_config(), "base_model_name_or_path": NAME})
        (self.root / "adapters.yaml").write_text(
            f"version: 1\nbase: {{model: ./base, aliases: [{NAME}]}}\n"
            "adapters:\n  tone: {source: ./tone}\n"
        )
        adapterdock.lock(self.root / "adapters.yaml")
        self.commit()

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", *who, *arguments]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a change")
        return self.git("rev-parse", "HEAD")

    def check(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run what the action runs once adapterdock is installed."""
        files = {
            "GITHUB_STEP_SUMMARY": str(self.tools / "summary.md"),
            "GITHUB_OUTPUT": str(self.tools / "output"),
            "GH_LOG": str(self.tools / "gh.log"),
        }
        env = environment(
            {
                "ADAPTERDOCK": str(self.tools / "adapterdock"),
                "GITHUB_WORKSPACE": str(self.root),
                "GITHUB_REPOSITORY": "team/catalogue",
                **files,
                **variables,
            }
        )
        env["PATH"] = f"{self.tools}:{env['PATH']}"
        return subprocess.run(
            ["bash", str(ROOT / ".github" / "check.sh")],
            cwd=self.root,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def wrote(self, name: str) -> str:
        return (self.tools / name).read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_a_pull_request_is_annotated_and_its_locks_are_described(checkout: Checkout) -> None:
    before = checkout.git("rev-parse", "HEAD")
    root = checkout.root
    write_adapter(root / "tone", {**lora_config(), "base_model_name_or_path": NAME}, seed=7)
    adapterdock.lock(root / "adapters.yaml", upgrade_all=True)
    (root / "poetry.lock").write_text("# of another tool\n")
    strange = root / "##[error] ``````````\n::error::x.yaml"
    strange.write_text("version: 1\nbase: {}\nadapters: {a: {source: ./gone}}\n")
    checkout.commit()
    done = checkout.check(
        BEFORE=before,
        COMMENT="true",
        PULL_REQUEST="12",
        SARIF="found.sarif",
        OPTIONS="--accept\nAD364",
        GH_FIRST="99",
    )
    assert done.returncode == 1, done.stderr
    for line in done.stdout.splitlines():
        assert line.startswith(("::error file=", "::notice ", "::warning ", "adapterdock: ")), line
        assert line.startswith("::") or "##[" not in line
    summary = checkout.wrote("summary.md")
    assert "### adapterdock: Something is wrong" in summary
    assert "  Adapter 'tone' has other content: sha256:" in summary
    assert "poetry" not in summary
    assert summary.count("``````````") == 6  # three blocks, and no text ends one
    assert checkout.wrote("output") == "exit-status=1\n"
    assert checkout.wrote("gh.log.body") == summary
    assert "--method PATCH repos/team/catalogue/issues/comments/99" in checkout.wrote("gh.log")
    assert json.loads((root / "found.sarif").read_text())["version"] == "2.1.0"


def test_a_stale_lock_fails_and_a_push_without_a_parent_is_checked(checkout: Checkout) -> None:
    done = checkout.check(BEFORE="0" * 40, PULL_REQUEST="12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "### adapterdock: Every adapter fits" in checkout.wrote("summary.md")
    assert not (checkout.tools / "gh.log").exists()  # no comment was asked for
    write_adapter(
        checkout.root / "tone", {**lora_config(), "base_model_name_or_path": NAME}, seed=7
    )
    checkout.commit()
    done = checkout.check()
    assert done.returncode == 1
    assert (
        "adapterdock: adapters.yaml: changed since it was locked: 1 error"
        in done.stdout.splitlines()
    )


def test_a_lock_that_was_forgotten_is_annotated_and_counted(checkout: Checkout) -> None:
    manifest = checkout.root / "adapters.yaml"
    manifest.write_text(manifest.read_text().replace("  tone: {", "  other: {"))
    checkout.commit()
    done = checkout.check()
    assert done.returncode == 1
    assert "::error file=adapters.lock,title=AD505 lock-stale::" in done.stdout
    assert done.stdout.count("adapterdock: 1 manifest: ") == 2
    total = "adapterdock lock --check: 1 manifest: 0 locks pass, 1 does not"
    assert total in checkout.wrote("summary.md").splitlines()


@pytest.mark.parametrize(
    "paths",
    [".", "teams/*/adapters.y?ml", "teams/one/adapters.yaml", "teams/**/*.yaml", "./teams/one/"],
)
def test_locks_are_checked_however_their_manifests_are_named(
    paths: str, checkout: Checkout
) -> None:
    team = checkout.root / "teams" / "one"
    team.mkdir(parents=True)
    text = (checkout.root / "adapters.yaml").read_text().replace("./", "../../")
    (team / "adapters.yaml").write_text(text)
    (team / "unlocked.yaml").write_text(text)
    adapterdock.lock(team / "adapters.yaml")
    checkout.commit()
    assert checkout.check(PATHS=paths).returncode == 0
    (team / "adapters.yaml").write_text(text.replace("  tone: {", "  other: {"))
    checkout.commit()
    done = checkout.check(PATHS=paths)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "::error file=teams/one/adapters.lock,title=AD505 lock-stale::" in done.stdout
    assert "unlocked.lock" not in done.stdout


def test_wrong_usage_is_said_once_and_in_the_summary(checkout: Checkout) -> None:
    done = checkout.check(PATHS="adapters.yaml\n::error::gone.yaml")
    assert done.returncode == 2
    (said,) = [line for line in done.stdout.splitlines() if "AD901" in line]
    assert said.startswith("adapterdock: ::error::gone.yaml: error AD901 ")
    assert done.stderr == ""
    summary = checkout.wrote("summary.md")
    assert "``````````text\n::error::gone.yaml: error AD901 no-such-manifest" in summary
    done = checkout.check(OPTIONS="--nothing")
    assert done.returncode == 2 and "No such option: --nothing" in done.stdout
    assert "``````````text\nError: No such option: --nothing" in checkout.wrote("summary.md")


def test_a_sarif_file_that_cannot_be_written_fails_the_check(checkout: Checkout) -> None:
    done = checkout.check(SARIF="no/folder/found.sarif")
    assert done.returncode == 2
    assert "adapterdock: Cannot write no/folder/found.sarif" in done.stdout.splitlines()
    done = checkout.check(SARIF="found.sarif")
    assert done.returncode == 0, done.stdout
    assert json.loads((checkout.root / "found.sarif").read_text())["version"] == "2.1.0"


def test_the_action_passes_every_input_on() -> None:
    action: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())
    script = (ROOT / ".github" / "check.sh").read_text()
    steps = action["runs"]["steps"]
    passed = " ".join(str(value) for step in steps for value in step["env"].values())
    for name in action["inputs"]:
        assert f"inputs.{name}" in passed, name
    for variable in steps[-1]["env"]:
        assert variable == "GH_TOKEN" or f"${{{variable}" in script or f"${variable}" in script
    assert "${{" not in "".join(step["run"] for step in steps)  # never into the shell's text


def test_hooks_check_what_changed_and_skip_other_files(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = {h["id"]: h for h in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
    monkeypatch.chdir(checkout.root)
    (checkout.root / "compose.yaml").write_text("services: {}\n")

    def call(hook: str, *files: str) -> int:
        program, *arguments = shlex.split(hooks[hook]["entry"])
        assert program == "adapterdock"
        return CliRunner().invoke(app, [*arguments, *files]).exit_code

    assert call("adapterdock-validate", "compose.yaml") == 0
    assert call("adapterdock-validate", "compose.yaml", "adapters.yaml") == 0
    assert call("adapterdock-lock-check", "compose.yaml", "adapters.lock") == 0
    (checkout.root / "poetry.lock").write_text('[[package]]\nversion = "1"\n')
    assert call("adapterdock-lock-check", "poetry.lock", "adapters.lock") == 0
    (checkout.root / "adapters.yaml").rename(checkout.root / "renamed.yaml")
    assert call("adapterdock-lock-check", "poetry.lock", "adapters.lock") == 1
    (checkout.root / "adapters.yaml").write_text("version: 1\nbase: {modle: ./base}\n")
    assert call("adapterdock-validate", "adapters.yaml") == 1
    assert call("adapterdock-lock-check", "adapters.lock") == 1
