"""The chat: what it sends, what it remembers, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from adapterdock.cli.chat import Chat, Message
from adapterdock.cli.command import Terminated
from adapterdock.cli.mix import Mix
from adapterdock.manifests.findings import loader as codes
from adapterdock.manifests.findings.errors import AttachError
from adapterdock.manifests.manifest import ManifestFile, read_manifest


class Talk:
    """A chat whose model answers with the number of messages, or raises."""

    def __init__(self, file: ManifestFile) -> None:
        self.asked: list[tuple[list[str], Mix | None]] = []
        self.raises: BaseException | None = None
        self.shown = ""
        self.chat = Chat(file, self.answer, self.write)

    def answer(
        self, messages: list[Message], mix: Mix | None, write: Callable[[str], None]
    ) -> None:
        self.asked.append(([one["content"] for one in messages], mix))
        write(f"{len(messages)} ")
        if self.raises is not None:
            error, self.raises = self.raises, None
            raise error
        write("said")

    def write(self, text: str) -> None:
        self.shown += text

    def type(self, *lines: str | BaseException) -> None:
        typed = iter(lines)

        def read() -> str:
            line = next(typed, EOFError())
            if isinstance(line, BaseException):
                raise line
            return line

        self.chat.run(read)


@pytest.fixture
def talk(tmp_path: Path) -> Talk:
    path = tmp_path / "adapters.yaml"
    path.write_text(
        "version: 1\nbase: {}\nadapters: {pirate: {source: ./p}, sales: {source: ./s}}\n"
    )
    return Talk(read_manifest(path))


def test_what_was_said_is_sent_again(talk: Talk) -> None:
    talk.type("hello", "  ", "again")
    assert talk.asked == [(["hello"], None), (["hello", "1 said", "again"], None)]
    assert talk.shown == "1 said\n3 said\n\n"
    assert [one["role"] for one in talk.chat.messages] == ["user", "assistant"] * 2


def test_an_adapter_or_a_sum_is_used_from_then_on(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.type("/adapter pirate", "a", "/adapter pirate=0.5,sales", "/reset", "b")
    assert talk.asked == [(["a"], "pirate"), (["b"], {"pirate": 0.5, "sales": 1.0})]
    talk.type("/adapter", "/adapter nobody", "/adapter a=x", "c")
    assert talk.asked[-1][1] == {"pirate": 0.5, "sales": 1.0}
    said = capsys.readouterr().err
    assert "pirate, sales, __base__" in said and "AD730" in said and "AD927" in said


def test_ctrl_c_keeps_what_was_answered(talk: Talk) -> None:
    talk.raises = KeyboardInterrupt()
    talk.type("hello", "go on")
    assert talk.asked[1] == (["hello", "1", "go on"], None)


def test_ctrl_c_just_after_an_answer_does_not_end_the_chat(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, stops = talk.write, [KeyboardInterrupt()]

    def writes(text: str) -> None:
        write(text)
        if text == "\n" and stops:
            raise stops.pop()

    monkeypatch.setattr(talk.chat, "write", writes)
    talk.type("hello", "go on")
    assert [one for one, _ in talk.asked][1][-1] == "go on"


def test_a_failed_answer_is_forgotten(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    talk.raises = AttachError(codes.GENERATE_FAILED.finding("It failed"))
    talk.type("hello", "again")
    assert talk.asked[1] == (["again"], None)
    assert "It failed" in capsys.readouterr().err


def test_the_chat_ends_only_when_it_is_told(talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    talk.type(KeyboardInterrupt(), "/what", "/help", "/exit", "never")
    assert talk.asked == []
    said = capsys.readouterr().err
    assert "/exit or Ctrl-D ends the chat" in said and "Unknown command /what" in said
    for at in ("read", "answer"):
        talk.raises = Terminated() if at == "answer" else None
        with pytest.raises(Terminated):
            talk.type("hello" if at == "answer" else Terminated())


def test_a_path_is_no_command(talk: Talk) -> None:
    talk.type("/etc/hosts is a file")
    assert talk.asked == [(["/etc/hosts is a file"], None)]


def test_a_line_that_is_not_text_is_not_sent(
    talk: Talk, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.type("caf\udce9", "café")
    assert [said for said, _ in talk.asked] == [["café"]]
    assert "not text" in capsys.readouterr().err
