"""The arguments of the Ray Serve application, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest
from adapterdock.manifests.findings.errors import UsageError
from adapterdock.serving.ray import app, read_args, settings_of

KEYS = "mobile=" + "k" * 20


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADAPTERDOCK_API_KEYS", raising=False)


def test_arguments_are_read_as_serve_run_passes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = read_args({"manifest": "a.yaml", "rows": "4", "cpus": "2.5", "accept": "AD1, AD2"})
    assert args.manifest == str(tmp_path / "a.yaml")
    settings = settings_of(args)
    assert (settings.limits.rows, settings.threads, settings.accept) == (4, 2, ("AD1", "AD2"))


@pytest.mark.parametrize("url", ["s3://bucket/adapters.yaml", "https://host/a/adapters.yaml"])
def test_a_url_of_a_manifest_is_the_same_on_every_node(url: str) -> None:
    assert settings_of(read_args({"manifest": url})).manifest == url


def test_torch_gets_the_cpus_of_the_replica_and_at_least_one() -> None:
    assert settings_of(read_args({"manifest": "a", "cpus": 0.5})).threads == 1


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({}, "a value"),
        ({"manifest": "a", "replica": "2"}, "accept, cpus, "),
        ({"manifest": "a", "rows": "many"}, "a whole number"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, str], expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_args(wrong)
    (finding,) = refused.value.findings
    assert (finding.code, (finding.expected or "").startswith(expected)) == ("AD959", True)


def test_a_replica_without_the_keys_of_serve_run_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ADAPTERDOCK_API_KEYS", KEYS)
    args = read_args({"manifest": "a.yaml"})
    assert settings_of(args).keys
    monkeypatch.delenv("ADAPTERDOCK_API_KEYS")
    with pytest.raises(UsageError) as refused:
        settings_of(args)
    assert refused.value.code == "AD976"


def test_without_ray_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError) as refused:
        app({"manifest": "a.yaml"})
    assert (refused.value.code, "adapterdock[ray]" in str(refused.value)) == ("AD975", True)
