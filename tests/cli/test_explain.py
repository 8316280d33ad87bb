"""`adapterdock explain`, and the generated reference page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.cli import reference
from adapterdock.manifests.findings import fit as codes
from adapterdock.manifests.findings import loader as loader_codes
from adapterdock.manifests.findings.catalogue import Code, all_codes
from typer.testing import Result

Cli = Callable[..., Result]


@pytest.mark.parametrize("code", all_codes().values(), ids=lambda code: code.id)
def test_every_code_is_explained(cli: Cli, code: Code) -> None:
    result = cli("explain", code.id.lower())
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{code.id} {code.name} ({code.severity.value})\n")
    for text in code.explained[2:]:
        assert text.strip()
        assert all(
            " ".join(line.split()) in " ".join(result.stdout.split()) for line in text.split("\n")
        )
    assert cli("explain", code.name).stdout == result.stdout


@pytest.mark.parametrize(
    ("was", "name", "code"),
    [
        ("AD704", "tensors-change-nothing", codes.EMPTY),
        ("AD705", "tensors-dtype-unsupported", codes.TENSOR_DTYPE),
        ("AD707", "tensors-not-as-planned", codes.HALF_PRESENT),
        ("AD710", "module-missing", codes.MODULE_MISSING),
        ("AD711", "module-misfit", codes.SIZE_MISMATCH),
        ("AD713", "module-never-called", codes.TARGET_NOT_CALLED),
        ("AD717", "bias-unsupported", codes.BIAS_MISMATCH),
        ("AD718", "saved-module-incomplete", codes.SAVED_MODULE),
        ("AD724", "method-not-attachable", codes.METHOD_UNSUPPORTED),
        ("AD725", "tensors-without-place", codes.TENSOR_UNEXPECTED),
        ("AD912", "bad-adapter-name", loader_codes.NAME_INVALID),
    ],
)
def test_a_code_of_an_earlier_release_explains_its_successor(
    cli: Cli, was: str, name: str, code: Code
) -> None:
    assert was not in all_codes()
    shown = cli("explain", code.id).stdout
    assert cli("explain", was.lower()).stdout == cli("explain", name).stdout == shown
    assert f"Earlier releases called it {was} {name}." in shown
    assert json.loads(cli("explain", was, "--json").stdout)["codes"][0]["was"] == [was, name]


def test_a_code_that_was_never_renamed_does_not_mention_earlier_releases(cli: Cli) -> None:
    assert "Earlier" not in cli("explain", "AD301").stdout


def test_without_a_code_all_are_listed(cli: Cli) -> None:
    rows = [line.split("\t") for line in cli("explain").stdout.splitlines()]
    assert rows[0] == ["code", "severity", "name", "summary"]
    assert [row[0] for row in rows[1:]] == list(all_codes())


def test_an_unknown_code_is_wrong_usage_with_a_suggestion(cli: Cli) -> None:
    result = cli("explain", "modul-not-in-base")
    assert result.exit_code == 2
    assert "Did you mean 'module-not-in-base'?" in result.stderr


def ids(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.split("\t")[0] for line in result.stdout.splitlines()[1:]]


def test_a_word_lists_the_codes_about_it_those_with_it_in_their_title_first(cli: Cli) -> None:
    found = ids(cli("explain", "RANK"))
    assert found[:4] == ["AD336", "AD807", "AD808", "AD946"]
    assert "AD313" in found, "its example has the word"
    assert "AD101" not in found
    assert "for 'RANK'; to read one: adapterdock explain AD336" in cli("explain", "RANK").stderr


def test_several_words_list_the_codes_that_have_all_of_them(cli: Cli) -> None:
    assert ids(cli("explain", "gated", "hub")) == ids(cli("explain", "hub gated")) == ["AD211"]


def test_a_word_is_found_at_the_start_of_a_word_and_not_within_one(cli: Cli) -> None:
    assert "AD342" in ids(cli("explain", "modul"))
    assert cli("explain", "odule").exit_code == 2


def test_the_start_of_a_code_lists_its_neighbours_and_no_text_that_names_one(cli: Cli) -> None:
    assert ids(cli("explain", "ad50")) == [id for id in all_codes() if id.startswith("AD50")]
    assert cli("explain", "AD000").exit_code == 2, "an example has it"


def test_several_codes_are_explained_one_after_the_other(cli: Cli) -> None:
    one, other = cli("explain", "AD301").stdout, cli("explain", "AD302").stdout
    assert cli("explain", "AD301", "AD302").stdout == f"{one}\n{other}"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("AD3O1", "AD301"), ("ADl01", "AD101"), ("tokeniser", "tokenizer"), ("rnak", "rank")],
)
def test_a_slip_of_the_keyboard_is_suggested(cli: Cli, typed: str, meant: str) -> None:
    assert f"Did you mean '{meant}'?" in cli("explain", typed).stderr


@pytest.mark.parametrize("typed", ["AD999", "AD299", "xyzzy", "", "-"])
def test_no_code_that_is_far_off_is_suggested(cli: Cli, typed: str) -> None:
    result = cli("explain", "--", typed)
    assert result.exit_code == 2
    assert "Did you mean" not in result.stderr
    assert "with a word to search for" in " ".join(result.stderr.split())


def test_codes_can_be_printed_as_json(cli: Cli) -> None:
    data = json.loads(cli("explain", "AD120", "--json").stdout)
    assert data["schema"] == "adapterdock.codes/1"
    assert [code["name"] for code in data["codes"]] == ["unknown-key"]
    assert len(json.loads(cli("explain", "--json").stdout)["codes"]) == len(all_codes())
    data = json.loads(cli("explain", "gated", "hub", "--json").stdout)
    assert [code["code"] for code in data["codes"]] == ["AD211"]


def test_every_format_of_json_is_in_the_reference() -> None:
    sources = Path(reference.__file__).parent.glob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    made = set(re.findall(r'"(adapterdock\.[a-z-]+/\d+)"', text))
    assert made <= {schema for _, schema, _ in reference.SCHEMAS}


def test_the_page_of_the_command_line_is_current() -> None:
    assert reference.main(["--check"]) == 0, "run python -m adapterdock.cli.reference"


def test_a_stale_page_of_the_command_line_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "DOCS", tmp_path / "docs")
    assert reference.main(["--check"]) == 1
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    (tmp_path / "docs" / "reference" / "cli.md").write_text("old")
    assert reference.main(["--check"]) == 1
