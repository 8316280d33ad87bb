"""Which rows run together, and what happens when a batch fails."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import pytest
from adapterdock.serving.app.batcher import Batcher, choose, run_apart
from adapterdock.serving.app.failure import RequestError
from adapterdock.serving.app.rows import Piece, Row


def make(adapter: str = "a", key: object = None) -> tuple[Row, list[Piece]]:
    heard: list[Piece] = []
    return Row("embed", adapter, heard.append, (1,), key=key), heard  # type: ignore[arg-type]


def answer_all(rows: Sequence[Row]) -> None:
    for row in rows:
        row.answer((1.0,))


def test_rows_of_several_adapters_join_a_batch_in_their_order() -> None:
    rows = [make(name)[0] for name in "abcab"]
    chosen, left = choose(rows, 4, lambda rows: True)
    assert (chosen, left) == (rows[:4], deque(rows[4:]))


def test_a_row_with_another_key_waits_and_those_behind_it_join() -> None:
    rows = [make(key=key)[0] for key in (1, 2, 1)]
    chosen, left = choose(rows, 8, lambda rows: True)
    assert (chosen, left) == ([rows[0], rows[2]], deque([rows[1]]))


def test_rows_join_as_long_as_all_fit_and_the_first_runs_anyway() -> None:
    rows = [make(name)[0] for name in "abcaa"]
    chosen, _ = choose(rows, 8, lambda rows: len({row.adapter for row in rows}) <= 2)
    assert [row.adapter for row in chosen] == ["a", "b", "a", "a"]
    chosen, _ = choose(rows, 8, lambda rows: False)
    assert [row.adapter for row in chosen] == ["a"]


def failing_with(bad: str) -> tuple[Callable[[Sequence[Row]], None], list[list[str]]]:
    """A run that fails as long as the adapter ``bad`` is in the batch, and the batches it saw."""
    seen: list[list[str]] = []

    def run(rows: Sequence[Row]) -> None:
        seen.append([row.adapter for row in rows])
        if bad in seen[-1]:
            raise ValueError("all adapters: a, b, secret")
        answer_all(rows)

    return run, seen


def test_one_bad_row_never_fails_another() -> None:
    run, seen = failing_with("bad")
    made = [make(name) for name in ("a", "bad", "b", "a", "bad")]
    run_apart(run, [row for row, _ in made])
    assert [heard[-1].finish or "error" for _, heard in made] == [
        *("done", "error", "done", "done", "error")
    ]
    assert seen == [
        ["a", "bad", "b", "a", "bad"],
        *(["a", "a"], ["bad", "bad"], ["bad"], ["bad"], ["b"]),
    ]


def test_the_error_of_a_row_has_nothing_of_what_was_raised() -> None:
    run, _ = failing_with("bad")
    row, heard = make("bad")
    run_apart(run, [row])
    assert heard[0].error is not None
    assert "secret" not in str(heard[0].error.as_dict())
    assert "ValueError" in str(heard[0].error.as_dict())


def test_a_row_whose_answer_was_started_does_not_run_again() -> None:
    class Begun(Row):
        started = True  # type: ignore[assignment]

    heard: list[Piece] = []
    row = Begun("generate", "bad", heard.append)
    other, others = make("a")
    run, seen = failing_with("bad")
    run_apart(run, [row, other])
    assert [len(heard), heard[0].error is not None, others[-1].finish] == [1, True, "done"]
    assert seen == [["bad", "a"], ["a"]]


def test_rows_that_come_while_the_first_waits_run_in_its_batch() -> None:
    ran: list[int] = []
    batcher = Batcher(answer_all, wait_seconds=5, rows=3, ran=lambda rows: ran.append(len(rows)))
    for _ in range(3):
        batcher.submit([make()[0]])
    assert batcher.close(5)
    assert ran == [3]


def test_more_rows_than_may_wait_are_refused_all_together() -> None:
    going, started = threading.Event(), threading.Event()

    def slow(rows: Sequence[Row]) -> None:
        started.set()
        going.wait(10)
        answer_all(rows)

    batcher = Batcher(slow, waiting=2, wait_seconds=0)
    batcher.submit([make()[0]])
    assert started.wait(5)
    batcher.submit([make()[0]])
    with pytest.raises(RequestError) as refused:
        batcher.submit([make()[0], make()[0]])
    assert refused.value.status == 503
    assert batcher.waiting == 1
    going.set()
    assert batcher.close(5)


def test_a_closing_batcher_runs_what_waits_and_takes_no_more() -> None:
    batcher = Batcher(answer_all, wait_seconds=60)
    row, heard = make()
    batcher.submit([row])
    assert batcher.close(5)
    assert heard[-1].finish == "done"
    with pytest.raises(RequestError):
        batcher.submit([make()[0]])


def test_a_batcher_that_cannot_end_in_time_fails_the_rows_that_wait() -> None:
    going = threading.Event()

    def slow(rows: Sequence[Row]) -> None:
        going.wait(10)
        answer_all(rows)

    batcher = Batcher(slow, rows=1, wait_seconds=0)
    first, second = make(), make()
    batcher.submit([first[0], second[0]])
    assert not batcher.close(0.2)
    assert second[1][-1].error is not None
    going.set()


def test_cancelled_rows_do_not_run() -> None:
    ran: list[int] = []
    batcher = Batcher(answer_all, wait_seconds=0.2, ran=lambda rows: ran.append(len(rows)))
    row, other = make()[0], make()[0]
    row.cancelled = True
    batcher.submit([row, other])
    assert batcher.close(5)
    assert ran == [1]


def test_a_run_that_answers_nothing_leaves_nobody_waiting() -> None:
    batcher = Batcher(lambda rows: None, wait_seconds=0)
    row, heard = make()
    batcher.submit([row])
    assert batcher.close(5)
    assert heard[-1].error is not None


def test_a_batcher_whose_waiting_rows_are_all_cancelled_goes_on() -> None:
    ran: list[int] = []
    batcher = Batcher(answer_all, wait_seconds=0, ran=lambda rows: ran.append(len(rows)))
    gone, (row, heard) = make()[0], make()
    gone.cancelled = True
    batcher.submit([gone])
    batcher.submit([row])
    assert batcher.close(5)
    assert (heard[-1].finish, ran) == ("done", [1])
