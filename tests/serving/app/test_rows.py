"""What a row says while its tokens come."""

from __future__ import annotations

from adapterdock.serving.app.failure import busy
from adapterdock.serving.app.rows import GenerationRow, Piece

WORDS = {1: "caf\ufffd", 2: "é", 3: " au", 4: " lait", 9: ""}


def text_of(ids: list[int]) -> str:
    """Tokens 1 and 2 are one character together."""
    return "".join(WORDS[one] for one in ids).replace("\ufffdé", "é")


def row(**more: object) -> tuple[GenerationRow, list[Piece]]:
    heard: list[Piece] = []
    options = {"new_tokens": 10, "ends": frozenset({9}), "text_of": text_of, **more}
    return GenerationRow("generate", "a", heard.append, (5,), **options), heard  # type: ignore[arg-type]


def said(heard: list[Piece]) -> str:
    return "".join(piece.text for piece in heard)


def test_a_character_of_two_tokens_comes_as_a_whole() -> None:
    one, heard = row()
    one.take(1)
    assert heard == []
    one.take(2)
    assert heard == [Piece("café")]


def test_the_end_token_ends_a_row_and_counts_and_is_no_text() -> None:
    one, heard = row()
    for token in (1, 2, 3, 9, 4):
        one.take(token)
    assert (said(heard), heard[-1].finish, one.tokens) == ("café au", "stop", 4)


def test_a_row_ends_at_its_own_number_of_tokens() -> None:
    one, heard = row(new_tokens=3)
    for token in (1, 2, 3, 4, 4):
        one.take(token)
    assert (said(heard), heard[-1].finish, one.tokens) == ("café au", "length", 3)


def test_a_stop_text_over_two_tokens_is_found_and_not_passed_on() -> None:
    one, heard = row(stops=("u l",))
    for token in (1, 2, 3, 4, 4):
        one.take(token)
    assert (said(heard), heard[-1].finish) == ("café a", "stop")


def test_what_was_held_back_comes_at_the_end() -> None:
    one, heard = row(stops=("lait au",))
    for token in (3, 4, 9):
        one.take(token)
    assert said(heard) == " au lait"


def test_a_cancelled_row_ends_at_its_next_token_and_says_nothing() -> None:
    one, heard = row()
    one.cancelled = True
    one.take(3)
    assert (one.finished, heard) == (True, [])


def test_a_finished_row_does_not_fail_afterwards() -> None:
    one, heard = row(new_tokens=1)
    one.take(3)
    one.fail(busy("late"))
    assert len(heard) == 1


def test_a_row_that_runs_again_says_everything_once() -> None:
    one, heard = row()
    one.take(1)
    assert not one.started
    one.again()
    for token in (1, 2, 9):
        one.take(token)
    assert said(heard) == "café"
    assert one.started
