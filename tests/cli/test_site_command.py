"""`adapterdock site`: a catalogue as a folder of pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
import yaml
from adapterdock.cli.pages.from_registry import key_of, lines_to_copy
from adapterdock.manifests.findings import usage as codes
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.signatures.envelope import read_envelope
from adapterdock.registry.signatures.signatures import add_signature
from adapterdock.registry.storages.local_storage import LocalStorage
from support.project import Project, edit_config, files_of
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.fixture
def here(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A base, three adapters of which a manifest names two, and a composition."""
    project.base()
    for seed, name in enumerate(("tone", "terms", "loose")):
        project.adapter(name, seed=seed)
    project.write(
        {
            "tone": {"source": "./tone", "owner": "Ada", "licence": "MIT", "tags": ["support"]},
            "terms": "./terms",
        },
        compositions={"both": {"combine": "sum", "of": {"tone": 0.5, "terms": 0.25}}},
        registries={"team": "./registry"},
        active="both",
    )
    monkeypatch.chdir(project.folder)
    return project


@pytest.fixture
def team(here: Project, cli: Cli) -> Project:
    """The same with a registry that has two versions of one adapter."""
    assert cli("registry", "init", "./registry", "--title", "Team models").exit_code == 0
    for version, accuracy, source in (("1.0.0", 0.91, "tone"), ("1.1.0", 0.93, "terms")):
        Path("metrics.json").write_text(json.dumps({"accuracy": accuracy}))
        arguments = ("--licence", "MIT", "--tag", "support", "--metrics", "metrics.json")
        done = cli("publish", f"./{source}", f"team/refunds@{version}", *arguments)
        assert done.exit_code == 0, done.stderr
    cli("promote", "team/refunds@1.0.0", "prod")
    cli("promote", "team/refunds@1.1.0", "prod", "--why", "fewer mistakes")
    cli("deprecate", "team/refunds@1.0.0", "--why", "old data")
    return here


def page(path: str) -> str:
    return Path("site", path).read_text(encoding="utf-8")


def test_a_registry_becomes_a_site_with_all_that_it_says(team: Project, cli: Cli) -> None:
    done = cli("site", "team", "--out", "site")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "Wrote site/index.html: 1 adapter, 1 base, 0 compositions\n"
    assert "Team models" in page("index.html")
    shown = page("adapters/refunds.html")
    for text in (
        *("1.1.0", "1.0.0", "deprecated", "old data", "fewer mistakes", "0.93", "0.91", "MIT"),
        *("registry://team/refunds@1.1.0", "team: ./registry", "LORA", "Where it acts"),
        'aria-label="Where the adapter acts, model.layers: most at',
    ):
        assert text in shown, text


def test_a_registry_can_be_named_by_its_folder(team: Project, cli: Cli) -> None:
    assert cli("site", "registry", "--out", "site").exit_code == 0
    assert "registry: ./registry" in page("adapters/refunds.html")


def test_a_folder_is_searched_for_manifests_adapters_and_registries(
    team: Project, cli: Cli
) -> None:
    Path("other.yaml").write_text("key: value\n")
    done = cli("site", ".", "--out", "site", "--json")
    assert done.exit_code == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["schema"] == "adapterdock.site/1"
    assert (data["adapters"], data["bases"], data["compositions"], data["skipped"]) == (4, 1, 1, 1)
    assert (data["problems"], data["files"]["written"]) == ([], 10)
    names = {path.name for path in Path("site/adapters").iterdir()}
    assert names == {"tone.html", "terms.html", "loose.html", "refunds.html"}
    assert "both" in page("compositions.html") and "0.25" in page("compositions.html")
    assert "Part of" in page("adapters/tone.html") and "active" in page("compositions.html")


def test_all_that_is_known_of_an_adapter_in_a_manifest_is_shown(here: Project, cli: Cli) -> None:
    assert cli("site", "adapters.yaml", "--out", "site").exit_code == 0
    shown = page("adapters/tone.html")
    for text in ("Ada", "MIT", "support", "./base", "q_proj", "source: ./tone", "of the weight"):
        assert text in shown, text
    cli("lock")
    assert cli("site", "adapters.yaml", "--out", "site").exit_code == 0
    assert f"sha256: {here.lock.adapters['tone'].digest}" in page("adapters/tone.html")


def test_the_matrix_says_which_adapters_fit_which_bases(team: Project, cli: Cli) -> None:
    team.base("other", kind="gpt2")
    assert cli("site", ".", "--base", "./other", "--out", "site").exit_code == 0
    rows = {
        row.partition(".html")[0]: row
        for row in page("matrix.html").split('<a href="adapters/')[1:]
    }
    assert 'title="./other"' in page("matrix.html") and 'title="./base"' in page("matrix.html")
    assert rows["tone"].count('class="yes"') == 1 and rows["tone"].count('class="no"') == 1
    assert rows["refunds"].count('class="yes"') == 1 and rows["refunds"].count('class="no"') == 1
    assert "AD" in rows["tone"]


def test_manifests_with_one_base_share_a_column(here: Project, cli: Cli) -> None:
    Path("more").mkdir()
    Path("more/own.yaml").write_text(
        "version: 1\nbase: {model: ../base, aliases: [org/base]}\n"
        "adapters: {again: {source: ../tone}}\n"
    )
    data = json.loads(cli("site", ".", "--out", "site", "--json").stdout)
    assert (data["adapters"], data["bases"]) == (4, 1)
    assert page("matrix.html").count('class="yes"') == 4


def test_a_manifests_own_policy_counts_on_its_base(here: Project, cli: Cli) -> None:
    here.change("active: both", "policy: {max_adapter_bytes: 10 B}")
    assert cli("site", "adapters.yaml", "--out", "site").exit_code == 0
    assert page("matrix.html").count("no AD8") == 2


def test_a_version_that_is_yanked_is_not_the_one_to_copy(team: Project, cli: Cli) -> None:
    cli("yank", "team/refunds@1.1.0", "--why", "it leaks names")
    assert cli("site", "team", "--out", "site").exit_code == 0
    shown = page("adapters/refunds.html")
    assert "source: registry://team/refunds@1.0.0" in shown and "it leaks names" in shown
    cli("yank", "team/refunds@1.0.0", "--why", "it leaks too")
    assert cli("site", "team", "--out", "site").exit_code == 0
    shown = page("adapters/refunds.html")
    assert "source: registry://team/refunds@1.1.0" in shown and "This version is yanked" in shown


def test_signatures_are_shown_with_the_keys_that_they_name(team: Project, cli: Cli) -> None:
    payload = {"payload": "", "payloadType": "t", "signatures": [{"keyid": "ab" * 32, "sig": ""}]}
    envelope = read_envelope(json.dumps(payload).encode())
    add_signature(LocalStorage(Path("registry")), "adapters/refunds/signatures/1.1.0", envelope)
    assert cli("site", "team", "--out", "site").exit_code == 0
    shown = page("adapters/refunds.html")
    assert ">by ababababab<" in shown and ">no</td>" in shown


def test_what_is_named_twice_is_shown_once(team: Project, cli: Cli) -> None:
    done = cli("site", ".", "./tone", "loose", "adapters.yaml", "registry", "--out", "site")
    assert done.exit_code == 0
    assert done.stdout.startswith("Wrote site/index.html: 4 adapters")


def test_links_to_a_manifest_are_shown_where_they_are_and_links_in_a_circle_are_said(
    here: Project, cli: Cli
) -> None:
    for name in ("base", "tone", "terms"):
        shutil.copytree(name, f"team/{name}")
    Path("team/adapters.yaml").symlink_to("../adapters.yaml")
    Path("loop.yaml").symlink_to("loop.yaml")
    Path("round").symlink_to("round")
    text = Path("adapters.yaml").read_text()
    Path("round.yaml").write_text(text.replace("./base", "./round"))
    done = cli("site", ".", "--out", "../site", "--json", "--heat", "none")
    assert done.exit_code == 3, done.stderr
    found = json.loads(done.stdout)
    assert found["adapters"] == 7
    assert {one["what"] for one in found["problems"]} == {"loop.yaml", "round.yaml"}
    shown = Path("../site/index.html").read_text(encoding="utf-8")
    assert "adapters.yaml" in shown and "team/adapters.yaml" in shown


def test_the_lines_to_copy_are_a_part_of_a_manifest(team: Project, cli: Cli) -> None:
    assert cli("site", "team", "--out", "site").exit_code == 0
    lines = unescape(page("adapters/refunds.html").partition("<code>")[2].partition("</code>")[0])
    Path("new.yaml").write_text(
        f"version: 1\nbase: {{model: ./base, aliases: [org/base]}}\n{lines}"
    )
    assert cli("validate", "new.yaml").exit_code == 0
    read = read_manifest(yaml.safe_load(lines_to_copy({"version": 1, "name": "a", "base": {},
        "adapters": {"cost": {"source": "./${HOME}/$5: x"}}})))  # fmt: skip
    assert str(read.manifest.adapters["cost"].source) == "./${HOME}/$5: x"


@pytest.mark.parametrize(
    ("name", "key"), [("team/refunds", "refunds"), ("x-ray", "adapter"), ("a/x-1", "adapter")]
)
def test_an_adapter_gets_a_name_that_a_manifest_may_use(name: str, key: str) -> None:
    assert key_of(name) == key


def test_the_same_input_gives_the_same_bytes(team: Project, cli: Cli) -> None:
    cli("site", ".", "--out", "../one")
    cli("site", ".", "--out", "../two")
    assert files_of(Path("../one")) == files_of(Path("../two"))
    assert cli("site", ".", "--out", "../one").stderr.endswith(
        "Files: 0 written, 10 unchanged, 0 removed\n"
    )


def test_nothing_of_the_machine_gets_into_a_site(team: Project, cli: Cli) -> None:
    (team.folder / "loose" / "adapter_model.safetensors").unlink()
    (team.folder / "tone" / "adapter_model.safetensors").write_bytes(b"damaged")
    (team.folder / "broken.yaml").write_text(f"version: 1\nbase: {team.folder}/base\n")
    assert cli("site", ".", "--out", "site").exit_code == 3
    assert {"loose.html", "tone.html"} <= {path.name for path in Path("site/adapters").iterdir()}
    for path, raw in files_of(Path("site")).items():
        assert str(team.folder).encode() not in raw, path


def test_places_elsewhere_are_called_by_the_ends_of_their_paths(
    here: Project, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        shutil.copytree(here.folder, tmp_path / name / "team")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    done = cli("site", tmp_path / "one" / "team", tmp_path / "two" / "team", "--out", "site")
    assert done.exit_code == 0, done.stderr
    assert len([*Path("site/adapters").iterdir()]) == 6
    texts = [page("index.html"), *(p.read_text() for p in Path("site").rglob("*.html"))]
    assert not any(str(tmp_path) in text for text in texts)
    assert "team/adapters.yaml (2)" in texts[0] and 'title="team/base (2)"' in page("matrix.html")


def test_weights_are_read_only_if_they_are_wanted(here: Project, cli: Cli) -> None:
    assert cli("site", "adapters.yaml", "--heat", "none", "--out", "site").exit_code == 0
    assert "Not measured. It was not asked for." in page("adapters/tone.html")
    wrong = cli("site", "adapters.yaml", "--heat", "her", "--out", "site")
    assert wrong.exit_code == 2 and "did you mean 'here'" in wrong.stderr.lower()


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(team: Project, cli: Cli) -> None:
    Path("broken.yaml").write_text("version: 1\nbase: {}\nadapterz: {}\n")
    done = cli("site", ".", "--out", "site")
    assert done.exit_code == 3
    assert "broken.yaml: Unknown key 'adapterz'" in done.stderr
    assert "adapterz" in page("problems.html") and Path("site/adapters/tone.html").is_file()


def test_an_adapter_that_cannot_be_read_is_listed_with_what_is_wrong(
    here: Project, cli: Cli
) -> None:
    shutil.rmtree("tone")
    assert cli("site", "adapters.yaml", "--out", "site").exit_code == 3
    assert "unknown method" in page("index.html") and "Findings" in page("adapters/tone.html")
    assert "fits" in page("adapters/terms.html")


def test_an_adapter_that_does_not_fit_is_no_error_of_the_site(here: Project, cli: Cli) -> None:
    edit_config(here.folder / "tone", r=9)
    done = cli("site", "adapters.yaml", "--out", "site")
    assert done.exit_code == 0
    assert 'class="fit no"' in page("adapters/tone.html")


def test_an_entry_that_was_changed_in_its_registry_is_left_out(team: Project, cli: Cli) -> None:
    assert cli("site", "team", "--out", "site").exit_code == 0
    entry = Path("registry/adapters/refunds/versions/1.0.0.json")
    entry.chmod(0o644)
    entry.write_text(entry.read_text().replace("0.91", "0.99"))
    done = cli("site", "team", "--out", "site")
    assert done.exit_code == 3 and "1.0.0" in done.stderr
    assert "0.99" not in page("adapters/refunds.html") and "1.1.0" in page("adapters/refunds.html")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("./nowhere",), codes.SITE_INPUT),
        (("nowhere",), codes.SITE_INPUT),
        (("",), codes.SITE_INPUT),
        (("tone/adapter_config.json",), codes.SITE_INPUT),
        (("empty",), codes.SITE_EMPTY),
    ],
)
def test_an_input_with_nothing_in_it_is_a_finding_and_writes_nothing(
    here: Project, cli: Cli, arguments: tuple[str, ...], code: codes.Code
) -> None:
    Path("empty").mkdir()
    done = cli("site", *arguments, "--out", "site")
    assert (done.exit_code, Path("site").exists()) == (2, False)
    assert code.id in done.stderr


def test_a_registry_that_is_not_there_is_a_finding(here: Project, cli: Cli) -> None:
    done = cli("site", "oci-archive:nothing.tar", "--out", "site")
    assert done.exit_code in (1, 2) and "error" in done.stderr
    assert not Path("site").exists()


def test_a_folder_with_other_files_is_not_written_to(here: Project, cli: Cli) -> None:
    done = cli("site", "adapters.yaml", "--out", ".")
    assert done.exit_code == 2 and codes.SITE_OCCUPIED.id in done.stderr
    assert not Path("index.html").exists()
