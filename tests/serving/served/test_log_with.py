"""Beside an engine, our lines go where the engine's go."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
from adapterdock.serving.served.log_with import log_with

OURS = logging.getLogger("adapterdock")


@pytest.fixture
def engine() -> Iterator[io.StringIO]:
    """What the engine's handler writes; our logger is as it was afterwards."""
    said = io.StringIO()
    theirs, before = logging.getLogger("some.engine"), (OURS.handlers, OURS.level)
    theirs.handlers = [logging.StreamHandler(said)]
    OURS.handlers = []
    yield said
    OURS.handlers = before[0]
    OURS.setLevel(before[1])
    theirs.handlers = []


def test_what_is_served_is_in_the_engines_log(engine: io.StringIO) -> None:
    log_with("some.engine")
    logging.getLogger("adapterdock.below").info("serving tone")
    logging.getLogger("adapterdock.below").debug("a detail")
    assert engine.getvalue() == "serving tone\n"


def test_a_logger_that_the_program_has_set_up_stays(engine: io.StringIO) -> None:
    own = logging.NullHandler()
    OURS.handlers = [own]
    log_with("some.engine")
    OURS.info("serving tone")
    assert (OURS.handlers, engine.getvalue()) == ([own], "")
