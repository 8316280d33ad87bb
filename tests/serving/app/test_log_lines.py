"""The log of a server: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging

import pytest
from adapterdock.manifests.findings import language
from adapterdock.manifests.findings.errors import ManifestError
from adapterdock.serving.app.log_lines import JsonLines, TextLines, logged_to_stderr

LOG = logging.getLogger("adapterdock.somewhere")


def test_json_lines_have_the_text_and_what_the_record_says_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logged_to_stderr(JsonLines()):
        LOG.info("%s: applied\n%d changed", "a.yaml", 2, extra={"event": "look", "codes": ["AD1"]})
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "INFO",
        "logger": "adapterdock.somewhere",
        "message": "a.yaml: applied\n2 changed",
        "event": "look",
        "codes": ["AD1"],
    }


def test_an_exception_is_in_the_same_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    with logged_to_stderr(JsonLines()):
        try:
            raise ValueError("odd\nvalue")
        except ValueError:
            LOG.exception("A look failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: odd\nvalue" in json.loads(line)["exception"]


def test_further_lines_of_a_text_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    with logged_to_stderr(TextLines()):
        LOG.warning("one\ntwo")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("Z WARNING one")
    assert second == "  two"


def test_our_own_errors_show_findings_and_others_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours = ManifestError(language.UNKNOWN_KEY.finding("Unknown key 'dtpye' in base"))
    with logged_to_stderr(TextLines()):
        for error in (ours, ValueError("odd")):
            LOG.error("A look failed", exc_info=error)
    said = capsys.readouterr().err
    assert "  error AD120 unknown-key: Unknown key 'dtpye' in base" in said
    assert "ValueError: odd" in said
    assert "ManifestError" not in said


def test_it_ends_with_the_block_and_others_are_not_touched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ours, other = logging.getLogger("adapterdock"), logging.getLogger("someone")
    before = (ours.handlers, ours.propagate, ours.level)
    with logged_to_stderr(TextLines(), logging.WARNING):
        LOG.info("too little")
        logging.getLogger("uvicorn.error").info("too little")
        logging.getLogger("uvicorn.error").warning("enough")
        assert not other.handlers
    assert (ours.handlers, ours.propagate, ours.level) == before
    assert [line.split(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == [
        "WARNING enough"
    ]
