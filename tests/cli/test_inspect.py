"""`adapterdock inspect`: everything about a published version, and where it acts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from adapterdock.cli.console import Printer
from adapterdock.cli.heat import print_heat
from adapterdock.registry.heat_map import Size, strength
from adapterdock.registry.signatures.envelope import read_envelope
from adapterdock.registry.signatures.signatures import add_signature
from adapterdock.registry.storages.local_storage import LocalStorage
from safetensors.torch import load_file
from support.project import Project
from typer.testing import Result

Cli = Callable[..., Result]
FOLDER = "adapters/refunds/signatures/1.0.0"


@pytest.fixture
def team(project: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Project:
    project.base()
    project.adapter("tone")
    project.write({"tone": "./tone"}, registries={"team": "./registry"})
    monkeypatch.chdir(project.folder)
    assert cli("registry", "init", "./registry").exit_code == 0
    (project.folder / "metrics.json").write_text('{"accuracy": 0.91}')
    arguments = ("--licence", "MIT", "--tag", "support", "--metrics", "metrics.json")
    done = cli("publish", "./tone", "team/refunds@1.0.0", *arguments)
    assert done.exit_code == 0, done.stderr
    return project


def test_the_card_has_everything_of_the_entry_and_what_was_done_since(
    team: Project, cli: Cli
) -> None:
    cli("promote", "team/refunds@1.0.0", "prod")
    cli("deprecate", "team/refunds@1.0.0", "--why", "old data")
    data = json.loads(cli("inspect", "team/refunds@prod", "--card", "--json").stdout)
    assert data["reference"] == "team/refunds@1.0.0"
    assert (data["aliases"], data["deprecated"], data["why"]) == (["prod"], True, "old data")
    assert (data["signatures"], data["delta"], data["yanked"]) == ([], None, False)
    assert data["entry"]["metrics"] == {"accuracy": 0.91}
    shown = cli("inspect", "team/refunds@1.0.0", "--card").stdout
    for text in (
        "marked: deprecated: old data",
        "aliases: prod",
        "signatures: none",
        "method: LORA, rank 4",
        "metrics: accuracy 0.91",
        "licence: MIT",
        "tags: support",
        "base also called: org/base",
        "weights\t",
    ):
        assert text in shown, text


def test_signatures_are_counted_with_their_keys(team: Project, cli: Cli) -> None:
    folder = team.folder / "registry" / FOLDER
    folder.mkdir(parents=True)
    (folder / f"{'0' * 64}.json").write_text("no signature")
    shown = cli("inspect", "team/refunds@1.0.0", "--card").stdout
    assert "signatures: 0 files, 1 unreadable" in shown
    payload = {"payload": "", "payloadType": "t", "signatures": [{"keyid": "ab" * 32, "sig": ""}]}
    envelope = read_envelope(json.dumps(payload).encode())
    add_signature(LocalStorage(team.folder / "registry"), FOLDER, envelope)
    shown = cli("inspect", "team/refunds@1.0.0", "--card").stdout
    assert "signatures: 1 file, not verified here, by abababababababab, 1 unreadable" in shown
    data = json.loads(cli("inspect", "team/refunds@1.0.0", "--card", "--json").stdout)
    assert sorted(one["keys"] for one in data["signatures"]) == [[], ["ab" * 32]]


def norms(team: Project, module: str) -> float:
    tensors = load_file(team.folder / "tone" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"].double() for x in "AB")
    config = json.loads((team.folder / "tone" / "adapter_config.json").read_text())
    return float((config["lora_alpha"] / config["r"] * b @ a).norm())


def test_where_it_acts_is_absolute_without_the_base_and_relative_with_it(
    team: Project, cli: Cli
) -> None:
    done = cli("inspect", "team/refunds@1.0.0", "--json")
    delta: dict[str, Any] = json.loads(done.stdout)["delta"]
    assert delta["relative"] is False and "does not say where its base is" in delta["why"]
    first = delta["modules"][0]
    assert first["layer"] == 0 and first["relative"] is None
    assert first["norm"] == pytest.approx(norms(team, first["module"]), rel=1e-6)
    done = cli("inspect", "team/refunds@1.0.0", "--base", "./base", "--json")
    delta = json.loads(done.stdout)["delta"]
    weights = load_file(team.folder / "base" / "model.safetensors")
    assert delta["relative"] is True and delta["why"] is None
    for row in delta["modules"]:
        weight = float(weights[f"{row['module']}.weight"].double().norm())
        assert row["relative"] == pytest.approx(norms(team, row["module"]) / weight, rel=1e-6)
    shown = cli("inspect", "team/refunds@1.0.0", "--base", "./base").stdout
    assert "% of the weights that it changes" in shown
    assert "layer\tq_proj\tv_proj" in shown
    assert "(absolute: the entry does not say" in cli("inspect", "team/refunds@1.0.0").stdout


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("team/refunds",), 2, "AD865"),
        (("refunds",), 2, "AD865"),
        (("team/refunds@9.0.0",), 1, "AD861"),
        (("team/refunds@1.0.0", "--base", "what"), 2, "AD865"),
        (("team/refunds@1.0.0", "--base", "./nothing"), 1, "AD2"),
    ],
)
def test_what_cannot_be_shown_is_a_finding(
    team: Project, cli: Cli, arguments: tuple[str, ...], status: int, code: str
) -> None:
    done = cli("inspect", *arguments)
    assert (done.exit_code, code in done.stderr) == (status, True), done.stderr


def test_a_damaged_content_is_refused(team: Project, cli: Cli) -> None:
    data = json.loads(cli("inspect", "team/refunds@1.0.0", "--card", "--json").stdout)
    (weights,) = [file for file in data["entry"]["files"] if file["role"] == "weights"]
    path = team.folder / "registry" / "blobs" / "sha256" / weights["sha256"].partition(":")[2]
    raw = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(raw[:-4] + b"\1\1\1\1")
    done = cli("inspect", "team/refunds@1.0.0")
    assert done.exit_code == 1 and "Traceback" not in done.stderr
    assert weights["sha256"] in done.stderr


def test_without_numpy_the_card_is_complete(
    team: Project, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterdock.registry.measured.find_spec", lambda name: None)
    done = cli("inspect", "team/refunds@1.0.0")
    assert done.exit_code == 0
    assert "licence: MIT" in done.stdout and "Not measured: numpy is not installed" in done.stdout


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("kinds", [1, 7, 30])
def test_the_map_fits_the_terminal(
    width: int, kinds: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.delenv("NO_COLOR", raising=False)
    for what in ("terminal", "fancy"):
        monkeypatch.setattr(Printer, what, property(lambda self: True))
    sizes = {
        f"model.layers.{layer}.module_{kind}_proj": Size(1.0 + layer + kind)
        for layer in range(3)
        for kind in range(kinds)
    }
    print_heat(sizes, Printer("stdout"))
    shown = capsys.readouterr().out
    from rich.text import Text

    lines = Text.from_ansi(shown).plain.splitlines()
    assert max(map(len, lines)) <= width
    assert sum("█" in line for line in lines) >= 2
    assert f"█ = {kinds + 2} (Frobenius norm)" in shown.replace("\x1b[0m", "")


def test_in_a_pipe_the_map_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_heat({"m.layers.3.q": Size(1.0, 10.0), "lm_head": Size(3.0, 10.0)}, Printer("stdout"))
    assert capsys.readouterr().out.splitlines() == [
        *("m.layers", "layer\tq", "3\t0.1"),
        *("outside of layers", "layer\tlm_head", "-\t0.3"),
    ]


def test_shades_go_from_nothing_to_the_highest() -> None:
    assert [strength(v, 4.0, 4) for v in (None, 0.0, 0.1, 1.0, 2.0, 3.9, 4.0)] == [
        0,
        0,
        1,
        1,
        2,
        4,
        4,
    ]
    assert strength(0.0, 0.0, 4) == 0
