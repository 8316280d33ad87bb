"""Which registries are configured: the manifest's, else those of the user's ``config.toml``."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.manifests.manifest import read_manifest
from adapterdock.registry.access.configured import config_path, configured, read_config
from adapterdock.registry.catalogue.reference import parse_reference
from adapterdock.registry.registries import open_named, open_registry
from support.published import registry

BASE = {"model": "./base"}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    monkeypatch.setenv("ADAPTERDOCK_CONFIG", str(path))
    return path


@pytest.mark.parametrize(
    ("platform", "environ", "expected"),
    [
        ("linux", {}, "{home}/.config/adapterdock/config.toml"),
        ("linux", {"XDG_CONFIG_HOME": "/x"}, "/x/adapterdock/config.toml"),
        ("linux", {"XDG_CONFIG_HOME": "x"}, "{home}/.config/adapterdock/config.toml"),
        ("darwin", {}, "{home}/Library/Application Support/adapterdock/config.toml"),
        ("win32", {"APPDATA": "/roaming"}, "/roaming/adapterdock/config.toml"),
        ("win32", {}, "{home}/AppData/Roaming/adapterdock/config.toml"),
        ("win32", {"ADAPTERDOCK_CONFIG": "my.toml"}, "my.toml"),
    ],
)
def test_the_file_is_in_the_usual_place_of_the_platform(
    platform: str, environ: dict[str, str], expected: str
) -> None:
    assert config_path(environ, platform) == Path(expected.format(home=Path.home()))


def test_no_file_in_the_usual_place_means_no_registries() -> None:
    assert configured() == {}


def test_the_file_that_a_variable_names_must_exist(config: Path) -> None:
    with pytest.raises(UsageError) as caught:
        configured()
    assert (caught.value.code, caught.value.findings[0].where.file) == ("AD844", str(config))


def test_relative_folders_start_from_the_folder_of_the_file(config: Path) -> None:
    made = registry(config.parent / "team")
    config.write_text('[registries]\nteam = "./team"\nfar = "s3://bucket/folder"\n')
    assert list(configured()) == ["team", "far"]
    assert open_registry(parse_reference("team/refunds")).id == made.id
    assert open_named("team").id == made.id


def test_a_manifest_that_names_registries_is_complete(config: Path) -> None:
    config.write_text('[registries]\nteam = "./team"\nother = "./other"\n')
    data = {"version": 1, "base": BASE, "registries": {"team": "s3://bucket/folder"}}
    assert {name: str(row.source) for name, row in configured(read_manifest(data)).items()} == {
        "team": "s3://bucket/folder"
    }
    assert list(configured(read_manifest({"version": 1, "base": BASE}))) == ["team", "other"]


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("[registries\n", "config.toml:1:12", "Invalid TOML"),
        ("[registry]\n", "registry", "Did you mean 'registries'?"),
        ("registries = 3\n", "registries", "int"),
        ("[registries]\nteam = 3\n", "registries.team", "int"),
        ('[registries]\nTeam = "./x"\n', "registries.Team", "lower-case"),
        ('[registries]\n"a/b" = "./x"\n', "registries.a/b", "'/'"),
        ('[registries]\nteam = "team"\n', "registries.team", "Invalid URL"),
        ("\xff", "", "Invalid TOML"),
        ("#" * (1 << 20) + "\n", "", "too large"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    config: Path, text: str, place: str, word: str
) -> None:
    config.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError) as caught:
        read_config(config)
    (finding,) = caught.value.findings
    assert finding.code == "AD844"
    assert place in str(finding.where)
    assert word in f"{finding.message} {finding.found} {finding.hint}"


def test_a_password_in_a_url_is_never_shown(config: Path) -> None:
    config.write_text('[registries]\nteam = "https://ada:hunter22@host/folder"\n')
    with pytest.raises(UsageError) as caught:
        read_config(config)
    assert "hunter22" not in str(caught.value)


def test_an_unknown_registry_names_those_that_are_known(config: Path) -> None:
    config.write_text('[registries]\nteam = "./team"\n')
    with pytest.raises(UsageError) as caught:
        open_registry(parse_reference("taem/refunds"))
    (finding,) = caught.value.findings
    assert (finding.code, finding.expected) == ("AD865", "team")
    assert "Did you mean 'team'?" in (finding.hint or "")


def test_a_folder_is_no_local_name(tmp_path: Path) -> None:
    made = registry(tmp_path / "team")
    assert open_named(str(tmp_path / "team")).id == made.id
    with pytest.raises(UsageError):
        open_named("team")
