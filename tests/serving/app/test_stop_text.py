"""Stop texts are found however the text is cut into pieces."""

from __future__ import annotations

from adapterdock.serving.app.stop_text import StopText
from hypothesis import given
from hypothesis import strategies as st


def passed(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    """What is passed on of these pieces, and whether a stop text ended them."""
    finder, text = StopText(stops), ""
    for piece in pieces:
        more, stopped = finder.feed(piece)
        text += more
        if stopped:
            return text, True
    return text + finder.rest(), False


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), max_size=2))
def test_pieces_of_one_character_pass_on_what_the_whole_text_does(
    text: str, stops: list[str]
) -> None:
    first = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
    found, stopped = passed(stops, list(text))
    assert stopped == (first is not None)
    # of two stop texts, the one that is complete first counts
    assert found == text if first is None else text.startswith(found) and len(found) >= first


def test_the_beginning_of_a_stop_text_is_held_back_until_it_is_none() -> None:
    finder = StopText(["END"])
    assert finder.feed("the E") == ("the ", False)
    assert finder.feed("N") == ("", False)
    assert finder.feed("Ds") == ("", True)
    finder = StopText(["END"])
    assert finder.feed("EN") == ("", False)
    assert finder.feed("T") == ("ENT", False)


def test_without_stop_texts_nothing_is_held_back() -> None:
    assert StopText([]).feed("all of it") == ("all of it", False)
